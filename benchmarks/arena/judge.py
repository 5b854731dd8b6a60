"""Right, loud or wrong: results are compared by structure, then by values."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

RIGHT, LOUD, WRONG = "right", "loud", "wrong"
LATE, CRASHED = "late", "crashed"
"""Ran into the time limit, or ended its process: loud, in the most expensive way."""
REFUSED = "refused"
"""The eager model itself takes no such input, or gives another result every time: it counts for nothing."""

RTOL, ATOL = 1e-3, 1e-4
"""Float32 sums taken in another order, through a few layers."""

_TENSOR = "tensor"


@dataclasses.dataclass(frozen=True)
class Flat:
    """A value taken apart: its tensors in order, and all the rest."""

    tensors: tuple[Tensor, ...]
    rest: Any


def parts(value: Any) -> tuple[str, list[tuple[Any, Any]]] | None:
    """The kind of a container and what it holds, or nothing for a leaf; a list is as good as a tuple."""
    if isinstance(value, Mapping):
        return "names", [(key, value[key]) for key in sorted(value, key=str)]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return "names", sorted(zip(value._fields, value, strict=True))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return "names", sorted((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    if isinstance(value, (tuple, list)):
        return "places", list(enumerate(value))
    return None


def flatten(value: Any) -> Flat:
    """Takes a value apart."""
    if isinstance(value, Flat):
        return value
    tensors: list[Tensor] = []

    def walk(value: Any) -> Any:
        if isinstance(value, Tensor):
            tensors.append(value)
            return _TENSOR
        inner = parts(value)
        if inner is None:
            return ("value", value)
        kind, items = inner
        return (kind, tuple((key, walk(child)) for key, child in items))

    rest = walk(value)
    return Flat(tuple(tensors), rest)


def fill(value: Any, tensors: Iterator[Tensor]) -> Any:
    """The same value with other tensors, given in `flatten`'s order."""
    return replace(value, lambda _: next(tensors))


def replace(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """The same value with something else for each tensor, asked for in `flatten`'s order."""
    if isinstance(value, Tensor):
        return change(value)
    inner = parts(value)
    if inner is None:
        return value
    made = {key: replace(child, change) for key, child in inner[1]}
    if isinstance(value, Mapping):
        return {key: made[key] for key in value}
    if hasattr(value, "_fields"):
        return type(value)(**made)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value)(**made)
    return type(value)(made.values())


def structure(value: Any) -> Any:
    """Where a value has its tensors; what else it holds, or leaves to a default, does not show."""

    def bare(rest: Any) -> Any:
        if rest == _TENSOR:
            return rest
        return (rest[0], tuple((key, bare(child)) for key, child in rest[1] if child[0] != "value"))

    return bare(flatten(value).rest)


def difference(result: Any, expected: Any) -> str:
    """What differs first, or nothing."""
    ours, theirs = flatten(result), flatten(expected)
    if len(ours.tensors) != len(theirs.tensors):
        return f"{len(ours.tensors)} tensors instead of {len(theirs.tensors)}"
    if said := _values_differ(ours.rest, theirs.rest, "result"):
        return said
    for index, (one, other) in enumerate(zip(ours.tensors, theirs.tensors, strict=True)):
        try:
            torch.testing.assert_close(one, other, rtol=RTOL, atol=ATOL, equal_nan=True)
        except AssertionError as error:
            return f"tensor {index}: {' '.join(str(error).split())}"
    return ""


def _values_differ(ours: Any, theirs: Any, path: str) -> str:
    if ours == _TENSOR or theirs == _TENSOR:
        return "" if ours == theirs else f"{path}: {_spell(ours)} instead of {_spell(theirs)}"
    if ours[0] != theirs[0]:
        return f"{path}: {_spell(ours)} instead of {_spell(theirs)}"
    if ours[0] == "value":
        return "" if _same(ours[1], theirs[1]) else f"{path}: {ours[1]!r} instead of {theirs[1]!r}"
    if [key for key, _ in ours[1]] != [key for key, _ in theirs[1]]:
        return f"{path}: {_spell(ours)} instead of {_spell(theirs)}"
    for (key, one), (_, other) in zip(ours[1], theirs[1], strict=True):
        if said := _values_differ(one, other, f"{path}.{key}"):
            return said
    return ""


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-4) or (math.isnan(one) and math.isnan(other))
    return type(one) is type(other) and bool(one == other)


def _spell(rest: Any) -> str:
    if rest == _TENSOR:
        return "a tensor"
    if rest[0] == "value":
        return repr(rest[1])
    return f"{rest[0]} {', '.join(str(key) for key, _ in rest[1])}" if rest[0] == "names" else f"{len(rest[1])} places"


def first_line(error: BaseException) -> str:
    """An error in one line: the last that says something, since TorchScript begins with its traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[-1] if "TorchScript" in str(error) else " ".join(lines)
    return f"{type(error).__name__}: {said}"[:300]
