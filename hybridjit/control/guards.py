"""Guards: checks in a trace that a value is what it was when the trace was made, or the file raises."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .. import _torch
from .._describe import describe
from .recorder import active, decision

_TYPES = {bool: "BoolType", int: "IntType", float: "FloatType"}


class Guards:
    """The guards of one trace; those that an earlier one makes superfluous are left out."""

    def __init__(self) -> None:
        self._known: dict[object, list[tuple[Any, ...]]] = {}

    def check(self, value: Tensor, captured: Any, message: str, fix: str) -> bool:
        """Inserts a guard where recording goes on, unless one that has run by then says the same.

        Args:
            value: A traced tensor: of one element for a number, of any shape for a tensor.
            captured: What it was: a bool, a number, or a tensor.
            message: What was frozen where, without the value it has at run time.
            fix: What to write instead.

        Returns:
            Whether a guard was inserted.
        """
        recorder = active()
        blocks = tuple(recorder.frames[1:]) if recorder else ()
        number = not isinstance(captured, Tensor)
        key = (decision(value), type(captured).__name__, repr(captured) if number else 0)
        if any(blocks[: len(earlier)] == earlier for earlier in self._known.get(key, ())):
            return False
        self._known.setdefault(key, []).append(blocks)
        insert_guard(value, captured, message, fix)
        return True


def insert_guard(value: Tensor, captured: Any, message: str, fix: str) -> None:
    """Inserts ``if value != captured: raise RuntimeError(f"hybridjit: {message}, got {value}; {fix}")``.

    Args:
        value: A traced tensor.
        captured: What it must be; a tuple of numbers is one of them.
        message: What was frozen where.
        fix: What to write instead.
    """
    graph = _torch.current_graph()
    traced = _torch.value_of(value)
    # TorchScript's format knows no escape for {}, so text that may hold one is an argument.
    head, tail = (_torch.insert_constant(graph, text) for text in (f"hybridjit: {message}", f"; {fix}"))
    truth = _torch.type_named("BoolType")
    if isinstance(captured, Tensor):
        with _torch.paused_tracing():
            expected = _torch.insert_constant(graph, captured.detach().clone())
        same = _torch.insert(graph, "aten::equal", [traced, expected], truth)
        _torch.insert_raise_unless(graph, same, "{}, got others{}", [head, tail])
        return
    kind = _TYPES.get(type(captured[0] if isinstance(captured, tuple) else captured), "FloatType")
    actual = _torch.insert_number(graph, traced, kind)
    if isinstance(captured, tuple):
        each = [_torch.insert(graph, "aten::eq", [actual, _torch.insert_constant(graph, one)], truth) for one in captured]
        holds = functools.reduce(lambda a, b: _torch.insert(graph, "aten::__or__", [a, b], truth), each)
    elif kind == "BoolType":
        holds = actual if captured else _torch.insert(graph, "aten::__not__", [actual], truth)
    elif captured != captured:  # NaN is no value's equal, its own neither
        holds = _torch.insert(graph, "aten::isnan", [actual], truth)
    else:
        holds = _torch.insert(graph, "aten::eq", [actual, _torch.insert_constant(graph, captured)], truth)
    _torch.insert_raise_unless(graph, holds, "{}, got {}{}", [head, actual, tail])


def guard_input(name: str, tensor: Tensor, what: Sequence[str]) -> None:
    """Inserts a check of an input's dtype or rank, which a trace takes for granted."""
    graph = _torch.current_graph()
    traced = _torch.value_of(tensor)
    number, truth = _torch.type_named("IntType"), _torch.type_named("BoolType")
    with _torch.paused_tracing():
        rank, dtype, spelled = tensor.dim(), tensor.dtype, describe(tensor).split("[")[0]
    wanted = f"{spelled} of {rank} dimension{'' if rank == 1 else 's'}"
    head = _torch.insert_constant(graph, f"hybridjit: {name}: captured {wanted}, got ")
    holds = []
    got = _torch.insert(graph, "aten::dim", [traced], number)
    if "rank" in what:
        holds.append(_torch.insert(graph, "aten::eq", [got, _torch.insert_constant(graph, rank)], truth))
    if "dtype" in what:
        asked = _torch.insert(graph, "prim::dtype", [traced], number)
        holds.append(_torch.insert(graph, "aten::eq", [asked, _torch.insert_constant(graph, dtype)], truth))
    both = holds[0] if len(holds) == 1 else _torch.insert(graph, "aten::__and__", holds, truth)
    text = "{}another dtype or rank ({} dimensions); export the model with such an input among check_inputs"
    _torch.insert_raise_unless(graph, both, text, [head, got])
