"""What guards cost when a file runs, and what finding them costs an export: `python -m benchmarks.arena.cost`.

Each model of the arena is exported twice from its first input: as ever, and with `on_frozen="ignore"`, which is a
trace and its verification. At run time a file is compared with itself, its guards taken out: one without guards has
nothing to compare, and what is kept dynamic beside them (a loop that a trace has unrolled, say) is no cost of theirs.
"""

import argparse
import copy
import functools
import json
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

import hybridjit as hj
from hybridjit import _torch

from ..table import Row, Table, environment, paired
from . import libraries
from .cases import load_cases
from .judge import first_line

PAIRS = 15
SECONDS = 0.05
"""How long one half of a pair runs at least."""


def export(case: Any, on_frozen: str) -> tuple[hj.Exported, float]:
    """An export of a model of its own, and its seconds."""
    model = copy.deepcopy(case.model).eval()  # layers of einops forget it when copied
    torch.manual_seed(0)
    started = time.perf_counter()
    exported = hj.export(model, case.first, on_frozen=on_frozen, rtol=1e-3, atol=1e-4)
    return exported, time.perf_counter() - started


def seconds(function: Any, flat: tuple[Tensor, ...], runs: int) -> float:
    started = time.perf_counter()
    for _ in range(runs):
        function(*flat)
    return (time.perf_counter() - started) / runs


def unguarded(graph: Any) -> Any:
    """A graph without its guards and what is computed for them alone; ``None`` if it has none."""
    graph = graph.copy()
    nodes = _torch.every_node(graph)
    used = {value.unique() for node in nodes for value in node.outputs() if value.uses()}
    guards = [node for node in nodes if is_guard(node)]
    for guard in guards:
        guard.destroy()
    for node in reversed(_torch.every_node(graph)):
        values = list(node.outputs())
        left = any(value.unique() in used for value in values) and not any(value.uses() for value in values)
        if left and node.kind() not in ("prim::Loop", "prim::If"):
            node.destroy()
    return graph if guards else None


def is_guard(node: Any) -> bool:
    """Whether a node does nothing but raise on one side."""
    blocks = [list(block.nodes()) for block in node.blocks()] if node.kind() == "prim::If" else []
    raises = [bool(block) and block[-1].kind() == "prim::RaiseException" for block in blocks]
    return not list(node.outputs()) and sorted(raises) == [False, True] and not blocks[raises.index(False)]


def compared(name: str, exported: hj.Exported, case: Any) -> Row | None:
    """A file with and without its guards on the first input, in turns; ``None`` if it has none."""
    graph = _torch.inlined(exported.module, "forward")
    if (plain := unguarded(graph)) is None:
        return None
    inputs = case.first.args, case.first.kwargs
    flat = hj.TracingAdapter(case.model, *inputs).flatten(*inputs[0], **inputs[1])
    ours, peer = (functools.partial(_torch.function_of(each), exported.module) for each in (graph, plain))
    for function in (ours, peer):
        seconds(function, flat, 5)  # torch profiles the first runs, and optimises after them
    runs = max(1, round(SECONDS / seconds(peer, flat, 2)))
    pairs = [(seconds(ours, flat, runs), seconds(peer, flat, runs)) for _ in range(PAIRS)]
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
                _, plain = export(case, "ignore")
                ours, whole = export(case, "guard")
            except hj.HybridJitError as error:
                left[name] = first_line(error)
                continue
            exporting.append(Row(name, whole, plain, whole / plain))
            if (row := compared(name, ours, case)) is not None:
                running.append(row)
            print(exporting[-1], row or "", flush=True)
    tables = []
    for title, peer, rows, most, worst in (
        ("run time with guards", "unguarded", running, 1.03, 1.10),
        ("export with the search for frozen values", "ignored", exporting, 3.0, float("inf")),
    ):
        if not rows:
            continue
        middle = median(row.ratio for row in rows)
        summary = Row("median", median(r.ours for r in rows), median(r.peer for r in rows), middle)
        last = max(rows, key=lambda row: row.ratio)
        tables.append(Table(title, peer, (*rows,)))
        tables.append(Table(f"{title}: median", peer, (summary,), f"at most {most}", most))
        if worst < float("inf"):
            tables.append(Table(f"{title}: worst", peer, (last,), f"at most {worst}", worst))
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
