"""Unrolled loops of a finished trace made loops again: turns that do the same, each on what the one before it left.

What a turn may take from outside of it: values from before the loop; its own number; and what the turn before it
computed, where the first turn takes something from before the loop instead. What may be taken from a turn after the
loop: anything of the last one, and what that one took from the one before it; and the same value of all turns, in
order, in a list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .. import _torch
from .._sites import Line
from .counts import Asked
from .looped import Collected, Writing, guard
from .rolling import END, MARK, Ends, Rolling
from .turns import FREE, Comparison, Turn, Unlike, is_pure, same


def roll(traced: _torch.ScriptModule | _torch.Graph, rolling: Rolling) -> set[Line]:
    """Rolls the marked loops of a trace that has not run yet, and takes the marks out.

    Args:
        traced: The trace, or the graph of one.
        rolling: The loops.

    Returns:
        The lines of the loops that stay unrolled.
    """
    loops = rolling.loops
    left = {number for number in range(len(loops))}
    loops_left = {line for line, _ in loops}
    for owner, graph in _graphs(traced):
        marks: dict[int, list[Any]] = {}
        for node in _torch.every_node(graph):
            if (text := _text(node)).startswith(MARK):
                marks.setdefault(int(text.split(":")[2]), []).append(node)
        marked = bool(marks)
        for number in sorted(marks, reverse=True):  # a loop in a turn of another one began after that
            try:
                line, count = loops[number]
                Loop(owner, graph, marks[number], line, count, rolling.asked[line], rolling.ends.get(number)).roll()
            except Unlike:
                continue
            del marks[number]
            left.discard(number)
            loops_left.discard(loops[number][0])
        for number, each in marks.items():
            if loops[number][1] < 2 and loops[number][0] not in loops_left:
                guard(graph, each, *loops[number], rolling.ends.get(number))
                left.discard(number)
            for mark in each:
                mark.destroy()
        for node in reversed(list(_torch.every_node(graph)) if marked else []):  # what but marks had a use for
            if is_pure(node) and not node.hasUses():
                node.destroy()
    return {loops[number][0] for number in left}


def _graphs(traced: _torch.ScriptModule | _torch.Graph) -> Iterator[tuple[Any, _torch.Graph]]:
    if not isinstance(traced, _torch.ScriptModule):
        yield None, traced
        return
    for part in traced.modules():
        if isinstance(part, _torch.ScriptModule) and _torch.is_traced(part):
            for graph in _torch.method_graphs(part).values():
                yield part, graph


def _text(node: Any) -> str:
    return str(node.inputsAt(0).toIValue()) if node.kind() == "prim::Print" else ""


def _held(mark: Any) -> dict[str, _torch.Value]:
    """What the variables of the function around a loop have where a mark is."""
    *_, count, names = _text(mark).split(":")
    return dict(zip(names.split(","), list(mark.inputs())[1 + int(count) :], strict=False))


class Loop:
    """One unrolled loop.

    Args:
        owner: The module whose method's graph has it; ``None`` for a graph without calls.
        graph: The graph.
        marks: The marks before its turns and after the last.
        line: Where it is.
        count: How many turns there must be.
        asked: What code asks of that.
        ends: How it ends, if by a tensor's truth, which each turn computes for the next. The turns of other loops begin
            with their number.
    """

    def __init__(
        self,
        owner: Any,
        graph: _torch.Graph,
        marks: Sequence[Any],
        line: Line,
        count: int,
        asked: Asked,
        ends: Ends | None = None,
    ) -> None:
        self.owner = owner
        self.graph = graph
        self.marks = marks
        self.line = line
        ordered = [_text(mark).split(":")[3] for mark in marks]
        if count < 2 or asked is Asked.HOW_MANY or ordered != [*map(str, range(count)), END]:
            raise Unlike
        self.asked = asked
        self.ends = ends
        self.turns: list[Turn] = self._turns()
        self.first: int = 0
        self.slots: dict[int, tuple[Any, int, int]] = {}  # what a turn takes from the one before it
        self.late: dict[int, tuple[Any, int, Any, int | None]] = {}  # what it takes from the one before that

    def _turns(self) -> list[Turn]:
        """The operations of each turn; what may as well stand before the loop is moved there."""
        turns: list[Turn] = []
        marked = {_text(mark) for mark in self.marks}
        for node in list(self.marks[0].owningBlock().nodes()):
            if _text(node) in marked:
                turns.append(Turn(node, []))
            elif turns and turns[-1].mark.isBefore(self.marks[-1]):
                turns[-1].nodes.append(node)
        if len(turns) != len(self.marks):
            raise Unlike  # some are in other blocks
        for turn in turns[:-1]:
            turn.merge()
            turn.count([node for node in turn.nodes if node.kind() not in FREE])
            for node in list(turn.nodes):
                if node.kind() in FREE and not any(each.unique() in turn.numbers for each in node.inputs()):
                    node.moveBefore(turns[0].mark)
                    turn.nodes.remove(node)
        return turns[:-1]

    def roll(self) -> None:
        """Makes one turn of all, as the body of a loop.

        Raises:
            Unlike: They are no turns of one loop; nothing has changed but the place of constants.
        """
        for self.first in (0, 1):  # the first one may do what the others find done
            if len(self.turns) - self.first < 2:
                raise Unlike
            try:
                self.slots, self.late = {}, {}
                for index in range(self.first + 1, len(self.turns)):
                    Comparison(self, index).compare()
                if any(number is None for *_, number in self.late.values()):
                    raise Unlike  # what differs in the second turn may differ in the third
                lists, finals = self._taken()
                break
            except Unlike:
                if self.first:
                    raise
        Writing(self, lists, finals).write()

    # --- what there is to see -----------------------------------------------------------------------

    def turn_of(self, value: Any) -> tuple[int, int] | None:
        """The turn that computes a value, and the value's number in it; ``None`` if it is from before the loop."""
        for index in range(self.first, len(self.turns)):
            number = self.turns[index].numbers.get(value.unique())
            if number is not None:
                return index, number
        return None

    def ends_alike(self, index: int) -> bool:
        """Whether a turn has of itself, as the first has, what tells if there is a further one."""
        if self.ends is None:
            return True
        ends = [self.turn_of(self.marks[each + 1].inputsAt(1)) for each in (self.first, index)]
        return ends[0] is not None and ends == [(each, ends[0][1]) for each in (self.first, index)]

    def _taken(self) -> tuple[list[Collected], dict[tuple[int, int], _torch.Value | None]]:
        """What is taken from turns after the loop: lists, and single values, as `Writing` is given them."""
        last = len(self.turns) - 1
        lists: dict[int, Collected | None] = {}
        finals: dict[tuple[int, int], _torch.Value | None] = {}
        for index in range(self.first, last + 1):
            for number, value in self.turns[index].values.items():
                for use in value.uses():
                    user = use.user
                    if not user.isAfter(self.marks[-1]):
                        continue
                    if user.kind() == "prim::ListConstruct":
                        made = user.output().unique()
                        if made not in lists:
                            lists[made] = self._every(user)
                        if lists[made] is not None:
                            continue
                    if index != last and (index != last - 1 or len(self.carrying(number)) != 1):
                        raise Unlike
                    finals[last - index, number] = self._held_before(index, number)
        return [each for each in lists.values() if each is not None], finals

    def carrying(self, number: int) -> list[_torch.Value]:
        """What a turn may take in place of a value of the one before it, if it is the first."""
        starts = {
            (start := node.inputsAt(at)).unique(): start for node, at, each in self.slots.values() if each == number
        }
        return list(starts.values())

    def _every(self, node: Any) -> Collected | None:
        """Whether a list holds the same values of every turn, in order, or what every turn takes; else ``None``."""
        given = [self.turn_of(value) for value in node.inputs()]
        inside = [place for place in given if place is not None]
        before = next(at for at, place in enumerate(given) if place is not None)
        numbers = [number for turn, number in inside if turn == self.first]
        turns = range(self.first, len(self.turns))
        after = before + len(inside)
        if given[before:after] == [(turn, number) for turn in turns for number in numbers]:
            return Collected(node, before, after, numbers)
        if len(numbers) == 1 and given[before:after] == [(turn, numbers[0]) for turn in turns[:-1]] and before:
            first = node.inputsAt(before - 1)
            if any(first.unique() == start.unique() for start in self.carrying(numbers[0])):
                return Collected(node, before - 1, after, numbers, first)
        return None

    def _held_before(self, index: int, number: int) -> _torch.Value | None:
        """What the variables that have a turn's value in the end have if there are no turns, as far as is known."""
        begun, ended = (_held(mark) for mark in (self.marks[self.first], self.marks[-1]))
        starts = [begun.get(name) for name, value in ended.items() if self.turn_of(value) == (index, number)]
        known = starts and all(each is not None and same(each, starts[0]) for each in starts)
        return starts[0] if known else None
