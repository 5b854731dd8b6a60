"""The inputs that share one capture, each with what leaves its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from .leaks import Leak
from .survey import Occurrence, Seen, occurrences, proven, values_of

if TYPE_CHECKING:
    from .task import Known

Form: TypeAlias = tuple[tuple[torch.dtype, tuple[int, ...]], ...]
"""The dtype and the sizes of every tensor of an input."""


@dataclass(frozen=True)
class Member:
    """One of the inputs.

    Attributes:
        name: What it is called.
        flat: Its tensors, of its own.
        leaks: What leaves a trace of it, in order.
        values: For each, what it is in the captures that compute the same.
        places: For each, what identifies it.
        forms: Of the tensors, for each input that computes the same and was given by the user.
        proven: The leaks that need no guard on its path.
    """

    name: str
    flat: tuple[Tensor, ...]
    leaks: tuple[Leak, ...]
    values: tuple[tuple[Any, ...], ...]
    places: tuple[Occurrence, ...]
    forms: frozenset[Form]
    proven: Mapping[Occurrence, str]

    @staticmethod
    def of(group: Sequence[Seen], flats: Sequence[tuple[Tensor, ...]], innocent: Mapping[Occurrence, str]) -> Member:
        """One of the captures that compute the same, for all of them; with the tensors of those that were given."""
        leaks, known = group[0].captured.leaks, values_of(group)
        places = tuple(occurrences(leaks))
        values = tuple(known[place] for place in places)
        forms = frozenset(tuple((tensor.dtype, tuple(tensor.shape)) for tensor in flat) for flat in flats)
        return Member(group[0].name, flats[0], leaks, values, places, forms, proven(group, innocent))


def forms_of(group: Sequence[Member]) -> set[Form]:
    """The dtypes and sizes of the tensors of some inputs, all that there are."""
    return {form for member in group for form in member.forms}


def dtypes_of(group: Sequence[Member]) -> set[tuple[torch.dtype, ...]]:
    """The dtypes of the tensors of some inputs, each list of them once."""
    return {tuple(dtype for dtype, _ in form) for form in forms_of(group)}


def told_dtypes(group: Sequence[Seen], known: Mapping[str, Known]) -> list[tuple[torch.dtype, ...]]:
    """The dtypes of the tensors of those inputs that the user gave, of some that compute the same; each once."""
    given = ((seen.captured.adapter, known[seen.name].inputs) for seen in group if known[seen.name].told)
    flats = (adapter.flatten(*inputs.args, **inputs.kwargs) for adapter, inputs in given)
    return list(dict.fromkeys(tuple(tensor.dtype for tensor in flat) for flat in flats))


def ranks_of(group: Sequence[Member]) -> set[tuple[int, ...]]:
    """How many dimensions the tensors of some inputs have, each list of numbers once."""
    return {tuple(len(size) for _, size in form) for form in forms_of(group)}


def classed(members: Sequence[Member], of: Callable[[Sequence[Member]], set[Any]]) -> list[list[Member]]:
    """The inputs that something does not tell apart, together; the first one's first."""
    classes: list[list[Member]] = []
    for each in members:
        same = [known for known in classes if of(known) & of([each])]
        others = [known for known in classes if known not in same]
        joined = [*itertools.chain.from_iterable(same), each]
        classes = [joined, *others] if members[0] in joined else [*others, joined]
    return classes


def ways_apart(members: Sequence[Member]) -> list[list[list[Member]]]:
    """Classes of inputs to tell apart where the model is entered: by their dtypes, or else by their sizes as well.

    Values that leave the trace tell those of one class apart. They do not say which dtype a path is for.
    """
    ways = [classed(members, dtypes_of), classed(members, forms_of)]
    return ways if len(ways[1]) > len(ways[0]) else ways[:1]
