"""One turn of an unrolled loop written as the body of a loop, and what has the file raise where it has too few."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import _torch
from .._describe import place
from .._sites import Line, Site
from ..control.points import ROUNDS, note
from ..control.rounds import insert_loop
from .counts import Asked

if TYPE_CHECKING:
    from .rolled import Loop
    from .rolling import Ends


_LOOP = "hybridjit: loop at "


def turns_that_raise(module: Any) -> list[str]:
    """What a script module raises for of its loops' turns: ``loop at head.py:41: captured at least 1 rounds``."""
    graphs = (graph for part in module.modules() for graph in _torch.method_graphs(part).values())
    nodes = (node for graph in graphs for node in _torch.every_node(graph))
    texts = (node.output().toIValue() for node in nodes if node.kind() == "prim::Constant")
    said = {text.partition(", got ")[0]: None for text in texts if isinstance(text, str) and text.startswith(_LOOP)}
    return [text.removeprefix("hybridjit: ") for text in said]


@dataclass(frozen=True)
class Collected:
    """A list made after a loop of the same values of all turns.

    Attributes:
        node: The operation that makes it.
        before: How many others it has before them.
        after: Which is the first behind them.
        numbers: Their numbers in each turn.
        first: If it is what each turn takes from the one before it: what the first one takes.
    """

    node: Any
    before: int
    after: int
    numbers: list[int]
    first: _torch.Value | None = None


