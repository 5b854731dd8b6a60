"""Loops over a traced range or rows, or until a tensor says so: where each turn begins and ends is marked in the graph.

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
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _torch
from .._sites import Line, asking_frame, is_users
from ..control.recorder import active, as_one_operation
from ..control.structure import tensors_of
from .counts import Asked, Growing, asked_at
from .kinds import INDEX, REPEATED, TURNS, Kind
from .leaks import as_traced
from .until import End, end_at
from .validation import parsed

MARK = "hybridjit:turn:"
"""What the marks in a graph begin with; the number of the loop and of the turn follow, how many values tell if there is
one, and the names of variables, of which the values come after those."""
END = "end"

_turns: list[tuple[int, int]] = []


def turns_under_way() -> tuple[tuple[int, int], ...]:
    """The loops in whose turns the trace is, and which: what one turn has made sure of, the next has not."""
    return tuple(_turns)


class Ends(NamedTuple):
    """How a loop ends by a tensor's truth.

    Attributes:
        goes: With which truth it goes on.
        most: How many turns there are, of which one must end it; ``None`` if any number.
        limit: After how many it ends whatever the truth is; ``None`` for no such number.
    """

    goes: bool
    most: int | None
    limit: int | None


class Rolling:
    """The loops of one trace that may be rolled.

    Args:
        lines: Where there are such loops: the lines of ``range(...)``.

    Attributes:
        loops: The line of each loop that ran, and how many turns it took.
        asked: What the code around each asks of that.
        ends: By the number of each that ends by a tensor's truth: how.
    """

    def __init__(self, lines: Collection[Line]) -> None:
        self.lines = lines
        self.loops: list[tuple[Line, int]] = []
        self.asked: dict[Line, Asked] = {line: asked_at(line) for line in lines}
        self.ends: dict[int, Ends] = {}
        self._under_way: list[_Until] = []

    def asks(self, frame: FrameType, tensor: Tensor, truth: bool) -> bool:
        """Whether a tensor's truth in a frame is whether one of these loops goes on, which is marked then."""
        found = end_at(_line(frame))
        if found is None or found[0] not in self.lines or not found[1].is_asked(frame):
            return False
        line, end = found
        loop = next((each for each in self._under_way if each.frame is frame and each.line == line), None)
        if loop is not None and not loop.counts_on(end):
            self._under_way.remove(loop)  # a counter ended it
            loop = None
        if loop is None:
            most = end.most(frame)
            if most is None:
                return False
            loop = _Until(len(self.loops), frame, line, end)
            self.loops.append((line, 0))
            self.ends[loop.number] = Ends(end.truth, *most)
            self._under_way.append(loop)
        count = loop.next()
        self.loops[loop.number] = line, count
        holds = _torch.insert_bool(_torch.current_graph(), _torch.value_of(tensor))
        if truth is end.truth:
            _turns.append((loop.number, count))
            _mark(loop.number, count, [holds], frame)
        else:
            self._under_way.remove(loop)
            self.note(line, loop.growing)
            _mark(loop.number, END, [holds], frame)
        return True

    def note(self, line: Line, growing: Growing) -> None:
        """Notes what else is another after each turn of a loop."""
        self.asked[line] = max(self.asked[line], growing.asked())

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


def has_ranges(file: str) -> bool:
    """Whether there is ``range(...)`` in a file that is no index."""
    return bool(_counting(file)[TURNS])


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
    if frame is None or not _current or _on_path():
        return None
    rows = _current[-1].rows(frame, (tensor,))
    return None if rows is None else (row for _, row in rows)


