"""Convolutions with as many groups as a size says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hybridjit as hj


class Modulated(nn.Module):
    """A convolution with weights of its own for each row, as one with a group for each."""

    def __init__(self, dims: int, by_name: bool, convolution: Callable[..., Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, *[3] * dims, generator=torch.Generator().manual_seed(0)))
        self.dims, self.by_name, self.convolution = dims, by_name, convolution

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        rows = x.shape[0]
        weight = self.weight[None] * style.view(rows, 1, 3, *[1] * self.dims)
        if self.convolution.__name__.startswith("conv_transpose"):
            weight = weight.transpose(1, 2)
        weight = weight.reshape(-1, *weight.shape[2:])
        x = x.reshape(1, -1, *x.shape[2:])
        if self.by_name:
            y = self.convolution(x, weight, padding=1, groups=rows)
        else:
            last = (0, rows) if self.convolution.__name__.startswith("conv_transpose") else (1, rows)
            y = self.convolution(x, weight, None, 1, 1, *last)
        return y.reshape(rows, 4, *y.shape[2:])


@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize("name", ["conv1d", "conv2d", "conv3d", "conv_transpose2d"])
def test_groups_are_those_of_the_input(name: str, by_name: bool, first: int, tmp_path: Path) -> None:
    """A file from one batch is right for others, without a guard, and in plain torch."""
    dims = int(name[-2])
    model = Modulated(dims, by_name, getattr(F, name)).eval()

    def inputs(rows: int, size: int) -> tuple[Tensor, Tensor]:
        return torch.randn(rows, 3, *[size] * dims), torch.randn(rows, 3)

    exported = hj.export(model, inputs(first, 6))
    assert not exported.report.guards
    exported.save(tmp_path / "model.pt")
    plain = torch.jit.load(tmp_path / "model.pt")  # type: ignore[no-untyped-call]
    for rows, size in ((first, 6), (1, 5), (3, 7), (5, 6)):
        call = inputs(rows, size)
        torch.testing.assert_close(exported(*call), model(*call))
        torch.testing.assert_close(plain(*call), model(*call))