class Writing:
    """Writes a loop.

    Args:
        loop: The unrolled one.
        lists: What lists there are of values of all turns.
        ends: The single values that are taken from the last turn, or from the one before it, each by how many turns it
            is from the end, and its number; and what they are if there are no turns, as far as that is known.
    """

    def __init__(
        self, loop: Loop, lists: Sequence[Collected], ends: Mapping[tuple[int, int], _torch.Value | None]
    ) -> None:
        self._loop = loop
        self._graph = loop.graph
        self._body = loop.turns[loop.first]
        self._lists = lists
        self._ends = ends
        # What is carried: how it begins, and by what it is followed, a value of the turn or another one carried.
        self._starts: list[_torch.Value] = []
        self._nexts: list[tuple[bool, int]] = []
        self._places: dict[tuple[int, ...], int] = {}

    def _carry(self, key: tuple[int, ...], start: _torch.Value, follows: tuple[bool, int]) -> int:
        at = self._places.setdefault(key, len(self._starts))
        if at == len(self._starts):
            self._starts.append(start)
            self._nexts.append(follows)
        return at

    def _carry_value(self, start: _torch.Value, number: int) -> int:
        """What begins as one value, and is one of the turn before ever after."""
        return self._carry((start.unique(), number), start, (True, number))

    def write(self) -> None:
        """Writes it in the place of the unrolled one."""
        loop, graph = self._loop, self._graph
        point = graph.insertPoint()
        taken = [(node, at, self._carry_value(node.inputsAt(at), number)) for node, at, number in loop.slots.values()]
        for node, at, second, number in loop.late.values():
            assert number is not None  # or they are not alike
            waiting = self._carry_value(second, number)
            start = node.inputsAt(at)
            taken.append((node, at, self._carry((start.unique(), second.unique(), number), start, (False, waiting))))
        firsts = [each.first and self._carry_value(each.first, each.numbers[0]) for each in self._lists]
        least = max(loop.first + (None in self._ends.values()), int(loop.asked is Asked.WHETHER_ANY))
        count, goes_on = self._counted(least)
        ends = [self._end(*end, start) for end, start in self._ends.items()]
        counts = loop.ends is not None and (loop.ends.most, loop.ends.limit) != (None, None)
        # A loop that goes by a truth can't have the number of its turn, in TorchScript's text.
        counted = [_torch.insert_constant(graph, 0)] if counts else []
        collected = [self._begun_list(each) for each in self._lists]
        node, index, params = insert_loop(graph, count, goes_on, [*self._starts, *counted])
        note(node, "loop", Site(*loop.line), ROUNDS)
        block = next(iter(node.blocks()))
        for user, at, carried in taken:
            user.replaceInput(at, params[carried])
        for each in self._body.nodes:
            each.moveBefore(block.returnNode())
            _forget_shapes(each)
        goes_on = self._begun(index, block, goes_on)
        if counts:
            goes_on, *counted = self._within(params[-1], block, goes_on)
        for made, each, first in zip(collected, self._lists, firsts, strict=True):
            values = [self._body.values[number] for number in each.numbers] if first is None else [params[first]]
            for value in values:
                _torch.insert(graph, "aten::append", [made, value], made.type())
        block.registerOutput(goes_on)
        for of_turn, number in self._nexts:
            block.registerOutput(self._body.values[number] if of_turn else params[number])
        for each in counted:
            block.registerOutput(each)
        after = [node.addOutput() for _ in params]
        for output, param in zip(after, params, strict=True):
            output.setType(param.type())
        for made, each in zip(collected, self._lists, strict=True):
            graph.setInsertPoint(each.node)
            for value in list(each.node.inputs())[each.after :]:
                _torch.insert(graph, "aten::append", [made, value], made.type())
            each.node.output().replaceAllUsesWith(made)
            each.node.destroy()
        for mark in loop.marks:
            mark.destroy()
        for (back, number), carried in zip(self._ends, ends, strict=True):
            loop.turns[-1 - back].values[number].replaceAllUsesAfterNodeWith(node, after[carried])
        graph.setInsertPoint(point)
        for turn in reversed(loop.turns[loop.first + 1 :]):
            for each in reversed(turn.nodes):
                each.destroy()

    def _end(self, back: int, number: int, start: _torch.Value | None) -> int:
        if start is None:
            start = _torch.insert_uninitialized(self._graph)
        if not back:
            return self._carry_value(start, number)
        (before,) = self._loop.carrying(number)  # what the last turn takes in place of it
        return self._carry((start.unique(), -1, number), start, (False, self._carry_value(before, number)))

    def _begun_list(self, of: Collected) -> _torch.Value:
        graph = self._graph
        made = graph.insertNode(graph.create("prim::ListConstruct", list(of.node.inputs())[: of.before])).output()
        made.setType(of.node.output().type())
        return made

    def _counted(self, least: int) -> tuple[_torch.Value, _torch.Value]:
        """How many turns the loop has at most, and whether it has one; the file raises if there are too few in all."""
        loop, graph = self._loop, self._graph
        number, truth = _torch.type_named("IntType"), _torch.type_named("BoolType")
        says = f"{_LOOP}{place(*loop.line)}: captured at least {least} rounds, got "
        if loop.ends is not None:
            for at, mark in enumerate(loop.marks[:least]):
                graph.setInsertPoint(mark)
                _raise_unless(graph, holds_at(graph, mark, loop.ends.goes), says, _torch.insert_constant(graph, at))
            graph.setInsertPoint(self._body.mark)
            return _torch.insert_constant(graph, sys.maxsize), holds_at(graph, self._body.mark, loop.ends.goes)
        graph.setInsertPoint(loop.marks[0])
        count = _torch.insert(graph, "aten::__range_length", list(loop.marks[0].inputs())[1:4], number)
        if least:
            enough = _torch.insert(graph, "aten::ge", [count, _torch.insert_constant(graph, least)], truth)
            _raise_unless(graph, enough, says, count)
        graph.setInsertPoint(self._body.mark)
        if loop.first:
            count = _torch.insert(graph, "aten::sub", [count, _torch.insert_constant(graph, loop.first)], number)
        return count, _torch.insert_constant(graph, True)

    def _begun(self, index: _torch.Value, block: Any, goes_on: _torch.Value) -> _torch.Value:
        """Gives the body the number of its turn, and the loop whether it goes on."""
        loop, graph = self._loop, self._graph
        if loop.ends is not None:
            graph.setInsertPoint(block.returnNode())
            return holds_at(graph, loop.marks[loop.first + 1], loop.ends.goes)
        graph.setInsertPoint(self._body.nodes[0])
        if loop.first:
            offset = _torch.insert_constant(graph, loop.first)
            index = _torch.insert(graph, "aten::add", [index, offset], _torch.type_named("IntType"))
        self._body.nodes[0].replaceInput(0, index)
        graph.setInsertPoint(block.returnNode())
        return goes_on

    def _within(self, turn: _torch.Value, block: Any, goes_on: _torch.Value) -> list[_torch.Value]:
        """Has the file raise where a range, or a counter within turns, ends the loop.

        Returns:
            Whether there is a further turn by the loop's own counter, too, and its number.
        """
        loop, graph, number = self._loop, self._graph, _torch.type_named("IntType")
        assert loop.ends is not None
        most, limit, truth = loop.ends.most, loop.ends.limit, _torch.type_named("BoolType")
        turn.setType(number)
        if most is not None:
            graph.setInsertPoint(self._body.nodes[0])
            left = [turn, _torch.insert_constant(graph, most - loop.first - 1)]
            more = _torch.insert(graph, "aten::lt", left, truth)
            says = f"{_LOOP}{place(*loop.line)}: captured an end by a tensor, got all rounds: "
            _raise_unless(graph, more, says, _torch.insert_constant(graph, most))
        graph.setInsertPoint(block.returnNode())
        following = _torch.insert(graph, "aten::add", [turn, _torch.insert_constant(graph, 1)], number)
        if limit is not None:
            left = [following, _torch.insert_constant(graph, limit - loop.first)]
            more = _torch.insert(graph, "aten::lt", left, truth)
            goes_on = _torch.insert(graph, "aten::__and__", [goes_on, more], truth)
        return [goes_on, following]


