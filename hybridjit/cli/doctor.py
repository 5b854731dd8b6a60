"""``doctor``: what is here, what works here, and whether an export does."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import tempfile
import time
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..control.branch import branch_if_tracing
from ..export.devices import present
from ..export.export import export
from ..export.exported import load
from .usage import FAILED, FINE

_EXTRA = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Row:
    """One thing that was looked at.

    Attributes:
        name: What.
        ok: Whether it works here.
        text: What there is, or what to do.
    """

    name: str
    ok: bool
    text: str


def doctor_command(given: Namespace) -> int:
    """Tells what is here and what works here; fails if the self-test does."""
    found = environment()
    formats = formats_here()
    if not given.json:
        _table("environment", found)
        _table("formats", {row.name: f"{'yes' if row.ok else 'no '}  {row.text}" for row in formats})
        print("self-test: exporting a model with a branch, loading it, comparing …", flush=True)
    tested = self_test()
    if given.json:
        print(json.dumps({"environment": found, "formats": list(map(asdict, formats)), "self_test": asdict(tested)}))
    else:
        print(f"  {'passed' if tested.ok else 'FAILED'}: {tested.text}")
    return FINE if tested.ok else FAILED


def environment() -> dict[str, str]:
    """The versions and devices, by name."""
    return {
        "hybridjit": f"{_version('hybridjit') or 'not installed'}, {Path(__file__).parents[1]}",
        "Python": f"{platform.python_version()}, {platform.platform()}",
        "torch": f"{torch.__version__}" + (f", CUDA {torch.version.cuda}" if torch.version.cuda else ""),
        "devices": f"{present().removeprefix('here are: ')}; {torch.get_num_threads()} threads",
        "C++ compiler": _compiler() or "none: CXX names none, and there is no g++, clang++ or c++",
        "CMake": shutil.which("cmake") or "none, which C++ programs that load a file are usually built with",
    }


def formats_here() -> list[Row]:
    """Whether each format can be exported here."""
    off = os.environ.get("PYTORCH_JIT") == "0"
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    versions = ", ".join(f"{name} {_version(name)}" for name in _EXTRA if name not in missing)
    compiler = _compiler()
    traced = "torch.jit is switched off: unset PYTORCH_JIT" if off else "through torch.jit"
    return [
        Row("torchscript", not off, traced),
        Row("pt2", not off, traced if off else "through torch.export"),
        Row("onnx", not missing, f"without {', '.join(missing)}: pip install hybridjit[onnx]" if missing else versions),
        Row("aoti", bool(compiler), f"compiled by {compiler}" if compiler else "needs a C++ compiler: g++, or CXX"),
    ]


def _compiler() -> str | None:
    """The C++ compiler that AOTInductor finds."""
    return next(filter(None, map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++", "c++"))), None)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


class _Choosing(nn.Module):
    """Takes one of two layers, by the values of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(3, 2), nn.Linear(3, 2)

    @branch_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        chosen: Tensor = self.up(x) if x.sum() > 0 else self.down(x)
        return chosen


def self_test() -> Row:
    """Exports a model whose path depends on its input, loads the file, and compares it on both."""
    started = time.perf_counter()
    model = _Choosing().eval()
    inputs = torch.ones(2, 3), -torch.ones(4, 3)
    try:
        with tempfile.TemporaryDirectory(prefix="hybridjit-") as folder:
            path = Path(folder) / "model.pt"
            exported = export(model, inputs[0], check_inputs=[inputs[1]])
            exported.save(path)
            loaded = load(path)
            wrong = [each for each in inputs if not torch.allclose(loaded(each), model(each))]
    except Exception as error:  # whatever is broken here is what this is to find, and to say
        return Row("self-test", False, f"{type(error).__name__}: {error}")
    seconds = time.perf_counter() - started
    places = ", ".join(dict.fromkeys(check.device for check in exported.report.checks))
    if wrong:
        return Row(
            "self-test", False, f"the loaded file differs from the model on {len(wrong)} of {len(inputs)} inputs"
        )
    return Row("self-test", True, f"both sides of the branch are right, on {places}, in {seconds:.1f} s")


def _table(title: str, rows: Mapping[str, str]) -> None:
    width = max(map(len, rows))
    print(title)
    print("\n".join(f"  {name:<{width}}  {text}" for name, text in rows.items()), end="\n\n")
