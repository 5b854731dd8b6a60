"""Numbers where torch takes lists of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import hybridjit as hj
from tests.export.call import Call

KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "over time": lambda x: F.max_pool1d(x, x.shape[2]).squeeze(2),  # as networks for sentences do
    "half": lambda x: F.max_pool2d(x, x.shape[1] // 2, stride=1, padding=x.shape[1] // 4),
    "with indices": lambda x: F.max_pool2d(x, x.shape[1] // 2, return_indices=True)[1],
    "mean": lambda x: F.avg_pool2d(x, x.shape[1] // 2),
    "to a size": lambda x: F.adaptive_avg_pool2d(x, x.shape[1] // 2),
    "maximum to a size": lambda x: F.adaptive_max_pool1d(x, output_size=x.shape[2] // 2),
    "windows": lambda x: F.unfold(x[None], x.shape[1] // 2, padding=x.shape[1] // 4),
    "windows put back": lambda x: F.fold(F.unfold(x[None, :, :4, :4], 2), x[:, :4, :4].shape[1], 2),
    "roll": lambda x: x.roll(x.shape[2] // 2, 2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_size_as_a_list(kind: str) -> None:
    """A size that stands for one in each dimension is computed in the file."""
    model = Call(KINDS[kind]).eval()
    exported = hj.export(model, torch.rand(1, 4, 6), branches="auto")
    for shape in ((1, 5, 6), (1, 4, 9), (2, 9, 7), (1, 13, 16)):
        x = torch.rand(shape)
        torch.testing.assert_close(exported(x), model(x))
