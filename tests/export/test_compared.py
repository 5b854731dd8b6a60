"""Inputs of the sizes that a model's comparisons name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hybridjit as hj
from hybridjit.export.compared import at_sizes, compared_sizes
from hybridjit.export.probes import Probe

from .call import Call


def pad_or_trim(x: Tensor) -> Tensor:
    """As Whisper's: a short example can't be trimmed by its indices."""
    if x.shape[-1] > 16:
        x = x.index_select(-1, torch.arange(16))
    if x.shape[-1] < 16:
        x = F.pad(x, [0, 16 - x.shape[-1]])
    return x


def halved(x: Tensor) -> Tensor:
    return x.reshape(2, -1)[:, :30].sum(0) if x.shape[0] >= 60 else x


@pytest.mark.parametrize("function", [pad_or_trim, halved])
def test_sides_that_only_other_sizes_take(function: Callable[[Tensor], Tensor]) -> None:
    """A side on which the first input fails is recorded from one of a size on the other side of the comparison."""
    model = Call(function).eval()
    exported = hj.export(model, torch.randn(5), branches="auto")
    for size in (5, 15, 16, 17, 40, 60, 62):
        x = torch.randn(size)
        torch.testing.assert_close(exported(x), model(x))


def test_compared_sizes() -> None:
    """The numbers on both sides of those that conditions compare a size with, whichever way round, and no others."""

    class Compares(nn.Module):
        @hj.branch_if_tracing
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[0] > 16:
                x = x + 1
            if 9 > x.shape[0]:  # noqa: SIM300
                x = x + 2
            if x.shape[0] == 40:
                x = x + 3
            return x * 100 if x.sum() > 77 else x

    exported = hj.export(Compares().eval(), torch.ones(5))
    assert sorted(compared_sizes(exported.module)) == [8, 9, 16, 17, 40]


def test_at_sizes() -> None:
    """One dimension at a time, whatever is related with it, unless it is that size already or would be huge."""
    flat = torch.ones(2, 3), torch.ones(2, 7)
    tried: list[Probe] = []
    assert not list(at_sizes([3, 1 << 30])(flat, lambda probe: bool(tried.append(probe))))  # type: ignore[func-returns-value]
    shapes = [tuple(tuple(each.shape) for each in probe.flat) for probe in tried]
    assert shapes == [((3, 3), (3, 7)), ((2, 3), (2, 3))]
    assert tried[0].says == "as compared: 2 to 3 at dimension 0"


def test_a_path_that_nothing_takes() -> None:
    """Where no input is found, the file says that it knows none, and not that the model raises there."""

    def function(x: Tensor) -> Tensor:
        return x.index_select(0, torch.arange(12)) if x.sum() > 1e6 and x.shape[0] > 11 else x

    exported = hj.export(Call(function).eval(), torch.zeros(5), branches="auto")
    torch.testing.assert_close(exported(torch.ones(20)), torch.ones(20))
    try:
        torch.testing.assert_close(exported(torch.full((20,), 1e6)), torch.full((12,), 1e6))
    except hj.GuardError as error:
        assert "a path that no known input takes" in str(error) or "value frozen" in str(error)
        assert "IndexError" not in str(error) or "among check_inputs" in str(error)
