"""Runs the benchmarks, or those named: `python -m benchmarks [eager] [export_time]`."""

import argparse
from pathlib import Path

from . import eager, export_time
from .table import Table, environment, write

BENCHMARKS = {"eager": eager.run, "export_time": export_time.run}


def main() -> int:
    """Prints a table each and writes it as JSON; returns 1 if a claim does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="default: %(default)s")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    print("  ".join(f"{name} {value}" for name, value in environment().items()))
    tables: list[Table] = []
    for name in options.names or BENCHMARKS:
        table = BENCHMARKS[name]()
        print(f"\n{table}")
        write(table, options.out / f"{name}.json")
        tables.append(table)
    return 0 if all(table.held for table in tables) else 1


if __name__ == "__main__":
    raise SystemExit(main())
