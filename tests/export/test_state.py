"""The model comes back as it was, however the export ends."""

import contextlib
import random
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit import _torch


class Messy(nn.Module):
    buffer: Tensor
    replaced: Tensor

    def __init__(self, ending: str) -> None:
        super().__init__()
        self.ending = ending
        self.weight = nn.Parameter(torch.ones(2))
        self.items = [1]
        self.gone = "here"
        self.register_buffer("buffer", torch.zeros(2))
        self.register_buffer("replaced", torch.zeros(2))
        self.register_buffer("late", None)

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data.mul_(2)
        self.buffer += 1
        self.replaced = self.replaced + 0
        if self.ending == "refused":
            self.late = x + 1
            x = x + TRACED()
        self.items.append(2)
        self.new = 1
        del self.gone
        random.random()
        numpy.random.rand()
        torch.rand(1)
        if self.ending == "error":
            raise RuntimeError("in forward")
        if self.ending == "interrupt":
            raise KeyboardInterrupt
        return x + self.weight * 0


TRACED: Callable[[], bool] = vars(torch.jit)["is_tracing"]  # an export can't answer in its place


ERRORS: dict[str, type[BaseException]] = {
    "refused": hj.VerificationError,
    "error": hj.CaptureError,
    "interrupt": KeyboardInterrupt,
}


@pytest.mark.parametrize("ending", ["success", *ERRORS])
def test_everything_is_put_back(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors, gradients, attributes, hooks, random state and filters are as before; no folder is left."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = Messy(ending).eval()
    handle = model.register_forward_hook(lambda *_: None)
    model.weight.grad = torch.full((2,), 3.0)
    weight, grad, items, replaced = model.weight, model.weight.grad, model.items, model.replaced
    before = torch.get_rng_state(), random.getstate(), list(warnings.filters), torch.is_grad_enabled()
    drawn = numpy.random.RandomState()
    drawn.set_state(numpy.random.get_state())
    if ending == "success":
        hj.export(model, torch.ones(2))
    else:
        with pytest.raises(ERRORS[ending]):
            hj.export(model, torch.ones(2))
    assert model.weight is weight and torch.equal(weight, torch.ones(2))
    assert model.weight.grad is grad and torch.equal(grad, torch.full((2,), 3.0))
    assert model.items is items and items == [1]
    assert model.replaced is replaced and torch.equal(model.buffer, torch.zeros(2))
    assert model.gone == "here" and not hasattr(model, "new") and not model.training
    assert torch.equal(torch.get_rng_state(), before[0])
    assert numpy.random.rand() == drawn.rand()
    assert (random.getstate(), list(warnings.filters), torch.is_grad_enabled()) == before[1:]
    assert _torch.tracing_state() is None
    handle.remove()
    assert not model._forward_hooks
    if ending != "success":
        assert list(tmp_path.iterdir()) == []


class Sly(nn.Module):
    """Writes where torch does not count, and points parameters elsewhere."""

    buffer: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.pointed = nn.Parameter(torch.ones(2))
        self.weight.grad = torch.ones(2)
        self.buffer = torch.tensor([float("nan"), 1.0])  # registered, the file would have to change it too

    def forward(self, x: Tensor) -> Tensor:
        assert self.weight.grad is not None
        self.weight.grad.mul_(3)
        self.pointed.data = torch.full((5,), 7.0)
        self.buffer.data = torch.zeros(3, 3, dtype=torch.float64)
        self.weight.requires_grad_(False)
        return x * 2


def test_gradients_and_pointers() -> None:
    """Gradients written in place, tensors pointed to others, and flags come back; nothing else is touched."""
    model = Sly().eval()
    weight, grad, pointed, buffer = model.weight, model.weight.grad, model.pointed, model.buffer
    memory = pointed.data_ptr(), buffer.data_ptr()
    version = weight._version
    assert hj.export(model, torch.ones(2), check_inputs=[torch.zeros(3)]).report.ok
    assert model.weight is weight and weight.requires_grad and weight._version == version
    assert model.weight.grad is grad and grad is not None and grad.tolist() == [1, 1]
    assert model.pointed is pointed and pointed.tolist() == [1, 1]
    assert model.buffer is buffer and buffer.shape == (2,) and buffer.dtype == torch.float32
    assert bool(buffer[0].isnan()) and buffer[1] == 1
    assert (pointed.data_ptr(), buffer.data_ptr()) == memory


class Uncounted(nn.Module):
    """Writes where torch's counter does not see it, and says what it has written so far."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        if _torch.tracing_state() is None:
            self.weight.data.mul_(2)
            return self.weight / 2 * x
        return self.weight * x


def test_uncounted_writes_do_not_add_up() -> None:
    """Each run of the model starts from the same parameters, also after writes that torch does not count."""
    model = Uncounted().eval()
    assert hj.export(model, torch.ones(2), check_inputs=[torch.ones(1), torch.ones(2)]).report.ok
    assert model.weight.tolist() == [1, 1]


class Scripted(nn.Module):
    count: int
    items: list[int]
    tensor: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.items = [1]
        self.register_buffer("tensor", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.items.append(self.count)
        self.tensor = self.tensor + 1
        return x + 1


def test_script_modules() -> None:
    """What a script module holds, outside of Python, comes back too."""
    inner = torch.jit.script(Scripted().eval())
    tensor = inner.tensor
    with contextlib.suppress(hj.VerificationError):  # the buffer that it replaces is not the point here
        hj.export(nn.Sequential(inner).eval(), torch.ones(2))
    assert (inner.count, inner.items) == (0, [1])
    assert inner.tensor is tensor and tensor == 0


@pytest.mark.parametrize("grad", [torch.eye(2).to_sparse(), torch.eye(2)])
def test_sparse_tensors(grad: Tensor) -> None:
    """A sparse gradient, and a sparse buffer that a call replaces the values of, come back."""
    model = nn.Embedding(2, 2, sparse=True).eval()
    model.weight.grad = grad
    model.register_buffer("adjacency", torch.eye(2).to_sparse())
    model.register_forward_hook(lambda module, args, out: out + module.adjacency.mul_(2).to_dense().sum())
    hj.export(model, torch.tensor([0, 1]), check_inputs=[torch.tensor([1])])
    assert model.weight.grad is grad and torch.equal(grad.to_dense(), torch.eye(2))
    assert torch.equal(model.adjacency.to_dense(), torch.eye(2))  # type: ignore[operator]


def test_no_folder_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither an export, nor one whose model can't be copied, leaves a folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    exported = hj.export(nn.Linear(2, 1).eval(), torch.ones(1, 2))
    assert list(tmp_path.iterdir()) == []
    exported.save(tmp_path / "a.pt")

    def fail(model: nn.Module) -> None:
        raise MemoryError

    monkeypatch.setattr(sys.modules["hybridjit.export.attempt"], "ModelState", fail)
    with pytest.raises(MemoryError):
        hj.export(nn.Linear(2, 1).eval(), torch.ones(1, 2))
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_random_numbers_that_no_file_draws() -> None:
    """A draw of Python's or NumPy's is a warning, though it made no difference to the result; torch's is none."""

    class Draws(nn.Module):
        def __init__(self, draw: Callable[[], Any]) -> None:
            super().__init__()
            self.draw = draw

        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if self.draw() < 2 else x

    for draw, warned in ((random.random, True), (numpy.random.rand, True), (lambda: torch.rand(()).item(), False)):
        exported = hj.export(Draws(draw).eval(), torch.ones(2))
        assert ("HJ005" in [finding.code for finding in exported.report.findings]) is warned
