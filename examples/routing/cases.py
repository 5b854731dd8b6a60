"""What the three models have in common: random inputs, the path that each takes, and the export."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import hybridjit as hj

from . import decode, depth, experts


@dataclass(frozen=True)
class Case:
    """A model to export.

    Attributes:
        name: What it is called.
        build: Makes it, in eval mode.
        draw: Draws a random input of random size.
        path_of: Tells from a result which path its input took.
        paths: Every path there is, the one to trace first.
    """

    name: str
    build: Callable[[], nn.Module]
    draw: Callable[[torch.Generator], Tensor]
    path_of: Callable[[Any], str]
    paths: tuple[str, ...]

    def inputs(self, model: nn.Module) -> dict[str, Tensor]:
        """An input for every path, in the order of `paths`."""
        found: dict[str, Tensor] = {}
        generator = torch.Generator().manual_seed(0)
        for _ in range(1000):  # the rarest path is one in twenty
            drawn = self.draw(generator)
            found.setdefault(self.path_of(model(drawn)), drawn)
            if len(found) == len(self.paths):
                break
        return {path: found[path] for path in self.paths}

    def export(self, model: nn.Module) -> hj.Exported:
        """Traces one path, and verifies on an input for each."""
        traced, *others = self.inputs(model).values()
        return hj.export(model, (traced,), check_inputs=others)


CASES = (
    Case(
        "experts",
        experts.build,
        experts.draw,
        experts.path_of,
        ("4 of 4 experts", "3 of 4 experts", "2 of 4 experts", "no tokens"),
    ),
    Case("depth", depth.build, depth.draw, depth.path_of, tuple(f"{layers} of 4 layers" for layers in range(1, 5))),
    Case(
        "decode",
        decode.build,
        decode.draw,
        decode.path_of,
        ("ends on the way", "nothing to add", "ends with the first word", "goes on to the limit"),
    ),
)


@dataclass(frozen=True)
class Row:
    """How a loaded file did on the inputs that took one path.

    Attributes:
        path: The path.
        inputs: How many inputs took it.
        sizes: How many sizes they had.
        error: The largest absolute difference from the model.
    """

    path: str
    inputs: int
    sizes: int
    error: float


def compare(case: Case, model: nn.Module, loaded: hj.Exported, count: int) -> list[Row]:
    """Runs a model and its loaded file on random inputs that the export has not seen.

    Raises:
        AssertionError: They differ on one.
    """
    generator = torch.Generator().manual_seed(1)
    inputs: Counter[str] = Counter()
    sizes: defaultdict[str, set[torch.Size]] = defaultdict(set)
    errors: defaultdict[str, float] = defaultdict(float)
    for _ in range(count):
        drawn = case.draw(generator)
        expected, got = model(drawn), loaded(drawn)
        torch.testing.assert_close(got, expected)
        path = case.path_of(expected)
        inputs[path] += 1
        sizes[path].add(drawn.shape)
        errors[path] = max(errors[path], difference(got, expected))
    return [Row(path, inputs[path], len(sizes[path]), errors[path]) for path in case.paths]


def difference(got: Any, expected: Any) -> float:
    """The largest absolute difference between two results."""
    pairs = [(got, expected)] if isinstance(got, Tensor) else zip(got, expected, strict=True)
    return max(((a - b).abs().max().item() for a, b in pairs if a.numel()), default=0.0)
