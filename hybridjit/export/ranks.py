"""Tensors whose number of dimensions hangs on sizes or data: what ``squeeze`` leaves, and what scripted pieces give."""

from __future__ import annotations

import sys
from enum import IntFlag
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .. import _torch
from ..control.guards import guard_kind
from .kinds import RANK
from .leaks import as_traced
from .standins import vars_of
from .state import script_modules

if TYPE_CHECKING:
    from .watch import Watch


class Varies(IntFlag):
    """What of a tensor's kind may be another one in another call on inputs of the same kinds."""

    NOTHING = 0
    DIMS = 1
    DTYPE = 2


_of: Any = Tensor  # whose properties have no types
_SHAPED = tuple(
    f"aten::{name}" for name in ("view", "reshape", "_unsafe_view", "expand", "broadcast_to", "full", "zeros")
)
"""What has as many dimensions as a list has numbers."""
_CALLS = ("prim::CallFunction", "prim::CallMethod")
_HOLDS = ("TensorType", "ListType", "TupleType", "OptionalType")


def has_scripts(model: nn.Module) -> bool:
    """Whether a model has script modules, or its classes stand beside script functions, whose results may vary."""
    spaces = {type(module).__module__ for module in model.modules()}
    held = (value for name in spaces for value in vars_of(sys.modules.get(name)).values())
    return any(script_modules(model)) or any(isinstance(each, _torch.ScriptFunction) for each in held)


def varying(value: _torch.Value, known: dict[int, Varies]) -> Varies:
    """What of the kind of a tensor may be another one in another call.

    Args:
        value: Its value in the graph.
        known: What is known already, by the value's number; added to.
    """
    open_ = [value]  # a stack of our own: a value may be thousands of operations away from what it comes from
    while open_:
        number = open_[-1].unique()
        if number not in known:
            given, own = _from(open_[-1])
            if new := [each for each in given if each.unique() not in known]:
                open_ += new
                continue
            for each in given:
                own |= known[each.unique()]
            known[number] = own
        open_.pop()
    return known[value.unique()]


def _from(value: _torch.Value) -> tuple[list[_torch.Value], Varies]:
    """The values that a value's kind comes from, and what varies by the operation itself."""
    node = value.node()
    kind = node.kind()
    if kind in _SHAPED or kind == "prim::Param":
        return [], Varies.NOTHING
    if kind in _CALLS:
        return [], Varies.DIMS | Varies.DTYPE
    given = [each for each in node.inputs() if _torch.kind(each.type()) in _HOLDS]
    if kind.startswith("aten::squeeze"):
        return given, Varies.DIMS
    if kind == "prim::If":
        place = [each.unique() for each in node.outputs()].index(value.unique())
        sides = [list(block.outputs())[place] for block in node.blocks()]
        ranks = {_dims(side) for side in sides}
        return sides, Varies.NOTHING if len(ranks) == 1 and None not in ranks else Varies.DIMS | Varies.DTYPE
    return given, Varies.NOTHING


def _dims(value: _torch.Value) -> int | None:
    """How many dimensions the trace has for a value; none for what a scripted piece computes."""
    if _torch.kind(value.type()) != "TensorType":
        return None
    found: int | None = value.type().dim()
    return found


SQUEEZES = frozenset((Tensor.squeeze, Tensor.squeeze_, torch.squeeze))
_RANKS = frozenset((Tensor.dim, Tensor.ndimension, _of.ndim.__get__))
_SHAPES = frozenset((Tensor.size, _of.shape.__get__))
_DTYPES = frozenset(
    [
        *(_of.dtype.__get__, _of.itemsize.__get__, Tensor.element_size),
        *(Tensor.is_floating_point, Tensor.is_complex, torch.is_floating_point, torch.is_complex),
    ]
)
OF_KIND = _RANKS | _DTYPES
"""What asks for a tensor's rank or dtype, and gives Python the answer."""
ASKING = OF_KIND | _SHAPES
"""The same, and what gives a whole shape."""


def asked(watch: Watch, func: Any, args: Any, kwargs: Any, varies: Varies) -> Tensor | None:
    """Sees code ask for what may vary of a tensor's kind.

    Returns:
        The answer as a traced number, where that is what Python is to have.
    """
    if func in _DTYPES:
        if varies & Varies.DTYPE:
            guard_kind("what a scripted function gives", args[0])
        return None
    if not varies & Varies.DIMS or len(args) > 1 or kwargs:  # one size of several
        return None
    with _torch.paused_tracing(), _torch.unwatched():
        dims = args[0].dim()
    graph, number = _torch.current_graph(), _torch.type_named("IntType")
    rank = as_traced(dims, _torch.insert(graph, "aten::dim", [_torch.value_of(args[0])], number))
    if watch.exact and func in _RANKS:
        return rank
    watch.leak(RANK, rank, dims)
    return None
