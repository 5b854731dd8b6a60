"""Copies of tensors that may share memory."""

from __future__ import annotations

import torch

from hybridjit.export.copies import copied_apart


def test_one_tensor_stays_one() -> None:
    """What is given twice is one copy, and a copy is no original."""
    x = torch.ones(2)
    one, other, third = copied_apart([x, x, x.clone()], None)
    assert one is other and one is not x and third is not one
    one.add_(1)
    assert x.tolist() == [1.0, 1.0] and third.tolist() == [1.0, 1.0]


def test_views_stay_views() -> None:
    """Tensors that overlap are copied with their memory, their strides and dtypes."""
    base = torch.arange(6.0).reshape(2, 3)
    parts = [base[0], base.t(), base.view(torch.int32)[1:]]
    copies = copied_apart(parts, None)
    for part, made in zip(parts, copies, strict=True):
        assert torch.equal(part, made) and part.stride() == made.stride() and part.dtype == made.dtype
    copies[0].zero_()
    assert copies[1][:, 0].tolist() == [0.0] * 3 and base[0].tolist() == [0.0, 1.0, 2.0]


def test_neighbours_are_apart() -> None:
    """Parts of one memory that do not overlap are copied each for itself, and so is what has no plain memory."""
    base = torch.arange(6.0)
    one, other = copied_apart([base[:3], base[3:]], None)
    assert one.untyped_storage().nbytes() == other.untyped_storage().nbytes() == 12
    sparse = base.to_sparse()
    (made,) = copied_apart([sparse], None)
    assert torch.equal(made.to_dense(), base) and made is not sparse


def test_on_a_device() -> None:
    """What is shared is shared on the device that it is moved to."""
    base = torch.arange(3.0)
    one, other = copied_apart([base[:2], base[1:]], torch.device("cpu"))
    one.zero_()
    assert other.tolist() == [0.0, 2.0] and base.tolist() == [0.0, 1.0, 2.0]
