"""Labels: on which device a value of a trace is, as far as a graph tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Origin:
    """An operation or constant that fixes a tensor's device.

    Attributes:
        method: The method in whose graph it is.
        value: The number of its value there.
        free: Whether it may as well be on another device: the model names none, or the one that it is traced on.
    """

    method: str
    value: int
    free: bool


@dataclass(frozen=True)
class OnCpu:
    """The label of a tensor on the CPU, whatever the device of the inputs."""

    origins: frozenset[Origin] = frozenset()


@dataclass(frozen=True)
class Follows:
    """The label of a tensor on the device of the inputs and parameters."""


FOLLOWS = Follows()
Label: TypeAlias = "Follows | OnCpu | tuple[Label, ...] | None"
"""``None`` for what is no tensor, or is never read."""


def flat(label: Label) -> Label:
    """One label for a container of several."""
    if not isinstance(label, tuple):
        return label
    found: Label = None
    for each in label:
        found = join(found, flat(each))
    return found


def join(one: Label, other: Label) -> Label:
    """The label of what is the one or the other: on the CPU, if one may be."""
    if one is None or one == other:
        return other
    if other is None:
        return one
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        return tuple(map(join, one, other))
    if isinstance(one, tuple) or isinstance(other, tuple):
        return join(flat(one), flat(other))
    return OnCpu(frozenset().union(*(each.origins for each in (one, other) if isinstance(each, OnCpu))))
