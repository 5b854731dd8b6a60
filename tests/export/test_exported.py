"""A verified file as a callable, saved and loaded."""

import copy
import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


@hj.script_if_tracing
def mirrored(x: Tensor) -> Tensor:
    if bool(x.sum() < 0):
        x = x.flip(0) * 2
    return x


class Lists(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack(pieces(x)) + 1


class Counts(nn.Module):
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return x + self.seen


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"a": self.linear(mirrored(batch["x"])), "b": batch["x"] * batch["x"].shape[0]}


class Selfish(nn.Module):
    def forward(this, self: Tensor) -> Tensor:
        return self + 1


M, X = nn.Linear(2, 1).eval(), torch.ones(1, 2)


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


def test_no_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no CUDA, loading or comparing there is an InputError that names the device and those here."""
    if torch.cuda.is_available():
        pytest.skip("there is CUDA")
    exported = hj.export(nn.Linear(2, 1).eval(), torch.ones(1, 2))
    exported.save(tmp_path / "a.pt")
    calls: list[Callable[[], object]] = [
        lambda: hj.load(tmp_path / "a.pt", device="cuda"),
        lambda: hj.export(nn.Linear(2, 1).eval(), torch.ones(1, 2), devices=["cuda"]),
        lambda: hj.verify(exported, nn.Linear(2, 1).eval(), [torch.ones(1, 2)], devices=["cuda"]),
    ]
    for call in calls:
        with pytest.raises(hj.InputError) as error:
            call()
        lines = str(error.value).splitlines()
        assert lines[1] == "  - expected a device that is here, got 'cuda'" and "    here are: cpu" in lines


@pytest.mark.parametrize("source", ["export", "load"])
def test_save_writes_what_was_verified(tmp_path: Path, source: str) -> None:
    """Calls that count in a buffer, and changes of the module, do not get into what `save` writes."""
    exported = hj.export(Counts().eval(), torch.ones(2))
    exported.save(tmp_path / "a.pt")
    if source == "load":
        exported = hj.load(tmp_path / "a.pt")
    assert [float(exported(torch.zeros(1))) for _ in range(3)] == [1, 2, 3]
    exported.module.double()
    copy.deepcopy(exported).save(tmp_path / "b.pt")
    assert (tmp_path / "b.pt").read_bytes() == (tmp_path / "a.pt").read_bytes()
    assert float(hj.load(tmp_path / "b.pt")(torch.zeros(1))) == 1


FRESH = """
import sys, torch
module = torch.jit.load(sys.argv[1])
result = module(*torch.load(sys.argv[2]))
torch.save(result, sys.argv[3])
assert "hybridjit" not in sys.modules
print(type(result).__name__)
"""


def test_plain_load_in_a_fresh_process(tmp_path: Path) -> None:
    """A process that knows nothing of hybridjit gets the model's own numbers, on a branch that was not traced."""
    model = Two().eval()
    x = -torch.ones(3, 2)
    hj.export(model, {"x": torch.ones(3, 2)}).save(tmp_path / "a.pt")
    torch.save((x,), tmp_path / "in.pt")
    names = [str(tmp_path / name) for name in ("a.pt", "in.pt", "out.pt")]
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FRESH, *names], capture_output=True, text=True,
                          check=False, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""})  # fmt: skip
    assert done.stdout == "tuple\n", done.stderr
    expected = model({"x": x})
    for got, wanted in zip(torch.load(tmp_path / "out.pt"), expected.values(), strict=True):
        assert torch.equal(got, wanted)


def test_an_argument_named_self() -> None:
    """A keyword of the model may be called ``self``."""
    exported = hj.export(Selfish().eval(), (torch.ones(2),))
    assert torch.equal(exported(self=torch.zeros(3)), torch.ones(3))


@pytest.mark.parametrize(
    "call", [lambda e, no: e.save(no), lambda e, no: hj.load(no), lambda e, no: hj.verify(no, M, [X])]
)
def test_no_path(call: Callable[[hj.Exported, Any], object]) -> None:
    """What is no path is an InputError with a call to paste."""
    with pytest.raises(hj.InputError, match="takes a path\n  - expected text or a path, got int"):
        call(hj.export(M, X), 5)


def test_wrong_devices(tmp_path: Path) -> None:
    """A device that is none, or holds no values, is an InputError."""
    hj.export(nn.Identity().eval(), torch.ones(2)).save(tmp_path / "a.pt")
    for device in ("meta", "nonsense"):
        with pytest.raises(hj.InputError):
            hj.load(tmp_path / "a.pt", device=device)
