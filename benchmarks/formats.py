"""The examples in every format, right or refused: `python -m benchmarks.formats [format ...]`.

A file counts as right if it gives what the model gives on the input it was made from, and on inputs of other sizes and
on other paths that no check of its export had.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import hybridjit as hj
from examples.decoder import model as decoder
from examples.faces import export as faces
from examples.faces import model as detector
from examples.routing.cases import CASES

from .format_models import KINDS
from .table import environment

FORMATS = ("torchscript", "pt2", "onnx", "aoti")
SUFFIXES = {"torchscript": ".pt", "pt2": ".pt2", "onnx": ".onnx", "aoti": ".pt2"}
NEAR = 1e-4
"""By how much a result may differ."""


@dataclass(frozen=True)
class Subject:
    """A model, what to export it on, and what to try its file on.

    Attributes:
        name: What it is called.
        model: The model.
        first: The input to export.
        checks: The inputs that the export may learn from.
        fresh: The others.
    """

    name: str
    model: nn.Module
    first: Tensor
    checks: list[Tensor]
    fresh: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Cell:
    """One model in one format; the errors are the largest absolute differences."""

    model: str
    format: str
    result: str
    seconds: float
    size: int = 0
    traced_error: float | None = None
    other_error: float | None = None
    fresh: int = 0
    why: str = ""


def subjects() -> Iterator[Subject]:
    for case in CASES:
        model = case.build()
        first, *checks = case.inputs(model).values()
        generator = torch.Generator().manual_seed(1)
        yield Subject(case.name, model, first, checks, [case.draw(generator) for _ in range(20)])
    words = torch.arange(20) * 7 % 1000
    yield Subject("decoder", decoder.build(), words[:5], [words[:3]], [words[:11], words[4:5], words])
    yield Subject("cache", decoder.build(grows=False), words[:5], [words[:3]], [words[:11], words[4:6], words])
    for kind in KINDS:
        torch.manual_seed(0)
        model = kind.build().eval()
        first, *others = [kind.draw(rows, scale) for rows in kind.rows for scale in (1.0, -0.3, 3.0)]
        yield Subject(kind.name, model, first, others[:4], others[4:])
    image, pictures = detector.read_image(detector.DATA / "astronaut.jpg"), list(faces.check_pictures().values())
    fresh = [picture.flip(2) for picture in (image, *pictures)]
    yield Subject("faces", detector.build(), image, pictures, fresh)


def flat(result: Any) -> list[Tensor]:
    if isinstance(result, (Tensor, int)):
        return [torch.as_tensor(result)]
    if isinstance(result, dict):
        return [each for part in result.values() for each in flat(part)]
    parts = result if isinstance(result, tuple) else vars(result).values()  # a NamedTuple or a dataclass
    return [each for part in parts for each in flat(part)]


def difference(got: Any, wanted: Any) -> float:
    """The largest absolute difference; infinite where sizes or dtypes differ."""
    pairs = list(zip(flat(got), flat(wanted), strict=True))
    if any(a.shape != b.shape or a.dtype != b.dtype for a, b in pairs):
        return float("inf")
    return max((float((a.double() - b.double()).abs().max()) for a, b in pairs if a.numel()), default=0.0)


@torch.no_grad()
def attempt(subject: Subject, format: str, folder: Path) -> Cell:
    started = time.perf_counter()
    try:
        exported = hj.export(subject.model, (subject.first,), format=format, check_inputs=subject.checks)
    except hj.HybridJitError as error:
        rows = [row.strip().removeprefix("- ") for row in str(error).splitlines()]
        return Cell(subject.name, format, "refused", time.perf_counter() - started, why=": ".join(rows[:3]))
    seconds = time.perf_counter() - started
    path = folder / f"{subject.name}-{format}{SUFFIXES[format]}"
    exported.save(path)
    loaded = hj.load(path)
    traced = difference(loaded(subject.first), subject.model(subject.first))
    others, raised = [0.0], []
    for each in subject.fresh:
        wanted = subject.model(each)
        try:
            others.append(difference(hj.load(path)(each), wanted))  # state starts anew, as the model's is put back
        except (hj.GuardError, RuntimeError) as error:
            raised.append(str(error).splitlines()[0])
    right = "right" if max(traced, *others) <= NEAR else "WRONG"
    why = f"raises on {len(raised)} of {len(subject.fresh)} fresh inputs: {raised[0]}" if raised else ""
    return Cell(subject.name, format, right, seconds, path.stat().st_size, traced, max(others), len(others) - 1, why)


def spelled(cell: Cell) -> str:
    def error(value: float | None) -> str:
        return "-" if value is None else f"{value:.1e}"

    head = f"{cell.model:9}  {cell.format:11}  {cell.result:7}  {cell.seconds:6.1f} s  {cell.size:>9,} B"
    errors = f"{error(cell.traced_error):>7}  {error(cell.other_error):>7}"
    return f"{head}  {errors}  {cell.fresh:>5}  {cell.why[:230]}".rstrip()


def main() -> int:
    """Prints the table and writes it as JSON; returns 1 if a file is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.formats", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="format", help=f"of {', '.join(FORMATS)} (default: all)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="default: %(default)s")
    options = parser.parse_args()
    if unknown := set(options.names) - set(FORMATS):
        parser.error(f"no format {', '.join(sorted(unknown))}; there are {', '.join(FORMATS)}")
    print("model      format       result    seconds       size   traced    other  fresh  why")
    cells = []
    with tempfile.TemporaryDirectory() as folder:
        for subject in subjects():
            for format in options.names or FORMATS:
                cells.append(attempt(subject, format, Path(folder)))
                print(spelled(cells[-1]), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "formats.json"
    rows = [asdict(cell) for cell in cells]
    if options.names and path.exists():  # the other formats stay what they were
        rows += [row for row in json.loads(path.read_text())["cells"] if row["format"] not in options.names]
    data = {"environment": environment(), "cells": sorted(rows, key=lambda row: str(row["model"]))}
    path.write_text(json.dumps(data, indent=2) + "\n")
    return int(any(cell.result == "WRONG" for cell in cells))


if __name__ == "__main__":
    raise SystemExit(main())
