"""A model's state before and after: the promise that it comes back as it was."""

from __future__ import annotations

import contextlib
import operator
import random
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .. import _torch
from ..control import dicts
from .contents import Contents, memory_of


class BufferState:
    """The buffers of a module, so that they can be compared and put back each time it has run.

    Args:
        module: The module.
        contents: Copies that hold the buffers already.
    """

    def __init__(self, module: nn.Module, contents: Contents | None = None) -> None:
        self._module = module
        self._slots = dict(module.named_buffers(remove_duplicate=False))
        self._contents = contents or Contents(self._slots.values())

    def changed(self) -> dict[str, Tensor]:
        """Copies of the buffers that were written or replaced since, by name."""
        return {
            name: tensor.detach().clone()
            for name, tensor in self._module.named_buffers()
            if self._slots.get(name) is not tensor or not self._contents.holds(tensor)
        }

    def new(self) -> list[str]:
        """The buffers that were not there, or ``None``."""
        return [name for name, _ in self._module.named_buffers(remove_duplicate=False) if name not in self._slots]

    def replaced(self) -> tuple[str, ...]:
        """The buffers of modules in Python, by every name, in whose place there is another tensor now."""
        now = self._module.named_buffers(remove_duplicate=False)
        names = [name for name, tensor in now if name in self._slots and self._slots[name] is not tensor]
        owners = {name: _submodule(self._module, name.rpartition(".")[0]) for name in names}
        return tuple(name for name, owner in owners.items() if not isinstance(owner, _torch.ScriptModule))

    def reshaped(self) -> dict[str, Tensor]:
        """The buffers in whose place there is now a tensor of another shape or dtype."""
        now = dict(self._module.named_buffers(remove_duplicate=False))
        return {
            name: tensor
            for name, tensor in self._slots.items()
            if (other := now.get(name, tensor)).shape != tensor.shape or other.dtype != tensor.dtype
        }

    def restore(self, *, moved: bool = True) -> None:
        """Puts the buffers of a script module back, also those that a method of it replaced.

        Args:
            moved: As for `Contents.restore`.
        """
        for name, tensor in self._module.named_buffers(remove_duplicate=False):
            if self._slots.get(name, tensor) is not tensor:
                path, _, last = name.rpartition(".")
                setattr(_submodule(self._module, path), last, self._slots[name])
        self._contents.restore(moved=moved)


def _submodule(module: nn.Module, path: str) -> nn.Module:
    """``module.get_submodule(path)``, which script modules lack."""
    for name in path.split(".") if path else ():
        module = getattr(module, name)
    return module


