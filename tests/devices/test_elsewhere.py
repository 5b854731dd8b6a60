"""The test device itself: it must be as strict as a real one, or no test on it says anything."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn


def test_values_are_computed(device: str) -> None:
    """Views, writes through views, and factories give what they give on the CPU."""
    x = torch.randn(3, 4)
    y = x.to(device)
    y.t()[1] = 5
    x.t()[1] = 5
    assert y.device.type == device
    assert torch.equal(y.cpu(), x)
    assert torch.equal(y.t().reshape(-1).cpu(), x.t().reshape(-1))
    assert torch.arange(3, device=device).tolist() == [0, 1, 2]
    assert torch.cat([y, torch.zeros(1, 4, device=device)]).shape == (4, 4)


_MIXED: dict[str, Callable[[Tensor, Tensor], object]] = {
    "add": lambda here, there: here + there,
    "in place": lambda here, there: here.add_(there),
    "cat": lambda here, there: torch.cat([here, there]),
    "matmul": lambda here, there: there @ here.t(),
    "scalar in a list": lambda here, there: torch.stack([there[0, 0], here[0, 0]]),
    "index_select": lambda here, there: there.index_select(0, torch.tensor([0])),
    "indices there": lambda here, there: here[torch.tensor([0]).to(there.device)],
    "embedding": lambda here, there: nn.functional.embedding(torch.tensor([0]).to(there.device), here),
    "where": lambda here, there: torch.where(there > 0, there, here),
}


@pytest.mark.parametrize("name", _MIXED)
def test_mixing_devices_raises(name: str, device: str) -> None:
    """An operation on tensors of two devices raises."""
    here = torch.ones(2, 2)
    with pytest.raises(RuntimeError, match=r"device|indices should be"):
        _MIXED[name](here, here.to(device))


def test_scalars_and_indices_may_mix(device: str) -> None:
    """CPU tensors of no dimensions, in pointwise operations, and CPU indices are let be, as on CUDA."""
    x = torch.ones(2, 2, device=device)
    assert (x * torch.tensor(2.0)).sum().item() == 8
    assert x[torch.tensor([1])].shape == (1, 2)
    assert torch.where(x > 0, x, torch.tensor(0.0)).device.type == device


_MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Linear": (lambda: nn.Linear(4, 2), (3, 4)),
    "Conv2d": (lambda: nn.Conv2d(3, 4, 3), (1, 3, 8, 8)),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(3), (1, 3, 8, 8)),
    "LSTM": (lambda: nn.LSTM(4, 5, 2, bidirectional=True), (3, 2, 4)),
    "GRU": (lambda: nn.GRU(4, 5), (3, 2, 4)),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(4, 2, 8), (3, 2, 4)),
}


def _tensors(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [tensor for item in value for tensor in _tensors(item)]


@pytest.mark.parametrize("name", _MODULES)
@torch.no_grad()
def test_modules_move(name: str, device: str) -> None:
    """``nn.Module.to``, copies there, and the way back give the same values."""
    make, size = _MODULES[name]
    model, x = make().eval(), torch.randn(size)
    there = copy.deepcopy(model).to(device)
    back = copy.deepcopy(there).cpu()
    for expected, got, again in zip(*map(_tensors, (model(x), there(x.to(device)), back(x))), strict=True):
        assert got.device.type == device
        torch.testing.assert_close(got.cpu(), expected)
        assert torch.equal(again, expected)


def test_script_modules_move(device: str) -> None:
    """A traced module moves, is copied there, is saved from there, and is loaded from there and to there."""
    x = torch.ones(3, 4)
    traced = torch.jit.trace(nn.Linear(4, 2).eval(), x)
    expected = traced(x)
    saved = io.BytesIO()
    torch.jit.save(traced, saved)
    there = traced.to(device)
    again = io.BytesIO()
    torch.jit.save(copy.deepcopy(there), again)
    for file, where in ((saved, device), (again, device), (again, None), (again, "cpu")):
        file.seek(0)
        loaded = torch.jit.load(file, map_location=where)
        got = loaded(x.to(where or device))
        assert got.device.type == (where or device)
        torch.testing.assert_close(got.cpu(), expected)


def test_torch_knows_the_device(device: str) -> None:
    """It is the accelerator of its process, of which there is one."""
    accelerator = torch.accelerator.current_accelerator()
    assert accelerator is not None
    assert accelerator.type == device
    assert torch.accelerator.device_count() >= 1
