"""Loops over a traced range or the rows of a tensor: where each turn begins and ends is marked in the graph of a trace.

The trace has such a loop unrolled, as often as the example has it. Turns that turn out to do the same are made one
loop afterwards; see `rolled`.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from .. import _torch
from .._sites import Line, user_frame
from ..control.recorder import active, as_one_operation
from .leaks import as_traced

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
    """

    def __init__(self, lines: Collection[Line]) -> None:
        self.lines = lines
        self.loops: list[tuple[Line, int]] = []

    def over(self, args: tuple[Any, ...]) -> Any:
        """``range(*args)`` for the code that called the caller, to be gone through; ``None`` for no loop of these."""
        line = _line(sys._getframe(2))
        if line not in self.lines or not any(isinstance(each, Tensor) for each in args):
            return None
        return _Turns(self, line, ((0, *args) if len(args) == 1 else args)[:2], args[2] if len(args) == 3 else 1)

    def rows(self, frame: FrameType, tensors: Sequence[Any]) -> Iterator[tuple[Tensor, ...]] | None:
        """The number of each turn of a loop in a frame and the rows of tensors; ``None`` for no loop of these."""
        line = _line(frame)
        if line not in self.lines or not all(map(_has_rows, tensors)):
            return None
        held = [each.tensor if isinstance(each, Held) else each for each in tensors]
        takes = [
            each.row if isinstance(each, Listed) else one.__getitem__ for each, one in zip(tensors, held, strict=True)
        ]
        turns = _Turns(self, line, (0, functools.reduce(_least, [Tensor.size(each, 0) for each in held])), 1)
        return ((turn, *(take(turn) for take in takes)) for turn in turns)


def _line(frame: FrameType) -> Line:
    return frame.f_code.co_filename, frame.f_lineno


class Held:
    """A container that Python has of a tensor's rows.

    Attributes:
        tensor: The tensor.
    """

    tensor: Tensor
    _met: Callable[[], None]

    def _turns(self) -> Iterator[Any] | None:
        frame = user_frame()
        if _torch.tracing_state() is None or frame is None or _unpacks(frame):
            return None
        if (rows := rows_of(self, frame)) is None:
            self._met()
        return rows


def _unpacks(frame: FrameType) -> bool:
    """Whether what a frame is at is ``a, b = ...``, which is for a number of parts that the code knows."""
    import dis  # by whoever asks, not by everyone who imports this

    return frame.f_lasti >= 0 and dis.opname[frame.f_code.co_code[frame.f_lasti]] in ("UNPACK_SEQUENCE", "UNPACK_EX")


class Parts(Held, tuple[Tensor, ...]):
    """What ``tensor.unbind()`` gives in a trace."""

    @classmethod
    def of(cls, parts: Sequence[Tensor], tensor: Tensor, met: Callable[[], None]) -> Parts:
        """With the tensor whose rows they are."""
        made = cls(parts)
        made.tensor, made._met = tensor, met
        return made

    def copied(self) -> Parts:
        """The same, which nothing can change."""
        return self

    def __iter__(self) -> Iterator[Tensor]:
        rows = self._turns()
        return super().__iter__() if rows is None else rows


class Listed(Held, list[Any]):
    """What ``tensor.tolist()`` gives in a trace.

    Args:
        numbers: The list.
        tensor: The tensor.
        number: A number of the list, of the traced one.
        met: Is told that something goes through the list, in a loop that is not rolled.
    """

    def __init__(
        self, numbers: Sequence[Any], tensor: Tensor, number: Callable[[Tensor], Any], met: Callable[[], None]
    ) -> None:
        super().__init__(numbers)
        self.tensor = tensor
        self._number = number
        self._met = met

    def copied(self) -> Listed:
        """One to change."""
        own = [list(each) if isinstance(each, list) else each for each in list.__iter__(self)]
        return Listed(own, self.tensor, self._number, self._met)

    def row(self, turn: Any) -> Any:
        """What there is at a traced place."""
        row = self.tensor[turn]
        with _torch.paused_tracing(), _torch.unwatched():
            one = row.dim() == 0
        if one:
            return self._number(row)
        parts = row.unbind()
        return [self._number(parts[at]) for at in range(len(parts))]

    def __iter__(self) -> Iterator[Any]:
        rows = self._turns()
        return super().__iter__() if rows is None else rows


def _has_rows(value: object) -> bool:
    value = value.tensor if isinstance(value, Held) else value
    if not isinstance(value, Tensor) or _torch.tracing_state() is None:
        return False
    with _torch.paused_tracing(), _torch.unwatched():
        return value.dim() > 0


def _least(one: Any, other: Any) -> Any:
    return torch.minimum(one, other)


def rows_of(tensor: Tensor | Held, frame: FrameType | None) -> Iterator[Tensor] | None:
    """What goes through a tensor or its list in a frame, if that is a loop that may be rolled.

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

    def __init__(self, rolling: Rolling, line: Line, bounds: tuple[Any, ...], step: Any) -> None:
        self._rolling = rolling
        self._line = line
        self._bounds = (*bounds, step)

    def __iter__(self) -> Iterator[Tensor]:
        with _torch.paused_tracing(), _torch.unwatched():
            numbers = range(*(int(each) for each in self._bounds))
        given = tuple(each for each in self._bounds if isinstance(each, Tensor))
        loops = self._rolling.loops

        def begin() -> tuple[int, list[Any]]:
            graph = _torch.current_graph()
            loops.append((self._line, len(numbers)))
            values = [
                _torch.insert_number(graph, _torch.value_of(each), "IntType")
                if isinstance(each, Tensor)
                else _torch.insert_constant(graph, each)
                for each in self._bounds
            ]
            return len(loops) - 1, values

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
