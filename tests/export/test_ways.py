"""Which way of capturing is tried, and what the ways are for."""

from __future__ import annotations

import torch
from torch import Tensor, jit, nn

import hybridjit as hj


class Up(nn.Module):
    """Goes up one level; where a size was odd on the way down, the side without padding can't run, and the reverse."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(2, 2, 2, 2)
        self.both = nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        x = self.up(low)
        edges = [0] * 4
        for index in range(2):
            if high.shape[-index - 1] != x.shape[-index - 1]:
                edges[2 * index + 1] = 1
        return self.both(torch.cat([high, nn.functional.pad(x, edges)], 1))  # type: ignore[no-any-return]


class Levels(nn.Module):
    """Three levels down, and up again."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3, padding=1)
        self.ups = nn.ModuleList(Up() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        levels = [self.first(x)]
        for _ in self.ups:
            levels.append(nn.functional.max_pool2d(levels[-1], 2))
        low = levels.pop()
        for up in self.ups:
            low = up(low, levels.pop())
        return low


def test_sides_that_the_input_contradicts_are_recorded_by_probes() -> None:
    """In each module by itself: no input given takes any of these sides, and none takes the same in all modules."""
    model = Levels().eval()
    exported = hj.export(model, torch.rand(1, 1, 16, 24), branches="auto")
    assert not any(branch.raises for branch in exported.report.branches)
    for size in ((16, 24), (17, 24), (16, 25), (18, 28), (20, 31), (23, 26), (29, 30), (64, 33)):
        x = torch.rand(1, 1, *size)
        torch.testing.assert_close(exported(x), model(x))


def test_sides_that_the_input_contradicts_are_recorded_by_check_inputs() -> None:
    """Rather than the whole model once more for each: every level has two ways for each of two sizes, and no more."""
    model = Levels().eval()
    sizes = ((17, 24), (16, 25), (18, 28), (23, 30))
    checks = [torch.rand(1, 1, *size) for size in sizes]
    exported = hj.export(model, torch.rand(1, 1, 16, 24), branches="auto", check_inputs=checks)
    assert {branch.kind for branch in exported.report.branches} == {"if"}
    assert sum(branch.count for branch in exported.report.branches) <= 3 * 3
    x = torch.rand(1, 1, 29, 31)
    torch.testing.assert_close(exported(x), model(x))


class Grouped(nn.Module):
    """Attention that takes a single token in a shape of its own, in which others can't be."""

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x.view(x.shape[0], x.shape[2], 1) if x.shape[1] == 1 else x * 2
        return x if mask is None else x * mask.sum()


class Tokens(nn.Module):
    """Leaves a mask out that masks nothing, unless it is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Grouped()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention(x, None if not jit.is_tracing() and mask.all() else mask * 0.5 + 0.5 * mask.logical_not())  # type: ignore[attr-defined]
        return x / x.abs().amax()


def test_a_single_token() -> None:
    """A side for a size of one is recorded from an input that nobody gave, whose call in a trace differs too."""
    model = Tokens().eval()
    exported = hj.export(model, hj.Inputs(torch.rand(3, 9, 4), torch.ones(3, 9)), branches="auto")
    for length in (1, 2, 12):
        x, mask = torch.rand(2, length, 4), torch.ones(2, length)
        torch.testing.assert_close(exported(x, mask), model(x, mask))
