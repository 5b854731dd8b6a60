"""A verified file as a callable, saved and loaded."""

import copy
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj


@hj.script_if_tracing
def pieces(x: Tensor) -> list[Tensor]:
    out = [x]
    if bool(x.sum() < 0):
        out.append(x)
    return out


class Lists(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack(pieces(x)) + 1


def test_independent_and_saved_again(tmp_path: Path) -> None:
    """A changed model changes nothing; a loaded file saves again, and a copy outlives the first."""
    model = nn.Linear(2, 1).eval()
    x = torch.ones(3, 2)
    expected = model(x).detach()
    exported = hj.export(model, x)
    nn.init.zeros_(model.weight)
    twin = copy.copy(exported)
    report = exported.report
    exported.save(tmp_path / "a.pt")
    del exported
    twin.save(tmp_path / "b.pt")
    hj.load(tmp_path / "b.pt").save(tmp_path / "c.pt")
    for name in "abc":
        again = hj.load(tmp_path / f"{name}.pt")
        assert torch.equal(again(x), expected)
        assert again.report == report
    with pytest.raises(dataclasses.FrozenInstanceError):
        twin.format = "onnx"  # type: ignore[misc]
    assert "def forward" in twin.code
    code = f"import torch; print(torch.jit.load({str(tmp_path / 'c.pt')!r})(torch.ones(3, 2)).shape)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True,
                          check=False, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""})  # fmt: skip
    assert done.stdout == "torch.Size([3, 1])\n", done.stderr


def test_guard_error() -> None:
    """A list of another length stops the run with a GuardError."""
    exported = hj.export(Lists().eval(), torch.ones(2))
    with pytest.raises(hj.GuardError, match="captured a list of 1, got 2"):
        exported(-torch.ones(2))


def test_wrong_devices(tmp_path: Path) -> None:
    """A device that is none, or holds no values, is an InputError."""
    hj.export(nn.Identity().eval(), torch.ones(2)).save(tmp_path / "a.pt")
    for device in ("meta", "nonsense"):
        with pytest.raises(hj.InputError):
            hj.load(tmp_path / "a.pt", device=device)
