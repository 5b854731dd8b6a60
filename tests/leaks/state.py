"""What one call leaves for the next: caches, attributes, constants that are changed, code that knows of the trace."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

import hybridjit as hj

from .entry import floats, leak

UP, DOWN = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([-1.0, -2.0, -4.0])
FOUR, SIX, NINE = floats(4, 3), floats(6, 3), floats(9, 3)


@functools.lru_cache(maxsize=8)
def positions(count: int) -> Tensor:
    return torch.arange(count) / 10


@leak(FOUR, SIX, NINE, does="right")
def cached_function(x: Tensor) -> Tensor:
    return x + positions(int(x.shape[0]))[:, None]


@cached_function.fixed
def _(x: Tensor) -> Tensor:
    return x + (torch.arange(x.shape[0]) / 10)[:, None]


TABLES: dict[int, Tensor] = {}


@leak(FOUR, SIX, NINE)
def table_by_size(x: Tensor) -> Tensor:
    if len(x) not in TABLES:
        TABLES[len(x)] = torch.arange(len(x)) / 10
    return x + TABLES[len(x)][:, None]


@table_by_size.fixed
def _(x: Tensor) -> Tensor:
    return x + (torch.arange(x.shape[0]) / 10)[:, None]


class MaskBySize(nn.Module):
    """Has been called before, so that its mask is there."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.mask = torch.ones(4, 4).tril()

    def forward(self, x: Tensor) -> Tensor:
        if self.mask.shape[0] != x.shape[0]:
            self.mask = torch.ones(x.shape[0], x.shape[0]).tril()
        return self.mask @ x


class MaskEachTime(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(x.shape[0], x.shape[0]).tril() @ x


leak(FOUR, SIX, NINE)(MaskBySize).fixed(MaskEachTime)


class GrowingTable(nn.Module):
    """Has been called before, and grows its table for longer inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.arange(4) / 10

    def forward(self, x: Tensor) -> Tensor:
        if self.table.shape[0] < x.shape[0]:
            self.table = torch.arange(x.shape[0]) / 10
        return x + self.table[: x.shape[0], None]


class TableEachTime(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + (torch.arange(x.shape[0]) / 10)[:, None]


leak(FOUR, SIX, NINE)(GrowingTable).fixed(TableEachTime)


class FirstCall(nn.Module):
    """Goes on with the mean of the first input it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.mean: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.mean is None:
            self.mean = x.mean()
        return x - self.mean


class MeanInBuffers(nn.Module):
    seen: Tensor
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.mean.copy_(torch.where(self.seen > 0, self.mean, x.mean()))
        self.seen += 1
        return x - self.mean


leak(UP, DOWN, UP * 5, does="refused")(FirstCall).fixed(MeanInBuffers)


class CallCount(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


class CallCountInBuffer(nn.Module):
    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


leak(UP, DOWN, does="refused")(CallCount).fixed(CallCountInBuffer)


@leak(UP, DOWN, does="refused")
def changed_constant(x: Tensor) -> Tensor:
    total = torch.tensor([0.0, 1.0, 2.0])
    total += x  # in a trace, what the next call begins with
    return total * 2


@changed_constant.fixed
def _(x: Tensor) -> Tensor:
    return (torch.arange(3) + x) * 2


@leak(UP, DOWN, does="refused")
def written_constant(x: Tensor) -> Tensor:
    weights = torch.tensor([1.0, 1.0, 1.0])
    weights[1] = weights[1] + x.sum()
    return weights * x


@written_constant.fixed
def _(x: Tensor) -> Tensor:
    return torch.stack([x[0], x[1] * (1 + x.sum()), x[2]])


@leak(FOUR, SIX)
def fork_while_tracing(x: Tensor) -> Tensor:
    return x[:4] * 2 if torch.jit.is_tracing() else x * 2  # type: ignore[attr-defined]


@fork_while_tracing.fixed
def _(x: Tensor) -> Tensor:
    return x * 2


@leak(UP, DOWN, does="refused")
def other_result_while_tracing(x: Tensor) -> Tensor:
    return x + 1 if torch.jit.is_tracing() else x  # type: ignore[attr-defined]


@other_result_while_tracing.fixed
def _(x: Tensor) -> Tensor:
    return x


@leak(UP, DOWN, does="refused")
def fork_by_state(x: Tensor) -> Tensor:
    return x.abs() if torch._C._get_tracing_state() is not None else x


@fork_by_state.fixed
def _(x: Tensor) -> Tensor:
    return x


@leak(FOUR, SIX)
def fork_by_type_of_size(x: Tensor) -> Any:
    count = x.shape[0]
    if not isinstance(count, int):
        return x[:4]
    return x[:count]


@fork_by_type_of_size.fixed
def _(x: Tensor) -> Tensor:
    return x[: x.shape[0]]


@leak(UP, DOWN, does="guard")
def fork_by_exception(x: Tensor) -> Tensor:
    try:
        return x / check(x)
    except ValueError:
        return x


def check(x: Tensor) -> Tensor:
    if bool(x.min() < 0):
        raise ValueError("negative")
    return x.sum()


@fork_by_exception.fixed
def _(x: Tensor) -> Tensor:
    return torch.where(x.min() < 0, x, x / x.sum())


@leak(floats(2, 4, 3), floats(5, 4, 3), does="right")
def recurrent_state(x: Tensor) -> Tensor:
    state = torch.zeros(len(x), 3)
    for step in range(4):
        state = (state + x[:, step]).tanh()
    return state


@recurrent_state.fixed
def _(x: Tensor) -> Tensor:
    state = hj.fori_loop(0, 4, lambda step, state: (state + x[:, step]).tanh(), x.new_zeros(x.shape[0], 3))
    return state
