"""Exports the three models, and runs the files on other inputs: `python -m examples.routing [--out DIR]`."""

import argparse
from pathlib import Path

import torch

import hybridjit as hj

from .cases import CASES, compare


@torch.no_grad()
def main() -> None:
    """Writes a file for each model, and prints how often each path was taken and how far the file was off."""
    parser = argparse.ArgumentParser(prog="python -m examples.routing", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/routing"), help="where to write (default: %(default)s)")
    parser.add_argument("--inputs", type=int, default=200, help="new inputs for each model (default: %(default)s)")
    options = parser.parse_args()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)

    print("           in the export     on new inputs, by the loaded file")
    print(f"{'model':9}  {'verified on':26}  {'inputs':>6}  {'sizes':>5}  {'largest difference':>18}")
    for case in CASES:
        model = case.build()
        exported = case.export(model)
        exported.save(out / f"{case.name}.pt")
        loaded = hj.load(out / f"{case.name}.pt")
        for row in compare(case, model, loaded, options.inputs):
            print(f"{case.name:9}  {row.path:26}  {row.inputs:6}  {row.sizes:5}  {row.error:18.1e}")
    print(f"\nwritten to {out}: {', '.join(f'{case.name}.pt' for case in CASES)}")


if __name__ == "__main__":
    main()
