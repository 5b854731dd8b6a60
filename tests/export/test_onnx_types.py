"""What the trace tells torch's translation to ONNX about dtypes and dimensions."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hybridjit as hj

pytest.importorskip("onnxruntime")


def by_trace(model: nn.Module, first: Tensor, *others: Tensor) -> hj.Exported:
    """Exports a model, of which one is sure that it goes by the trace, and compares it on all inputs."""
    exported = hj.export(model.eval(), first, format="onnx", check_inputs=[others[0]])
    assert "made by the trace" in exported.report.findings[-1].message
    for x in (first, *others):
        torch.testing.assert_close(exported(x), model(x))
    return exported


class Levels(nn.Module):
    """Picks pixels, level by level: masks of two dimensions, `t`, `prelu`, and lists, all within a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.1, 0.2, 0.3]))

    @hj.script_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        found = [torch.zeros((0, 3), dtype=x.dtype)]
        scale = 1.0
        while scale * x.size(1) >= 2.0:
            small = F.prelu(F.adaptive_avg_pool2d(x[None], (math.ceil(x.size(1) * scale), 3)), self.weight)[0]
            mask = small[0] > 0.1
            rows, columns = mask.nonzero().unbind(1)
            places = torch.stack((rows, columns, rows), 1) * 0.5 / scale
            found.append(small[:, mask].t()[places[:, 0].argsort(stable=True)])
            found.append(places)
            scale = scale * 0.7
        return torch.cat(found)


def test_masks_in_a_loop() -> None:
    """Masks, ranks and dtypes are right in a loop over levels, at other sizes and with no level at all."""
    torch.manual_seed(0)
    by_trace(Levels(), *(torch.randn(3, rows, 5) for rows in (9, 4, 1, 17, 10)))


class Middle(nn.Module):
    @hj.script_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        found = [x[:, x[0, :, :, 0] > 0.5].reshape(-1)]
        for i in range(x.size(0)):
            found.append(x[:, x[i, :, :, 1] > 0.5, :].reshape(-1))
        return torch.cat(found)


def test_a_mask_in_the_middle() -> None:
    """A mask of two dimensions between others picks what it does in PyTorch."""
    torch.manual_seed(0)
    model = Middle()
    by_trace(model, *(torch.rand(n, 3, 2, 4) for n in (2, 3, 1)))


class Rounded(nn.Module):
    @hj.script_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        rows = (
            math.ceil(x.size(0) * 0.6)
            + int(x.size(0) / 3)
            + int(min([x.size(0) * 0.1, 2.5]))
            + math.floor(min(x.size(0) * 0.3, 40.5))
        )
        found = [x[:0]]
        for _ in range(rows):
            found.append(x[:1] * (rows * 0.5) + rows)
        return torch.cat(found)


def test_floats_have_64_bits() -> None:
    """What Python computes with floats is not computed with half the bits: `ceil(25 * 0.6)` is 15, and was 16."""
    by_trace(Rounded(), *(torch.ones(n, 2) for n in (3, 5, *range(1, 52))))


@pytest.mark.parametrize("format", ["pt2", "onnx"])
def test_floats_without_a_loop(format: str) -> None:
    """The same holds for a graph with neither loops nor branches; torch.export saves neither `ceil` nor `floor`."""

    class Straight(nn.Module):
        @hj.script_if_tracing
        def forward(self, x: Tensor) -> Tensor:
            return x.new_zeros((math.ceil(x.size(0) * 0.6), math.floor(5 - x.size(0) * 0.3) + 20))

    model = Straight().eval()
    exported = hj.export(model, torch.ones(3), format=format, check_inputs=[torch.ones(5)])
    for n in range(2, 52):
        assert exported(torch.ones(n)).shape == model(torch.ones(n)).shape


def test_what_cannot_be_saved_is_named() -> None:
    """What torch.export captures, but can't save, is refused with the line."""

    class Round(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.new_zeros(round(x.shape[0] * 0.6), 2)

    with pytest.raises(hj.CaptureError, match=r"can't save its program\n  at .*test_onnx_types.py:\d+\n"):
        hj.export(Round().eval(), torch.ones(3), format="pt2", check_inputs=[torch.ones(5)])