class ModelState:
    """What a model is made of, so that it can be put back each time it has run.

    Args:
        model: The model.

    Attributes:
        reshaped: The buffers whose shape or dtype some run in eager mode changed, as they are between runs.
    """

    def __init__(self, model: nn.Module) -> None:
        self.reshaped: dict[str, Tensor] = {}
        self._attributes = [(module, _kept(module.__dict__)) for module in model.modules()]
        self._model = model
        loose = (tensor for module in model.modules() for tensor in _tensors(module.__dict__))
        tensors = [*model.parameters(), *model.buffers(), *loose]
        self._grads = [(tensor, tensor.grad) for tensor in tensors if tensor.is_leaf]
        self._scripted = [(module, _torch.script_attributes(module)) for module in script_modules(model)]
        loose = (value for _, kept in self._scripted for value in kept.values() if isinstance(value, Tensor))
        grads = (grad for _, grad in self._grads if grad is not None)
        self._contents = Contents([*tensors, *loose, *grads])
        self._memory = self._contents.memory()
        self._buffers = BufferState(model, self._contents)
        self._parameters = {name: each for name, each in model.named_parameters() if not is_lazy(each)}

    @contextlib.contextmanager
    def running_again(self) -> Iterator[Callable[[bool], None]]:
        """Gives something that puts the model back to what it is now, within the body: for runs that follow each other.

        Its argument says whether contents are put back too, or the attributes alone.
        """
        now = [(module, _kept(module.__dict__)) for module in self._model.modules()]

        def again(contents: bool) -> None:
            for _, kept in now:
                kept.restore()
            if contents:
                self._contents.restore()

        yield again

    def owns(self, tensor: Tensor) -> bool:
        """Whether a tensor is in memory of the model's, and changes as that is put back."""
        return tensor.layout != torch.strided or memory_of(tensor) in self._memory

    def changed_buffers(self) -> dict[str, Tensor]:
        """Copies of the buffers that were written or replaced since, by name."""
        return self._buffers.changed()

    @contextlib.contextmanager
    def switched(self, attributes: Mapping[str, Any], *, put_back: bool = True) -> Iterator[None]:
        """Sets attributes within the body, where they count as the model's own: `restore` leaves them.

        Args:
            attributes: Values by path, ``"roi_heads.mask_on"``.
            put_back: Whether to put back everything after the body, or these attributes alone.
        """
        if not attributes:
            yield
            return
        before = self._attributes
        places = {
            path: (_submodule(self._model, path.rpartition(".")[0]), path.rpartition(".")[2]) for path in attributes
        }
        own = {path: getattr(*place) for path, place in places.items()}
        try:
            for path, value in attributes.items():
                setattr(*places[path], value)
            self._attributes = [(module, _kept(module.__dict__)) for module in self._model.modules()]
            yield
        finally:
            self._attributes = before
            for path, value in own.items():
                setattr(*places[path], value)
            if put_back:
                self.restore()

    def replaced_buffers(self) -> tuple[str, ...]:
        """The buffers of modules in Python, by every name, in whose place there is another tensor now."""
        self.reshaped |= self._buffers.reshaped()
        return self._buffers.replaced()

    def changed_attributes(self) -> list[str]:
        """The attributes that were set or deleted since, other than buffers that were there."""
        names = {id(module): name for name, module in self._model.named_modules()}
        changed = [*self._buffers.new(), *self._replaced_parameters()]
        for module, kept in self._attributes:
            if isinstance(module, _torch.ScriptModule):
                continue  # its state is not in Python, which only remembers methods that were asked for
            before = kept.items
            for key in {*before, *module.__dict__}:
                if key in _INTERNALS or key.startswith("__"):  # torch.jit leaves dunders on modules
                    continue
                old, new = before.get(key, _ABSENT), module.__dict__.get(key, _ABSENT)
                if _changed(old, new):
                    changed.append(f"{names[id(module)]}.{key}".lstrip("."))
        return sorted(changed)

    def _replaced_parameters(self) -> list[str]:
        """The parameters in whose place, or in that of their memory, there is another; not those of lazy modules."""
        now = dict(self._model.named_parameters())
        return [
            name
            for name, parameter in self._parameters.items()
            if now.get(name) is not parameter or self._contents.moved(parameter)
        ]

    def restore_tensors(self) -> None:
        """Puts buffers and the contents of tensors back, and leaves attributes and the tensors' places as they are."""
        self._buffers.restore(moved=False)

    def restore_attributes(self) -> None:
        """Puts attributes back, and leaves buffers and the contents of tensors as they are."""
        left = dict(self._model.named_buffers(remove_duplicate=False))
        for _, kept in self._attributes:
            kept.restore()
        for name, tensor in list(self._model.named_buffers(remove_duplicate=False)):
            if left.get(name, tensor) is not tensor:
                path, _, last = name.rpartition(".")
                setattr(_submodule(self._model, path), last, left[name])

    def restore(self, *, thorough: bool = False) -> None:
        """Puts the model back: structure, contents, gradients.

        Args:
            thorough: Also find writes that torch does not count; see `Contents.restore`.
        """
        for _, kept in self._attributes:
            kept.restore()
        for module, attributes in self._scripted:
            _torch.set_script_attributes(module, attributes)
        self._contents.restore(thorough=thorough)
        for tensor, grad in self._grads:
            if tensor.grad is not grad:
                tensor.grad = grad


