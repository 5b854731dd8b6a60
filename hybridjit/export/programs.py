"""What a capture computes, so that captures on several inputs can be compared."""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor

from .. import _torch
from .values import identical

Program: TypeAlias = tuple[_torch.Row, ...]


class _Constant:
    """A tensor in a graph; equal to one of the same kind and values."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Constant):
            return False
        return self._tensor is other._tensor or identical(self._tensor, other._tensor)

    def __repr__(self) -> str:
        return f"{self._tensor.dtype}{list(self._tensor.shape)}"


def program_of(traced: _torch.ScriptModule | _torch.Graph) -> Program:
    """What a trace computes: two captures that compute the same have equal ones."""
    with _torch.unwatched():
        return _torch.program(traced, _Constant)


def difference(one: Program, other: Program) -> str:
    """The first operation in which two programs part, or ``""``."""
    for a, b in zip(one, other, strict=False):
        if a != b:
            if a[0] == b[0] == "prim::Constant":
                return f"a constant: {a[1][-1]} and {b[1][-1]}"
            return f"{a[0]} and {b[0]}"
    return "" if len(one) == len(other) else f"{len(one)} operations and {len(other)}"
