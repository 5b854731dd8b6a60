"""Loops that end by what a tensor holds, told by their text: ``while x.sum() > 1:``, and an ``if`` with a ``break``."""

from __future__ import annotations

import ast
import dis
import functools
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import NamedTuple

from .._sites import Line
from ..control.names import Comprehension, Function, assigned
from ..control.paths import PATH_LIMIT
from .validation import parsed


class End(NamedTuple):
    """What alone ends a loop.

    Attributes:
        loop: The loop.
        test: What is asked.
        truth: The truth of the tensor in it with which the loop goes on.
    """

    loop: ast.For | ast.While
    test: ast.expr
    truth: bool

    def is_asked(self, frame: FrameType) -> bool:
        """Whether a frame is at the truth of the test, and not of a part of it: of a size in ``x.shape == y.shape``."""
        at = dis.opname[frame.f_code.co_code[frame.f_lasti]]
        if at.startswith(("CALL", "PRECALL")):
            return isinstance(self.test, ast.Call) and ast.unparse(self.test.func).endswith(_TRUTHS)
        return at.startswith(("POP_JUMP", "JUMP", "UNARY_NOT", "TO_BOOL"))

    def most(self, frame: FrameType) -> int | None:
        """How many turns the range has that a ``for`` in a frame goes through; ``None`` if that is not known, or few.

        Few are branches: those also know what happens if the range ends first.
        """
        over = self.loop.iter if isinstance(self.loop, ast.For) else None
        if not isinstance(over, ast.Call) or ast.unparse(over.func) != "range" or over.keywords:
            return None
        read = [each for given in over.args for each in ast.walk(given)]
        names = {each.id for each in read if isinstance(each, ast.Name)}
        if not all(isinstance(each, _READ) for each in read) or names & assigned([self.loop]):
            return None
        try:
            given = [eval(ast.unparse(each), frame.f_globals, frame.f_locals) for each in over.args]
        except (NameError, AttributeError):  # deleted since
            return None
        many = all(type(each) is int for each in given) and len(range(*given)) > PATH_LIMIT
        return len(range(*given)) if many else None

    def counter(self, file: str) -> str:
        """The variable that has the number of the turn, if nothing in the function around the loop reads it."""
        target = self.loop.target if isinstance(self.loop, ast.For) else None
        name = target.id if isinstance(target, ast.Name) else ""
        functions = [
            each for each in ast.walk(parsed(file)) if isinstance(each, Function) and _has(each, self.loop.lineno)
        ]
        names = [each for each in ast.walk(functions[-1]) if isinstance(each, ast.Name)] if functions else []
        return "" if any(each.id == name and isinstance(each.ctx, ast.Load) for each in names) else name


_TRUTHS = ("bool", ".item", ".is_nonzero")
_READ = (ast.Constant, ast.Name, ast.Attribute, ast.Load)
"""What asks for nothing but what is there."""


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
    return [end for end in map(end_of, loops) if end is not None]


def end_of(loop: ast.For | ast.While) -> End | None:
    """What alone ends a loop, if that is the truth of one value that each turn asks for."""
    exits, body = list(_exits(loop.body)), loop.body
    if isinstance(loop, ast.For) or (isinstance(loop.test, ast.Constant) and loop.test.value):
        ends = [each for each in body if isinstance(each, ast.If) and isinstance(each.body[-1], ast.Break)]
        if len(ends) != 1 or len(exits) != 1:
            return None
        test, truth = ends[0].test, False
        body = [*ends[0].body[:-1], *ends[0].orelse, *body[body.index(ends[0]) + 1 :]]
    elif exits:
        return None
    else:
        test, truth = loop.test, True
    if any(each.lineno <= (test.end_lineno or test.lineno) for each in body):
        return None  # what else is asked in that line can't be told from the test
    while isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        test, truth = test.operand, not truth
    if any(isinstance(each, _SEVERAL) for each in ast.walk(test)):
        return None
    if any(isinstance(each, ast.Compare) and len(each.ops) > 1 for each in ast.walk(test)):
        return None
    return End(loop, test, truth)


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
