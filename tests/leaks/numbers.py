"""Values of tensors that become Python's."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hybridjit as hj

from .entry import floats, leak

UP, DOWN = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([-1.0, -2.0, -4.0])


@leak(UP, DOWN, auto="right")
def branch(x: Tensor) -> Tensor:
    return x + 1 if x.sum() > 0 else x - 1


@branch.fixed
def _(x: Tensor) -> Tensor:
    return torch.where(x.sum() > 0, x + 1, x - 1)


@leak(UP, DOWN, auto="right")
def branch_on_not(x: Tensor) -> Tensor:
    return x - 1 if not (x > 0).any() else x + 1


@branch_on_not.fixed
def _(x: Tensor) -> Tensor:
    return torch.where((x > 0).any(), x + 1, x - 1)


@leak(UP, UP * 100, DOWN, auto="right")
def branch_on_and(x: Tensor) -> Tensor:
    return x * 2 if x.min() > 0 and x.max() < 10 else x


@branch_on_and.fixed
def _(x: Tensor) -> Tensor:
    return torch.where((x.min() > 0) & (x.max() < 10), x * 2, x)


@leak(UP, torch.zeros(3), auto="right")
def branch_on_nonzero(x: Tensor) -> Tensor:
    return x / x.sum() if torch.is_nonzero(x.sum()) else x


@branch_on_nonzero.fixed
def _(x: Tensor) -> Tensor:
    return torch.where(x.sum() != 0, x / x.sum(), x)


@leak(UP, torch.zeros(3), auto="right")
def guarded_division(x: Tensor) -> Tensor:
    span = x.max() - x.min()
    if span == 0:
        return torch.zeros_like(x)
    return (x - x.min()) / span


@guarded_division.fixed
def _(x: Tensor) -> Tensor:
    span = x.max() - x.min()
    return hj.cond(span == 0, lambda: torch.zeros_like(x), lambda: (x - x.min()) / span)


@leak((UP, UP + 0), (UP, DOWN), auto="right")
def branch_on_equal(x: Tensor, y: Tensor) -> Tensor:
    return x * 2 if torch.equal(x, y) else x + y


@branch_on_equal.fixed
def _(x: Tensor, y: Tensor) -> Tensor:
    return torch.where((x == y).all(), x * 2, x + y)


@leak((UP, UP + 0), (UP, DOWN), auto="right")
def branch_on_allclose(x: Tensor, y: Tensor) -> Tensor:
    return x * 2 if torch.allclose(x, y) else x + y


@branch_on_allclose.fixed
def _(x: Tensor, y: Tensor) -> Tensor:
    return torch.where(torch.isclose(x, y).all(), x * 2, x + y)


@leak(UP, DOWN, does="right")
def int_of_value(x: Tensor) -> Tensor:
    return x * int(x.abs().max())


@int_of_value.fixed
def _(x: Tensor) -> Tensor:
    return x * x.abs().max().trunc()


@leak(UP, DOWN, does="right")
def float_of_value(x: Tensor) -> Tensor:
    return x * float(x.sum())


@float_of_value.fixed
def _(x: Tensor) -> Tensor:
    return x * x.sum()


@leak(UP, DOWN)
def complex_of_value(x: Tensor) -> Tensor:
    return x * complex(x.sum())


@complex_of_value.fixed
def _(x: Tensor) -> Tensor:
    return x * x.sum().to(torch.complex64)


@leak(UP, DOWN)
def item(x: Tensor) -> Tensor:
    return x - x.mean().item()


@item.fixed
def _(x: Tensor) -> Tensor:
    return x - x.mean()


@leak(UP, UP * 1000)
def branch_on_item(x: Tensor) -> Tensor:
    return x / 100 if x.sum().item() > 1000 else x  # far from every value that anybody would try


@branch_on_item.fixed
def _(x: Tensor) -> Tensor:
    return torch.where(x.sum() > 1000, x / 100, x)


@leak(UP, DOWN)
def rounded(x: Tensor) -> Tensor:
    return x * round(x.mean().item())


@rounded.fixed
def _(x: Tensor) -> Tensor:
    return x * x.mean().round()


@leak(UP, DOWN, does="right")
def math_of_value(x: Tensor) -> Tensor:
    return x / math.sqrt((x * x).sum())


@math_of_value.fixed
def _(x: Tensor) -> Tensor:
    return x / (x * x).sum().sqrt()


@leak(UP, UP.flip(0), auto="right")
def max_of_two(x: Tensor) -> Tensor:
    return x * max(x[0], x[2] * 0.5)


@max_of_two.fixed
def _(x: Tensor) -> Tensor:
    return x * torch.maximum(x[0], x[2] * 0.5)


@leak(UP, UP.flip(0), UP[[1, 0, 2]], auto="right")
def sorted_in_python(x: Tensor) -> Tensor:
    return torch.stack(sorted([x[0], x[1], x[2]]))


@sorted_in_python.fixed
def _(x: Tensor) -> Tensor:
    return x.sort().values


@leak(UP, DOWN, torch.tensor([1.0, -1.0, 2.0]), auto="right")
def any_in_python(x: Tensor) -> Tensor:
    return x - 1 if any(row < 0 for row in x) else x + 1


@any_in_python.fixed
def _(x: Tensor) -> Tensor:
    return torch.where((x < 0).any(), x - 1, x + 1)


@leak(UP, UP * 8)
def loop_until_small(x: Tensor) -> Tensor:
    while x.abs().max() > 1:
        x = x / 2
    return x


@loop_until_small.fixed
def _(x: Tensor) -> Tensor:
    halved: Tensor = hj.while_loop(lambda x: x.abs().max() > 1, lambda x: (x / 2,), (x,))[0]
    return halved


@leak((UP, torch.tensor(2)), (UP, torch.tensor(5)))
def range_of_value(x: Tensor, n: Tensor) -> Tensor:
    for step in range(n):
        x = x + step
    return x


@range_of_value.fixed
def _(x: Tensor, n: Tensor) -> Tensor:
    summed: Tensor = hj.fori_loop(0, n, lambda step, x: x + step, x)
    return summed


@leak((UP, torch.tensor([2, 1])), (UP, torch.tensor([4, 2])), does="right")
def count_of_graphs(x: Tensor, graph: Tensor) -> Tensor:
    sums = x.new_zeros(int(graph.max()) + 1)
    return sums.index_add(0, graph, x[:2])


@count_of_graphs.fixed
def _(x: Tensor, graph: Tensor) -> Tensor:
    sums = torch.arange(graph.max() + 1).to(x.dtype) * 0  # type: ignore[call-overload]
    return sums.index_add(0, graph, x[:2])


@leak((floats(4, 3), torch.tensor([2, 4])), (floats(4, 3), torch.tensor([3, 1])), does="right")
def longest_row(x: Tensor, lengths: Tensor) -> Tensor:
    steps = torch.arange(int(lengths.max()))
    return (steps[None] < lengths[:, None]).float()


@longest_row.fixed
def _(x: Tensor, lengths: Tensor) -> Tensor:
    steps = torch.arange(lengths.max())  # type: ignore[call-overload]
    return (steps[None] < lengths[:, None]).float()


@leak(UP, torch.tensor([1.0, 40.0, 2.0]), does="right")
def repeated_by_value(x: Tensor) -> Tensor:
    return x.repeat(round(float(x[1])), 1).sum(0)


@repeated_by_value.fixed
def _(x: Tensor) -> Tensor:
    return x * x[1].round()


@leak(UP, DOWN, does="right")
def asserted(x: Tensor) -> Tensor:
    assert x.min() > 0, "positive values only"
    return x.sqrt()


@asserted.fixed
def _(x: Tensor) -> Tensor:
    return hj.branch_if_tracing(check_positive)(x).sqrt()


@leak(UP, DOWN, does="right")
def validated(x: Tensor) -> Tensor:
    return check_positive(x).log()


@validated.fixed
def _(x: Tensor) -> Tensor:
    return hj.branch_if_tracing(check_positive)(x).log()


def check_positive(x: Tensor) -> Tensor:
    if (x <= 0).any():
        raise ValueError("positive values only")
    return x


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(3, 3, bias=False)
        self.experts = nn.ModuleList(nn.Linear(3, 2) for _ in range(3))

    def forward(self, x: Tensor) -> Any:
        return self.experts[int(self.gate(x).argmax())](x)


class Routed(Experts):
    def forward(self, x: Tensor) -> Any:
        sides = [lambda expert=expert: expert(x) for expert in self.experts]
        return hj.switch(self.gate(x).argmax(), sides)


leak(UP, DOWN, floats(3), floats(3, seed=5))(Experts).fixed(Routed)


POINTS, POWER, OTHER = floats(4, 3), torch.tensor(1.5), torch.tensor(2.25)


@leak((POINTS, POWER), (POINTS, OTHER))
def number_of_an_operation(x: Tensor, p: Tensor) -> Tensor:
    return torch.cdist(x, x + 1, p=p)  # type: ignore[arg-type]


@number_of_an_operation.fixed
def _(x: Tensor, p: Tensor) -> Tensor:
    return (x[:, None] - x - 1).abs().pow(p).sum(-1).pow(1 / p)


IMAGE, TWO, THREE = floats(1, 2, 6, 6), torch.tensor(2), torch.tensor(3)


@leak((IMAGE, TWO), (IMAGE, THREE))
def number_for_each_dimension(x: Tensor, n: Tensor) -> Tensor:
    return F.max_pool2d(x, n)  # type: ignore[call-overload, no-any-return]


@number_for_each_dimension.fixed
def _(x: Tensor, n: Tensor) -> Tensor:
    return F.max_pool2d(x, (n, n))  # type: ignore[arg-type]


@leak((IMAGE, POWER), (IMAGE, OTHER))
def number_of_a_function(x: Tensor, t: Tensor) -> Tensor:
    return F.smooth_l1_loss(x, x * 3, beta=t)  # type: ignore[arg-type]


@number_of_a_function.fixed
def _(x: Tensor, t: Tensor) -> Tensor:
    apart = (x * 2).abs()
    return torch.where(apart < t, 0.5 * apart**2 / t, apart - 0.5 * t).mean()


class EarlyExit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            if x.abs().max() < 1:
                break
            x = layer(x)
        return x


class EarlyExitWithCond(EarlyExit):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = hj.cond(x.abs().max() < 1, lambda x: x, layer, (x,))
        return x


leak(UP, DOWN / 8, UP * 100, auto="right")(EarlyExit).fixed(EarlyExitWithCond)
