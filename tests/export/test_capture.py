"""What is refused before a trace, and what is taken."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj


class Keywords(nn.Module):
    def forward(self, x: Tensor, by: float = 2.0, *, plus: Tensor) -> Tensor:
        return x * by + plus


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> int:
        return 1


def test_training_mode_names_modules() -> None:
    """A module in training mode is named, and accepted once `static` says it is meant."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).eval()
    model[1].train()
    with pytest.raises(hj.InputError, match="training: 1"):
        hj.export(model, torch.ones(3, 2))
    hj.static(model[1], reason="Monte Carlo dropout")
    report = hj.export(model, torch.ones(3, 2)).report
    assert report.ok and report.statics[0].reason == "Monte Carlo dropout"


def test_data_parallel_is_taken_off() -> None:
    """DataParallel is unwrapped with a note."""
    report = hj.export(nn.DataParallel(nn.Linear(2, 1)).eval(), torch.ones(3, 2)).report
    assert report.findings[0].code == "HJ001"


def test_keywords_and_defaults() -> None:
    """Keyword-only arguments and defaults go through."""
    exported = hj.export(Keywords().eval(), torch.ones(3), {"plus": torch.ones(3)})
    assert torch.equal(exported(torch.ones(4), plus=torch.ones(4)), torch.full((4,), 3.0))


def test_no_tensors() -> None:
    """Inputs or a result without tensors, a lazy model, and no model at all, are refused."""
    for model, inputs in [
        (nn.Identity().eval(), 1),
        (Nothing().eval(), torch.ones(1)),
        (nn.LazyLinear(1).eval(), torch.ones(1, 1)),
    ]:  # fmt: skip
        with pytest.raises(hj.InputError):
            hj.export(model, inputs)
    with pytest.raises(hj.InputError, match=r"takes an nn\.Module"):
        hj.export(torch.sin, torch.ones(1))  # type: ignore[arg-type]


def test_within_a_trace() -> None:
    """An export within a trace is refused."""
    with pytest.raises(hj.UnsupportedError, match="under way"):
        torch.jit.trace(  # type: ignore[no-untyped-call]
            lambda x: hj.export(nn.Identity().eval(), x)(x), torch.ones(1)
        )


def test_jit_switched_off() -> None:
    """PYTORCH_JIT=0 is named as the reason."""
    code = "import torch, hybridjit as hj\nhj.export(torch.nn.Identity().eval(), torch.ones(1))"
    environment = {**os.environ, "PYTORCH_JIT": "0", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert "UnsupportedError: torch.jit is switched off by PYTORCH_JIT=0" in done.stderr
