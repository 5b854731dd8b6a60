"""How long an export to each format takes, against torch's own way there, which compares nothing."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit.export.quiet import quiet

from .programs import Submodules
from .table import Table, once, paired

ROUNDS = {"torchscript": 5, "pt2": 2, "onnx": 2, "aoti": 1}


class Layers(nn.Sequential):
    """Two layers of a transformer; takes `[n, tokens, 64]`."""

    def __init__(self) -> None:
        super().__init__(*(nn.TransformerEncoderLayer(64, 4, 128, batch_first=True) for _ in range(2)))


def by_trace(model: nn.Module, x: Tensor, path: Path) -> None:
    torch.jit.save(torch.jit.trace(model, (x,)), path)  # type: ignore[no-untyped-call]


def program(model: nn.Module, x: Tensor) -> Any:
    return torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))


def by_export(model: nn.Module, x: Tensor, path: Path) -> None:
    torch.export.save(program(model, x), path)


def by_onnx(model: nn.Module, x: Tensor, path: Path) -> None:
    torch.onnx.export(model, (x,), path, dynamo=True, dynamic_shapes=({0: torch.export.Dim.AUTO},), verbose=False)


def by_inductor(model: nn.Module, x: Tensor, path: Path) -> None:
    from torch._inductor import aoti_compile_and_package

    aoti_compile_and_package(program(model, x), package_path=str(path))


PEERS: dict[str, tuple[str, str, Callable[[nn.Module, Tensor, Path], None]]] = {
    "torchscript": ("torch.jit.trace, save", ".pt", by_trace),
    "pt2": ("torch.export, save", ".pt2", by_export),
    "onnx": ("torch.onnx.export", ".onnx", by_onnx),
    "aoti": ("torch.export, AOTInductor", ".pt2", by_inductor),
}
"""Of each format torch's own way, the suffix of its files, and the function."""


def run() -> tuple[Table, ...]:
    models: dict[str, tuple[nn.Module, Tensor]] = {
        "a branch between two submodules": (Submodules().eval(), torch.randn(3, 16)),
        "two layers of a transformer": (Layers().eval(), torch.randn(3, 16, 64)),
    }
    with tempfile.TemporaryDirectory() as folder:
        return tuple(table(format, models, Path(folder)) for format in PEERS)


def table(format: str, models: dict[str, tuple[nn.Module, Tensor]], folder: Path) -> Table:
    peer, suffix, theirs = PEERS[format]
    path = folder / f"model{suffix}"
    rows = []
    for name, (model, x) in models.items():

        def ours(model: nn.Module = model, x: Tensor = x) -> None:
            hj.export(model, (x,), format=format, devices=["cpu"]).save(path)

        def other(model: nn.Module = model, x: Tensor = x) -> None:
            theirs(model, x, path)

        if ROUNDS[format] > 1:  # what torch imports and makes once
            for each in (ours, other):
                cold(each)
        rows.append(paired(name, [(cold(ours), cold(other)) for _ in range(ROUNDS[format])]))
    return Table(f"export to {format}, compare and save", peer, tuple(rows))


def cold(function: Callable[[], None]) -> float:
    """What a call spends without what torch caches on disk, the compilers that it starts included."""
    with quiet(), torch.no_grad(), torch._inductor.utils.fresh_cache():
        return once(function)
