"""What a call of an export, its load and its size cost in processor time, against the bare TorchScript file."""

import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.benchmark import Timer

import hybridjit as hj
from examples.faces.model import DATA, build, read_image

from .models import Encoder, ResNet50
from .table import Row, Table, once, paired

ROUNDS = 15
FLAT, NESTED = 8.0, 20.0
"""Microseconds that a call may add."""
LOAD, CHECKED = 2.3, 1.1
MODULES = (1_000, 3_000, 10_000)
GROWTH = 1.5


class Boxes(NamedTuple):
    corners: Tensor
    scores: Tensor


class Flat(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1


class Nested(nn.Module):
    """A dict with a list in, a dict of a NamedTuple and a tensor out."""

    def forward(self, batch: dict[str, Any], scale: float = 2.0) -> dict[str, Any]:
        corners, (first, second) = batch["corners"], batch["scores"]
        return {"boxes": Boxes(corners * scale, first + second), "mean": corners.mean()}


class Step(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def chain(count: int) -> nn.Module:
    """A model of about so many modules in a row."""
    return nn.Sequential(*(nn.Sequential(Step(), nn.ReLU()) for _ in range(count // 3))).eval()


def run() -> tuple[Table, ...]:
    return call(), *load(), scaling()


def call() -> Table:
    x = torch.ones(3)
    nested = ({"corners": x, "scores": [x, x]},)
    rows = (
        added("a tensor in and out", Flat(), (x,), FLAT),
        added("dict and list in, dict and NamedTuple out", Nested(), nested, NESTED),
    )
    claim = f"adds at most {FLAT:.0f} us to a flat call and {NESTED:.0f} us to a nested one"
    return Table("a call of Exported (ratio: what it adds, of what it may add)", "the ScriptModule", rows, claim, 1.0)


def added(name: str, model: nn.Module, args: tuple[Any, ...], most: float) -> Row:
    exported = hj.export(model.eval(), args, devices=["cpu"])
    adapter = hj.TracingAdapter(model, args)
    flat = adapter.flatten(*args)
    ours = Timer("f(*args)", globals={"f": exported, "args": args}, timer=time.process_time)
    raw = Timer("f(*args)", globals={"f": exported.module, "args": flat}, timer=time.process_time)
    pairs = [(ours.blocked_autorange(min_run_time=0.05).median, raw.blocked_autorange(min_run_time=0.05).median)
             for _ in range(ROUNDS)]  # fmt: skip
    # What the call adds, as a ratio to what it may: pairs cancel what slows both.
    return paired(name, pairs, lambda our, bare: (our - bare) / (most * 1e-6))


def load() -> tuple[Table, Table]:
    image = read_image(DATA / "astronaut.jpg")
    models = {
        "face detector": (build(), image),
        "ResNet-50": (ResNet50().eval(), torch.randn(1, 3, 64, 64)),
        "encoder, 12 layers of 768": (Encoder().eval(), torch.randn(1, 16, 768)),
    }
    bare, checked = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, (model, inputs) in models.items():
            path = Path(folder) / "model.pt"
            hj.export(model, (inputs,), devices=["cpu"]).save(path)
            bare.append(side_by_side(name, partial(hj.load, path), partial(bare_load, path), ROUNDS))
            checked.append(side_by_side(name, partial(hj.load, path), partial(checked_load, path), ROUNDS))
    title = "load, every record against its checksum"
    claim = f"at most {LOAD} of torch's time, which checks no byte of the file"
    alike = f"at most {CHECKED} of the time of both"
    return (
        Table(title, "torch.jit.load", tuple(bare), claim, LOAD),
        Table(
            "load, against one that checks as much", "torch.jit.load, zipfile.testzip", tuple(checked), alike, CHECKED
        ),
    )


def checked_load(path: Path) -> Any:
    """What checks as much: torch's load, and Python's own check of the archive."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    return bare_load(path)


def bare_load(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated
        return torch.jit.load(path)  # type: ignore[no-untyped-call]


def scaling() -> Table:
    """The time of an export by the number of modules, against a trace that is saved, loaded and run plainly."""
    x = torch.ones(3)
    hj.export(chain(30), (x,), devices=["cpu"])  # what is imported and compiled once
    rows: list[Row] = []
    for count in MODULES:
        model = chain(count)

        def ours(model: nn.Module = model) -> None:
            hj.export(model, (x,), devices=["cpu"])

        def peer(model: nn.Module = model) -> None:
            with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                path = f"{folder}/model.pt"
                traced = torch.jit.trace(model, (x,), check_trace=False)  # type: ignore[no-untyped-call]
                torch.jit.save(traced, path)
                with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
                    bare_load(Path(path))(x)

        rows.append(side_by_side(f"{count:,} modules", ours, peer, 1))
    first = rows[0].ratio
    grown = [Row(row.name, row.ours, row.peer, row.ratio / first, row.spread / first) for row in rows]
    claim = f"grows no more than {GROWTH} times as fast as trace, save, load and run do"
    title = "export by the number of modules (ratio: to torch's time, 1 at the first)"
    return Table(title, "torch.jit", tuple(grown), claim, GROWTH)


def side_by_side(name: str, ours: Callable[[], object], peer: Callable[[], object], rounds: int) -> Row:
    return paired(name, [(once(ours), once(peer)) for _ in range(rounds)])
