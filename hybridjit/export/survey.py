"""What of each value that left a trace must be guarded: told by captures on other inputs."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from torch import Tensor

from .capture import Captured
from .frozen import Guards
from .kinds import BOOL, CACHE
from .leaks import Leak, same_value
from .programs import Program, program_of
from .validation import goes_nowhere, only_tests

Occurrence: TypeAlias = tuple[tuple[str, str, int], int]
"""A leak's kind and line, and the how-many-eth time it happened there."""


@dataclass(frozen=True)
class Seen:
    """One capture that was made to look at.

    Attributes:
        name: The input, for messages.
        captured: The capture.
    """

    name: str
    captured: Captured

    @cached_property
    def program(self) -> Program:
        """What it computes."""
        return program_of(self.captured.graph or self.captured.module)

    @cached_property
    def steering(self) -> list[tuple[Occurrence, Leak]]:
        """Its leaks that Python code may go by, if only by what it leaves out."""
        return [(each, leak) for each, leak in self.by_occurrence().items() if not serves_nothing(leak)]

    def computes_as(self, other: Seen) -> bool:
        """Whether two captures compute the same, and return it in the same structure, numbers and text included."""
        one, two = self.captured.adapter.output_schema, other.captured.adapter.output_schema
        return self.program == other.program and one == two

    def goes_as(self, other: Seen) -> bool:
        """Whether all values that left one capture are those that left another.

        What is computed for such a value is in no program.
        """
        pairs = itertools.zip_longest(self.steering, other.steering)
        return all(a and b and a[0] == b[0] and a[1].same_value(b[1]) for a, b in pairs)

    def by_occurrence(self) -> dict[Occurrence, Leak]:
        """Its leaks, by kind, line and count."""
        return dict(zip(occurrences(self.captured.leaks), self.captured.leaks, strict=True))


def occurrences(leaks: Sequence[Leak]) -> list[Occurrence]:
    """What identifies each leak in other captures."""
    met: Counter[tuple[str, str, int]] = Counter()
    found = []
    for leak in leaks:
        found.append((leak.key, met[leak.key]))
        met[leak.key] += 1
    return found


def same_program(seen: Sequence[Seen], turns: bool = False) -> list[list[Seen]]:
    """Groups captures by what they compute; the first one's group comes first.

    Args:
        seen: The captures.
        turns: Whether the values that left them may be others, as in turns of a loop, where each turn is guarded.
    """
    groups: list[list[Seen]] = []
    for each in seen:
        same = (group for group in groups if group[0].computes_as(each) and (turns or group[0].goes_as(each)))
        group = next(same, None)
        if group is None:
            groups.append([each])
        else:
            group.append(each)
    return groups


Values: TypeAlias = dict[Occurrence, tuple[Any, ...]]
"""What each leak was, in the captures that compute the same."""


def values_of(group: Sequence[Seen]) -> Values:
    """The values that the leaks of a group had, each once."""
    found: dict[Occurrence, list[Leak]] = {}
    for seen in group:
        for occurrence, leak in seen.by_occurrence().items():
            known = found.setdefault(occurrence, [])
            if not any(leak.same_value(each) for each in known):
                known.append(leak)
    return {occurrence: tuple(leak.value for leak in leaks) for occurrence, leaks in found.items()}


def exonerated(groups: Sequence[Sequence[Seen]]) -> dict[Occurrence, str]:
    """The leaks that need no guard, and by which input that was seen.

    The code shows that nothing goes on with them, and they had other values in a capture that computes the same.
    """
    innocent: dict[Occurrence, str] = {}
    tested = {each: leak for each, leak in groups[0][0].by_occurrence().items() if is_test(leak)}
    for seen in itertools.chain(*groups):  # each passed the test
        for occurrence, leak in seen.by_occurrence().items():
            if occurrence in tested and not leak.same_value(tested[occurrence]):
                for each in tested:  # the other sizes in the same test
                    if each[0] == occurrence[0]:
                        innocent.setdefault(each, seen.name)
    for group in groups:
        first = group[0].by_occurrence()
        for other in group[1:]:
            for occurrence, leak in other.by_occurrence().items():
                before = first.get(occurrence)
                if before is not None and serves_nothing(before) and not leak.same_value(before):
                    innocent.setdefault(occurrence, other.name)
    return innocent


def unsettled(seen: Sequence[Seen], joining: Container[str]) -> bool:
    """Whether a value that left the capture of an input that joins may yet need no guard: others may show that."""
    leaks = itertools.chain(*(each.by_occurrence().items() for each in seen if each.name in joining))
    idle = {each for each, leak in leaks if serves_nothing(leak)}
    return bool(idle) and not idle <= exonerated(same_program(seen)).keys()


def parts_by_decisions(first: Seen, other: Seen) -> bool:
    """Whether the truths of tensors are all that two captures were told differently."""
    others = other.by_occurrence()
    leaks = first.by_occurrence().items()
    parting = [leak.kind for key, leak in leaks if key in others and not leak.same_value(others[key])]
    return bool(parting) and all(kind is BOOL for kind in parting)


def is_test(leak: Leak | None) -> bool:
    """Whether a value serves but the test of what validates."""
    return leak is not None and leak.kind is not BOOL and only_tests(leak.site)


def serves_nothing(leak: Leak) -> bool:
    """Whether the code shows that nothing goes on with a value, or but what it keeps for that value.

    That two values gave one program says nothing of a third: Python may compare them with a limit beyond both.
    """
    return is_test(leak) or leak.kind is CACHE or (leak.kind is not BOOL and goes_nowhere(leak.site))


def proven(group: Sequence[Seen], innocent: Mapping[Occurrence, str]) -> dict[Occurrence, str]:
    """The exonerated leaks of the captures that compute the same."""
    return {each: innocent[each] for each in group[0].by_occurrence() if each in innocent}


def inseparable(groups: Sequence[Sequence[Seen]]) -> bool:
    """Whether there are two programs that no leak tells apart."""
    values = [values_of(group) for group in groups]
    pairs = [(one, other) for index, one in enumerate(values) for other in values[:index]]
    return any(not any(disjoint(one[each], other.get(each, ())) for each in one) for one, other in pairs)


def disjoint(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether both have values, and none in common."""
    return bool(one and other) and not any(same_value(a, b) for a in one for b in other)


class Guarding:
    """Writes the guards of a capture: of every leak that is not exonerated.

    Args:
        innocent: The exonerated ones.
        values: What the others may be.
        lines: Kinds and lines that are exonerated altogether.

    Attributes:
        guarded: The leaks that got a guard.
    """

    def __init__(
        self, innocent: Mapping[Occurrence, str], values: Values, lines: Container[tuple[str, str, int]] = ()
    ) -> None:
        self._innocent = innocent
        self._lines = lines
        self._values = values
        self._guards = Guards()
        self._met: Counter[tuple[str, str, int]] = Counter()
        self.guarded: list[Leak] = []

    def __call__(self, index: int, leak: Leak, tensor: Tensor) -> None:
        """Guards one leak, if it must be."""
        occurrence = leak.key, self._met[leak.key]
        self._met[leak.key] += 1
        if occurrence in self._innocent or leak.key in self._lines:
            return
        self.guarded.append(leak)
        self._guards.check(tensor, self._values.get(occurrence, (leak.value,)), leak)
