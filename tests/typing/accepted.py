"""What type checkers accept: decorated functions keep their exact signatures. Checked, never run."""

from collections.abc import Callable
from typing import Any, NamedTuple

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


class Detector(nn.Module):
    """Marked pieces in it change nothing of what a checker sees."""

    @hj.branch_if_tracing
    def forward(self, image: Tensor, scale: float = 1.0) -> dict[str, Boxes]:
        return {"boxes": Boxes(image * scale, image)}


class Untyped(nn.Module):
    def forward(self, x):  # type: ignore[no-untyped-def]
        return x


def results(x: Tensor, model: nn.Module, scripted: torch.jit.ScriptModule) -> None:
    """A call of an export gives what the model's `forward` returns, as far as that is annotated."""
    exported = hj.export(Detector().eval(), (x,), check_inputs=[(x,)])
    assert_type(exported, hj.Exported[dict[str, Boxes]])
    assert_type(exported(x, scale=2.0), dict[str, Boxes])
    assert_type(exported.others["onnx"](x), dict[str, Boxes])
    assert_type(hj.export(nn.Linear(2, 3), x)(x), Tensor)
    assert_type(hj.export(Head(), x)(x), Tensor)
    assert_type(hj.export(model, x)(x), Any)
    assert_type(hj.export(scripted, x)(x), Any)
    hj.export(Untyped(), x)(x).anything()
    loaded: hj.Exported[Boxes] = hj.load("model.pt")
    assert_type(loaded(x), Boxes)
    general: hj.Exported[object] = exported
    plain: hj.Exported = exported
    hj.verify(general, model, [x])
    hj.verify(plain, model, [x])


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
