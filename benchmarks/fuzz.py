"""Random programs in eager mode and captured: `python -m benchmarks.fuzz --programs 20000 --seed 0`.

The programs and the comparison are those of `tests/fuzz`, of which CI runs a minute. A program is known
by the seed and its number: `--only 1234` runs one again, and prints what differs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import torch

from tests.fuzz.compare import Outcome, compare
from tests.fuzz.programs import generate

from .table import environment

CHUNK = 250
"""Programs per process: one that torch ends with a segmentation fault takes no other with it."""


def run_one(seed: int, number: int, capture: str, leaving: bool = False) -> Outcome:
    program = generate(Random(f"{seed}-{number}"), leaving)
    return compare(program, number, capture, gradients=number % 3 == 0)


def run_chunk(seed: int, numbers: range, capture: str, leaving: bool) -> None:
    """Prints a line of JSON per program."""
    torch.set_num_threads(1)
    for number in numbers:
        print(json.dumps({"at": number}), flush=True)
        outcome = run_one(seed, number, capture, leaving)
        row = {"number": number, "kind": outcome.kind, "detail": outcome.detail, "sides": outcome.sides}
        print(json.dumps({**row, "gradients": outcome.gradients}), flush=True)


def run(seed: int, numbers: range, capture: str, leaving: bool) -> list[dict[str, Any]]:
    """Runs programs in processes of their own."""
    rows: list[dict[str, Any]] = []
    start = numbers.start
    while start < numbers.stop:
        stop = min(start + CHUNK, numbers.stop)
        command = [sys.executable, "-m", "benchmarks.fuzz", "--seed", str(seed), "--chunk", str(start), str(stop)]
        command += ["--capture", capture, *(["--leaving"] if leaving else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        rows += [line for line in lines if "kind" in line]
        start = stop
        if done.returncode:
            at = max((line["at"] for line in lines if "at" in line), default=stop - 1)
            error = (done.stderr.strip().splitlines() or [""])[-1]
            rows.append({"number": at, "kind": "crash", "detail": f"exit code {done.returncode}: {error}"})
            start = at + 1
        print(f"{capture}: {len(rows)} programs: {dict(Counter(row['kind'] for row in rows))}", flush=True)
    return rows


def tally(rows: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = Counter(row["kind"] for row in rows)
    refused = Counter(_reason(row["detail"]) for row in rows if row["kind"] == "refused")
    return {
        "programs": len(rows),
        "outcomes": dict(kinds.most_common()),
        "sides taken": sum(row.get("sides", 0) for row in rows),
        "with gradients": sum(row.get("gradients", False) for row in rows),
        "refused because": dict(refused.most_common()),
        "defects": [row for row in rows if row["kind"] in ("wrong", "crash")],
    }


def _reason(detail: str) -> str:
    """The first line of a message, without the names of functions in it."""
    first = detail.splitlines()[0]
    for reason in ("changes a tensor in place that was made outside of it", "does not do the same when it runs again"):
        if reason in first:
            return reason
    return first


def main() -> int:
    """Writes the tally as JSON; returns 1 if there is a defect."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--programs", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--first", type=int, default=0, help="number of the first program")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--capture", default="trace", choices=["trace", "export"])
    parser.add_argument("--leaving", action="store_true", help="programs that leave attributes and items behind")
    parser.add_argument("--only", type=int, help="run this program alone")
    parser.add_argument("--chunk", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/fuzz_<capture>[_leaving].json")
    options = parser.parse_args()
    if options.chunk:
        run_chunk(options.seed, range(*options.chunk), options.capture, options.leaving)
        return 0
    if options.only is not None:
        outcome = run_one(options.seed, options.only, options.capture, options.leaving)
        print(outcome.kind, outcome.detail)
        return int(outcome.defect)
    started = time.monotonic()
    numbers = range(options.first, options.first + options.programs)
    rows = run(options.seed, numbers, options.capture, options.leaving)
    result = {"environment": environment(), "seed": options.seed, "capture": options.capture, **tally(rows)}
    result["seconds"] = round(time.monotonic() - started)
    kind = f"{options.capture}_leaving" if options.leaving else options.capture
    out = options.out or Path(f"benchmarks/results/fuzz_{kind}.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result["outcomes"]))
    return int(bool(result["defects"]))


if __name__ == "__main__":
    raise SystemExit(main())
