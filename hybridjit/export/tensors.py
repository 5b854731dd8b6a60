"""The tensors that an entry takes and returns: their dtypes, and their sizes as far as the checks vary them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from .report import Check

ANY = -1
"""In place of a size that the checks vary."""


@dataclass(frozen=True)
class TensorKind:
    """What is known of a tensor on the flat side.

    Attributes:
        dtype: As torch spells it: ``float32``.
        sizes: Of each dimension the size; `ANY` where the checks vary it.
    """

    dtype: str
    sizes: tuple[int, ...]

    @staticmethod
    def of(tensor: Tensor) -> TensorKind:
        """That of one tensor."""
        return TensorKind(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))

    def like(self, other: TensorKind) -> bool:
        """Whether both have the same dtype and number of dimensions."""
        return self.dtype == other.dtype and len(self.sizes) == len(other.sizes)

    def merged(self, other: TensorKind) -> TensorKind:
        """What holds for both, which are alike."""
        pairs = zip(self.sizes, other.sizes, strict=True)
        return TensorKind(self.dtype, tuple(mine if mine == theirs else ANY for mine, theirs in pairs))


@dataclass(frozen=True)
class Kinds:
    """The tensors that an entry takes, and those that it returns.

    Attributes:
        taken: Its arguments, in order.
        returned: Its results, in order; ``None`` for one that differs in dtype or number of dimensions
            between calls whose arguments do not.
    """

    taken: tuple[TensorKind, ...]
    returned: tuple[TensorKind | None, ...]

    def to_json(self) -> dict[str, Any]:
        """The kinds as JSON data."""
        returned = [each and [each.dtype, list(each.sizes)] for each in self.returned]
        return {"taken": [[each.dtype, list(each.sizes)] for each in self.taken], "returned": returned}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Kinds:
        """The kinds that `to_json` wrote."""

        def read(row: Any) -> TensorKind:
            dtype, sizes = row
            return TensorKind(str(dtype), tuple(int(size) for size in sizes))

        returned = (row and read(row) for row in data["returned"])
        return Kinds(tuple(map(read, data["taken"])), tuple(returned))


class SeenTensors:
    """Notes the tensors of every check."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], Kinds] = {}

    def note(self, check: Check, taken: Iterable[Tensor], returned: Iterable[Tensor]) -> None:
        """Notes those of one check."""
        kinds = Kinds(tuple(map(TensorKind.of, taken)), tuple(map(TensorKind.of, returned)))
        self._seen.setdefault((check.entry, check.input), kinds)

    def of(self, title: str, checks: Iterable[Check]) -> Kinds | None:
        """What an entry's tensors have in common in all checks whose arguments are like those of the first.

        Args:
            title: What the entry is called in the checks.
            checks: The checks that count.

        Returns:
            ``None`` if no check is of this entry.
        """
        keys = dict.fromkeys((check.entry, check.input) for check in checks if check.entry == title)
        every = [self._seen[key] for key in keys if key in self._seen]
        return functools.reduce(_merged, every) if every else None


def _merged(kinds: Kinds, other: Kinds) -> Kinds:
    pairs = list(zip(kinds.taken, other.taken, strict=True))
    if not all(mine.like(theirs) for mine, theirs in pairs):
        return kinds
    taken = tuple(mine.merged(theirs) for mine, theirs in pairs)
    results = zip(kinds.returned, other.returned, strict=True)
    returned = (mine.merged(theirs) if mine and theirs and mine.like(theirs) else None for mine, theirs in results)
    return Kinds(taken, tuple(returned))
