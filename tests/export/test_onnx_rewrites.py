"""What torch's translation of TorchScript to ONNX lacks."""

from __future__ import annotations

from typing import List  # noqa: UP035 - what TorchScript reads

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hybridjit as hj
from hybridjit.export.onnx_rewrites import average_windows


@hj.script_if_tracing
def levels(x: Tensor) -> Tensor:
    """A pyramid, in a list that grows with the size of the picture: by the trace alone."""
    found: List[Tensor] = [x.reshape(-1)]  # noqa: UP006
    height, width = x.size(1), x.size(2)
    while min(height, width) > 4:
        height, width = (2 * height) // 3, (2 * width) // 3
        found.append(F.adaptive_avg_pool2d(x, (height, width)).reshape(-1))
    return torch.cat(found).sort(stable=True, descending=True)[0]


class Pyramid(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return levels(x)


def test_sizes_known_at_run_time() -> None:
    """Pooling to a size that a loop computes is right at other sizes of the picture, and so is a stable sort."""
    pytest.importorskip("onnxruntime")
    model = Pyramid().eval()
    pictures = [torch.rand(3, height, width) for height, width in ((9, 12), (30, 7), (4, 4), (17, 23))]
    exported = hj.export(model, pictures[0], format="onnx", check_inputs=pictures[1:3])
    assert "made by the trace" in exported.report.findings[-1].message
    for x in pictures:
        torch.testing.assert_close(exported(x), model(x))


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 2), (8, 9)])
def test_windows(size: tuple[int, int]) -> None:
    """The windows are those of torch, to smaller, equal and larger sizes."""
    x = torch.rand(2, 7, 9)
    torch.testing.assert_close(average_windows(x, *size), F.adaptive_avg_pool2d(x, size))
