"""Tracer warnings as findings."""

import warnings

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj


class Inner(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        for _ in range(50):
            x = x + 1 if x.sum() > -1e9 else x
        warnings.warn("mine", UserWarning, stacklevel=1)
        return x


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, x: Tensor) -> Tensor:
        out = self.inner(x)
        assert isinstance(out, Tensor)
        return out


def test_one_finding_per_line() -> None:
    """Fifty iterations of one line are one finding with its count, place and module; other warnings pass."""
    with pytest.warns(UserWarning, match="mine") as seen:
        report = hj.export(Outer().eval(), torch.ones(2)).report
    assert {w.category for w in seen} == {UserWarning}
    (finding,) = report.findings
    assert (finding.code, finding.count, finding.module_path, finding.line) == ("HJ101", 50, "inner", 15)
    assert finding.file == __file__
    assert "(50 times)" in str(report)
