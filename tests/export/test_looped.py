"""Loops with `if`s in their turns: each has its own branch in the loop of the file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from tests.control.checks import kinds

SHAPES = ((3, 4), (5, 4), (1, 4), (40, 4), (2, 4))


class Model(nn.Module):
    """A function of a tensor and of a layer."""

    def __init__(self, fn: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.linear = nn.Linear(4, 4)
        self.fn = fn

    def forward(self, x: Tensor) -> Any:
        return self.fn(self.linear, x)


def rows(linear: nn.Module, x: Tensor) -> Tensor:
    out = []
    for row in x:
        if row.sum() > 0:
            y = linear(row)
        else:
            y = torch.tanh(row)
        out.append(y)
    return torch.stack(out)


def one_after_another(linear: nn.Module, x: Tensor) -> Tensor:
    total = linear(x[0]) * 0
    for i in range(x.shape[0]):
        if x[i].sum() > total.sum():
            total = total + x[i]
        if total.max() > 1:
            total = total * 0.5
        elif total.min() < -1:
            total = linear(total)
    return total


def of_other_sizes(linear: nn.Module, x: Tensor) -> Tensor:
    out = []
    for row in x:
        positive = row[row > 0]
        if positive.numel() == 0:
            best = row[:2]
        else:
            best = positive.max().reshape(1)
        out.append(best)
    return torch.cat(out)


def counted(linear: nn.Module, x: Tensor) -> Tensor:
    found = 0
    for row in x:
        if row.sum() > 0:
            found = found + 1
    return x * found


class State:
    """What a loop has found so far."""

    def __init__(self, best: Tensor) -> None:
        self.best = best


def in_an_object(linear: nn.Module, x: Tensor) -> Any:
    state = State(x[0])
    for row in x:
        if row.sum() > state.best.sum():
            state.best = row
    return state.best


def bisected(linear: nn.Module, x: Tensor) -> Tensor:
    low, high = x.min(), x.max() + 1
    while high - low > 0.01:
        middle = (low + high) / 2
        if (x > middle).sum() > x.numel() // 2:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def in_two_loops(linear: nn.Module, x: Tensor) -> Tensor:
    total = x[0] * 0
    for row in x:
        for value in row:
            if value > 0:
                total = total + value
            else:
                total = total * 0.9
    return total


BRANCHED = [rows, one_after_another, of_other_sizes, counted, in_an_object, bisected, in_two_loops]


def outcomes(fn: Callable[[nn.Module, Tensor], Any]) -> tuple[hj.Exported, str]:
    """An export on one input; of others of all signs and numbers of rows: right, loud or wrong."""
    model = Model(fn).eval()
    generator = torch.Generator().manual_seed(5)
    exported, found = hj.export(model, torch.randn(3, 4, generator=generator), branches="auto"), ""
    for shape in SHAPES:
        for scale in (1.0, 5.0, -1.0):
            x = torch.randn(*shape, generator=generator).abs() * scale if scale < 0 else torch.randn(*shape) * scale
            try:
                torch.testing.assert_close(exported(x), model(x))
                found += "."
            except hj.GuardError:
                found += "l"
            except AssertionError:
                found += "W"
    return exported, found


@pytest.mark.parametrize("fn", BRANCHED, ids=lambda fn: fn.__name__)
def test_branches_in_turns(fn: Callable[[nn.Module, Tensor], Any]) -> None:
    """Right whatever sides the turns take, and however many there are."""
    exported, found = outcomes(fn)
    assert set(found) == {"."}, found
    nodes = kinds(exported.module.inlined_graph)
    assert nodes["prim::Loop"] >= 1 and nodes["prim::If"] >= 1


def kept_on_one_side(linear: nn.Module, x: Tensor) -> Tensor:
    out = [x[0]]
    for row in x:
        if row.sum() > 0:
            out.append(row)
    return torch.stack(out)


def ended_by_data(linear: nn.Module, x: Tensor) -> Tensor:
    total = x[0] * 0
    for row in x:
        if row.sum() > 2:
            break
        total = total + row
    return total


def none_on_one_side(linear: nn.Module, x: Tensor) -> Tensor:
    last = None
    for row in x:
        if row.sum() > 0:
            last = row
        else:
            last = None
    return x if last is None else x + last


def told_by_python(linear: nn.Module, x: Tensor) -> Tensor:
    found, best = False, x[0] * 0
    for row in x:
        if not found:
            if row.sum() > 0:
                best, found = row, True
    return best


@pytest.mark.parametrize(
    "fn", [kept_on_one_side, ended_by_data, none_on_one_side, told_by_python], ids=lambda fn: fn.__name__
)
def test_no_branches_in_turns(fn: Callable[[nn.Module, Tensor], Any]) -> None:
    """Sides that leave other lists, or objects that are no tensors, behind: guarded, never wrong."""
    _, found = outcomes(fn)
    assert "W" not in found and "l" in found, found


class Head(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x * 2
        return x - 1


class BesideOthers(nn.Module):
    """Many ``if``s in a turn, and a submodule that has branches itself."""

    def __init__(self) -> None:
        super().__init__()
        self.head = Head()

    def forward(self, x: Tensor) -> Tensor:
        out = []
        for row in x:
            if row[0] > 0:
                row = row * 2
            if row[1] > 0:
                row = row * 3
            if row[2] > 0:
                row = row - 1
            if row.sum() > 0:
                row = row * 0.5
            out.append(row)
        result: Tensor = self.head(torch.stack(out))
        return result


@pytest.mark.parametrize("example", [3, 20], ids=["few", "more than there may be paths"])
def test_beside_branches_of_a_submodule(example: int) -> None:
    """Both are branches, of any number of rows."""
    torch.manual_seed(0)
    exported = hj.export(BesideOthers().eval(), torch.randn(example, 4), branches="auto")
    for rows in (3, 1, 5, 40, 3, 3):
        x = torch.randn(rows, 4)
        assert torch.equal(exported(x), BesideOthers()(x))
    assert {point.kind for point in exported.report.branches} == {"loop", "if"}
