"""The memory that a large model takes, beside the model: `python -m benchmarks.robustness large [--count GIGABYTES]`.

Its weights are mapped from sparse files, so that the model itself is in no memory that can't be had back. What is
measured is the memory of the process that is in no file, as Linux tells it to another process while each stage runs.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import torch
from torch import Tensor, nn

import hybridjit as hj

WIDTH = 4096
STATED = {"export": 1.1, "save": 0.1, "load": 1.1, "call": 0.1}
"""Times the weights: what each stage adds to what is there when it begins."""
ROOM = {"disk": 2.2, "memory": 1.3}
"""Times the weights: the disk (the file, and what `export` remembers, or the saved copy) and memory that it needs."""


def build(folder: Path, layers: int) -> nn.Module:
    """Linear layers whose weights are holes in files, but for one; so what they compute is not 0."""
    parts = []
    for index in range(layers):
        weight = torch.from_file(str(folder / f"{index}.weight"), shared=True, size=WIDTH * WIDTH)
        weight[0] = 1 + index / layers
        layer = nn.Linear(WIDTH, WIDTH, bias=False, device="meta")
        layer.weight = nn.Parameter(weight.view(WIDTH, WIDTH), requires_grad=False)
        parts.append(layer)
    return nn.Sequential(*parts).eval()


def expected(x: Tensor, layers: int) -> Tensor:
    """What the model gives, without its weights."""
    for index in range(layers):
        x = torch.cat([x[:, :1] * (1 + index / layers), x[:, 1:] * 0], dim=1)
    return x


def stages(folder: Path, layers: int, *, again: bool) -> None:
    """Exports and saves, or, in another process, loads and calls; tells what begins on a line."""
    x, path = torch.ones(1, WIDTH), folder / "model.pt"
    hj.export(nn.Linear(2, 2).eval(), torch.ones(1, 2), devices=["cpu"]).save(folder / "small.pt")
    hj.load(folder / "small.pt")  # what is imported once
    if not again:
        model = build(folder, layers)
        print("export", flush=True)
        exported = hj.export(model, x, devices=["cpu"])
        print("save", flush=True)
        exported.save(path)
    else:
        print("load", flush=True)
        loaded = hj.load(path)
        print("call", flush=True)
        result = loaded(x)
        print("right" if torch.equal(result, expected(x, layers)) else "WRONG", flush=True)


def own_memory(process: int) -> int:
    """Bytes of a process that are in no file; 0 once it has ended."""
    try:
        found = re.search(r"^RssAnon:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    except ProcessLookupError:
        found = None
    return int(found[1]) * 1024 if found else 0


def watched(command: list[str]) -> dict[str, int]:
    """The most bytes that a process adds in each stage that it tells of; how it ended, if not well."""
    begun: dict[str, int] = {}
    most: dict[str, int] = {}
    ended = threading.Event()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:

        def watch() -> None:
            while not ended.wait(0.01):
                now = own_memory(child.pid)
                for stage in list(begun)[-1:]:
                    most[stage] = max(most[stage], now - begun[stage])

        watcher = threading.Thread(target=watch)
        watcher.start()
        assert child.stdout is not None
        for line in child.stdout:
            most[line.strip()] = 0
            begun[line.strip()] = own_memory(child.pid)
        ended.set()
        watcher.join()
    return most | ({f"ended by {child.returncode}": 0} if child.returncode else {})


def lacking(folder: Path, size: int) -> str:
    """What a model of so many bytes needs that is not here; nothing if it is."""
    if not Path("/proc/self/status").exists():
        return "Linux, which tells what memory is in no file"
    available = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    here = {"disk": shutil.disk_usage(folder).free, "memory": int(available[1]) * 1024 if available else 0}
    short = [f"{ROOM[kind] * size / 1e9:.1f} GB of {kind}" for kind in ROOM if here[kind] < ROOM[kind] * size]
    return " and ".join(short)


def large(gigabytes: float) -> dict[str, object]:
    """Exports, saves, loads and calls a model of so many gigabytes of weights; memory in times its weights."""
    layers = max(1, round(gigabytes * 1e9 / (4 * WIDTH**2)))
    size = 4 * WIDTH**2 * layers
    found: dict[str, object] = {"gigabytes of weights": round(size / 1e9, 2)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if missing := lacking(folder, size):
            return {**found, "left out, it needs": missing}
        for index in range(layers):
            with (folder / f"{index}.weight").open("wb") as file:
                file.truncate(4 * WIDTH**2)
        for again in (False, True):
            code = f"import pathlib, benchmarks.large as it; it.stages(pathlib.Path({name!r}), {layers}, again={again})"
            told = watched([sys.executable, "-W", "ignore", "-c", code])
            found |= {what: round(most / size, 3) if what in STATED else True for what, most in told.items()}
            over = [stage for stage in told if stage in STATED and told[stage] > STATED[stage] * size]
            found |= {f"{stage}: OVER {STATED[stage]}": True for stage in over}
    return found
