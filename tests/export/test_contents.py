"""Copies of tensors, in memory and in a temporary file, tell what was written and put it back."""

import os
import tempfile
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hybridjit.export.contents import Contents

LARGE = (700, 900)
TENSORS = {
    "small": torch.randn(3, 4),
    "large": torch.randn(LARGE),
    "large and transposed": torch.randn(LARGE).t(),
    "large, channels last": torch.randn(8, 16, 64, 64).to(memory_format=torch.channels_last),
    "large with gaps": torch.randn(1400, 900)[::2],
    "large, from the middle": torch.randn(800, 900)[50:],
    "large bool": torch.rand(1200, 1000) > 0.5,
    "large bfloat16": torch.randn(LARGE).bfloat16(),
    "large complex": torch.randn(LARGE, dtype=torch.complex64),
    "large conjugated": torch.randn(LARGE, dtype=torch.complex64).conj(),
    "larger than one chunk": torch.randn(5_000_000),
    "parameter": torch.nn.Parameter(torch.randn(LARGE)),
    "sparse": torch.eye(4).to_sparse(),
    "scalar": torch.tensor(1.0),
}


def written(tensor: Tensor) -> None:
    with torch.no_grad():
        tensor.zero_()


@pytest.mark.parametrize("name", TENSORS)
def test_writes_are_seen_and_undone(name: str) -> None:
    """A write is seen, and the values come back, for every layout, dtype and size."""
    tensor = TENSORS[name].detach().clone()
    tensor.requires_grad_(TENSORS[name].requires_grad)
    before = tensor.detach().clone()
    contents = Contents([tensor])
    assert contents.holds(tensor)
    written(tensor)
    assert not contents.holds(tensor)
    contents.restore()
    assert contents.holds(tensor)
    assert torch.equal(tensor.to_dense(), before.to_dense())


def test_views_with_gaps_come_back() -> None:
    """A view of a larger tensor is put back without a touch on what lies between."""
    whole = torch.randn(1400, 900)
    before = whole.clone()
    kept = whole[::2]
    contents = Contents([kept])
    written(whole)
    contents.restore()
    assert torch.equal(kept, before[::2]) and not whole[1::2].any()


@pytest.mark.parametrize("size", [3, 600_000])
def test_uncounted_writes_need_a_thorough_look(size: int) -> None:
    """A write through ``.data`` is found by comparing everything, and by every look from then on."""
    tensor = torch.ones(size)
    contents = Contents([tensor])
    tensor.data[-1] = 2
    contents.restore()
    assert tensor[-1] == 2
    contents.restore(thorough=True)
    assert tensor[-1] == 1
    tensor.data[0] = 2
    contents.restore()
    assert tensor[0] == 1


@pytest.mark.parametrize("size", [3, 600_000])
def test_a_tensor_pointed_elsewhere_comes_back(size: int) -> None:
    """A tensor whose ``.data`` was replaced is in its old memory again, with its old values."""
    tensor = torch.ones(size)
    place = tensor.data_ptr()
    contents = Contents([tensor])
    tensor.data = torch.zeros(7, dtype=torch.float64)
    assert not contents.holds(tensor)
    contents.restore()
    assert tensor.data_ptr() == place and tensor.dtype == torch.float32 and bool((tensor == 1).all())


def test_nan_is_itself() -> None:
    """NaN is no difference to NaN, in a small tensor and in a large one."""
    for size in (2, 600_000):
        tensor = torch.full((size,), float("nan"))
        assert Contents([tensor]).holds(tensor)


def test_the_file_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large copies are in a file that nobody finds, and its space is free when the copies are gone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    contents = Contents([torch.randn(LARGE)])
    assert os.listdir(tmp_path) == []
    del contents


def test_no_room_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no temporary file can be written the copies are kept in memory."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    tensor = torch.ones(LARGE)
    contents = Contents([tensor])
    written(tensor)
    contents.restore()
    assert bool((tensor == 1).all())
