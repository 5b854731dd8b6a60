"""Changes in place, and views."""

from __future__ import annotations

import torch
from torch import Tensor

from .entry import floats, leak

FOUR, SIX = floats(4, 3), floats(6, 3)
UP, DOWN = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([-1.0, -2.0, -4.0])


@leak(FOUR, SIX, does="right")
def slice_assignment(x: Tensor) -> Tensor:
    shifted = x.new_zeros(len(x), 3)
    shifted[1:] = x[:-1]
    return shifted


@slice_assignment.fixed
def _(x: Tensor) -> Tensor:
    return torch.cat([x.new_zeros(1, 3), x[:-1]])


@leak(FOUR, SIX)
def row_by_row(x: Tensor) -> Tensor:
    result = torch.empty_like(x)
    for index in range(len(x)):
        result[index] = x[index] * index
    return result


@row_by_row.fixed
def _(x: Tensor) -> Tensor:
    return x * torch.arange(x.shape[0])[:, None]


@leak(UP, DOWN, torch.tensor([0.0, 5.0, 1.0]), does="right")
def index_put(x: Tensor) -> Tensor:
    result = x.clone()
    result.index_put_((torch.tensor([int(x.argmax())]),), torch.zeros(1))
    return result


@index_put.fixed
def _(x: Tensor) -> Tensor:
    return x.index_fill(0, x.argmax()[None], 0.0)


@leak(FOUR, SIX, does="right")
def masked_view(x: Tensor) -> Tensor:
    result = x.clone()
    result[: len(x) // 2].masked_fill_(x[: len(x) // 2] > 0, -1.0)
    return result


@masked_view.fixed
def _(x: Tensor) -> Tensor:
    result = x.clone()
    result[: x.shape[0] // 2].masked_fill_(x[: x.shape[0] // 2] > 0, -1.0)
    return result


@leak(UP, DOWN, torch.tensor([-1.0, 2.0, -3.0]))
def masked_positions(x: Tensor) -> Tensor:
    result = x.clone()
    result[[index for index, value in enumerate(x.tolist()) if value < 0]] = 9.0
    return result


@masked_positions.fixed
def _(x: Tensor) -> Tensor:
    return x.masked_fill(x < 0, 9.0)


@leak(FOUR, SIX, does="right")
def copied_into(x: Tensor) -> Tensor:
    result = torch.zeros(8, 3)
    result[: len(x)].copy_(x)
    return result


@copied_into.fixed
def _(x: Tensor) -> Tensor:
    return torch.cat([x, x.new_zeros(8 - x.shape[0], 3)])


@leak(FOUR, SIX)
def resized_buffer(x: Tensor) -> Tensor:
    held = torch.empty(0)
    held.resize_(len(x), 3)
    held.copy_(x)
    return held * 2


@resized_buffer.fixed
def _(x: Tensor) -> Tensor:
    return x * 2


@leak(UP, DOWN, does="right")
def out_argument(x: Tensor) -> Tensor:
    held = torch.empty(0)
    torch.mul(x, float(x.sum()), out=held)
    return held


@out_argument.fixed
def _(x: Tensor) -> Tensor:
    return x * x.sum()


@leak(UP, DOWN, does="refused")
def data_assigned(x: Tensor) -> Tensor:
    held = torch.zeros(3)
    held.data = x * 2
    return held + 1


@data_assigned.fixed
def _(x: Tensor) -> Tensor:
    return x * 2 + 1


@leak(UP, DOWN, does="refused")
def memory_set(x: Tensor) -> Tensor:
    held = torch.empty(0)
    held.set_(x.untyped_storage(), 0, (3,), (1,))
    return held * 2


@memory_set.fixed
def _(x: Tensor) -> Tensor:
    return x * 2


@leak(UP, DOWN, does="refused")
def memory_filled(x: Tensor) -> Tensor:
    held = x.clone()
    held.untyped_storage().fill_(0)  # type: ignore[attr-defined]
    return held + x


@memory_filled.fixed
def _(x: Tensor) -> Tensor:
    return x + 0


@leak(UP, DOWN, does="refused")
def memory_copied(x: Tensor) -> Tensor:
    held = torch.empty(3)
    held.untyped_storage().copy_(x.untyped_storage())
    return held + x


@memory_copied.fixed
def _(x: Tensor) -> Tensor:
    return x + x


@leak(UP, DOWN, does="refused")
def alias_of_constant(x: Tensor) -> Tensor:
    table = torch.tensor([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
    table[0].mul_(x)
    return table.sum(0)


@alias_of_constant.fixed
def _(x: Tensor) -> Tensor:
    return x + 2


@leak(FOUR, SIX)
def list_of_writes(x: Tensor) -> Tensor:
    parts = list(x.clone().split(2))
    for index, part in enumerate(parts):
        part.mul_(index)
    return torch.cat(parts)


@list_of_writes.fixed
def _(x: Tensor) -> Tensor:
    return x * (torch.arange(x.shape[0]) // 2)[:, None]


@leak(FOUR, SIX, does="right")
def diagonal_of_view(x: Tensor) -> Tensor:
    square = torch.zeros(len(x), len(x))
    square.diagonal().copy_(x[:, 0])
    return square


@diagonal_of_view.fixed
def _(x: Tensor) -> Tensor:
    return torch.diag(x[:, 0])
