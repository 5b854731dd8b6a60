"""Which sides of the branches and loops in a file its checks take.

A check runs the graph of the re-loaded bytes with a counter in each block, so that what is counted is what is
compared. The counters are in a copy of the graph in memory: neither the file nor the module in it has them.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from difflib import SequenceMatcher
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from .. import _torch
from ..control.points import CONTROL, ROUNDS, Point, noted, scripted
from .devices import Runner
from .report import Branch, Check, Side

if TYPE_CHECKING:
    from .sides import CountedProgram

Points = Mapping[str, "Sequence[Point | None]"]
"""For each method of a file what its branches and loops are, in the order of its graph."""


@dataclass(frozen=True)
class _Control:
    """A branch or loop in a graph.

    Attributes:
        node: Its node.
        key: What it has in common with the same one in the graph of the file.
        raises: For each of its blocks whether that does nothing but raise in the end.
        open: Whether it is a branch point at all: no check that raises, no fixed number of rounds, not inside of
            a side that raises.
    """

    node: Any
    key: tuple[str, int, int]
    raises: tuple[bool, ...]
    open: bool


def in_file(module: _torch.ScriptModule, traced: _torch.ScriptModule, methods: Iterable[str]) -> Points:
    """The branch points of a file's methods, told by the module that was saved into it.

    Args:
        module: The module in the file.
        traced: The module that was saved.
        methods: The methods that are called.
    """
    found: dict[str, Sequence[Point | None]] = {}
    for method in methods:
        before = _controls(_torch.inlined(traced, method))
        after = [each.key for each in _controls(_torch.inlined(module, method))]
        points = [_point(each) for each in before]
        keys = [each.key for each in before]
        if keys != after:  # torch drops, on the way, branches that it finds to be constant
            matched = SequenceMatcher(None, keys, after, autojunk=False).get_matching_blocks()
            pairs = {b + i: points[a + i] for a, b, size in matched for i in range(size)}
            points = [pairs.get(index) for index in range(len(after))]
        found[method] = points
    return found


def points_to_json(points: Points) -> dict[str, Any]:
    """Branch points as JSON data: per method how many branches and loops its graph has, and which are points."""
    return {
        method: [len(every), [[index, *astuple(each)] for index, each in enumerate(every) if each]]
        for method, every in points.items()
    }


def points_from_json(data: Mapping[str, Any]) -> Points:
    """What `points_to_json` wrote."""
    found = {}
    for method, (count, rows) in data.items():
        points: list[Point | None] = [None] * count
        for index, kind, file, line, module_path, sides in rows:
            points[index] = Point(kind, file, line, module_path, tuple(sides))
        found[method] = points
    return found


def _point(control: _Control) -> Point | None:
    if not control.open:
        return None
    point = noted(control.node) or scripted(control.node)
    return point if point.kind else None


def _controls(graph: Any) -> list[_Control]:
    found: list[_Control] = []
    _collect(graph.nodes(), 0, True, found)
    return found


def _collect(nodes: Iterable[Any], depth: int, reached: bool, found: list[_Control]) -> None:
    for node in nodes:
        blocks = list(node.blocks())
        if not blocks:
            continue
        raises = tuple(map(_raises, blocks))
        if node.kind() in CONTROL:
            open_ = reached and not _is_fixed(node, blocks, raises)
            found.append(_Control(node, (node.kind(), depth, node.outputsSize()), raises, open_))
        for block, raising in zip(blocks, raises, strict=True):
            _collect(block.nodes(), depth + 1, reached and not raising, found)


def _is_fixed(node: Any, blocks: Sequence[Any], raises: Sequence[bool]) -> bool:
    """Whether what runs is known, or there is nothing but a check: one side raises and the other does nothing."""
    if node.kind() == "prim::Loop":
        counts = [value.node() for value in list(node.inputs())[:2]]
        goes = [value.node().kind() for value in list(blocks[0].outputs())[:1]]
        endless = counts[0].kind() != "prim::Constant" or counts[0].output().toIValue() == sys.maxsize
        return not endless and counts[1].kind() == "prim::Constant" and goes == ["prim::Constant"]
    if node.inputsAt(0).node().kind() == "prim::Constant":
        return True
    if node.outputsSize():
        return False
    return any(raises) and any(not raising and not list(b.nodes()) for b, raising in zip(blocks, raises, strict=True))


def _raises(block: Any) -> bool:
    """Whether a block always raises."""
    for node in block.nodes():
        if node.kind() == "prim::RaiseException":
            return True
        if node.kind() == "prim::If" and all(map(_raises, node.blocks())):
            return True
    return False


class _Counted:
    """A method of a loaded file that says which sides a call of it takes.

    Args:
        module: The module.
        method: The method.
        points: Its branch points.
    """

    def __init__(self, module: _torch.ScriptModule, method: str, points: Sequence[Point | None]) -> None:
        graph = _torch.inlined(module, method)
        controls = _controls(graph)
        self.sides: list[tuple[Point, str, bool]] = []
        self._run: Callable[..., Any] | None = None
        if len(controls) != len(points):  # another torch reads the file otherwise
            return
        chosen = [(control, point) for control, point in zip(controls, points, strict=True) if point]
        self.points: list[Point] = [point for _, point in chosen]
        if not chosen:
            return
        counts = graph.addInput("counts")
        counts.setType(_torch.type_named("IntList"))
        end = graph.insertPoint()
        for control, point in chosen:
            if control.node.kind() == "prim::Loop":
                self._count_rounds(graph, control, counts, point)
            else:
                for block, name, raises in zip(control.node.blocks(), point.sides, control.raises, strict=True):
                    graph.setInsertPoint(next(iter(block.nodes()), block.returnNode()))
                    _add_one(graph, counts, _torch.insert_constant(graph, len(self.sides)))
                    self.sides.append((point, name, raises))
        graph.setInsertPoint(end)
        [result] = graph.outputs()
        both = _torch.insert_tuple(graph, [result, counts])
        graph.eraseOutput(0)
        graph.registerOutput(both)
        self._module = module
        self._run = _torch.function_of(graph)

    def _count_rounds(self, graph: Any, control: _Control, counts: Any, point: Point) -> None:
        """Counts how often a loop ran no round, one, or more; its rounds are counted in a place of their own."""
        integer = _torch.type_named("IntType")
        first = len(self.sides)
        node, (raises,) = control.node, control.raises
        (block,) = node.blocks()
        graph.setInsertPoint(node)
        place, zero = _torch.insert_constant(graph, first + len(ROUNDS)), _torch.insert_constant(graph, 0)
        _torch.insert(graph, "aten::_set_item", [counts, place, zero], _torch.type_named("IntList"))
        graph.setInsertPoint(next(iter(block.nodes()), block.returnNode()))
        _add_one(graph, counts, place)
        graph.setInsertPoint(_torch.next_node(node))
        rounds = _torch.insert(graph, "aten::__getitem__", [counts, place], integer)
        most = _torch.insert_constant(graph, len(ROUNDS) - 1)
        which = _torch.insert(graph, "prim::min", [rounds, most], integer)
        start = _torch.insert_constant(graph, first)
        _add_one(graph, counts, _torch.insert(graph, "aten::add", [which, start], integer))
        self.sides += [(point, name, raises and name != ROUNDS[0]) for name in (*point.sides, "")]

    def __bool__(self) -> bool:
        return self._run is not None

    def __call__(self, *args: Any) -> tuple[Any, list[int]]:
        """Calls the method.

        Returns:
            Its result, and how often each of the sides was taken.
        """
        assert self._run is not None
        result, counts = self._run(self._module, *args, [0] * len(self.sides))
        return result, counts


def _add_one(graph: Any, counts: Any, place: Any) -> None:
    integer = _torch.type_named("IntType")
    before = _torch.insert(graph, "aten::__getitem__", [counts, place], integer)
    after = _torch.insert(graph, "aten::add", [before, _torch.insert_constant(graph, 1)], integer)
    _torch.insert(graph, "aten::_set_item", [counts, place, after], _torch.type_named("IntList"))


_Key = tuple[str, int, str, str]


class Coverage:
    """Counts which checks take which side, over all devices.

    Args:
        points: The branch points of the file's methods.

    Attributes:
        by_check: The sides that each check took.
    """

    def __init__(self, points: Points) -> None:
        self._points = points
        self._sides: dict[_Key, dict[str, Side]] = {}
        self._nodes: Counter[_Key] = Counter()
        self._known: set[object] = set()
        self.by_check: dict[tuple[str, str, str], frozenset[tuple[_Key, str]]] = {}

    def counted(self, module: _torch.ScriptModule, method: str) -> _Counted:
        """A method that counts, its branch points entered; false where it has none."""
        made = _Counted(module, method, self._points.get(method, ()))
        if made:
            self.enter(method, made)
        return made

    def enter(self, of: object, counted: _Counted | CountedProgram) -> None:
        """Enters the branch points of a method or a program, once."""
        if of in self._known:
            return
        self._known.add(of)
        self._nodes.update(map(_key, counted.points))
        for point, name, raises in counted.sides:
            sides = self._sides.setdefault(_key(point), {})
            if name:
                sides[name] = Side(name, 0, raises and (name not in sides or sides[name].raises))

    def taken(self, sides: Sequence[tuple[Point, str, bool]], counts: Sequence[int]) -> frozenset[tuple[_Key, str]]:
        """Which sides one call took."""
        total: Counter[tuple[_Key, str]] = Counter()
        for (point, name, _), count in zip(sides, counts, strict=True):
            total[_key(point), name] += count
        for key, name in list(total):
            if key[3] == "scan" and name == ROUNDS[1]:  # of no slices one round runs all the same, on zeros
                total[key, name] -= total[key, ROUNDS[0]]
        return frozenset((key, name) for (key, name), count in total.items() if name and count > 0)

    def branches(self, checks: Iterable[Check]) -> tuple[Branch, ...]:
        """The branch points, and how many of these checks took each side: each line once, by module."""
        none: frozenset[tuple[_Key, str]] = frozenset()
        counts = Counter(side for check in checks for side in self.by_check.get(_check_key(check), none))
        found = []
        for key, sides in self._sides.items():
            counted = (replace(side, checks=counts[key, side.name]) for side in sides.values())
            found.append(Branch(*key, _ordered(counted), self._nodes[key]))
        return tuple(found)


def _check_key(check: Check) -> tuple[str, str, str]:
    return check.device, check.entry, check.input


def _key(point: Point) -> _Key:
    return point.file, point.line, point.module_path, point.kind


def _ordered(sides: Iterable[Side]) -> tuple[Side, ...]:
    """The sides of a loop in order; those of a branch as they are."""
    order = {name: index for index, name in enumerate(ROUNDS)}
    return tuple(sorted(sides, key=lambda side: order.get(side.name, -1)))


class Counting:
    """Runs the methods of one module, and counts."""

    def __init__(self, coverage: Coverage, module: nn.Module) -> None:
        self._coverage = coverage
        self._module = module
        self._counted: dict[str, _Counted] = {}
        self._taken: frozenset[tuple[_Key, str]] = frozenset()

    def method(self, name: str) -> Callable[..., Any]:
        """A method as C++ calls it; where there is nothing to count, itself."""
        self._taken = frozenset()
        if isinstance(self._module, Runner):
            return partial(self._count_program, self._module, name)
        if not isinstance(self._module, _torch.ScriptModule):
            return _torch.method_named(self._module, name)
        if name not in self._counted:
            self._counted[name] = self._coverage.counted(self._module, name)
        counted = self._counted[name]
        if not counted:
            return _torch.method_named(self._module, name)

        def run(*args: Any) -> Any:
            result, counts = counted(*args)
            self._taken = self._coverage.taken(counted.sides, counts)
            return result

        return run

    def _count_program(self, runner: Runner, name: str, *args: Any) -> Any:
        """Calls a file of programs; where they are not what runs it, they count beside it."""
        case, flat = runner.case(name, args)
        counted = runner.counted.get(case)
        if not counted:
            return getattr(runner, name)(*args)
        self._coverage.enter(case, counted)
        if runner.counts:
            result, counts = counted(*flat)
        else:
            result = getattr(runner, name)(*args)
            try:
                _, counts = counted(*flat)
            except (RuntimeError, AssertionError):  # the file takes what the program is not for: nothing is known then
                return result
        self._taken = self._coverage.taken(counted.sides, counts)
        return result

    def keep(self, check: Check) -> None:
        """Notes which sides the last call took, for the check that it was made for."""
        self._coverage.by_check[_check_key(check)] = self._taken
