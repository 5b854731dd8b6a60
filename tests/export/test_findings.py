"""Tracer warnings as findings."""

import warnings
from collections.abc import Callable

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
    assert (finding.code, finding.count, finding.module_path, finding.line) == ("HJ101", 50, "inner", 16)
    assert finding.file == __file__
    assert "50 times" in str(report)


class Call(nn.Module):
    def __init__(self, fn: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x)


KINDS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "in": ("HJ103", lambda x: x * 2 if 1.0 in x else x),
    "format": ("HJ110", lambda x: x * len(f"{x.sum()}")),
    "Tensor": ("HJ108", lambda x: x + torch.Tensor([1.0, 2.0])),
    "sparse": ("HJ108", lambda x: torch.sparse_coo_tensor(torch.tensor([[0, 1]]), x, (2,), check_invariants=True)),
    "complex": ("HJ103", lambda x: x * complex(x.sum())),
}


@pytest.mark.parametrize("kind", KINDS)
def test_codes(kind: str) -> None:
    """Values that leave a tensor by other ways have the code of what is kept."""
    code, fn = KINDS[kind]
    assert code in {finding.code for finding in hj.export(Call(fn).eval(), torch.ones(2)).report.findings}
