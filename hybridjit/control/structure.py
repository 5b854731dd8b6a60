"""What a branch or a loop returns, as leaves and structure, and how two of them differ."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .. import _torch
from .._describe import describe, place
from .._errors import CaptureError, compose


@dataclass(frozen=True)
class Flat:
    """A pytree taken apart.

    Attributes:
        leaves: Its leaves, in order.
        paths: Where each was: ``['boxes'][0]``; empty for a lone leaf.
        spec: What puts leaves together again.
    """

    leaves: list[Any]
    paths: list[str]
    spec: Any

    def rebuild(self, leaves: Sequence[Any]) -> Any:
        """Puts other leaves into the same structure."""
        return _torch.tree_unflatten(leaves, self.spec)


def flatten(value: Any) -> Flat:
    """Takes apart any pytree that torch knows; ``None`` and what it does not know are leaves."""
    return Flat(*_torch.tree_flatten(value))


def tensors_of(value: Any) -> list[Tensor]:
    """The tensors in nested lists, tuples and dicts: an operation's arguments or results."""
    found: list[Tensor] = []
    _collect(value, found)
    return found


def _collect(value: Any, found: list[Tensor]) -> None:
    """Appends the tensors; into one list, as this is asked several times of each operation."""
    if isinstance(value, Tensor):
        found.append(value)
    elif isinstance(value, (tuple, list)):
        for item in value:
            _collect(item, found)
    elif isinstance(value, dict):
        for item in value.values():
            _collect(item, found)


def spell_function(fn: Any) -> str:
    """Spells a function by its name and the line of its definition; a module by its class."""
    fn = inspect.unwrap(getattr(fn, "func", fn))
    code = getattr(fn, "__code__", None)
    if code is None:
        return type(fn).__qualname__
    return f"{fn.__name__} at {place(code.co_filename, code.co_firstlineno)}"


def is_static(leaf: Any, other: Any) -> bool:
    """Whether a leaf is no tensor and the same on both sides, so that it stays what it is."""
    if isinstance(leaf, Tensor) or isinstance(other, Tensor):
        return False
    return type(leaf) is type(other) and bool(leaf is other or leaf == other)


def check_same(what: str, where: str, names: tuple[str, str], sides: tuple[Flat, Flat], last: bool = False) -> None:
    """Refuses two results that differ in structure, in dtype, or in what no graph can carry.

    Args:
        what: What failed, one sentence.
        where: Its place.
        names: How each side is called.
        sides: The two results.
        last: Whether nothing goes on with them, so that tensors may differ in dtype.

    Raises:
        CaptureError: With every differing path.
    """
    first, second = sides
    if first.spec != second.spec:
        rows = _structures(names, first, second)
        instead = "the same containers with the same keys on both sides; an empty tensor for what is missing"
    else:
        differing = [
            (path, a, b)
            for path, a, b in zip(first.paths, first.leaves, second.leaves, strict=True)
            if not is_static(a, b) and (not _dtype(a) or _dtype(a) != _dtype(b))
            if not (last and isinstance(a, Tensor) and isinstance(b, Tensor))
        ]
        rows = [f"result{path}: {names[0]} gives {describe(a)}, {names[1]} {describe(b)}" for path, a, b in differing]
        if all(_dtype(a) and _dtype(b) for _, a, b in differing):
            instead = "the same dtype on both sides: result.to(x.dtype), x.new_zeros(()) for 0.0"
        else:
            instead = "a tensor on both sides: an empty one for None, a number for what only a program reads"
    if rows:
        raise CaptureError(compose(what, where=where, differences=rows, instead=instead, page="branches-that-differ"))


def can_join(first: Flat, second: Flat) -> bool:
    """Whether two results can be one of a branch: alike but for tensors and numbers of the same dtypes."""
    pairs = zip(first.leaves, second.leaves)  # noqa: B905
    return first.spec == second.spec and all(is_static(a, b) or "" != _dtype(a) == _dtype(b) for a, b in pairs)


_NUMBERS = {bool: "bool", int: "int64", float: "float64"}


def _dtype(leaf: Any) -> str:
    """The dtype that a leaf has in a graph; empty if it has none."""
    if isinstance(leaf, Tensor):
        return str(leaf.dtype).removeprefix("torch.")
    return _NUMBERS.get(type(leaf), "")


def _structures(names: tuple[str, str], first: Flat, second: Flat) -> list[str]:
    only = ((names[0], first, second), (names[1], second, first))
    rows = [
        f"result{path}: only {name} gives it, {describe(leaf)}"
        for name, side, other in only
        for path, leaf in zip(side.paths, side.leaves, strict=True)
        if path not in other.paths
    ]
    return rows or [f"{names[0]} gives {spell_spec(first.spec)}", f"{names[1]} gives {spell_spec(second.spec)}"]


def spell_spec(spec: Any) -> str:
    """Spells a structure as Python would write it: ``(*, {'a': *})``."""
    return str(_torch.tree_unflatten(["*"] * spec.num_leaves, spec)).replace("'*'", "*")
