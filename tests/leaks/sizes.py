"""Sizes that become Python's numbers."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hybridjit as hj

from .entry import floats, leak

FOUR, SIX, NINE = floats(4, 3), floats(6, 3), floats(9, 3)
MAP, WIDE, ODD = floats(1, 2, 8, 8), floats(1, 2, 8, 20), floats(1, 2, 7, 5)


@leak(FOUR, SIX, NINE, does="right")
def length(x: Tensor) -> Tensor:
    return x * len(x)


@length.fixed
def _(x: Tensor) -> Tensor:
    return x * x.shape[0]


@leak(FOUR, SIX, NINE, does="right")
def int_of_size(x: Tensor) -> Tensor:
    return x.reshape(int(x.shape[0]) * 3)


@int_of_size.fixed
def _(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0] * 3)


@leak(FOUR, SIX, NINE, does="right")
def share_of_size(x: Tensor) -> Tensor:
    return x[: int(len(x) * 0.7)]


@share_of_size.fixed
def _(x: Tensor) -> Tensor:
    return x[: x.shape[0] * 7 // 10]


@leak(floats(10, 2), floats(100, 2), floats(50, 2), does="right")
def share_in_double_precision(x: Tensor) -> Tensor:
    return x[: int(x.shape[0] * 0.29)]  # of 100 it is 28, in single precision 29


@share_in_double_precision.fixed
def _(x: Tensor) -> Tensor:
    return hj.script_if_tracing(share)(x)


def share(x: Tensor) -> Tensor:
    return x[: int(x.shape[0] * 0.29)]


@leak(FOUR, SIX, NINE, does="refused")
def rounded_size(x: Tensor) -> Tensor:
    return x[: round(x.shape[0] / 2)]


@rounded_size.fixed
def _(x: Tensor) -> Tensor:
    return hj.script_if_tracing(rounded_half)(x)


def rounded_half(x: Tensor) -> Tensor:
    return x[: int(round(x.shape[0] / 2))]  # noqa: RUF046 (in TorchScript round gives a float)


@leak(FOUR, SIX, NINE, does="guard", auto="right")
def at_least(x: Tensor) -> Tensor:
    return x.new_ones(max(5, x.shape[0]))


@at_least.fixed
def _(x: Tensor) -> Tensor:
    return hj.script_if_tracing(five_or_more)(x)


def five_or_more(x: Tensor) -> Tensor:
    return x.new_ones(max(5, x.shape[0]))


@leak(FOUR, SIX, NINE, does="right")
def ceil_of_size(x: Tensor) -> Tensor:
    return x.new_ones(math.ceil(x.shape[0] / 4))


@ceil_of_size.fixed
def _(x: Tensor) -> Tensor:
    return x.new_ones((x.shape[0] + 3) // 4)


@leak(FOUR, SIX, NINE, does="right")
def side_of_square(x: Tensor) -> Tensor:
    return x.new_ones(int(x.shape[0] ** 0.5))


@side_of_square.fixed
def _(x: Tensor) -> Tensor:
    return hj.script_if_tracing(side)(x)


def side(x: Tensor) -> Tensor:
    return x.new_ones(int(x.shape[0] ** 0.5))


@leak(FOUR, floats(4, 12), does="right")
def scale_of_attention(x: Tensor) -> Tensor:
    return x @ x.T / math.sqrt(x.shape[-1])


@scale_of_attention.fixed
def _(x: Tensor) -> Tensor:
    return x @ x.T / x.shape[-1] ** 0.5


@leak(FOUR, floats(4, 12))
def numpy_of_sizes(x: Tensor) -> Tensor:
    return x / float(np.prod(x.shape))


@numpy_of_sizes.fixed
def _(x: Tensor) -> Tensor:
    return x / x.numel()


@leak(FOUR, SIX)
def elements_of_shape(x: Tensor) -> Tensor:
    return x / x.shape.numel()


@elements_of_shape.fixed
def _(x: Tensor) -> Tensor:
    return x / x.numel()


@leak(FOUR, SIX, does="right")
def bytes_of_tensor(x: Tensor) -> Tensor:
    return x * x.nbytes


@bytes_of_tensor.fixed
def _(x: Tensor) -> Tensor:
    return x * (x.numel() * x.element_size())


@leak(FOUR, floats(2, 6), floats(7, 7), auto="right")
def longer_side(x: Tensor) -> Tensor:
    return x * max(x.shape)


@longer_side.fixed
def _(x: Tensor) -> Tensor:
    return x * hj.cond(x.shape[0] > x.shape[1], lambda: x.shape[0], lambda: x.shape[1])


@leak(FOUR, floats(3, 3), auto="right")
def branch_on_square(x: Tensor) -> Tensor:
    return x.T if x.shape[0] == x.shape[1] else x


@branch_on_square.fixed
def _(x: Tensor) -> Tensor:
    return hj.cond(x.shape[0] == x.shape[1], lambda: x.T, lambda: x)


@leak((FOUR, FOUR), (FOUR, floats(1, 3)), auto="right")
def branch_on_shapes(x: Tensor, y: Tensor) -> Tensor:
    return x * y if x.shape == y.shape else x - y


@branch_on_shapes.fixed
def _(x: Tensor, y: Tensor) -> Tensor:
    return hj.cond(x.shape[0] == y.shape[0], lambda: x * y, lambda: x - y)


@leak(FOUR, floats(0, 3), auto="right")
def branch_on_empty(x: Tensor) -> Tensor:
    return x.new_zeros(3) if x.numel() == 0 else x.mean(0)


@branch_on_empty.fixed
def _(x: Tensor) -> Tensor:
    return hj.cond(x.numel() == 0, lambda: x.new_zeros(3), lambda: x.mean(0))


@leak(floats(5, 2), floats(4, 2), auto="right")
def branch_on_odd(x: Tensor) -> Tensor:
    return x[:-1] if x.shape[0] % 2 else x


@branch_on_odd.fixed
def _(x: Tensor) -> Tensor:
    return x[: x.shape[0] // 2 * 2]


@leak(FOUR, SIX)
def loop_over_rows(x: Tensor) -> Tensor:
    state = x.new_zeros(3)
    for index in range(x.shape[0]):
        state = state * 0.5 + x[index]
    return state


@loop_over_rows.fixed
def _(x: Tensor) -> Tensor:
    return hj.scan(lambda state, row: (state * 0.5 + row, state), x.new_zeros(3), x)[0]


@leak(FOUR, SIX, does="right")
def padded(x: Tensor) -> Tensor:
    return F.pad(x, (0, 0, 0, 10 - len(x)))


@padded.fixed
def _(x: Tensor) -> Tensor:
    return F.pad(x, (0, 0, 0, 10 - x.shape[0]))


@leak(MAP, WIDE, ODD, does="right")
def padded_to_multiple(x: Tensor) -> Tensor:
    height, width = int(x.shape[-2]), int(x.shape[-1])
    return F.pad(x, (0, -width % 4, 0, -height % 4))


@padded_to_multiple.fixed
def _(x: Tensor) -> Tensor:
    return F.pad(x, (0, -x.shape[-1] % 4, 0, -x.shape[-2] % 4))


@leak(MAP, WIDE, floats(1, 2, 16, 12), auto="right")
def windows(x: Tensor) -> Tensor:
    if min(x.shape[-2:]) <= 8:
        return x.mean((-2, -1), keepdim=True)
    return F.avg_pool2d(x, 4)


@windows.fixed
def _(x: Tensor) -> Tensor:
    small = (x.shape[-2] <= 8) | (x.shape[-1] <= 8)
    return hj.cond(small, lambda: x.mean((-2, -1), keepdim=True), lambda: F.avg_pool2d(x, 4))


@leak(MAP, WIDE, ODD, does="right")
def cropped_to_square(x: Tensor) -> Tensor:
    side = min(int(x.shape[-2]), int(x.shape[-1]))
    return x[..., :side, :side]


@cropped_to_square.fixed
def _(x: Tensor) -> Tensor:
    return x[..., : x.shape[-1], : x.shape[-2]]


@leak(MAP, WIDE, ODD, does="right")
def resized(x: Tensor) -> Tensor:
    return F.interpolate(x, size=(int(x.shape[2]) * 2, int(x.shape[3] * 1.5)))


@resized.fixed
def _(x: Tensor) -> Tensor:
    return F.interpolate(x, size=(x.shape[2] * 2, x.shape[3] * 3 // 2))


@leak(MAP, WIDE, ODD, does="right")
def sizes_in_tensor(x: Tensor) -> Tensor:
    height, width = x.shape[-2:]
    return x.sum((0, 1, 2))[:2] / torch.tensor([height, width])


@sizes_in_tensor.fixed
def _(x: Tensor) -> Tensor:
    height, width = x.shape[-2:]
    return x.sum((0, 1, 2))[:2] / torch.stack([torch.as_tensor(height), torch.as_tensor(width)])


@leak(FOUR, SIX, does="right")
def sizes_in_new_tensor(x: Tensor) -> Tensor:
    return x.sum(0) / x.new_tensor([x.shape[0], x.shape[1], 2])


@sizes_in_new_tensor.fixed
def _(x: Tensor) -> Tensor:
    return torch.cat([x.sum(0)[:1] / x.shape[0], x.sum(0)[1:2] / x.shape[1], x.sum(0)[2:] / 2])


@leak(FOUR, SIX, does="refused")
def sizes_in_legacy_tensor(x: Tensor) -> Tensor:
    return x.sum(0)[:2] * torch.Tensor([len(x), x.shape[1]])


@sizes_in_legacy_tensor.fixed
def _(x: Tensor) -> Tensor:
    return torch.stack([x.sum(0)[0] * x.shape[0], x.sum(0)[1] * x.shape[1]])


@leak(FOUR, SIX)
def numpy_range_of_size(x: Tensor) -> Tensor:
    return x * torch.from_numpy(np.linspace(0, 1, x.shape[0], dtype=np.float32))[:, None]


@numpy_range_of_size.fixed
def _(x: Tensor) -> Tensor:
    return x * (torch.arange(x.shape[0]) / (x.shape[0] - 1))[:, None]


@leak(FOUR, SIX)
def list_times_size(x: Tensor) -> Tensor:
    return torch.tensor([2.0] * x.shape[0])[:, None] * x


@list_times_size.fixed
def _(x: Tensor) -> Tensor:
    return x.new_full((x.shape[0], 1), 2.0) * x


@leak(FOUR, SIX, does="right")
def stride_as_number(x: Tensor) -> Tensor:
    return x.T.as_strided((2, 2), (1, x.T.stride(1))) * x.T.contiguous().stride(0)


@stride_as_number.fixed
def _(x: Tensor) -> Tensor:
    return x[:2, :2].T * x.shape[0]


class PositionTable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(floats(1, 4, 4, 2))

    def forward(self, x: Tensor) -> Tensor:
        table: Tensor = self.table
        if x.shape[1:3] != table.shape[1:3]:
            table = F.interpolate(table.permute(0, 3, 1, 2), size=x.shape[1:3]).permute(0, 2, 3, 1)
        return x + table


class PositionTableAlwaysResized(PositionTable):
    def forward(self, x: Tensor) -> Tensor:
        table = F.interpolate(self.table.permute(0, 3, 1, 2), size=x.shape[1:3])
        return x + table.permute(0, 2, 3, 1)


leak(floats(1, 4, 4, 2), floats(1, 8, 8, 2), floats(1, 4, 6, 2), auto="right")(PositionTable).fixed(
    PositionTableAlwaysResized
)
