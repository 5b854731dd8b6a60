"""Runs the benchmarks, or those named: `python -m benchmarks [control] [eager] [export_time] [flags] … [power]`."""

import argparse
from collections.abc import Callable
from pathlib import Path

from . import control, eager, export_time, flag_formats, flags, power
from .table import Table, environment, write

BENCHMARKS: dict[str, Callable[[], tuple[Table, ...]]] = {
    "control": control.run,
    "eager": eager.run,
    "export_time": export_time.run,
    "flag_formats": flag_formats.run,
    "flags": flags.run,
    "power": power.run,
}


def main() -> int:
    """Prints the tables of each and writes them as JSON; returns 1 if a claim does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="default: %(default)s")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    print("  ".join(f"{name} {value}" for name, value in environment().items()))
    tables: list[Table] = []
    for name in options.names or BENCHMARKS:
        made = BENCHMARKS[name]()
        print("", *made, sep="\n\n" if len(made) > 1 else "\n")
        write(made, options.out / f"{name}.json")
        tables += made
    return 0 if all(table.held for table in tables) else 1


if __name__ == "__main__":
    raise SystemExit(main())
