"""A model's state before and after: the promise that it comes back as it was."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


class Contents:
    """Copies of tensors, to tell what was written and to write it back.

    Args:
        tensors: The tensors; those that share an object are kept once.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        unique = {id(tensor): tensor for tensor in tensors}
        self._kept = [(t, _version(t), t.detach().clone()) for t in unique.values()]

    def restore(self, *, thorough: bool = False) -> None:
        """Writes back what was written.

        Args:
            thorough: Also find writes that torch's version counter does not see (``.data``), by
                comparing everything.
        """
        with torch.no_grad():
            for index, (tensor, version, before) in enumerate(self._kept):
                seen = version is None or _version(tensor) != version
                if seen or (thorough and not _identical(tensor, before)):
                    tensor.data.copy_(before)
                    self._kept[index] = (tensor, _version(tensor), before)


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def _identical(tensor: Tensor, before: Tensor) -> bool:
    if tensor.device.type == "meta":
        return True
    return torch.equal(tensor.detach(), before)


def changed_buffers(module: nn.Module, before: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Copies of the buffers that were written or replaced since `buffers_of`, by name."""
    changed = {}
    for name, tensor in module.named_buffers():
        old, contents = before.get(name, (None, tensor))
        same = old is tensor and tensor.shape == contents.shape and _identical(tensor, contents)
        if not same:
            changed[name] = tensor.detach().clone()
    return changed


def buffers_of(module: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """The buffers of a module, each with a copy, by name."""
    return {name: (tensor, tensor.detach().clone()) for name, tensor in module.named_buffers()}


class ModelState:
    """What a model is made of, so that it can be put back each time it has run.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._attributes = [(module, _kept(module.__dict__)) for module in model.modules()]
        self._model = model
        loose = (tensor for module in model.modules() for tensor in _tensors(module.__dict__))
        tensors = [*model.parameters(), *model.buffers(), *loose]
        self._grads = [(tensor, tensor.grad) for tensor in tensors if tensor.is_leaf]
        self._contents = Contents(tensors)
        self._buffers = buffers_of(model)

    def changed_buffers(self) -> dict[str, Tensor]:
        """Copies of the buffers that were written or replaced since, by name."""
        return changed_buffers(self._model, self._buffers)

    def changed_attributes(self) -> list[str]:
        """The attributes, other than parameters and buffers, that were set or deleted since."""
        names = {id(module): name for name, module in self._model.named_modules()}
        changed = []
        for module, kept in self._attributes:
            before = kept.items
            for key in {*before, *module.__dict__}:
                if key in _INTERNALS or key.startswith("__"):  # torch.jit leaves dunders on modules
                    continue
                old, new = before.get(key, _ABSENT), module.__dict__.get(key, _ABSENT)
                if _changed(old, new):
                    changed.append(f"{names[id(module)]}.{key}".lstrip("."))
        return sorted(changed)

    def restore(self, *, thorough: bool = False) -> None:
        """Puts the model back: structure, contents, gradients.

        Args:
            thorough: Also find writes that torch does not count; see `Contents.restore`.
        """
        for _, kept in self._attributes:
            kept.restore()
        self._contents.restore(thorough=thorough)
        for tensor, grad in self._grads:
            if tensor.grad is not grad:
                tensor.grad = grad


_ABSENT = object()
_INTERNALS = {"_parameters", "_buffers", "_modules"}


@dataclass
class _Kept:
    """A plain container and what was in it; put back into the same object, which others may hold.

    A hook's handle, for one, removes the hook from the very dict that it was entered into.
    """

    container: Any
    items: Any

    def restore(self) -> Any:
        """Puts the contents back, and returns the container."""
        if isinstance(self.container, dict):
            items = {key: _restored(item) for key, item in self.items.items()}
            if not _same_items(self.container, items):
                self.container.clear()
                self.container.update(items)
        elif isinstance(self.container, list):
            self.container[:] = [_restored(item) for item in self.items]
        elif self.container != self.items:
            self.container.clear()
            self.container.update(self.items)
        return self.container


def _kept(value: Any, above: tuple[int, ...] = ()) -> Any:
    """Remembers what is in plain containers, nested ones too; anything else is itself."""
    if id(value) in above:  # a container that holds itself is remembered once
        return value
    above = (*above, id(value))
    if isinstance(value, dict):
        return _Kept(value, {key: _kept(item, above) for key, item in value.items()})
    if type(value) is list:
        return _Kept(value, [_kept(item, above) for item in value])
    return _Kept(value, set(value)) if type(value) is set else value


def _restored(item: Any) -> Any:
    return item.restore() if isinstance(item, _Kept) else item


def _same_items(container: dict[Any, Any], items: dict[Any, Any]) -> bool:
    return list(container) == list(items) and all(container[key] is items[key] for key in items)


def _changed(old: Any, new: Any) -> bool:
    """Whether a remembered value is another one now, or has other things in it."""
    if not isinstance(old, _Kept):
        return old is not new and not (isinstance(old, (int, float, str)) and type(old) is type(new) and old == new)
    if old.container is not new:
        return True
    if isinstance(new, dict):
        return old.items.keys() != new.keys() or any(_changed(old.items[key], new[key]) for key in new)
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
