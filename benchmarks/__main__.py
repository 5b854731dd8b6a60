"""Runs the benchmarks, or those named: `python -m benchmarks [control] [costs] [eager] …`."""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from . import control, costs, eager, export_formats, export_time, flag_formats, flags, power, run_time, wrappers
from .plot import picture
from .table import Table, environment, worse, write

BENCHMARKS: dict[str, Callable[[], tuple[Table, ...]]] = {
    "control": control.run,
    "costs": costs.run,
    "eager": eager.run,
    "export_formats": export_formats.run,
    "export_time": export_time.run,
    "flag_formats": flag_formats.run,
    "flags": flags.run,
    "power": power.run,
    "run_time": run_time.run,
    "wrappers": wrappers.run,
}
SIDE_BY_SIDE = (
    ("eager", "control", "run_time", "export_time", "export_formats", "wrappers", "flag_formats"),
    ("power", "costs", "flags"),
)
"""All of them, in two processes on two processors: times are of the processor, and the second's are mostly sizes."""


def main() -> int:
    """Prints the tables of each, writes them as JSON and as a picture; returns 1 if a claim fails or a ratio is worse.

    Worse than in the results that are there, by more than its own noise, on the same machine.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="default: %(default)s")
    parser.add_argument("--against", type=Path, default=Path("benchmarks/results"), help="default: %(default)s")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    if not options.names:
        return side_by_side(["--out", str(options.out), "--against", str(options.against)])
    print("  ".join(f"{name} {value}" for name, value in environment().items()))
    tables: list[Table] = []
    found: list[str] = []
    for name in options.names:
        made = BENCHMARKS[name]()
        print("", *made, sep="\n\n" if len(made) > 1 else "\n")
        found += worse(made, options.against / f"{name}.json")
        write(made, options.out / f"{name}.json")
        (options.out / f"{name}.svg").write_text(picture(made))
        tables += made
    for text in found:
        print(f"worse: {text}")
    return 0 if all(table.held for table in tables) and not found else 1


def side_by_side(arguments: Sequence[str]) -> int:
    """Runs all of them; prints what each process printed, once both are done."""
    command = [sys.executable, "-m", "benchmarks"]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # two threads would wait for each other's processor
    started = [
        subprocess.Popen(
            [*command, *names, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=alone
        )
        for names in SIDE_BY_SIDE
    ]
    codes = []
    for process in started:
        printed, _ = process.communicate()
        print(printed, end="")
        codes.append(process.returncode)
    return max(codes)


if __name__ == "__main__":
    raise SystemExit(main())
