"""Loops over a traced range or the rows of a tensor: where each turn begins and ends is marked in the graph of a trace.

The trace has such a loop unrolled, as often as the example has it. Turns that turn out to do the same are made one
loop afterwards; see `rolled`.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import sys
from collections.abc import Collection, Iterator, Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from .. import _torch
from .._sites import Line
from ..control.recorder import active, as_one_operation
from .counts import Asked, Growing, asked_at
from .kinds import INDEX, REPEATED, TURNS, Kind
from .leaks import as_traced
from .validation import parsed

MARK = "hybridjit:turn:"
"""What the marks in a graph begin with; the number of the loop and of the turn follow."""
END = "end"

_turns: list[tuple[int, int]] = []


def turns_under_way() -> tuple[tuple[int, int], ...]:
    """The loops in whose turns the trace is, and which: what one turn has made sure of, the next has not."""
    return tuple(_turns)


class Rolling:
    """The loops of one trace that may be rolled.

    Args:
        lines: Where there are such loops: the lines of ``range(...)``.

    Attributes:
        loops: The line of each loop that ran, and how many turns it took.
        asked: What the code around each asks of that.
    """

    def __init__(self, lines: Collection[Line]) -> None:
        self.lines = lines
        self.loops: list[tuple[Line, int]] = []
        self.asked: dict[Line, Asked] = {line: asked_at(line) for line in lines}

    def over(self, args: tuple[Any, ...]) -> Any:
        """``range(*args)`` for the code that called the caller, to be gone through; ``None`` for no loop of these."""
        frame = sys._getframe(2)
        if _line(frame) not in self.lines or not any(isinstance(each, Tensor) for each in args):
            return None
        return _Turns(self, frame, ((0, *args) if len(args) == 1 else args)[:2], args[2] if len(args) == 3 else 1)

    def rows(self, frame: FrameType, tensors: Sequence[Any]) -> Iterator[tuple[Tensor, ...]] | None:
        """The number of each turn of a loop in a frame and the rows of tensors; ``None`` for no loop of these."""
        if _line(frame) not in self.lines or not all(map(_has_rows, tensors)):
            return None
        turns = _Turns(self, frame, (0, functools.reduce(_least, [Tensor.size(each, 0) for each in tensors])), 1)
        return ((turn, *(each[turn] for each in tensors)) for turn in turns)


def in_chunks(start: Any, stop: Any, step: Any) -> list[Any]:
    """``range(start, stop, step)`` of traced numbers: what leaves the trace is how many turns it has, not how far."""
    bounds = start, stop, step
    with _torch.paused_tracing(), _torch.unwatched():
        count = len(range(*(int(each) for each in bounds)))
    given = tuple(each for each in bounds if isinstance(each, Tensor))

    def counted() -> Tensor:
        number = _torch.type_named("IntType")
        return as_traced(count, _torch.insert(_torch.current_graph(), "aten::__range_length", _values(bounds), number))

    turns = as_one_operation(in_chunks, given, counted)
    return [start + at * step if at else start for at in range(turns)]


def counts(frame: FrameType | None) -> Kind:
    """Which way a size leaves where Python wants an index, by the line that a frame is at."""
    if frame is None:
        return INDEX
    found = _counting(frame.f_code.co_filename)
    if frame.f_lineno in found[TURNS] | found[INDEX]:
        return TURNS
    return REPEATED if frame.f_lineno in found[REPEATED] else INDEX


def indexes(frame: FrameType) -> bool:
    """Whether ``range(...)`` in the line that a frame is at is an index, as in ``x[range(n), at]``, and no loop."""
    found = _counting(frame.f_code.co_filename)
    return frame.f_lineno in found[INDEX] - found[TURNS]


@functools.lru_cache(maxsize=64)
def _counting(file: str) -> dict[Kind, set[int]]:
    """The lines of ``range(...)``, as an index and elsewhere, and of lists times numbers."""
    found: dict[Kind, set[int]] = {TURNS: set(), INDEX: set(), REPEATED: set()}
    indices: set[ast.AST] = set()
    for node in ast.walk(parsed(file)):  # parents come before their children
        if isinstance(node, ast.Subscript):
            indices.update(node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice])
        kind = None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
            kind = INDEX if node in indices else TURNS
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and isinstance(node.left, _LISTS):
            kind = REPEATED
        if kind is not None and isinstance(node, ast.expr):
            found[kind].update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return found


_LISTS = (ast.List, ast.Tuple)


def _values(numbers: Sequence[Any]) -> list[_torch.Value]:
    """Integers in the graph."""
    graph = _torch.current_graph()
    return [
        _torch.insert_number(graph, _torch.value_of(each), "IntType")
        if isinstance(each, Tensor)
        else _torch.insert_constant(graph, each)
        for each in numbers
    ]


def _line(frame: FrameType) -> Line:
    return frame.f_code.co_filename, frame.f_lineno


def _has_rows(value: object) -> bool:
    if not isinstance(value, Tensor) or _torch.tracing_state() is None:
        return False
    with _torch.paused_tracing(), _torch.unwatched():
        return value.dim() > 0


def _least(one: Any, other: Any) -> Any:
    return torch.minimum(one, other)


def rows_of(tensor: Tensor, frame: FrameType | None) -> Iterator[Tensor] | None:
    """What goes through a tensor in a frame, if that is a loop that may be rolled.

    Not on a path that may run again: there, what a call gave is given again, and this is used up.
    """
    on_path = (recorder := active()) is not None and any(each.path is not None for each in recorder.frames)
    if frame is None or not _current or on_path:
        return None
    rows = _current[-1].rows(frame, (tensor,))
    return None if rows is None else (row for _, row in rows)


_current: list[Rolling] = []


class _Turns:
    """What ``range(...)`` of a traced number gives."""

    def __init__(self, rolling: Rolling, frame: FrameType, bounds: tuple[Any, ...], step: Any) -> None:
        self._rolling = rolling
        self._line = _line(frame)
        self._growing = Growing(frame)
        self._bounds = (*bounds, step)

    def __iter__(self) -> Iterator[Tensor]:
        with _torch.paused_tracing(), _torch.unwatched():
            numbers = range(*(int(each) for each in self._bounds))
        given = tuple(each for each in self._bounds if isinstance(each, Tensor))
        loops = self._rolling.loops

        def begin() -> tuple[int, list[Any]]:
            loops.append((self._line, len(numbers)))
            return len(loops) - 1, _values(self._bounds)

        # Where a path runs again, what it has recorded already is not recorded again.
        loop, (start, _, step) = bound = as_one_operation(begin, given, begin)
        depth = len(_turns)

        def mark(turn: object) -> None:
            graph = _torch.current_graph()
            text = _torch.insert_constant(graph, f"{MARK}{loop}:{turn}")
            graph.insertNode(graph.create("prim::Print", [text, *bound[1]], 0))  # stays where it is in a trace

        def turn(count: int) -> Tensor:
            graph = _torch.current_graph()
            mark(count)
            at = [_torch.insert_constant(graph, count), start, step]
            index = _torch.insert(graph, "aten::__derive_index", at, _torch.type_named("IntType"))
            return as_traced(numbers[count], index)

        for count in range(len(numbers)):
            made: Tensor = as_one_operation(begin, (), functools.partial(turn, count))
            try:
                _turns.append((loop, count))
                yield made
            finally:
                del _turns[depth:]
            self._growing.look()
        asked = self._rolling.asked
        asked[self._line] = max(asked[self._line], self._growing.asked())
        as_one_operation(begin, (), lambda: mark(END))


@contextlib.contextmanager
def rolling(lines: Collection[Line]) -> Iterator[Rolling]:
    """Marks the turns of some loops, within the body."""
    before = list(_turns)
    _current.append(Rolling(lines))
    try:
        yield _current[-1]
    finally:
        _current.pop()
        _turns[:] = before
