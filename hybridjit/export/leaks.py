"""Leaks: what Python code takes out of a traced tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import _torch
from .._sites import Site
from .kinds import Kind


@dataclass(frozen=True)
class Leak:
    """One value that left a trace.

    Attributes:
        kind: How.
        site: Where.
        value: What it was: a bool, a number, or a tensor's values.
        turning: Whether that was in a turn of a loop that may stay one.
    """

    kind: Kind
    site: Site
    value: Any
    turning: bool = False

    @property
    def key(self) -> tuple[str, str, int]:
        """What the same leak has in another capture."""
        return self.kind.what, self.site.file, self.site.line

    def same_value(self, other: Leak) -> bool:
        """Whether the value is that of the same leak in another capture."""
        return same_value(self.value, other.value)


def same_value(one: Any, other: Any) -> bool:
    """Whether two values that left a trace are the same one."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and bool(torch.equal(one, other))
    return type(one) is type(other) and repr(one) == repr(other)


def spell_value(value: Any) -> str:
    """A value that left a trace, for messages."""
    if isinstance(value, Tensor):
        return f"{value.numel()} value{'' if value.numel() == 1 else 's'}"
    return repr(value)


def as_traced(number: bool | int, value: _torch.Value) -> Tensor:
    """A tensor of no dimensions that the trace takes for a number of its own."""
    with _torch.paused_tracing():
        made = torch.tensor(number)
    graph = _torch.current_graph()
    _torch.bind_value(made, _torch.insert(graph, "prim::NumToTensor", [value], _torch.type_named("TensorType")))
    return made


def equal(tensor: Tensor, value: Tensor) -> Tensor:
    """``torch.equal`` as a traced tensor: shapes may differ."""
    graph = _torch.current_graph()
    with _torch.paused_tracing():
        holds, held = torch.equal(tensor, value), _torch.insert_constant(graph, value.detach().clone())
    asked = _torch.insert(graph, "aten::equal", [_torch.value_of(tensor), held], _torch.type_named("BoolType"))
    return as_traced(holds, asked)
