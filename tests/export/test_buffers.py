"""Buffers that forward leaves with another shape, rank or dtype: the next call of the file finds them so."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj


class Keeps(nn.Module):
    """A function of a module with a buffer, and of an input."""

    held: Tensor

    def __init__(self, held: Tensor, fn: Callable[[Keeps, Tensor], Tensor]) -> None:
        super().__init__()
        self.register_buffer("held", held)
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(self, x)


def cache(self: Keeps, x: Tensor) -> Tensor:
    self.held = x if self.held.numel() == 0 else torch.cat([self.held, x])
    return torch.softmax(x @ self.held.T, -1) @ self.held


def reset(self: Keeps, x: Tensor) -> Tensor:
    if self.held.shape != x.shape:
        self.held = torch.zeros_like(x)
    self.held = torch.tanh(x + 0.5 * self.held)
    return self.held * 1


def decays(self: Keeps, x: Tensor) -> Tensor:
    count = self.held.shape[0]
    self.held = torch.cat([self.held, x.mean(0, keepdim=True)])
    return x * 0.5**count


def lazily(self: Keeps, x: Tensor) -> Tensor:
    if len(self.held) == 0:
        self.held = torch.zeros_like(x[0])
    self.held = self.held + x.sum(0)
    return self.held * 1


def by_rank(self: Keeps, x: Tensor) -> Tensor:
    if self.held.ndim == 1:
        self.held = torch.zeros_like(x)
    self.held = torch.tanh(x + 0.5 * self.held)
    return self.held * 1


def by_dtype(self: Keeps, x: Tensor) -> Tensor:
    if self.held.dtype != x.dtype:
        self.held = torch.zeros_like(x[0])
    self.held = self.held + x.sum(0)
    return self.held * 1


@pytest.mark.parametrize(
    ("fn", "held", "rows"),
    [
        (cache, torch.zeros(0, 6), (4, 4, 7, 1)),
        (reset, torch.zeros(4, 6), (4, 4, 4)),
        (decays, torch.zeros(0, 6), (4, 2, 4)),
    ],
)
def test_right(fn: Callable[[Keeps, Tensor], Tensor], held: Tensor, rows: tuple[int, ...]) -> None:
    """Questions for a size are asked again in each call."""
    model = Keeps(held, fn).eval()
    eager = copy.deepcopy(model)
    exported = hj.export(model, torch.rand(4, 6), branches="auto")
    for count in rows:
        x = torch.rand(count, 6)
        torch.testing.assert_close(exported(x), eager(x))


@pytest.mark.parametrize(
    ("fn", "held"),
    [(lazily, torch.zeros(0)), (by_rank, torch.zeros(1)), (by_dtype, torch.zeros(6, dtype=torch.int32))],
)
def test_guarded(fn: Callable[[Keeps, Tensor], Tensor], held: Tensor) -> None:
    """What was decided by another rank or dtype holds for the first call only, and the second says so."""
    model = Keeps(held, fn).eval()
    x = torch.rand(4, 6)
    exported = hj.export(model, x, branches="auto")
    torch.testing.assert_close(exported(x), copy.deepcopy(model)(x))
    with pytest.raises((hj.GuardError, RuntimeError)):
        exported(x)


def on_one_side(self: Keeps, x: Tensor) -> Tensor:
    if x.sum() > 0:
        self.held = self.held + x
    else:
        self.held = self.held - x * 2
    return self.held + 1


def test_what_a_side_leaves() -> None:
    """A side begins with what was there before the branch, not with what the side before it left."""
    model = Keeps(torch.zeros(3), on_one_side).eval()
    eager = copy.deepcopy(model)
    exported = hj.export(model, torch.ones(3), branches="auto")
    for x in (torch.ones(3), -torch.ones(3), torch.full((3,), 2.0)):
        torch.testing.assert_close(exported(x), eager(x))
