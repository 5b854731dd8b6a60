"""Tensors that a model makes of Python values, among which are traced ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import _torch
from .answers import See
from .contents import tensor_constants
from .kinds import MADE
from .numbers import is_number

if TYPE_CHECKING:
    from .watch import Watch


def _see_made(position: int) -> See:
    """Sees ``torch.tensor([h, w])`` of traced values, and records a stack of them instead of a constant."""

    def see(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
        data = args[position] if len(args) > position else kwargs.get("data", kwargs.get("obj"))
        traced = _inside(data)
        if func is torch.as_tensor and isinstance(data, Tensor):
            return _converted(data, *args[1:], **{key: each for key, each in kwargs.items() if key != "data"})
        if isinstance(data, Tensor) and func is not torch.tensor:
            return func(*args, **kwargs)
        if not any(map(watch.varies, traced)):
            # The graph holds the values in one tensor for all calls: what is written must reach a copy of it.
            return func(*args, **kwargs).clone()
        numbers = _numbers(data)
        given = {"data": numbers} if "data" in kwargs else {}
        with _torch.paused_tracing():
            like = func(*(numbers if each is data else each for each in args), **{**kwargs, **given})
        try:
            made = _stacked(data, like.dtype).to(like.device)
        except (RuntimeError, TypeError, ValueError):
            made = None  # tensors of several elements where numbers are meant
        if made is not None and _shape(made) == _shape(like):
            return made
        for each in traced:
            if watch.varies(each):
                with _torch.paused_tracing():
                    held = each.item() if each.numel() == 1 and not each.is_complex() else each.detach().clone()
                watch.leak(MADE, each, held)
        return like

    return see


def indexed(watch: Watch, index: Any) -> Any:
    """An index in which what torch makes a tensor of, a list of traced numbers, is one made in the graph."""
    if not isinstance(index, (tuple, list)) or not _inside(index):
        return index
    if isinstance(index, list) and (len(index) >= _AS_NUMBERS or all(map(_is_numeral, index))):
        return _of_numbers(watch, index)
    return tuple(_of_numbers(watch, each) if isinstance(each, (tuple, list)) else each for each in index)


def _is_numeral(value: object) -> bool:
    """Whether eager mode has a Python integer there."""
    return type(value) is int or (isinstance(value, Tensor) and is_number(value))


def _of_numbers(watch: Watch, numbers: Any) -> Any:
    """What torch takes a list in an index for."""
    return SEEN[torch.tensor](watch, torch.tensor, (numbers,), {}) if _inside(numbers) else numbers


_AS_NUMBERS = 32
"""From how many on torch takes a list with tensors in it, as an index, for one tensor rather than for one each."""


def _converted(data: Tensor, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
    """``torch.as_tensor`` of a tensor, of which the tracer makes a constant, or says so."""
    if device is not None:
        return data.to(device, dtype)
    return data if dtype is None else data.to(dtype)


def _shape(tensor: Tensor) -> tuple[int, ...]:
    with _torch.paused_tracing():
        return tuple(tensor.shape)


def _inside(data: Any) -> list[Tensor]:
    if isinstance(data, Tensor):
        return [data]
    return [tensor for item in data for tensor in _inside(item)] if isinstance(data, (list, tuple)) else []


def _numbers(data: Any) -> Any:
    """The same with a Python number for each that eager mode has as one: the dtype hangs on that."""
    if isinstance(data, (list, tuple)):
        return [_numbers(item) for item in data]
    if not isinstance(data, Tensor) or not is_number(data):
        return data
    with _torch.paused_tracing(), _torch.unwatched():
        return data.item()


def _stacked(data: Any, dtype: torch.dtype) -> Tensor:
    if isinstance(data, Tensor):
        # A copy, as torch.tensor makes one: what is written to it later must not reach its source.
        return data.detach().to(dtype, copy=True)
    if isinstance(data, (list, tuple)):
        if not _inside(data):
            with _torch.paused_tracing():
                return torch.tensor(data, dtype=dtype)
        return torch.stack([_stacked(item, dtype) for item in data])
    with _torch.paused_tracing():
        return torch.tensor(data, dtype=dtype)


@contextlib.contextmanager
def constructing() -> Iterator[None]:
    """Lets ``torch.Tensor([h, w])`` be ``torch.tensor([h, w])`` in a trace, within the body.

    No mode sees the constructor, and the tracer keeps what it makes as a constant.
    """
    base: Any = Tensor.__new__

    def new(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if cls is not Tensor or kwargs or not args or _torch.tracing_state() is None:
            return base(cls, *args, **kwargs)
        first = args[0]
        if isinstance(first, (list, tuple)) and not isinstance(first, torch.Size):
            return torch.tensor(first, dtype=torch.get_default_dtype())
        if isinstance(first, torch.Size) or any(isinstance(each, Tensor) and is_number(each) for each in args):
            return torch.empty(*args, dtype=torch.get_default_dtype())
        return base(cls, *args)

    type.__setattr__(Tensor, "__new__", staticmethod(new))
    try:
        yield
    finally:
        type.__delattr__(Tensor, "__new__")  # what it inherits is there again


def drop_copies(module: _torch.ScriptModule) -> None:
    """Takes the copies of constants out of a new trace that nobody writes to or hands out.

    A constant that requires a gradient, as of ``torch.tensor(0.0, requires_grad=True)``, becomes one that does not:
    torch writes the former into a file, and then can't load it.
    """
    for part in module.modules():
        if not isinstance(part, _torch.ScriptModule) or not _torch.is_traced(part):
            continue
        for graph in _torch.method_graphs(part).values():
            for node in tensor_constants(graph):
                node.t_("value", node.t("value").detach())
            for node in graph.findAllNodes("aten::clone"):
                if _is_constant(node.inputsAt(0)):
                    does = _what_becomes(node.output())
                    if "unknown" in does:
                        _written_anew(graph, node)
                    elif "write" not in does:
                        node.output().replaceAllUsesWith(node.inputsAt(0))
                        node.destroy()


def _written_anew(graph: _torch.Graph, node: Any) -> None:
    """Copies by a write: of a copy that the graph itself does not write to TorchScript makes a constant again."""
    point, source = graph.insertPoint(), node.inputsAt(0)
    graph.setInsertPoint(node)
    none, tensor = _torch.insert_constant(graph, None), _torch.type_named("TensorType")
    blank = _torch.insert(graph, "aten::empty_like", [source, *[none] * 5], tensor)
    made = _torch.insert(graph, "aten::copy_", [blank, source, _torch.insert_constant(graph, False)], tensor)
    graph.setInsertPoint(point)
    node.output().replaceAllUsesWith(made)
    node.destroy()


def _is_constant(value: _torch.Value) -> bool:
    """Whether a value is a tensor that is in the graph, or that on another device."""
    node = value.node()
    while node.kind() in ("aten::to", "aten::detach", "aten::lift_fresh", "aten::alias"):
        node = node.inputsAt(0).node()
    return bool(node.kind() == "prim::Constant")


def _what_becomes(value: _torch.Value) -> set[str]:
    """What is done with a value and views of it: see `_torch.alias_of`."""
    found: set[str] = set()
    views = [value]
    while views:
        for use in views.pop().uses():
            does = _torch.alias_of(use.user, use.offset)
            found.add(does)
            if does == "view":
                views += use.user.outputs()
    return found


SEEN: dict[Any, See] = {
    torch.tensor: _see_made(0),
    torch.as_tensor: _see_made(0),
    torch.asarray: _see_made(0),
    Tensor.new_tensor: _see_made(1),
}
