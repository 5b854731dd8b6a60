"""Tensors that a model makes of Python values, among which are traced ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import _torch
from .answers import See
from .kinds import MADE

if TYPE_CHECKING:
    from .watch import Watch


def _see_made(position: int) -> See:
    """Sees ``torch.tensor([h, w])`` of traced values, and records a stack of them instead of a constant."""

    def see(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
        data = args[position] if len(args) > position else kwargs.get("data")
        traced = _inside(data)
        copies = isinstance(data, Tensor) and func is not torch.tensor
        if copies or not any(map(watch.varies, traced)):
            return func(*args, **kwargs)
        with _torch.paused_tracing():
            like = func(*args, **kwargs)
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


def _shape(tensor: Tensor) -> tuple[int, ...]:
    with _torch.paused_tracing():
        return tuple(tensor.shape)


def _inside(data: Any) -> list[Tensor]:
    if isinstance(data, Tensor):
        return [data]
    return [tensor for item in data for tensor in _inside(item)] if isinstance(data, (list, tuple)) else []


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


SEEN: dict[Any, See] = {
    torch.tensor: _see_made(0),
    torch.as_tensor: _see_made(0),
    Tensor.new_tensor: _see_made(1),
}
