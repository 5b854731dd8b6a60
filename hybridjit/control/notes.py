"""What functions gave under Dynamo besides tensors: noted on the side while it traces, and compared."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from .._errors import CaptureError, compose

F = TypeVar("F", bound=Callable[..., Any])

_notes: dict[tuple[int, int], tuple[Any, ...]] = {}
_errors: dict[tuple[int, int], str] = {}
_calls = itertools.count()
classes: dict[str, Any] = {}
"""The dataclasses that functions gave, by name."""


def while_tracing(fn: F) -> F:
    """Makes Dynamo run a function of constants while it traces, and take what it gives for a constant."""
    constant: Callable[[F], F] = torch.compiler.assume_constant_result
    return constant(fn)


@while_tracing
def is_exporting() -> bool:
    """`torch.compiler.is_exporting`, which Dynamo of torch 2.11 itself takes for true whenever it traces."""
    return torch.compiler.is_exporting()


@while_tracing
def begin() -> int:
    """Begins to note what the two sides give; the notes of calls long done are dropped."""
    call = next(_calls)
    for notes in (_notes, _errors):
        for old in [key for key in notes if key[0] < call - 1000]:
            del notes[old]
    return call


@while_tracing
def note(call: int, side: int, what: str, name: str, entries: tuple[Any, ...]) -> int:
    """Notes a result: per leaf its path, its kind, and for what is no tensor its value, if Dynamo knows it.

    Raises:
        CaptureError: The side noted before differs from this one.
    """
    before = _notes.get((call, 1 - side))
    _notes[call, side] = (name, *entries)
    classes.update({entry[1]: entry[2] for entry in entries if len(entry) > 2 and isinstance(entry[2], type)})
    if before is None:
        return 0
    names = (before[0], name)
    found: tuple[dict[str, Any], dict[str, Any]]
    found = ({entry[0]: entry for entry in before[1:]}, {entry[0]: entry for entry in entries})
    rows = []
    for path in dict.fromkeys((*found[0], *found[1])):
        one, other = found[0].get(path), found[1].get(path)
        if one is None or other is None:
            present = one or other or ("", "")
            rows.append(f"result{path}: only {names[one is None]} gives it, {present[1]}")
        elif one[1] != other[1] or (one[1] == "static" and one[2:] != other[2:]):
            spelled = [entry[1] if entry[1] != "static" else repr(entry[2]) for entry in (one, other)]
            rows.append(f"result{path}: {names[0]} gives {spelled[0]}, {names[1]} {spelled[1]}")
    if rows:
        instead = "the same containers with the same keys and dtypes on both sides: result.to(x.dtype)"
        raise CaptureError(compose(what, differences=rows, instead=instead, page="branches-that-differ"))
    return 0


@while_tracing
def note_error(call: int, side: int, message: str) -> int:
    """Notes that a side raises."""
    _errors[call, side] = message
    return 0


@while_tracing
def error(call: int, side: int) -> str:
    """What a side raises; empty if it does not."""
    return _errors.get((call, side), "")


@while_tracing
def is_static(call: int, index: int) -> bool:
    """Whether a leaf is the same value on both sides."""
    first = _notes[call, 0][1 + index]
    second = _notes.get((call, 1), _notes[call, 0])[1 + index]
    return len(first) == 3 and bool(first[1:] == second[1:] and type(first[2]) is type(second[2]))


@while_tracing
def kind(call: int, index: int) -> str:
    """The kind of a leaf: a dtype and a number of dimensions, ``static``, or the name of a dataclass."""
    return str(_notes[call, 0][1 + index][1])


@while_tracing
def count(call: int, index: int) -> int:
    """How many fields a dataclass has."""
    return len(_notes[call, 0][1 + index]) - 3


@while_tracing
def value(call: int, index: int, at: int = 2) -> Any:
    """The value of a leaf that is the same on both sides, or the name of a dataclass's field."""
    return _notes[call, 0][1 + index][at]


def sourceless(value: Any) -> Any:
    """A constant that Dynamo knows for its own: it can't guard the place where it got one while it traced."""
    if value is None:
        return None
    if isinstance(value, tuple):  # an empty one: any other is no leaf
        return ()
    if isinstance(value, bool):
        return bool(value)
    if isinstance(value, str):
        return value + ""
    return value + 0 if isinstance(value, (int, float)) else value
