"""Runs the arena, or a part of it: `python -m benchmarks.arena --only bert --columns trace,untold`.

What is in the results already is not run again, unless `--again`; so a run may be stopped and gone on with.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from ..table import environment
from . import libraries
from .cases import load_cases
from .columns import COLUMNS, HYBRID, LEFT_OUT
from .process import limited, work
from .tables import by_model, summary

Results = dict[str, dict[str, Any]]


def run_one(name: str, column: str, limit: int) -> dict[str, Any]:
    """One model, one column: when it was made, what became of each input, how the process ended."""
    handle, path = tempfile.mkstemp(suffix=".jsonl")
    os.close(handle)
    try:
        ended = limited(work, (name, column, path), limit)
        lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    finally:
        os.unlink(path)
    made = [line for line in lines if "input" not in line]
    return {
        "seconds": round(sum(line["seconds"] for line in made), 2),
        "error": next((line["error"] for line in made if line["error"]), ""),
        "ended": ended,
        "inputs": [{**line, "seconds": round(line["seconds"], 4)} for line in lines if "input" in line],
    }


def write(results: Results, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {
        "environment": {**environment(), "threads": 1, "torchvision operations stand in": libraries.stands_in()},
        "releases": libraries.versions(),
        "models": results,
    }
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(data, indent=1) + "\n")
    temporary.replace(path)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.arena", description=__doc__)
    parser.add_argument("--only", default="", help="parts of the names of models, with commas (default: all)")
    parser.add_argument("--columns", default=",".join(COLUMNS), help="with commas (default: %(default)s)")
    parser.add_argument(
        "--limit", type=int, default=120, help="processor seconds for a model and column (default: %(default)s)"
    )
    parser.add_argument("--again", action="store_true", help="also what is in the results already")
    parser.add_argument("--list", action="store_true", help="only the names of the models")
    parser.add_argument("--table", action="store_true", help="only print what is in the results")
    parser.add_argument("--said", action="store_true", help="with each input that was not right, why")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/arena.json"), help="default: %(default)s")
    options = parser.parse_args()
    columns = [column for column in options.columns.split(",") if column]
    if unknown := set(columns) - set(COLUMNS):
        parser.error(f"no column {', '.join(sorted(unknown))}; there are {', '.join(COLUMNS)}")
    libraries.ready()
    wanted = [part for part in options.only.split(",") if part]
    names = [name for name in load_cases() if not wanted or any(part in name for part in wanted)]
    if options.list:
        print(*names, sep="\n")
        return 0
    results: Results = json.loads(options.out.read_text())["models"] if options.out.exists() else {}
    for name in names if not options.table else ():
        for column in columns:
            if column in results.get(name, {}) and not options.again:
                continue
            # Left-out exports once for each input.
            one = run_one(name, column, options.limit * (4 if column == LEFT_OUT else 2 if column in HYBRID else 1))
            results.setdefault(name, {})[column] = one
            write(results, options.out)
            verdicts = " ".join(line["verdict"] for line in one["inputs"])
            print(f"{name:42} {column:9} {verdicts} {one['ended']} {one['seconds']:.1f} s", flush=True)
            if options.said:
                print(*said(one), sep="\n", end="\n" if said(one) else "", flush=True)
    known = {name: results[name] for name in names if name in results}
    print(by_model(known, columns), summary(known, columns), sep="\n\n")
    return 0


def said(one: dict[str, Any]) -> list[str]:
    """Why inputs were not right, once each."""
    lines = [f"    {line['input']}: {line['said']}" for line in one["inputs"] if line["said"]]
    return lines if not one["error"] else [f"    {one['error']}"]


if __name__ == "__main__":
    raise SystemExit(main())
