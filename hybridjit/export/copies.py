"""Copies of tensors that share memory among each other as the originals do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _torch


def copied_apart(tensors: Sequence[Tensor], device: torch.device | None) -> list[Tensor]:
    """Copies tensors; what is one tensor, or one memory, among the originals is one among the copies.

    Args:
        tensors: The originals.
        device: Where to; where they are if absent.
    """
    tensors = [tensor.detach() if tensor.requires_grad else tensor for tensor in tensors]
    made: dict[int, Tensor] = {}
    memory: dict[int, Tensor] = {}
    shared = _sharing(tensors)
    for tensor in tensors:
        if id(tensor) in made:
            continue
        if id(tensor) not in shared:
            made[id(tensor)] = _copy(tensor, device)
            continue
        key = _torch.storage_key(tensor)
        if key not in memory:
            whole = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())
            memory[key] = _copy(whole, device)
        place = tensor.storage_offset(), tensor.size(), tensor.stride()
        made[id(tensor)] = torch.empty(0, dtype=tensor.dtype, device=memory[key].device).set_(
            memory[key].untyped_storage(), *place
        )
    return [made[id(tensor)] for tensor in tensors]


def _copy(tensor: Tensor, device: torch.device | None) -> Tensor:
    return tensor.detach().clone() if device is None else tensor.detach().to(device, copy=True)


def _sharing(tensors: Sequence[Tensor]) -> set[int]:
    """Which of these tensors lie, in part, where another one does; by identity."""
    places: dict[int, list[tuple[int, int, int]]] = {}
    for tensor in {id(each): each for each in tensors}.values():
        plain = tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
        if not plain or not tensor.numel():
            continue
        steps = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        first = int(tensor.storage_offset()) * tensor.element_size()
        end = first + (int(steps) + 1) * tensor.element_size()
        places.setdefault(_torch.storage_key(tensor), []).append((first, end, id(tensor)))
    shared = set()
    for rows in places.values():
        for first, end, one in rows:
            if any(first < other_end and start < end for start, other_end, other in rows if other != one):
                shared.add(one)
    return shared
