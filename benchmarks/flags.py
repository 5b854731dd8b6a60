"""How large one file with several combinations of flags is, and what its export and its loading take."""

import functools
import itertools
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

import hybridjit as hj

from .models import Encoder
from .table import Row, Table

FLAGS = ("pool", "normalize", "scale", "narrow")
COUNTS = {"wide": (1, 2, 4, 8, 16), "deep": (1, 16)}
VOCABULARY = 20_000


class Wide(nn.Sequential):
    """Few large layers: takes and returns `[n, tokens, 768]`."""

    def __init__(self) -> None:
        super().__init__(
            nn.Linear(768, 6144), nn.GELU(), nn.Linear(6144, 6144), nn.GELU(), nn.Linear(6144, 6144), nn.GELU(),
            nn.Linear(6144, 768),
        )  # fmt: skip


class Text(nn.Module):
    """A model of 100 million parameters with four flags, each of which changes what it returns.

    Args:
        kind: ``"wide"``, of 20 operations, or ``"deep"``, a transformer of twelve layers and 900 operations.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 768)
        self.encoder = Wide() if kind == "wide" else Encoder()

    def forward(
        self, tokens: Tensor, pool: bool = False, normalize: bool = False, scale: bool = False, narrow: bool = False
    ) -> Tensor:
        y: Tensor = self.encoder(self.embed(tokens))
        y = y.mean(1) if pool else y
        y = nn.functional.normalize(y, dim=-1) if normalize else y
        y = y * 2 if scale else y
        return y[..., :64] if narrow else y


class Flagged(nn.Module):
    """The model with its flags held fast, for those that have no flags."""

    def __init__(self, model: nn.Module, flags: Mapping[str, bool]) -> None:
        super().__init__()
        self.model = model
        self.flags = dict(flags)

    def forward(self, tokens: Tensor) -> Any:
        return self.model(tokens, **self.flags)


def combinations(count: int) -> list[dict[str, bool]]:
    every = [dict(zip(FLAGS, values, strict=True)) for values in itertools.product((False, True), repeat=len(FLAGS))]
    return every[:count]


def weights(model: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())


def resident() -> int:
    """Bytes of memory that this process has now, where the system tells."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak() -> int:
    """The most that this program had: ``ru_maxrss`` would count what the process was before it ran this program."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def warm_up() -> None:
    """What torch makes and imports once a process is none of a model's."""
    model = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True).eval()
    exported = hj.export(Flagged(model, {}).eval(), torch.ones(1, 2, 8), devices=["cpu"])
    exported(torch.ones(1, 2, 8))


def measure_export(folder: Path, kind: str, count: int) -> dict[str, float]:
    warm_up()
    before = resident()
    torch.manual_seed(0)
    model = Text(kind).eval()
    started = time.perf_counter()
    exported = hj.export(model, torch.ones(1, 16, dtype=torch.int64), flags=combinations(count), devices=["cpu"])
    seconds = time.perf_counter() - started
    memory = peak() - before
    path = folder / f"{kind}_{count}.pt"
    exported.save(path)
    torch.jit.save(exported.module.to(torch.bfloat16), folder / "half.pt")
    return {
        "seconds": seconds,
        "peak": memory,
        "whole": peak(),
        "weights": weights(model),
        "size": path.stat().st_size,
        "half": (folder / "half.pt").stat().st_size,
    }


def measure_load(folder: Path, kind: str, count: int) -> dict[str, float]:
    warm_up()
    before = resident()
    started = time.perf_counter()
    exported = hj.load(folder / f"{kind}_{count}.pt")
    seconds = time.perf_counter() - started
    for flags in combinations(count):
        exported(torch.ones(1, 16, dtype=torch.int64), **flags)
    return {"seconds": seconds, "peak": peak() - before}


def hand_made(folder: Path) -> dict[str, float]:
    """Two traces side by side in one module."""
    model = Text("wide").eval()
    tokens = torch.ones(1, 16, dtype=torch.int64)
    both = nn.Module()
    with torch.no_grad():
        for index, flags in enumerate(combinations(2)):
            traced = torch.jit.trace(Flagged(model, flags).eval(), tokens)  # type: ignore[no-untyped-call]
            both.add_module(f"trace_{index}", traced)
    torch.jit.save(torch.jit.script(both), folder / "hand.pt")
    loaded = torch.jit.load(folder / "hand.pt").to(torch.bfloat16)  # type: ignore[no-untyped-call]
    torch.jit.save(loaded, folder / "hand_half.pt")
    return {"size": size(folder / "hand.pt"), "half": size(folder / "hand_half.pt"), "peak": peak()}


def programs(count: int) -> tuple[nn.Module, dict[str, Any], Tensor]:
    model = Text("wide").eval()
    tokens = torch.ones(1, 16, dtype=torch.int64)
    made = {
        f"program_{index}": torch.export.export(Flagged(model, flags).eval(), (tokens,))
        for index, flags in enumerate(combinations(count))
    }
    return model, made, tokens


