"""An export beside wrappers written by hand: flattened, traced, with torch's decorator, a file for each flag."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.benchmark import Timer

import hybridjit as hj

from .models import ResNet50
from .table import Row, Table, once, paired

ROUNDS, CALLS = 3, 15
MOST = {"export": 3.5, "size": 0.51, "call": 1.5}


class Instances(NamedTuple):
    """What was found in a picture, a row for each."""

    boxes: Tensor
    scores: Tensor


def suppress(boxes: Tensor, scores: Tensor, most: float) -> Tensor:
    """Which boxes stay: those that no better one overlaps by more than `most`."""
    order = scores.argsort(descending=True)
    kept: list[Tensor] = []
    while order.numel() > 0:
        best = order[0]
        kept.append(best)
        rest = order[1:]
        low = torch.maximum(boxes[best, :2], boxes[rest, :2])
        high = torch.minimum(boxes[best, 2:], boxes[rest, 2:])
        shared = (high - low).clamp(min=0).prod(1)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        order = rest[shared <= most * (areas[best] + areas[rest] - shared)]
    return torch.stack(kept) if len(kept) > 0 else torch.zeros(0, dtype=torch.int64, device=boxes.device)


class Detector(nn.Module):
    """One stage on a ResNet-50: a list of dicts in, a list of dicts of NamedTuples out, masks if asked for.

    Args:
        suppress: The piece with a loop, decorated by one library or the other.
        body: What makes features of a picture.
        channels: How many.
    """

    def __init__(self, suppress: Callable[..., Any], body: nn.Module, channels: int) -> None:
        super().__init__()
        self.suppress = suppress
        self.body, self.head, self.mask = body, nn.Conv2d(channels, 5, 1), nn.Conv2d(channels, 1, 1)

    def forward(self, batch: list[dict[str, Tensor]], masks: bool = False) -> list[dict[str, Any]]:
        return [self.found(each["image"], each["scale"], masks) for each in batch]

    def found(self, image: Tensor, scale: Tensor, masks: bool) -> dict[str, Any]:
        features = self.body(image[None] / 255)
        rows = self.head(features)[0].flatten(1).T
        corner = rows[:, :2] * 8
        boxes = torch.cat([corner, corner + rows[:, 2:4].abs() * 4 + 1], 1) * scale
        scores = rows[:, 4].sigmoid()
        kept = self.suppress(boxes, scores, 0.5)
        result: dict[str, Any] = {"instances": Instances(boxes[kept], scores[kept])}
        if masks:
            result["masks"] = self.mask(features)[0]
        return result


def detector(suppress: Callable[..., Any], small: bool = False) -> Detector:
    torch.manual_seed(0)
    if small:  # so that a call is little more than what wraps it
        return Detector(suppress, nn.AdaptiveAvgPool2d(2), 3).eval()
    return Detector(suppress, nn.Sequential(*list(ResNet50().layers)[:-3]), 2048).eval()


def batch(size: int = 160) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (3, size, size), dtype=torch.uint8, generator=generator)
    return [{"image": image, "scale": torch.tensor([2.0, 2.0, 2.0, 2.0])}]


# --- By hand, as models of detectron2 and their like are traced ---------------------------------------------------


def flattened(value: Any) -> tuple[list[Tensor], Callable[[Sequence[Tensor]], Any]]:
    """The tensors of a value, and what makes such a value of others."""
    if isinstance(value, Tensor):
        return [value], lambda tensors: tensors[0]
    if isinstance(value, dict):
        parts, names = [flattened(each) for each in value.values()], list(value)
        return _joined(parts, lambda made: dict(zip(names, made, strict=True)))
    kind = type(value)
    make = (lambda made: kind(*made)) if hasattr(value, "_fields") else kind
    return _joined([flattened(each) for each in value], make)


def _joined(
    parts: list[tuple[list[Tensor], Callable[[Sequence[Tensor]], Any]]], make: Callable[[list[Any]], Any]
) -> tuple[list[Tensor], Callable[[Sequence[Tensor]], Any]]:
    def rebuild(tensors: Sequence[Tensor]) -> Any:
        made, at = [], 0
        for flat, each in parts:
            made.append(each(tensors[at : at + len(flat)]))
            at += len(flat)
        return make(made)

    return [tensor for flat, _ in parts for tensor in flat], rebuild


class Wrapper(nn.Module):
    """A model for `torch.jit.trace`: tensors in and out, and the schema of its result from the call that is traced."""

    def __init__(self, model: nn.Module, value: Any, flags: dict[str, bool]) -> None:
        super().__init__()
        self.model, self.flags = model, flags
        _, self.rebuild = flattened(value)
        self.result: Callable[[Sequence[Tensor]], Any] | None = None

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        flat, self.result = flattened(self.model(self.rebuild(tensors), **self.flags))
        return tuple(flat)


class ByHand:
    """A trace by way of a wrapper, and the call that takes and gives what the model does."""

    def __init__(self, model: nn.Module, value: Any, **flags: bool) -> None:
        self.wrapper = Wrapper(model, value, flags).eval()
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # deprecated, and that values are frozen
            traced = torch.jit.trace(self.wrapper, tuple(flattened(value)[0]))  # type: ignore[no-untyped-call]
        self.traced: Any = traced

    def __call__(self, value: Any) -> Any:
        assert self.wrapper.result is not None
        return self.wrapper.result(self.traced(*flattened(value)[0]))

    def save(self, path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(self.traced, path)


def by_hand(**of: bool) -> Detector:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return detector(torch.jit.script_if_tracing(suppress), **of)  # type: ignore[no-untyped-call]


# --- The tables ----------------------------------------------------------------------------------------------------


def run() -> tuple[Table, ...]:
    with tempfile.TemporaryDirectory() as folder:
        return (exports(Path(folder)), sizes(Path(folder)), calls())


PEER = "wrapper, torch.jit.trace"


def exports(folder: Path) -> Table:
    """The first has one call, the second a file for each value of a flag."""
    ours, peer, value = detector(hj.script_if_tracing(suppress)), by_hand(), batch()

    def one() -> None:
        hj.export(ours, (value,), devices=["cpu"]).save(folder / "one.pt")

    def one_by_hand() -> None:
        ByHand(peer, value).save(folder / "hand.pt")

    def both() -> None:
        hj.export(ours, (value,), flags={"masks": (False, True)}, devices=["cpu"]).save(folder / "both.pt")

    def both_by_hand() -> None:
        for masks in (False, True):
            ByHand(peer, value, masks=masks).save(folder / f"hand_{masks}.pt")

    rows = []
    for name, our, their in (("one call", one, one_by_hand), ("a flag with two values", both, both_by_hand)):
        our()
        their()
        rows.append(paired(name, [(once(our), once(their)) for _ in range(ROUNDS)]))
    claim = f"at most {MOST['export']} of its time"
    return Table("export, compare and save a detector on ResNet-50", PEER, tuple(rows), claim, MOST["export"])


def sizes(folder: Path) -> Table:
    """Of the files that `exports` wrote."""
    one, hand, both = ((folder / f"{name}.pt").stat().st_size for name in ("one", "hand", "both"))
    two = sum((folder / f"hand_{masks}.pt").stat().st_size for masks in (False, True))
    rows = (Row("a flag with two values", both, two, both / two),)
    assert one < 1.01 * hand
    return Table("files for a flag with two values", "a file each", rows, f"at most {MOST['size']}", MOST["size"], "B")


def calls() -> Table:
    value = batch(32)
    ours = hj.export(detector(hj.script_if_tracing(suppress), small=True), (value,), devices=["cpu"])
    hand = ByHand(by_hand(small=True), value)
    (our,), (their,) = ours(value), hand(value)
    torch.testing.assert_close(tuple(our["instances"]), tuple(their["instances"]))
    timer = partial(Timer, "f(value)", timer=time.process_time)
    timers = [timer(globals={"f": each, "value": value}) for each in (ours, hand)]
    rounds = [[each.blocked_autorange(min_run_time=0.1).median for each in timers] for _ in range(CALLS)]
    rows = (paired("lists and dicts in and out, with a NamedTuple", [(a, b) for a, b in rounds]),)
    return Table("a call with the model's own arguments", PEER, rows, f"at most {MOST['call']} of it", MOST["call"])
