"""The model comes back as it was, however the export ends."""

import random
import tempfile
import warnings
from pathlib import Path

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

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data.mul_(2)
        self.buffer += 1
        self.replaced = self.replaced + (1 if self.ending == "refused" else 0)
        self.items.append(2)
        self.new = 1
        del self.gone
        random.random()
        if self.ending == "error":
            raise RuntimeError("in forward")
        if self.ending == "interrupt":
            raise KeyboardInterrupt
        return x + self.weight * 0


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
    assert (random.getstate(), list(warnings.filters), torch.is_grad_enabled()) == before[1:]
    assert _torch.tracing_state() is None
    handle.remove()
    assert not model._forward_hooks
    if ending != "success":
        assert list(tmp_path.iterdir()) == []