def exported_programs(folder: Path) -> dict[str, float]:
    """`torch.export.save` of each, which knows one program a file."""
    _, made, _ = programs(2)
    for name, program in made.items():
        torch.export.save(program, folder / f"{name}.pt2")
    return {"size": sum(size(folder / f"{name}.pt2") for name in made), "peak": peak()}


def packaged_programs(folder: Path) -> dict[str, float]:
    """Both programs in one archive, by the function that `torch.export.save` calls."""
    from torch.export.pt2_archive._package import package_pt2

    _, made, _ = programs(2)
    package_pt2(folder / "both.pt2", exported_programs=made)
    return {"size": size(folder / "both.pt2"), "peak": peak()}


def compiled_programs(folder: Path) -> dict[str, float]:
    """Both programs compiled by AOTInductor, in one archive."""
    from torch._inductor import aot_compile
    from torch.export.pt2_archive._package import package_pt2

    _, made, tokens = programs(2)
    files: dict[str, Any] = {
        name: aot_compile(program.module(), (tokens,), options={"aot_inductor.package": True})
        for name, program in made.items()
    }
    package_pt2(folder / "compiled.pt2", aoti_files=files)
    return {"size": size(folder / "compiled.pt2"), "peak": peak()}


def size(path: Path) -> int:
    return path.stat().st_size


MEASURES: dict[str, Callable[..., dict[str, float]]] = {
    "export": measure_export,
    "load": measure_load,
    "hand": hand_made,
    "programs": exported_programs,
    "package": packaged_programs,
    "compiled": compiled_programs,
}


def measured(name: str, folder: Path, *arguments: object, module: str = __name__) -> dict[str, float]:
    """One measure of a benchmark, in a process of its own: a peak is a process's."""
    command = [sys.executable, "-m", module, name, str(folder), *map(str, arguments)]
    made = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, float] = {}
    for pair in made.stdout.splitlines()[-1].split():
        key, _, value = pair.partition("=")
        figures[key] = float(value)
    return figures


PEERS = {
    "hand": "two traces in one module, torch.jit.save",
    "programs": "torch.export.save, two files",
    "package": "package_pt2, two programs",
    "compiled": "AOTInductor, two programs",
}
Figures: TypeAlias = Mapping[int, Mapping[str, float]]


def run() -> tuple[Table, ...]:
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        tables = [table for kind in COUNTS for table in tables_of(kind, where)]
        two = measured("export", where, "wide", 2)
        peers: dict[str, Mapping[str, float]] = {}
        for name in PEERS:
            try:
                peers[name] = measured(name, where)
            except subprocess.CalledProcessError as error:  # AOTInductor needs a compiler, say
                print(f"left out: {PEERS[name]}: {error.stderr.strip().splitlines()[-1]}", file=sys.stderr)
    found = [beside(PEERS[name], two, peer, "size") for name, peer in peers.items()]
    if "hand" in peers:
        found.insert(1, beside("the same in bfloat16, saved again", two, peers["hand"], "half"))
    beside_others = Table("file of two combinations of the wide model", "the other's", tuple(found), unit="B")
    return (*tables, beside_others)


def tables_of(kind: str, folder: Path) -> tuple[Table, ...]:
    exports = {count: measured("export", folder, kind, count) for count in COUNTS[kind]}
    loads = {count: measured("load", folder, kind, count) for count in COUNTS[kind]}
    one = exports[1]
    table = functools.partial(Table, unit="B")
    return (
        table(f"{kind}: file", ONE, rows(exports, "size"), "at most 1.01 of one", 1.01),
        table(f"{kind}: file in bfloat16, saved again", ONE, rows(exports, "half"), "at most 1.01 of one", 1.01),
        table(f"{kind}: peak memory of export", ONE, rows(exports, "peak"), "at most 1.05 of one", 1.05),
        table(
            f"{kind}: peak memory of export, the model included",
            "weights",
            (Row("1 combination", one["peak"], one["weights"], one["peak"] / one["weights"]),),
            "at most 2.2 of the weights",
            2.2,
        ),
        Table(
            f"{kind}: time of export, ratio for each combination",
            ONE,
            rows(exports, "seconds", each=True),
            "at most 1.2 of one alone",
            1.2,
        ),
        Table(f"{kind}: time of load", ONE, rows(loads, "seconds")),
        table(f"{kind}: peak memory of load and a call of each", ONE, rows(loads, "peak")),
    )


ONE = "one combination"


def rows(figures: Figures, key: str, each: bool = False) -> tuple[Row, ...]:
    first = figures[1][key]
    made = [(count, figures[count][key]) for count in figures if count > 1]
    return tuple(
        Row(f"{count} combinations", much, first, much / first / (count if each else 1)) for count, much in made
    )


def beside(name: str, ours: Mapping[str, float], peer: Mapping[str, float], key: str) -> Row:
    return Row(name, ours[key], peer[key], ours[key] / peer[key])


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of the peers, which are deprecated or say what they freeze
    name, place, *rest = sys.argv[1:]
    result = MEASURES[name](Path(place), *(int(each) if each.isdigit() else each for each in rest))
    print(" ".join(f"{key}={value}" for key, value in result.items()))
