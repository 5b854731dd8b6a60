"""What type checkers accept: decorated functions keep their exact signatures. Checked, never run."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import assert_type

import hybridjit as hj


class Boxes(NamedTuple):
    corners: Tensor
    scores: Tensor


@hj.script_if_tracing
def keep(boxes: Tensor, most: int, *, threshold: float = 0.5) -> tuple[Tensor, int]:
    return boxes[:most] if threshold else boxes, most


@hj.script_if_tracing
def best(boxes: Boxes) -> Tensor | None:
    return boxes.corners


class Head(nn.Module):
    @hj.script_if_tracing
    def forward(self, x: Tensor, times: int = 1) -> Tensor:
        return x * times

    @hj.script_if_tracing
    def pair(self, x: Tensor) -> Boxes:
        return Boxes(x, x)


def calls(x: Tensor, head: Head, model: nn.Module) -> None:
    assert_type(keep(x, 3), tuple[Tensor, int])
    assert_type(keep(x, most=3, threshold=0.1), tuple[Tensor, int])
    assert_type(best(Boxes(x, x)), Tensor | None)
    assert_type(head.forward(x), Tensor)
    assert_type(head.forward(x, times=2), Tensor)
    assert_type(head.pair(x), Boxes)
    assert_type(Head.pair(head, x), Boxes)

    bound: Callable[[Tensor], Boxes] = head.pair
    assert_type(bound(x), Boxes)

    assert_type(hj.static(3, reason="the width"), int)
    assert_type(hj.static("nearest", reason="the mode"), str)
    assert_type(hj.static(x.sum(), reason="the width"), int | float | bool)

    exported = hj.export(model, (x,), check_inputs=[(x,), hj.Inputs(x, scale=2.0)], devices=["cpu"])
    assert_type(exported, hj.Exported)
    assert_type(exported.report, hj.Report)
    assert_type(hj.load("model.pt", device="cpu"), hj.Exported)
    assert_type(hj.load("model.pt", torch.device("cpu")).report.ok, bool)
    assert_type(hj.TracingAdapter(model, (x,)).flatten(x), tuple[Tensor, ...])
    assert_type(hj.verify(exported, model, [(x,)]), hj.Report)