def is_iterated() -> bool:
    """Whether it is ``iter(tensor)`` that takes a tensor apart, and not the user's code by name."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not Tensor.__iter__.__code__ and not is_users(frame.f_code.co_filename):
        frame = frame.f_back
    return frame is not None and frame.f_code is Tensor.__iter__.__code__


def gone_through(args: Any, kwargs: Any, frame: FrameType | None) -> Tensor | None:
    """The tensor whose rows are what ``unbind`` gives where a loop goes through that and nothing else is done with it.

    So it is in ``for row in x.unbind(1):``, and in ``enumerate`` and ``zip`` there.
    """
    if frame is None or frame.f_lineno not in _unbound(frame.f_code.co_filename):
        return None
    tensor: Tensor = args[0] if args else kwargs["input"]
    dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
    return tensor.movedim(dim, 0) if dim else tensor


@functools.lru_cache(maxsize=64)
def _unbound(file: str) -> set[int]:
    found = set()
    for each in ast.walk(parsed(file)):
        if isinstance(each, (ast.For, ast.comprehension)):
            over = each.iter
            through = isinstance(over, ast.Call) and isinstance(over.func, ast.Name) and over.func.id in _THROUGH
            parts = [over, *over.args] if through and isinstance(over, ast.Call) else [over]
            calls = [node for node in ast.walk(over) if isinstance(node, ast.Call) and _name(node) == "unbind"]
            if calls and all(any(call is part for part in parts) for call in calls):
                found.add(over.lineno)
    return found


_THROUGH = ("enumerate", "zip")


def _name(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


def ends_loop(tensor: Tensor, truth: bool) -> bool:
    """Whether a tensor's truth in the user's code is whether a loop goes on that may be rolled."""
    if not _current or _on_path():
        return False
    frame = asking_frame()
    return frame is not None and _current[-1].asks(frame, tensor, truth)


def _on_path() -> bool:
    recorder = active()
    return recorder is not None and (recorder.repeating or any(each.path is not None for each in recorder.frames))


_current: list[Rolling] = []


class _Turns:
    """What ``range(...)`` of a traced number gives."""

    def __init__(self, rolling: Rolling, frame: FrameType, bounds: tuple[Any, ...], step: Any) -> None:
        self._rolling = rolling
        self._frame = frame
        self._line = _line(frame)
        self._growing = Growing(frame)
        self._bounds = (*bounds, step)

    def __reversed__(self) -> Iterator[Tensor]:
        start, stop, step = self._bounds
        if isinstance(step, Tensor):
            raise TypeError("a range with a traced step can't be gone through from its end")
        count = (stop - start + step - (1 if step > 0 else -1)) // step
        return iter(_Turns(self._rolling, self._frame, (start + (count - 1) * step, start - step), -step))

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

        def turn(count: int) -> Tensor:
            graph = _torch.current_graph()
            _mark(loop, count, bound[1], self._frame)
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
        self._rolling.note(self._line, self._growing)
        as_one_operation(begin, (), lambda: _mark(loop, END, bound[1], self._frame))


class _Until:
    """A loop under way that ends by a tensor's truth."""

    def __init__(self, number: int, frame: FrameType, line: Line, end: End) -> None:
        self.number = number
        self.frame = frame
        self.line = line
        self.growing = Growing(frame, [each.name for each in end.limits])
        self._started: list[Any] = [each.at(frame) for each in end.limits]
        self._depth = len(_turns)
        self._count = -1

    def counts_on(self, end: End) -> bool:
        """Whether the loop's counters have what a further turn of it would find, and not another run of the loop."""
        pairs = zip(end.limits, self._started, strict=True)
        return all(limit.at(self.frame) == start + (self._count + 1) * limit.step for limit, start in pairs)

    def next(self) -> int:
        """Ends a turn, and says how many there were."""
        self._count += 1
        del _turns[self._depth :]
        if self._count:
            self.growing.look()
        return self._count


def _held(value: Any) -> list[Tensor]:
    """The tensors in a variable, or in the attributes of an object."""
    if not isinstance(value, (Tensor, tuple, list, dict)):
        own = getattr(value, "__dict__", {})
        value = [*own.get("_buffers", {}).values(), *(each for each in own.values() if isinstance(each, Tensor))]
    return tensors_of(value)


_FEW = 8
"""How many tensors of a list or tuple a mark has, which in others grow with the turns."""


def _mark(loop: int, turn: object, of: Sequence[Any], frame: FrameType) -> None:
    """Marks where a turn begins, or the loop ends, with what the variables of the function around it have there."""
    graph = _torch.current_graph()
    tensors = {
        f"{name}.{at}": each for name, held in frame.f_locals.items() for at, each in enumerate(_held(held)[:_FEW])
    }
    values = {name: _torch.known_value(each) for name, each in tensors.items()}
    known = {name: value for name, value in values.items() if value is not None}
    text = _torch.insert_constant(graph, f"{MARK}{loop}:{turn}:{len(of)}:{','.join(known)}")
    graph.insertNode(graph.create("prim::Print", [text, *of, *known.values()], 0))  # stays where it is in a trace


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
