"""Which sides of the branches and loops in an exported program a call takes: it runs operation by operation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor, fx

from ..control.points import ROUNDS, Point, take_note

_operators: Any = torch.ops.higher_order
_PLACES = {
    _operators.cond: (1, 2),
    _operators.while_loop: (0, 1),
    _operators.scan: (0,),
    _operators.map_impl: (0,),
}
"""The operators that branch and loop, and where among their arguments their graphs are."""

Noted = tuple[Point, tuple[bool, ...], int] | None
"""What a branch or loop is, which of its sides raise, and how many rounds it runs more than are meant."""


def take_points(program: Any) -> list[Noted]:
    """The branches and loops of a program that was captured just now, in order; what they noted on it goes away."""
    graph: fx.GraphModule = program.graph_module
    found = [take_note(node) for node in _controls(graph)]
    for module in graph.modules():
        if isinstance(module, fx.GraphModule):
            for node in module.graph.nodes:
                take_note(node)
    return found


def points_to_json(points: Sequence[Noted]) -> list[Any]:
    """Points as JSON data."""
    return [each and [astuple(each[0]), each[1], each[2]] for each in points]


def points_from_json(data: Sequence[Any]) -> list[Noted]:
    """What `points_to_json` wrote."""
    found: list[Noted] = []
    for each in data:
        if each is None:
            found.append(None)
        else:
            (kind, file, line, module_path, sides), raises, more = each
            found.append((Point(kind, file, line, module_path, tuple(sides)), tuple(raises), more))
    return found


def _controls(module: fx.GraphModule) -> Iterator[fx.Node]:
    """The branches and loops of a graph, each followed by those in it."""
    for node in module.graph.nodes:
        if node.op == "call_function" and node.target in _PLACES:
            yield node
            for place in _PLACES[node.target]:
                yield from _controls(getattr(module, node.args[place].target))


class CountedProgram:
    """A program that says which sides a call of it takes.

    Args:
        module: What runs it, as ``ExportedProgram.module()`` gives it.
        points: Its branches and loops.

    Attributes:
        points: Those of them that are points.
        sides: Their sides, each with the point, its name, and whether it raises.
    """

    def __init__(self, module: fx.GraphModule, points: Sequence[Noted]) -> None:
        controls = list(_controls(module))
        self._module = module
        self.points: list[Point] = []
        self.sides: list[tuple[Point, str, bool]] = []
        self.first: dict[fx.Node, tuple[int, int]] = {}
        if len(controls) != len(points):  # another torch reads the file otherwise
            return
        for node, noted in zip(controls, points, strict=True):
            if noted is None:
                continue
            point, raises, more = noted
            self.points.append(point)
            self.first[node] = len(self.sides), more
            for name, raising in zip(point.sides, raises or [False] * len(point.sides), strict=True):
                self.sides.append((point, name, raising))

    def __bool__(self) -> bool:
        return bool(self.points)

    def __call__(self, *flat: Tensor) -> tuple[Any, list[int]]:
        """Runs it.

        Returns:
            Its result, and how often each of the sides was taken.
        """
        counts = [0] * len(self.sides)
        return _Counting(self._module, self.first, counts).run(*flat), counts


class _Counting(fx.Interpreter):
    """Runs a graph by torch's own operators, with graphs for their sides that count."""

    def __init__(self, module: fx.GraphModule, first: dict[fx.Node, tuple[int, int]], counts: list[int]) -> None:
        super().__init__(module)
        self.first, self.counts = first, counts

    def run_node(self, n: fx.Node) -> Any:
        """Runs a node."""
        if n.op != "call_function" or n.target not in _PLACES:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        given: list[Any] = list(args)
        first, more = self.first.get(n, (-1, 0))
        rounds = 0

        def run(graph: fx.GraphModule, count: Callable[[], None]) -> Callable[..., Any]:
            def counted(*inner: Any) -> Any:
                count()
                return _Counting(graph, self.first, self.counts).run(*inner)

            return counted

        def take(side: int) -> Callable[[], None]:
            def count() -> None:
                nonlocal rounds
                rounds += 1
                if first >= 0 and n.target is _operators.cond:
                    self.counts[first + side] += 1

            return count

        for side, place in enumerate(_PLACES[n.target]):
            graph = given[place]
            passed = n.target is _operators.while_loop and side == 0
            given[place] = run(graph, (lambda: None) if passed else take(side))
        target: Any = n.target
        result = target(*given, **kwargs)
        if first >= 0 and n.target is not _operators.cond:
            if n.target is not _operators.while_loop:
                rounds = len(given[2 if n.target is _operators.scan else 1][0])
            self.counts[first + min(max(rounds - more, 0), len(ROUNDS) - 1)] += 1
        return result
