"""Unrolled loops of a finished trace made loops again: turns that do the same, each on what the one before it left.

What a turn may take from outside of it: values from before the loop; its own number; and what the turn before it
computed, where the first turn takes something from before the loop instead. What may be taken from a turn after the
loop: anything of the last one; and the same value of all turns, in order, in a list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .. import _torch
from .._describe import place
from .._sites import Line, Site
from ..control.points import ROUNDS, note
from ..control.rounds import insert_loop
from .counts import Asked
from .rolling import END, MARK, Rolling
from .turns import FREE, Comparison, Turn, Unlike


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
        for number in sorted(marks, reverse=True):  # a loop in a turn of another one began after that
            try:
                line, count = loops[number]
                Loop(owner, graph, marks[number], line, count, rolling.asked[line]).roll()
            except Unlike:
                continue
            del marks[number]
            left.discard(number)
            loops_left.discard(loops[number][0])
        for number, each in marks.items():
            if loops[number][1] < 2 and loops[number][0] not in loops_left:
                _guard(graph, each[0], *loops[number])
                left.discard(number)
            for mark in each:
                mark.destroy()
    return {loops[number][0] for number in left}


def _graphs(traced: _torch.ScriptModule | _torch.Graph) -> Iterator[tuple[Any, _torch.Graph]]:
    if not isinstance(traced, _torch.ScriptModule):
        yield None, traced
        return
    for part in traced.modules():
        if isinstance(part, _torch.ScriptModule) and _torch.is_traced(part):
            for graph in _torch.method_graphs(part).values():
                yield part, graph


def _guard(graph: _torch.Graph, mark: Any, line: Line, count: int) -> None:
    """Has the file raise where a loop of one turn, or none, takes others: on the path of an input that is alike."""
    point = graph.insertPoint()
    graph.setInsertPoint(mark)
    got = _torch.insert(graph, "aten::__range_length", list(mark.inputs())[1:], _torch.type_named("IntType"))
    same = _torch.insert(graph, "aten::eq", [got, _torch.insert_constant(graph, count)], _torch.type_named("BoolType"))
    says = f"hybridjit: loop at {place(*line)}: captured {count} rounds on this path, got "
    head, tail = (_torch.insert_constant(graph, text) for text in (says, _ADVICE))
    _torch.insert_raise_unless(graph, same, "{}{}{}", [head, got, tail])
    graph.setInsertPoint(point)


_ADVICE = "; export the model with such an input among check_inputs"


def _text(node: Any) -> str:
    return str(node.inputsAt(0).toIValue()) if node.kind() == "prim::Print" else ""


class Loop:
    """One unrolled loop.

    Args:
        owner: The module whose method's graph has it; ``None`` for a graph without calls.
        graph: The graph.
        marks: The marks before its turns and after the last.
        line: Where it is.
        count: How many turns there must be.
        asked: What code asks of that.
    """

    def __init__(
        self, owner: Any, graph: _torch.Graph, marks: Sequence[Any], line: Line, count: int, asked: Asked
    ) -> None:
        self.owner = owner
        self.graph = graph
        self.marks = marks
        self.line = line
        ordered = [_text(mark).split(":")[3] for mark in marks]
        if count < 2 or asked is Asked.HOW_MANY or ordered != [*map(str, range(count)), END]:
            raise Unlike
        self.asked = asked
        self.turns: list[Turn] = self._turns()
        self.first: int = 0
        self.slots: dict[int, tuple[Any, int, int]] = {}  # what a turn takes from the one before it

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
                self.slots = {}
                for index in range(self.first + 1, len(self.turns)):
                    Comparison(self, index).compare()
                lists, finals = self._taken()
                break
            except Unlike:
                if self.first:
                    raise
        self._write(lists, finals)

    # --- what there is to see -----------------------------------------------------------------------

    def turn_of(self, value: Any) -> tuple[int, int] | None:
        """The turn that computes a value, and the value's number in it; ``None`` if it is from before the loop."""
        for index in range(self.first, len(self.turns)):
            number = self.turns[index].numbers.get(value.unique())
            if number is not None:
                return index, number
        return None

    def _taken(self) -> tuple[list[tuple[Any, int, list[int]]], list[int]]:
        """What is taken from turns after the loop.

        Returns:
            Lists of the same values of all turns: the operation that makes one, how many others it has before them,
            and their numbers in each turn; and the numbers of single values of the last turn.
        """
        last = len(self.turns) - 1
        lists: dict[int, tuple[Any, int, list[int]]] = {}
        finals: dict[int, None] = {}
        for index in range(self.first, last + 1):
            for number, value in self.turns[index].values.items():
                for use in value.uses():
                    user = use.user
                    if not user.isAfter(self.marks[-1]):
                        continue
                    if user.kind() == "prim::ListConstruct" and user.output().unique() not in lists:
                        found = self._every(user)
                        if found is not None:
                            lists[user.output().unique()] = found
                    if user.kind() == "prim::ListConstruct" and user.output().unique() in lists:
                        continue
                    if index != last:
                        raise Unlike
                    finals[number] = None
        return list(lists.values()), list(finals)

    def _every(self, node: Any) -> tuple[Any, int, list[int]] | None:
        """Whether a list holds the same values of every turn, in order; and nothing else of them."""
        given = [self.turn_of(value) for value in node.inputs()]
        inside = [place for place in given if place is not None]
        before = next(at for at, place in enumerate(given) if place is not None)
        numbers = [number for turn, number in inside if turn == self.first]
        turns = range(self.first, len(self.turns))
        if given[before : before + len(inside)] != [(turn, number) for turn in turns for number in numbers]:
            return None
        return node, before, numbers

    # --- what is written ----------------------------------------------------------------------------

    def _write(self, lists: Sequence[tuple[Any, int, list[int]]], finals: Sequence[int]) -> None:
        graph, body, last = self.graph, self.turns[self.first], self.turns[-1]
        number, truth = _torch.type_named("IntType"), _torch.type_named("BoolType")
        carried: dict[tuple[int, int], Any] = {}
        for node, at, each in self.slots.values():
            start = node.inputsAt(at)
            carried.setdefault((start.unique(), each), start)
        kept = {each: [key for key in carried if key[1] == each] for each in finals}
        unset = [each for each in finals if len(kept[each]) != 1]
        point = graph.insertPoint()
        graph.setInsertPoint(self.marks[0])
        count = _torch.insert(graph, "aten::__range_length", list(self.marks[0].inputs())[1:], number)
        least = max(self.first + bool(unset), int(self.asked is Asked.WHETHER_ANY))
        if least:
            enough = _torch.insert(graph, "aten::ge", [count, _torch.insert_constant(graph, least)], truth)
            says = f"hybridjit: loop at {place(*self.line)}: captured at least {least} rounds, got "
            head, tail = (_torch.insert_constant(graph, text) for text in (says, _ADVICE))
            _torch.insert_raise_unless(graph, enough, "{}{}{}", [head, count, tail])
        graph.setInsertPoint(body.mark)
        if self.first:
            count = _torch.insert(graph, "aten::sub", [count, _torch.insert_constant(graph, self.first)], number)
        offset = _torch.insert_constant(graph, self.first)
        collected = []
        for made, before, _ in lists:
            empty = graph.insertNode(graph.create("prim::ListConstruct", list(made.inputs())[:before])).output()
            empty.setType(made.output().type())
            collected.append(empty)
        starts = [*carried.values(), *(_torch.insert_uninitialized(graph) for _ in unset)]
        goes_on = _torch.insert_constant(graph, True)
        loop, index, params = insert_loop(graph, count, goes_on, starts)
        note(loop, "loop", Site(*self.line), ROUNDS)
        block = next(iter(loop.blocks()))
        inside = dict(zip(carried, params, strict=False))
        for node, at, each in self.slots.values():
            node.replaceInput(at, inside[node.inputsAt(at).unique(), each])
        for node in body.nodes:
            node.moveBefore(block.returnNode())
            _forget_shapes(node)
        graph.setInsertPoint(body.nodes[0])
        turn = _torch.insert(graph, "aten::add", [index, offset], number) if self.first else index
        body.nodes[0].replaceInput(0, turn)
        graph.setInsertPoint(block.returnNode())
        for empty, (_, _, numbers) in zip(collected, lists, strict=True):
            for each in numbers:
                _torch.insert(graph, "aten::append", [empty, body.values[each]], empty.type())
        for value in (goes_on, *(body.values[each] for _, each in carried), *(body.values[each] for each in unset)):
            block.registerOutput(value)
        after = [loop.addOutput() for _ in starts]
        for output in after:
            output.setType(_torch.type_named("TensorType"))
        of_key = dict(zip(carried, after, strict=False))
        results = {each: of_key[kept[each][0]] for each in finals if each not in unset}
        results |= dict(zip(unset, after[len(carried) :], strict=True))
        for each, result in results.items():
            last.values[each].replaceAllUsesWith(result)
        for empty, (made, before, numbers) in zip(collected, lists, strict=True):
            graph.setInsertPoint(made)
            for value in list(made.inputs())[before + len(numbers) * (len(self.turns) - self.first) :]:
                _torch.insert(graph, "aten::append", [empty, value], empty.type())
            made.output().replaceAllUsesWith(empty)
            made.destroy()
        graph.setInsertPoint(point)
        for turn in reversed(self.turns[self.first + 1 :]):
            for node in reversed(turn.nodes):
                node.destroy()
        for mark in self.marks:
            mark.destroy()


def _forget_shapes(node: Any) -> None:
    """Takes the example's shapes off what a node computes: they may be others in each turn."""
    for block in node.blocks():
        for inner in block.nodes():
            _forget_shapes(inner)
    for output in node.outputs():
        if _torch.kind(output.type()) == "TensorType":
            output.setType(_torch.type_named("TensorType"))
