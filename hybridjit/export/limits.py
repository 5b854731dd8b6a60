"""Counters that end a loop, told by its text: ``while error > 1e-3 and k < 50:`` with a ``k += 1`` in it."""

from __future__ import annotations

import ast
import functools
import operator
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any, NamedTuple

from .._sites import Line
from ..control.names import Function, assigned, declared
from .validation import parsed


class Limit(NamedTuple):
    """A counter that ends a loop, too: ``while error > 1e-3 and k < 50:`` with a ``k += 1`` in it.

    Attributes:
        name: The variable.
        step: What each turn adds to it.
        test: What it is compared with, and how.
        truth: What that gives as long as the loop goes on.
        within: Whether that is asked within a turn, and not where a further one would begin.
    """

    name: str
    step: int
    test: ast.Compare
    truth: bool
    within: bool

    def at(self, frame: FrameType) -> object:
        """What the counter has in a frame."""
        return frame.f_locals.get(self.name)

    def is_own(self, tree: ast.Module, loop: ast.For | ast.While, tests: Iterable[ast.expr]) -> bool:
        """Whether it begins anew for each run of a loop, and nothing but the loop's tests goes by the counter.

        What it has in the end does not matter then.
        """
        function = _around(tree, loop.lineno)
        return function is not None and self.name in _unread(function, tests) and _begins(tree, loop, self.name)

    def turns(self, frame: FrameType) -> int | None:
        """How many turns there may be, from the first one's begin in a frame; ``None`` if that is not known."""
        first, bound = self.test.left, self.test.comparators[0]
        counts = isinstance(first, ast.Name) and first.id == self.name
        sides = [look_up(each, frame) for each in (first, bound)]
        start, against = sides if counts else sides[::-1]
        if type(start) is not int or type(against) not in (int, float):
            return None
        compare = _COMPARED[type(self.test.ops[0])]
        # Within a turn the counter may be one further, and the turn in which it is too far is there to raise.
        numbers = (start + (at + self.within) * self.step for at in range(_MANY))
        going = (compare(*((each, against) if counts else (against, each))) is self.truth for each in numbers)
        return next((at for at, goes in enumerate(going) if not goes), _MANY) + self.within


_MANY = 100_000
_COMPARED: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def limit_of(loop: ast.For | ast.While, test: ast.expr, truth: bool, *, within: bool) -> Limit | None:
    """What a test asks of a counter of a loop, if it asks nothing else."""
    if not isinstance(test, ast.Compare) or len(test.ops) != 1 or type(test.ops[0]) not in _COMPARED:
        return None
    sides = [test.left, test.comparators[0]]
    read = [each for side in sides for each in ast.walk(side)]
    changed = {each.id for each in read if isinstance(each, ast.Name)} & assigned([loop])
    counters = [each.id for each in sides if isinstance(each, ast.Name) and each.id in changed]
    stored = [each.id for each in ast.walk(loop) if isinstance(each, ast.Name) and not isinstance(each.ctx, ast.Load)]
    passed = any(isinstance(each, ast.Continue) for each in ast.walk(loop))  # by which it may not count a turn
    if len(changed) != 1 or len(counters) != 1 or stored.count(counters[0]) != 1 or passed:
        return None
    steps = [step for each in loop.body if (step := _step(each)) is not None and step[0] == counters[0]]
    return Limit(*steps[0], test, truth, within) if steps else None


def _begins(tree: ast.Module, loop: ast.stmt, name: str) -> bool:
    """Whether what was last done to a variable ahead of a loop, in its block, is that it was given a constant."""
    blocks = (value for node in ast.walk(tree) for _, value in ast.iter_fields(node) if isinstance(value, list))
    block = next(each for each in blocks if loop in each)
    ahead = (each for each in reversed(block[: block.index(loop)]) if name in assigned([each]))
    given = next(ahead, None)
    if not isinstance(given, ast.Assign) or len(given.targets) > 1:
        return False
    targets, values = given.targets, [given.value]
    if isinstance(targets[0], ast.Tuple) and isinstance(given.value, ast.Tuple):
        targets, values = targets[0].elts, given.value.elts
    pairs = zip(targets, values, strict=False)
    return any(ast.unparse(each) == name and isinstance(value, ast.Constant) for each, value in pairs)


@functools.lru_cache(maxsize=256)
def unread(line: Line) -> frozenset[str]:
    """The variables of the function around a line of which nothing goes by what they hold: counters, say."""
    function = _around(parsed(line[0]), line[1])
    return frozenset() if function is None else _unread(function)


def _around(tree: ast.Module, line: int) -> ast.AST | None:
    """The innermost function around a line."""
    functions = (each for each in ast.walk(tree) if isinstance(each, Function))
    found = [each for each in functions if each.lineno <= line <= (each.end_lineno or each.lineno)]
    return found[-1] if found else None  # what is further within comes later


def _unread(function: ast.AST, but: Iterable[ast.AST] = ()) -> frozenset[str]:
    nodes = list(ast.walk(function))
    read = {each.id for each in _read(function, but)}
    if read & {"locals", "vars", "dir", "eval", "exec"}:
        return frozenset()
    shared = {name for each in declared(nodes) for name in each.names}
    return frozenset({each.id for each in nodes if isinstance(each, ast.Name)} - read - shared)


def _read(function: ast.AST, but: Iterable[ast.AST] = ()) -> Iterator[ast.Name]:
    """The names that something goes by, besides what counts with them: ``k = k + 1``."""
    passed = set(but)
    for node in ast.walk(function):  # parents come before their children
        if isinstance(node, ast.Assign) and _step(node) is not None:
            passed.add(node.value)
        if node in passed:
            passed.update(ast.iter_child_nodes(node))
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node


def _step(statement: ast.AST) -> tuple[str, int] | None:
    """The variable that a statement adds a whole number to, and that number."""
    if isinstance(statement, ast.AugAssign):
        targets: list[ast.expr] = [statement.target]
        op, value = statement.op, statement.value
    elif isinstance(statement, ast.Assign) and isinstance(statement.value, ast.BinOp):
        targets = [*statement.targets, statement.value.left]
        op, value = statement.value.op, statement.value.right
    else:
        return None
    names = {each.id if isinstance(each, ast.Name) else "" for each in targets}
    if len(names) > 1 or "" in names or not isinstance(value, ast.Constant) or type(value.value) is not int:
        return None
    signs = {ast.Add: 1, ast.Sub: -1}
    step = signs.get(type(op), 0) * value.value
    return (names.pop(), step) if step else None


def look_up(given: ast.expr, frame: FrameType) -> Any:
    """What an expression gives in a frame that only looks up what is there; ``None`` for any other."""
    if not all(isinstance(each, _READ) for each in ast.walk(given)):
        return None
    try:
        return eval(ast.unparse(given), frame.f_globals, frame.f_locals)
    except (NameError, AttributeError):  # deleted since
        return None


_READ = (ast.Constant, ast.Name, ast.Attribute, ast.Load)
"""What asks for nothing but what is there."""
