"""The inputs that share one capture, each with what leaves its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from .leaks import Leak
from .survey import Occurrence, Seen, occurrences, proven, values_of

Sizes: TypeAlias = tuple[tuple[int, ...], ...]
"""The sizes of every tensor of an input."""


@dataclass(frozen=True)
class Member:
    """One of the inputs.

    Attributes:
        name: What it is called.
        flat: Its tensors, of its own.
        leaks: What leaves a trace of it, in order.
        values: For each, what it is in the captures that compute the same.
        places: For each, what identifies it.
        sizes: The sizes of the tensors, for each input that computes the same and was given by the user.
        proven: The leaks that need no guard on its path.
    """

    name: str
    flat: tuple[Tensor, ...]
    leaks: tuple[Leak, ...]
    values: tuple[tuple[Any, ...], ...]
    places: tuple[Occurrence, ...]
    sizes: frozenset[Sizes]
    proven: Mapping[Occurrence, str]

    @staticmethod
    def of(group: Sequence[Seen], flats: Sequence[tuple[Tensor, ...]], innocent: Mapping[Occurrence, str]) -> Member:
        """One of the captures that compute the same, for all of them; with the tensors of those that were given."""
        leaks, known = group[0].captured.leaks, values_of(group)
        places = tuple(occurrences(leaks))
        values = tuple(known[place] for place in places)
        sizes = frozenset(tuple(tuple(tensor.shape) for tensor in flat) for flat in flats)
        return Member(group[0].name, flats[0], leaks, values, places, sizes, proven(group, innocent))


def ranks_of(group: Sequence[Member]) -> set[tuple[int, ...]]:
    """How many dimensions the tensors of some inputs have, each list of numbers once."""
    return {tuple(len(size) for size in each) for member in group for each in member.sizes}


def by_sizes(members: Sequence[Member]) -> list[list[Member]]:
    """The inputs that sizes do not tell apart, together; the first one's first."""
    classes: list[list[Member]] = []
    for each in members:
        same = next((known for known in classes if any(one.sizes & each.sizes for one in known)), None)
        if same is None:
            classes.append([each])
        else:
            same.append(each)
    return classes
