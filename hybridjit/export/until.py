"""Loops that end by what a tensor holds, told by their text: ``while x.sum() > 1:``, and an ``if`` with a ``break``."""

from __future__ import annotations

import ast
import dis
import functools
import sys
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import NamedTuple

from .._sites import Line
from ..control.names import Comprehension, Function, assigned
from ..control.paths import PATH_LIMIT
from .limits import Limit, limit_of, look_up
from .validation import parsed


class End(NamedTuple):
    """What ends a loop.

    Attributes:
        loop: The loop.
        test: What is asked of a tensor.
        truth: The truth of the tensor in it with which the loop goes on.
        limits: What else ends it.
    """

    loop: ast.For | ast.While
    test: ast.expr
    truth: bool
    limits: tuple[Limit, ...] = ()

    @property
    def counted(self) -> list[ast.expr]:
        """Where it asks for its counters."""
        return [each.test for each in self.limits]

    def is_asked(self, frame: FrameType) -> bool:
        """Whether a frame is at the truth of the test, and not of a part of it: of a size in ``x.shape == y.shape``."""
        at = dis.opname[frame.f_code.co_code[frame.f_lasti]]
        if at.startswith(("CALL", "PRECALL")):
            return isinstance(self.test, ast.Call) and ast.unparse(self.test.func).endswith(_TRUTHS)
        if at == "COMPARE_OP" and sys.version_info >= (3, 13):  # which asks what it gives for its truth, then
            return bool(frame.f_code.co_code[frame.f_lasti + 1] & _AS_TRUTH) and _is_of_values(self.test)
        return at.startswith(("POP_JUMP", "JUMP", "UNARY_NOT", "TO_BOOL"))

    def most(self, frame: FrameType) -> tuple[int | None, int | None] | None:
        """How many turns there may be, from the first one's begin in a frame; ``None`` if that is not known.

        Returns:
            How many there are at most where a test within turns, or a range, ends them otherwise than the truth of the
            tensor would, and where nothing else follows; ``None`` for any number.
        """
        turns = [(each.within, each.turns(frame)) for each in self.limits]
        if isinstance(self.loop, ast.For):
            turns.append((True, self._range(frame)))
        known = [(within, count) for within, count in turns if count is not None]
        if len(known) < len(turns):
            return None
        least = [min((count for each, count in known if each is within), default=None) for within in (True, False)]
        return least[0], least[1]

    def _range(self, frame: FrameType) -> int | None:
        """How many turns the range has that a ``for`` goes through; ``None`` if that is not known, or few.

        Few are branches: those also know what happens if the range ends first.
        """
        over = self.loop.iter if isinstance(self.loop, ast.For) else None
        if not isinstance(over, ast.Call) or ast.unparse(over.func) != "range" or over.keywords:
            return None
        read = [each for given in over.args for each in ast.walk(given)]
        if {each.id for each in read if isinstance(each, ast.Name)} & assigned([self.loop]):
            return None
        given = [look_up(each, frame) for each in over.args]
        many = all(type(each) is int for each in given) and len(range(*given)) > PATH_LIMIT
        return len(range(*given)) if many else None


_TRUTHS = ("bool", ".item", ".is_nonzero")
_AS_TRUTH = 16


def _is_of_values(test: ast.expr) -> bool:
    """Whether a comparison is of no sizes as a whole, of which each would be asked for."""
    if not isinstance(test, ast.Compare):
        return False
    sides = [test.left, *test.comparators]
    return not isinstance(test.ops[0], (ast.Eq, ast.NotEq)) or any(isinstance(each, ast.Constant) for each in sides)


def end_at(line: Line) -> tuple[Line, End] | None:
    """What a loop ends by in whose test a line is, and the line of the test."""
    found = [end for end in _ends(line[0]) if _has(end.test, line[1])]
    return ((line[0], found[0].test.lineno), found[0]) if len(found) == 1 else None


def ends_around(line: Line) -> set[Line]:
    """The lines of the tests of such loops as have a line in them."""
    return {(line[0], end.test.lineno) for end in _ends(line[0]) if _has(end.loop, line[1])}


def _has(node: ast.stmt | ast.expr, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or node.lineno)


@functools.lru_cache(maxsize=64)
def _ends(file: str) -> list[End]:
    """A file's loops that end by one test; in a ``try`` an exception may end them, too."""
    tree = parsed(file)
    tried = {child for node in ast.walk(tree) if isinstance(node, ast.Try) for child in ast.walk(node)}
    loops = (node for node in ast.walk(tree) if isinstance(node, ast.For | ast.While) and node not in tried)
    ends = [end for end in map(end_of, loops) if end is not None]
    return [end for end in ends if all(each.is_own(tree, end.loop, end.counted) for each in end.limits)]


def end_of(loop: ast.For | ast.While) -> End | None:
    """What ends a loop, if that is the truth of one value that each turn asks for, or a counter."""
    exits, body = list(_exits(loop.body)), loop.body
    breaks = [each for each in body if isinstance(each, ast.If) and isinstance(each.body[-1], ast.Break)]
    limits = {each: limit for each in breaks if (limit := limit_of(loop, each.test, False, within=True)) is not None}
    headless = isinstance(loop, ast.For) or (isinstance(loop.test, ast.Constant) and bool(loop.test.value))
    if headless and len(breaks) == 1:
        limits = {}  # or nothing would end by a tensor
    ends = [each for each in breaks if each not in limits]
    if len(exits) != len(breaks):
        return None
    if isinstance(loop, ast.For) or headless:
        if len(ends) != 1:
            return None
        test, truth = ends[0].test, False
        body = [*ends[0].body[:-1], *ends[0].orelse, *body[body.index(ends[0]) + 1 :]]
        beside = []
    elif ends:
        return None
    else:
        every = loop.test.values if isinstance(loop.test, ast.BoolOp) and isinstance(loop.test.op, ast.And) else []
        beside = [limit for each in every if (limit := limit_of(loop, each, True, within=False)) is not None]
        tests = [each for each in every if not any(each is limit.test for limit in beside)] or [loop.test]
        test, truth = tests[0] if len(tests) == 1 else loop.test, True
    if any(each.lineno <= (test.end_lineno or test.lineno) for each in body):
        return None  # what else is asked in that line can't be told from the test
    while isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        test, truth = test.operand, not truth
    if any(isinstance(each, _SEVERAL) for each in ast.walk(test)):
        return None
    if any(isinstance(each, ast.Compare) and len(each.ops) > 1 for each in ast.walk(test)):
        return None
    return End(loop, test, truth, (*limits.values(), *beside))


_SEVERAL = (ast.BoolOp, ast.IfExp, ast.NamedExpr, ast.Lambda, ast.Not, *Comprehension)
"""What may ask for more than one truth, or for one more than once."""


def _exits(nodes: Iterable[ast.AST], loop: bool = True) -> Iterator[ast.AST]:
    """What ends a loop from within its body, or halts it; the ``break``s of a loop in it are that one's."""
    for node in nodes:
        if isinstance(node, (ast.Return, ast.Yield, ast.YieldFrom, ast.Await)) or (
            loop and isinstance(node, ast.Break)
        ):
            yield node
        if isinstance(node, (ast.For, ast.AsyncFor, ast.While)):
            yield from _exits(node.body, False)
            yield from _exits(node.orelse, loop)
        elif not isinstance(node, (Function, ast.ClassDef)):
            yield from _exits(ast.iter_child_nodes(node), loop)
