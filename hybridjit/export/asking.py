"""Code that asks what kind of number a size is, which is a tensor in a trace, and may go another way there."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Collection, Iterator
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from .. import _torch
from .._sites import is_users, user_frame, user_site
from ..control.guards import insert_refusal
from ..control.recorder import as_one_operation
from .standins import Type, eager_kind, is_instance, vars_of


@contextlib.contextmanager
def kind_questions(model: nn.Module, answered: Collection[str]) -> Iterator[set[str]]:
    """Hears of such questions within the body, in the packages of a model and of what it imports.

    Args:
        model: The model.
        answered: Files whose code has stand-ins, which answer as eager mode does.

    Yields:
        The files in which there were some with another answer than in eager mode.
    """
    heard: set[str] = set()

    def asked_isinstance(value: Any, kinds: Any) -> bool:
        if isinstance(value, Tensor) and is_instance(value, kinds) != isinstance(value, kinds):
            heard.add(sys._getframe(1).f_code.co_filename)
        return isinstance(value, kinds)

    class AskedType(Type):
        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            if len(args) == 1 and eager_kind(args[0]) is not None:
                heard.add(sys._getframe(1).f_code.co_filename)
            return type(*args, **kwargs)

    real_is_tensor = torch.is_tensor

    def is_tensor(value: Any, /) -> Any:
        frame = user_frame()
        if frame is not None and eager_kind(value) in (int, float):
            if frame.f_code.co_filename in answered:
                return False
            heard.add(frame.f_code.co_filename)
        return real_is_tensor(value)

    listening = {"isinstance": asked_isinstance, "type": AskedType}
    changed: list[tuple[dict[str, Any], str]] = []
    setattr(torch, "is_tensor", is_tensor)  # noqa: B010 - of another type, for a type checker
    try:
        for module, own in modules_of(model):
            space = vars_of(module)
            if space.get("__file__") in answered:
                continue
            for name, made in listening.items():
                if name not in space and (own or name != "type"):  # which code makes classes with, too
                    changed.append((space, name))
                    space[name] = made
        yield heard
    finally:
        torch.is_tensor = real_is_tensor
        for space, name in changed:
            del space[name]


def modules_of(model: nn.Module) -> Iterator[tuple[Any, bool]]:
    """The modules of the packages that a model and what it imports are from, and whether they are its own."""
    names = {cls.__module__ for module in model.modules() for cls in type(module).__mro__}
    held = [each for module in model.modules() for each in vars(module).values()]
    held += [each for name in names for each in list(vars_of(sys.modules.get(name)).values())]
    names |= {str(each.__module__) for each in held if isinstance(each, FunctionType)}
    others = {each.__name__ for each in held if isinstance(each, ModuleType)}
    packages = {name.partition(".")[0] for name in names | others} - sys.stdlib_module_names
    for name, module in list(sys.modules.items()):
        file = vars_of(module).get("__file__") or ("<typed>" if name == "__main__" else "<frozen>")
        if name.partition(".")[0] in packages and is_users(str(file)):
            yield module, name in names


@contextlib.contextmanager
def checks_of_torch() -> Iterator[None]:
    """Has ``torch._check(height > 0)`` ask for a truth as ``if`` does, within the body: it refuses tensors unasked."""
    checked = _torch.check_with

    def check(error: type[Exception], holds: Any, message: Any) -> None:
        checked(error, bool(holds), message)

    setattr(torch, checked.__name__, check)
    try:
        yield
    finally:
        setattr(torch, checked.__name__, checked)


@contextlib.contextmanager
def checks_of_layers(names: dict[int, str]) -> Iterator[None]:
    """Has recurrent layers check the sizes of their states in the graph, within the body: they take the example's.

    Args:
        names: ``id(module)`` to module path.
    """
    real = {name: getattr(cls, name) for cls, name in _CHECKS}

    def rows(layer: Any, batch_sizes: Any, size: int) -> tuple[Any, ...]:
        return layer.num_layers * (2 if layer.bidirectional else 1), batch_sizes[0], size

    def hidden(self: Any, input: Any, batch_sizes: Any) -> Any:
        if batch_sizes is None or _torch.tracing_state() is None:
            return real["get_expected_hidden_size"](self, input, batch_sizes)
        return rows(self, batch_sizes, self.proj_size or self.hidden_size)

    def cell(self: Any, input: Any, batch_sizes: Any) -> Any:
        if batch_sizes is None or _torch.tracing_state() is None:
            return real["get_expected_cell_size"](self, input, batch_sizes)
        return rows(self, batch_sizes, self.hidden_size)

    def check(self: Any, hx: Any, expected: Any, *message: str) -> None:
        with _torch.paused_tracing(), _torch.unwatched():
            sizes = tuple(int(size) for size in expected)
            real["check_hidden_size"](self, hx, sizes, *message)
        if _torch.tracing_state() is None:
            return
        says = f"{user_site(names)}: RuntimeError: a hidden state has another size than the layer expects"
        for at, size in enumerate(expected):
            same = hx.size(at) == size
            if isinstance(same, Tensor):
                as_one_operation(insert_refusal, (same,), functools.partial(insert_refusal, same, True, says))

    made = {"get_expected_hidden_size": hidden, "get_expected_cell_size": cell, "check_hidden_size": check}
    for cls, name in _CHECKS:
        setattr(cls, name, made[name])
    try:
        yield
    finally:
        for cls, name in _CHECKS:
            setattr(cls, name, real[name])


_CHECKS = (
    (nn.RNNBase, "get_expected_hidden_size"),
    (nn.LSTM, "get_expected_cell_size"),
    (nn.RNNBase, "check_hidden_size"),
)
