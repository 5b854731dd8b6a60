"""``python -m examples.tabular [--curve FILE]``: trains, and draws the loss curve."""

import argparse
from pathlib import Path

import torch
from torch import nn

import hybridjit as hj

from .curve import draw
from .model import table
from .train import cross_validate


def compiled(model: nn.Module) -> nn.Module:
    """The network on our backend."""
    run: nn.Module = torch.compile(model, backend="hybridjit")  # type: ignore[assignment]
    return run


def main() -> None:
    """Trains five networks, and says how good they are on what they have not seen."""
    parser = argparse.ArgumentParser(prog="python -m examples.tabular", description=__doc__)
    parser.add_argument("--curve", type=Path, default=Path("build/tabular.svg"), help="default: %(default)s")
    options = parser.parse_args()
    folds = cross_validate(*table(1000), compiled)
    for number, fold in enumerate(folds, 1):
        print(
            f"fold {number}: error {fold.held_back[-1]:.3f} on the part held back, {fold.training[-1]:.3f} in training"
        )
    mean = sum(fold.held_back[-1] for fold in folds) / len(folds)
    print(f"mean over {len(folds)} folds: {mean:.3f} of the target's variance is not explained")
    print(hj.compile_report())
    curves = {"training": [fold.training for fold in folds], "held back": [fold.held_back for fold in folds]}
    options.curve.parent.mkdir(parents=True, exist_ok=True)
    options.curve.write_text(draw('Five folds, trained with torch.compile(backend="hybridjit")', curves))
    print(f"loss curve: {options.curve}")


if __name__ == "__main__":
    main()
