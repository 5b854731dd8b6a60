"""What guards cost when a file runs, and what finding them costs an export: `python -m benchmarks.arena.cost`.

Each model of the arena is exported twice from its first input: as ever, and with `on_frozen="ignore"`, which is a
trace and its verification. Models without a guard have nothing to compare at run time.
"""

import argparse
import copy
import json
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

import hybridjit as hj

from ..table import Row, Table, environment, paired
from . import libraries
from .cases import load_cases
from .judge import first_line

PAIRS = 15
SECONDS = 0.05
"""How long one half of a pair runs at least."""


def export(case: Any, on_frozen: str) -> tuple[hj.Exported, float]:
    """An export of a model of its own, and its seconds."""
    model = copy.deepcopy(case.model)
    torch.manual_seed(0)
    started = time.perf_counter()
    exported = hj.export(model, case.first, on_frozen=on_frozen, rtol=1e-3, atol=1e-4)
    return exported, time.perf_counter() - started


def seconds(module: Any, flat: tuple[Tensor, ...], runs: int) -> float:
    started = time.perf_counter()
    for _ in range(runs):
        module(*flat)
    return (time.perf_counter() - started) / runs


def compared(name: str, ours: hj.Exported, peer: hj.Exported, case: Any) -> Row:
    """Both files on the first input, in turns."""
    inputs = case.first.args, case.first.kwargs
    flat = hj.TracingAdapter(case.model, *inputs).flatten(*inputs[0], **inputs[1])
    for module in (ours.module, peer.module):
        seconds(module, flat, 5)  # torch profiles the first runs, and optimises after them
    runs = max(1, round(SECONDS / seconds(peer.module, flat, 2)))
    pairs = [(seconds(ours.module, flat, runs), seconds(peer.module, flat, runs)) for _ in range(PAIRS)]
    return paired(name, pairs)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.arena.cost", description=__doc__)
    parser.add_argument("--only", default="", help="parts of the names of models, with commas (default: all)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/guards.json"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    libraries.ready()
    torch.set_num_threads(1)
    wanted = [part for part in options.only.split(",") if part]
    running: list[Row] = []
    exporting: list[Row] = []
    left: dict[str, str] = {}
    with torch.no_grad():
        for name, make in load_cases().items():
            if wanted and not any(part in name for part in wanted):
                continue
            case = make()
            try:
                peer, plain = export(case, "ignore")
                ours, whole = export(case, "guard")
            except hj.HybridJitError as error:
                left[name] = first_line(error)
                continue
            exporting.append(Row(name, whole, plain, whole / plain))
            if ours.report.guards:
                running.append(compared(name, ours, peer, case))
            print(exporting[-1], running[-1] if ours.report.guards else "", flush=True)
    tables = []
    for title, rows, most, worst in (
        ("run time with guards", running, 1.03, 1.10),
        ("export with the search for frozen values", exporting, 3.0, float("inf")),
    ):
        if not rows:
            continue
        middle = median(row.ratio for row in rows)
        summary = Row("median", median(r.ours for r in rows), median(r.peer for r in rows), middle)
        last = max(rows, key=lambda row: row.ratio)
        tables.append(Table(title, "ignored", (*rows,)))
        tables.append(Table(f"{title}: median", "ignored", (summary,), f"at most {most}", most))
        if worst < float("inf"):
            tables.append(Table(f"{title}: worst", "ignored", (last,), f"at most {worst}", worst))
    for table in tables:
        print(f"\n{table}")
    data = {
        "environment": {**environment(), "threads": 1},
        "releases": libraries.versions(),
        "tables": [
            {"title": table.title, "claim": table.claim, "held": table.held, "rows": [vars(row) for row in table.rows]}
            for table in tables
        ],
        "refused": left,
    }
    options.out.write_text(json.dumps(data, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