def script_modules(model: nn.Module) -> Iterator[_torch.ScriptModule]:
    """The script modules of a model; what is in them is not in their ``__dict__``."""
    return (module for module in model.modules() if isinstance(module, _torch.ScriptModule))


_ABSENT = object()
_INTERNALS = {"_parameters", "_buffers", "_modules"}


class _Kept:
    """A plain container and what was in it; put back into the same object, which others may hold.

    A hook's handle, for one, removes the hook from the very dict that it was entered into.
    """

    def __init__(self, container: Any, items: Any) -> None:
        self.container = container
        self.items = items
        held = items.values() if isinstance(items, dict) else items
        self._inner = [item for item in held if isinstance(item, _Kept)]

    def restore(self) -> None:
        """Puts the contents back."""
        for each in self._inner:
            each.restore()
        if isinstance(self.container, dict):
            items = {key: _itself(item) for key, item in self.items.items()} if self._inner else self.items
            if not _same_items(self.container, items):
                dicts.fill(self.container, items)
        elif isinstance(self.container, list):
            self.container[:] = map(_itself, self.items)
        elif self.container != self.items:
            self.container.clear()
            self.container.update(self.items)


def _kept(value: Any, above: tuple[int, ...] = ()) -> Any:
    """Remembers what is in plain containers, nested ones too; anything else is itself."""
    if id(value) in above:  # a container that holds itself is remembered once
        return value
    above = (*above, id(value))
    if isinstance(value, dict):
        return _Kept(value, {key: _kept(item, above) for key, item in dicts.contents(value).items()})
    if type(value) is list:
        return _Kept(value, [_kept(item, above) for item in value])
    return _Kept(value, set(value)) if type(value) is set else value


def _itself(item: Any) -> Any:
    return item.container if isinstance(item, _Kept) else item


def _same_items(container: dict[Any, Any], items: dict[Any, Any]) -> bool:
    if not container or not items:  # most of a module's are
        return not container and not items
    held = container if type(container) is dict else dicts.contents(container)
    return list(held) == list(items) and all(map(operator.is_, held.values(), items.values()))


def _changed(old: Any, new: Any) -> bool:
    """Whether a remembered value is another one now, or has other things in it."""
    if not isinstance(old, _Kept):
        return old is not new and not (isinstance(old, (int, float, str)) and type(old) is type(new) and old == new)
    if old.container is not new:
        return True
    if isinstance(new, dict):
        held = dicts.contents(new)
        return old.items.keys() != held.keys() or any(_changed(old.items[key], held[key]) for key in held)
    if isinstance(new, list):
        return len(old.items) != len(new) or any(map(_changed, old.items, new))
    return bool(old.items != new)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


_ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Lets one thread at a time through: seeds, warning filters and torch's tracer are the process's."""
    with _ONE_AT_A_TIME:
        yield


SEED = 0x68796A
"""What hybridjit seeds with before it compares: a number that no model is likely to seed with itself."""


def plain_generators() -> tuple[object, ...]:
    """The states of the random generators that no file has: Python's, NumPy's."""
    numpy = sys.modules.get("numpy")
    name, keys, *rest = numpy.random.get_state() if numpy else ("", b"")
    return random.getstate(), name, bytes(keys), *rest


@contextlib.contextmanager
def kept_random_state() -> Iterator[None]:
    """Puts every random generator back after the body: torch's on all devices, Python's, NumPy's."""
    numpy = sys.modules.get("numpy")
    python_state = random.getstate()
    numpy_state = numpy.random.get_state() if numpy else None
    devices = []
    if torch.accelerator.is_available():
        devices = list(range(torch.accelerator.device_count()))
    kind = torch.accelerator.current_accelerator()
    with torch.random.fork_rng(devices, device_type=kind.type if kind else "cuda"):
        try:
            yield
        finally:
            random.setstate(python_state)
            if numpy:
                numpy.random.set_state(numpy_state)
