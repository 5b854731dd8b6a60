"""What a capture under way has seen: the pieces that were scripted, the values made static.

`control` writes here while a model is traced and `export` reads; without an export around it
nothing is kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from .._sites import Site


@dataclass(frozen=True)
class StaticValue:
    """A value frozen into the export on purpose, by `static`.

    Attributes:
        value: The captured value, as ``repr`` spells it.
        reason: Why, in the words of the model's author.
        site: Where `static` was called.
    """

    value: str
    reason: str
    site: Site


@dataclass(frozen=True)
class ScriptedPiece:
    """A function or method that was recorded with its control flow.

    Attributes:
        name: Its qualified name.
        site: Where it was called.
    """

    name: str
    site: Site


@dataclass(frozen=True)
class BranchPoint:
    """A place where a branch was recorded.

    Attributes:
        site: Where it is.
        raises: Per side, true first, whether it was recorded as a raise.
    """

    site: Site
    raises: tuple[bool, ...]


@dataclass
class Record:
    """What one capture saw.

    Attributes:
        names: ``id(module)`` to the module's path in the model.
        statics: Values frozen by `static`.
        scripted: Pieces that were scripted, in call order.
        branches: Branches that were recorded, innermost first.
        plain: Whether torch.export is to run scripted pieces as Python.
        sizes: Whether torch.export is to keep ``if``s on sizes that may change as branches; on those that hang on
            data it has to.
        numbers: The values of the graph that Python has as numbers, other than sizes.
        failed: What ended a piece whose paths were to meet; one that the model itself catches is still told in the end.
        ranks: Of how many branches the sides give tensors of different ranks.
        written: The attributes and buffers of the model that a side of a branch sets.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    statics: list[StaticValue] = field(default_factory=list)
    scripted: list[ScriptedPiece] = field(default_factory=list)
    branches: list[BranchPoint] = field(default_factory=list)
    plain: bool = False
    sizes: bool = False
    numbers: set[int] = field(default_factory=set)
    failed: list[Exception] = field(default_factory=list)
    ranks: int = 0
    written: set[str] = field(default_factory=set)


_current: ContextVar[Record | None] = ContextVar("hybridjit_record", default=None)


def is_recording() -> bool:
    """Whether an export is capturing."""
    return _current.get() is not None


def current() -> Record:
    """The record of the capture under way, or one that nobody reads."""
    return _current.get() or Record()


@contextlib.contextmanager
def recording(record: Record) -> Iterator[Record]:
    """Makes ``record`` the current one within the body."""
    token = _current.set(record)
    try:
        yield record
    finally:
        _current.reset(token)


@contextlib.contextmanager
def forgetting() -> Iterator[Callable[[], None]]:
    """Forgets what the body notes, unless that calls what it is given."""
    seen, kept = current(), False
    notes: tuple[list[Any], ...] = (seen.statics, seen.scripted, seen.branches, seen.failed)
    counts = [len(each) for each in notes]

    def keep() -> None:
        nonlocal kept
        kept = True

    try:
        yield keep
    finally:
        for each, count in zip(notes, counts, strict=True):
            if not kept:
                del each[count:]
