"""Two combinations of flags in each format: how large the file is against one's, and what is in memory once loaded."""

import gc
import math
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

import hybridjit as hj

from .flags import Text, measured, resident, size
from .table import Row, Table, spent

SUFFIXES = {"torchscript": ".pt", "pt2": ".pt2", "onnx": ".onnx", "aoti": ".pt2"}
MOST = {"torchscript": 1.01, "pt2": 1.02, "onnx": 1.02, "aoti": 1.1}
ONE, LARGEST, TWO = "one combination", 6144 * 6144, 2


def tokens() -> Tensor:
    return torch.ones(1, 16, dtype=torch.int64)


def path_of(folder: Path, format: str, count: int) -> Path:
    return folder / f"{format}_{count}{SUFFIXES[format]}"


def measure_export(folder: Path, format: str, count: int) -> dict[str, float]:
    """One combination is a file without flags."""
    torch.manual_seed(0)
    model = Text("wide").eval()
    flags = {"narrow": (False, True)} if count > 1 else None
    started = spent()
    exported = hj.export(model, tokens(), format=format, flags=flags, devices=["cpu"])
    seconds = spent() - started
    path = path_of(folder, format, count)
    exported.save(path)
    return {"size": size(path), "seconds": seconds}


def measure_load(folder: Path, format: str, count: int) -> dict[str, float]:
    """Memory after a call of each combination, and in how many places its largest weights are there."""
    before = resident()
    exported = hj.load(path_of(folder, format, count))
    for narrow in (False, True)[:count]:
        exported(tokens(), **({"narrow": narrow} if count > 1 else {}))
    gc.collect()
    return {"memory": resident() - before, "copies": copies(exported)}


def copies(exported: hj.Exported) -> int:
    """In how many memories the largest weights are that the programs, the package or the graph of a file use."""
    module = exported.module
    if exported.format == "onnx":
        return sum(math.prod(each.dims) == LARGEST for each in module.graph.initializer)
    if exported.format == "pt2":
        programs = module.values() if isinstance(module, dict) else [module]
        held = [tensor for program in programs for tensor in program.state_dict.values()]
    elif exported.format == "torchscript":
        held = list(module.state_dict().values())
    else:  # those of one model are in its code
        held = list(getattr(exported._runner, "weights", ()))
    return len({tensor.untyped_storage().data_ptr() for tensor in held if tensor.numel() == LARGEST})


MEASURES: dict[str, Callable[..., dict[str, float]]] = {"export": measure_export, "load": measure_load}


def run() -> tuple[Table, ...]:
    found: dict[str, Mapping[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for format in MOST:
            for count in (1, 2):
                for name in MEASURES:
                    made = measured(name, Path(folder), format, count, module=__name__)
                    found |= {f"{format} {count}": {**found.get(f"{format} {count}", {}), **made}}
                    path = path_of(Path(folder), format, count)
                path.unlink()
        peer = measured("package", Path(folder))
    sizes = [
        Table(
            f"{format}: file of two combinations",
            ONE,
            (row(found, format, "size"),),
            f"at most {most} of one",
            most,
            "B",
        )
        for format, most in MOST.items()
    ]
    packed = Row("package_pt2", found["pt2 2"]["size"], peer["size"], found["pt2 2"]["size"] / peer["size"])
    return (
        *sizes,
        Table(
            "pt2: file of two combinations beside torch's own packing", "torch's", (packed,), "at most 0.51", 0.51, "B"
        ),
        Table(
            "memories that hold the two largest weights after load",
            "weights",
            tuple(Row(f, found[f"{f} 2"]["copies"], TWO, found[f"{f} 2"]["copies"] / TWO) for f in MOST),
            "one each",
            1.0,
            "",
        ),
        Table(
            "memory after load and a call of each",
            ONE,
            tuple(row(found, format, "memory") for format in MOST),
            unit="B",
        ),
        Table("time of export", ONE, tuple(row(found, format, "seconds") for format in MOST)),
    )


def row(found: Mapping[str, Mapping[str, float]], format: str, key: str) -> Row:
    one, two = found[f"{format} 1"][key], found[f"{format} 2"][key]
    return Row(format, two, one, two / one)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of torch.jit, which is deprecated
    name, place, format, count = sys.argv[1:]
    print(" ".join(f"{key}={value}" for key, value in MEASURES[name](Path(place), format, int(count)).items()))
