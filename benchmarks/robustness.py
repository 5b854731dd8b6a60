"""Damage, killed writers, crowds, a large model: `python -m benchmarks.robustness [part …] [--count N]`.

Every case runs in a process of its own or in a batch in one, with a limit on its time: that it ended by a signal or
by the clock is a result too, and the one that must not be.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn

import hybridjit as hj

from .large import large
from .table import environment

LIMIT = 60
"""Seconds after which a batch of a hundred loads hangs."""
BATCH = 100
SUFFIXES = {"torchscript": ".pt", "pt2": ".pt2", "onnx": ".onnx"}
X = torch.tensor([[2.0, -1.0], [0.5, 3.0], [1.0, 1.0]])


class Model(nn.Module):
    """A branch, weights, and records large and small."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wide, self.back = nn.Linear(2, 64), nn.Linear(64, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.back(self.wide(x).relu())
        return {"y": hj.cond(y.sum() > 0, lambda: y * 2, lambda: y - 1)}


def damaged(data: bytes, number: int) -> tuple[str, bytes]:
    """The file with its damage of this number, and the name of it."""
    draw = random.Random(number)
    kind = ("flipped", "truncated", "swapped", "overwritten", "cut out")[number % 5]
    at = draw.randrange(len(data))
    if kind == "flipped":
        return kind, data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
    if kind == "truncated":
        return kind, data[:at]
    other = draw.randrange(len(data))
    if kind == "swapped":
        new = bytearray(data)
        new[at], new[other] = new[other], new[at]
        return kind, bytes(new)
    length = draw.randrange(1, 64)
    if kind == "overwritten":
        return kind, data[:at] + draw.randbytes(length) + data[at + length :]
    return kind, data[:at] + data[at + length :]


def load_batch(source: str, suffix: str, first: int, count: int) -> None:
    """Loads and calls, in a process of its own; tells on a line for each what came of it."""
    data = Path(source).read_bytes()
    expected = Model().eval()(X)["y"]
    path = Path(tempfile.mkdtemp()) / f"case{suffix}"
    for number in range(first, first + count):
        kind, case = damaged(data, number)
        path.write_bytes(case)
        what = "as it was" if case == data else kind
        try:
            result = hj.load(path)(X)["y"]
        except hj.ArchiveError:
            print(number, what, "refused", sep="\t", flush=True)
            continue
        except Exception as error:
            print(number, what, f"raised {type(error).__name__}", sep="\t", flush=True)
            continue
        right = torch.allclose(result, expected, rtol=1e-5, atol=1e-6)
        print(number, what, "right" if right else "WRONG", sep="\t", flush=True)


def damage(count: int) -> dict[str, dict[str, int]]:
    """For each format and kind of damage how many files came to what."""
    found: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for format, suffix in SUFFIXES.items():
            share = count if format == "torchscript" else count // 10
            source = Path(folder) / f"model{suffix}"
            hj.export(Model().eval(), X, format=format, check_inputs=[-X], devices=["cpu"]).save(source)
            for first in range(0, share, BATCH):
                code = f"from benchmarks.robustness import load_batch; load_batch({str(source)!r}, {suffix!r}, "
                code += f"{first}, {min(BATCH, share - first)})"
                try:
                    done = subprocess.run(
                        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=LIMIT * 5
                    )
                    out, ended = done.stdout, f"ended by {done.returncode}" if done.returncode else ""
                except subprocess.TimeoutExpired as error:
                    out, ended = (error.stdout or b"").decode(), "HUNG"
                for line in out.splitlines():
                    _, kind, what = line.split("\t")
                    found.setdefault(f"{format}, {kind}", Counter())[what] += 1
                if ended:
                    found.setdefault(f"{format}, a batch from {first}", Counter())[ended] += 1
    return {key: dict(each) for key, each in sorted(found.items())}


SAVERS = """
import os, sys, hybridjit as hj
loaded = [hj.load(path) for path in sys.argv[1:3]]
for line in sys.stdin:
    child = os.fork()  # what is killed; to start Python anew for each would take minutes
    if not child:
        while True:
            for each in loaded:
                each.save(sys.argv[3])
    print(child, flush=True)
    os.waitpid(child, 0)
    print("gone", flush=True)
"""


def killed(count: int) -> dict[str, int]:
    """Kills processes that save two files in turn to one path, at random moments, and looks at what is there."""
    found: Counter[str] = Counter()
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = [folder / "a.pt", folder / "b.pt"]
        for width, source in zip((200_000, 300_000), sources, strict=True):
            hj.export(nn.Linear(2, width).eval(), X, devices=["cpu"]).save(source)
        whole = [source.read_bytes() for source in sources]
        (folder / "out").mkdir()
        target = folder / "out" / "c.pt"
        target.write_bytes(whole[0])
        command = [sys.executable, "-W", "ignore", "-c", SAVERS, *map(str, sources), str(target)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as savers:
            assert savers.stdin is not None and savers.stdout is not None
            for _ in range(count):
                print("save", file=savers.stdin, flush=True)
                child = int(savers.stdout.readline())
                time.sleep(draw.uniform(0.0, 0.05))
                os.kill(child, signal.SIGKILL)
                assert savers.stdout.readline() == "gone\n"
                found["old or new" if target.read_bytes() in whole else "TORN"] += 1
                found["killed while they wrote"] += len(list((folder / "out").iterdir())) - 1  # what it left
            hj.load(sources[0]).save(target)
            found["left in the end"] = len(list((folder / "out").iterdir())) - 1
    return dict(found)


def export_and_load(number: int) -> str:
    """One of a crowd: exports a model of its own, saves and loads it."""
    torch.set_num_threads(1)
    size = 3 + number % 4
    with tempfile.TemporaryDirectory() as folder:
        model = nn.Sequential(nn.Linear(2, size), nn.ReLU()).eval()
        path = Path(folder) / "model.pt"
        hj.export(model, X, devices=["cpu"]).save(path)
        return "right" if torch.equal(hj.load(path)(X), model(X)) else "WRONG"


def crowd(count: int) -> dict[str, int]:
    """Eight threads, and four processes, that export and load at once."""
    found: Counter[str] = Counter()
    with ThreadPoolExecutor(8) as threads:
        found.update(f"threads: {each}" for each in threads.map(export_and_load, range(count)))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(4, mp_context=context) as processes:
        found.update(f"processes: {each}" for each in processes.map(export_and_load, range(count)))
    return dict(found)


PARTS: dict[str, tuple[Callable[[int], object], int]] = {
    "damage": (damage, 10_000), "killed": (killed, 200), "crowd": (crowd, 64), "large": (large, 8),
}  # fmt: skip


def main() -> int:
    """Prints the tallies and writes them as JSON; returns 1 if one is bad."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.robustness", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="part", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--count", type=int, help="how many cases of each part (default: 10000, 200, 64; gigabytes: 8)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="default: %(default)s")
    options = parser.parse_args()
    if unknown := set(options.names) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    path = options.out / "robustness.json"
    before = json.loads(path.read_text())["tallies"] if path.exists() else {}
    tallies = {}
    for name in options.names or PARTS:
        run, count = PARTS[name]
        tallies[name] = run(options.count or count)
        print(name, json.dumps(tallies[name], indent=2), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"environment": environment(), "tallies": {**before, **tallies}}, indent=2) + "\n")
    text = json.dumps(tallies)
    return int(any(word in text for word in ("WRONG", "TORN", "HUNG", "OVER", "ended by", "raised")))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    raise SystemExit(main())