def guard(graph: _torch.Graph, marks: Sequence[Any], line: Line, count: int, ends: Ends | None) -> None:
    """Has the file raise where a loop of one turn, or none, takes others: on the path of an input that is alike.

    Args:
        graph: The graph.
        marks: The marks before its turns and after the last.
        line: Where it is.
        count: How many turns it has.
        ends: How it ends, if by a tensor's truth.
    """
    point = graph.insertPoint()
    says = f"{_LOOP}{place(*line)}: captured {count} rounds on this path, got "
    graph.setInsertPoint(marks[0])
    if ends is None:
        got = _torch.insert(graph, "aten::__range_length", list(marks[0].inputs())[1:4], _torch.type_named("IntType"))
        captured = _torch.insert_constant(graph, count)
        equal = _torch.insert(graph, "aten::eq", [got, captured], _torch.type_named("BoolType"))
        _raise_unless(graph, equal, says, got)
    else:
        for at, mark in enumerate(marks):
            graph.setInsertPoint(mark)
            text = _torch.insert_constant(graph, f"{at}" if at < count else f"more than {at}")
            _raise_unless(graph, holds_at(graph, mark, ends.goes is (at < count)), says, text)
    graph.setInsertPoint(point)


def holds_at(graph: _torch.Graph, mark: Any, goes: bool) -> _torch.Value:
    """Whether the truth at a mark is the given one."""
    truth: _torch.Value = mark.inputsAt(1)
    return truth if goes else _torch.insert(graph, "aten::__not__", [truth], _torch.type_named("BoolType"))


def _raise_unless(graph: _torch.Graph, holds: _torch.Value, says: str, got: _torch.Value) -> None:
    head, tail = (_torch.insert_constant(graph, text) for text in (says, _ADVICE))
    _torch.insert_raise_unless(graph, holds, "{}{}{}", [head, got, tail])


_ADVICE = "; export the model with such an input among check_inputs"


def _forget_shapes(node: Any) -> None:
    """Takes the example's shapes off what a node computes: they may be others in each turn."""
    for block in node.blocks():
        for inner in block.nodes():
            _forget_shapes(inner)
    for output in node.outputs():
        if _torch.kind(output.type()) == "TensorType":
            output.setType(_torch.type_named("TensorType"))
