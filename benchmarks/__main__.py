"""Runs the benchmarks, or those named: `python -m benchmarks [control] [costs] [eager] …`."""

import argparse
from collections.abc import Callable
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
    print("  ".join(f"{name} {value}" for name, value in environment().items()))
    tables: list[Table] = []
    found: list[str] = []
    for name in options.names or BENCHMARKS:
        made = BENCHMARKS[name]()
        print("", *made, sep="\n\n" if len(made) > 1 else "\n")
        found += worse(made, options.against / f"{name}.json")
        write(made, options.out / f"{name}.json")
        (options.out / f"{name}.svg").write_text(picture(made))
        tables += made
    for text in found:
        print(f"worse: {text}")
    return 0 if all(table.held for table in tables) and not found else 1


if __name__ == "__main__":
    raise SystemExit(main())
