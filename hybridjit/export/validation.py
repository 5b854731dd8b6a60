"""Where a model only validates, only says something, or does nothing with a value, as its source has it."""

from __future__ import annotations

import ast
import functools
import itertools
import linecache
import re

from .._sites import Site
from ..control.names import Comprehension


def only_validates(site: Site, holds: bool) -> bool:
    """Whether the model itself raises where the test at a line comes out otherwise.

    A guard then raises where the model does, and takes no generality from the file.

    Args:
        site: The line.
        holds: How the test came out.
    """
    return own_words(site, holds) is not None


def own_words(site: Site, holds: bool) -> str | None:
    """What the model itself raises where the test at a line comes out otherwise, as its source has it.

    Args:
        site: The line.
        holds: How the test came out.

    Returns:
        ``ValueError: expected 3 channels, got {x.shape[0]}``; ``None`` if it raises nothing there.
    """
    tests = _tests(site.file)
    return next((says for first, last, passes, says in tests if first <= site.line <= last and holds == passes), None)


def only_tests(site: Site) -> bool:
    """Whether what is asked at a line serves but the test of what validates."""
    return any(first <= site.line <= last for first, last in _lines_of_tests(site.file))


@functools.lru_cache(maxsize=64)
def _lines_of_tests(file: str) -> list[tuple[int, int]]:
    found = []
    for node in ast.walk(parsed(file)):
        if not isinstance(node, (ast.Assert, ast.If)):
            continue
        raises = isinstance(node, ast.Assert) or _raises(node.body) or _raises(node.orelse)
        # What an assignment in it names goes on.
        if raises and not any(isinstance(each, ast.NamedExpr) for each in ast.walk(node.test)):
            found.append((node.test.lineno, node.test.end_lineno or node.test.lineno))
    return found


def parsed(file: str) -> ast.Module:
    """The source of a file; nothing of one that is no Python."""
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:  # a notebook cell with magic commands, say
        return ast.Module([], [])


@functools.lru_cache(maxsize=64)
def _tests(file: str) -> list[tuple[int, int, bool, str]]:
    """The tests of a file that validate: first and last line, how they come out if nothing is raised, what is else."""
    found: list[tuple[ast.expr, bool, str]] = []
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Assert):
            says = f"AssertionError: {_text(node.msg) if node.msg else ast.unparse(node.test)}"
            found += [(*each, says) for each in _sure(node.test, True)]
        elif isinstance(node, ast.If) and _raises(node.body):
            found += [(*each, _raised(node.body[0])) for each in _sure(node.test, False)]
        elif isinstance(node, ast.If) and _raises(node.orelse):
            found += [(*each, _raised(node.orelse[0])) for each in _sure(node.test, True)]
    return [(test.lineno, test.end_lineno or test.lineno, passes, says) for test, passes, says in found]


def _sure(test: ast.expr, passes: bool) -> list[tuple[ast.expr, bool]]:
    """The parts of a test of which each by itself makes it come out otherwise, and how each comes out if it does not.

    Args:
        test: The test.
        passes: How it comes out if nothing is raised.
    """
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _sure(test.operand, not passes)
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And if passes else ast.Or):
        return [each for value in test.values for each in _sure(value, passes)]
    if isinstance(test, ast.Call) and ast.unparse(test.func) == ("all" if passes else "any") and len(test.args) == 1:
        (of,) = test.args
        if isinstance(of, (ast.GeneratorExp, ast.ListComp)) and not any(each.ifs for each in of.generators):
            return _sure(of.elt, passes)
    chains = [each for each in ast.walk(test) if isinstance(each, ast.Compare) and len(each.ops) > 1]
    several = any(isinstance(each, _SEVERAL) for each in ast.walk(test))
    return [] if several or (chains and (chains != [test] or not passes)) else [(test, passes)]


_SEVERAL = (ast.BoolOp, ast.IfExp, ast.Lambda, ast.Not, *Comprehension)
"""What may ask for truths of its own."""


def _raised(statement: ast.stmt) -> str:
    raised = statement.exc if isinstance(statement, ast.Raise) else None
    if raised is None:
        return "the exception under way"
    if isinstance(raised, ast.Call):
        return f"{ast.unparse(raised.func)}: {', '.join(map(_text, raised.args))}".removesuffix(": ")
    return ast.unparse(raised)


def _text(message: ast.expr) -> str:
    """A message as it is in the source, what is put into it in braces."""
    if isinstance(message, ast.Constant):
        return str(message.value)
    if isinstance(message, ast.JoinedStr):
        return "".join(map(_text, message.values))
    return f"{{{ast.unparse(message.value if isinstance(message, ast.FormattedValue) else message)}}}"


def _raises(body: list[ast.stmt]) -> bool:
    return bool(body) and isinstance(body[0], ast.Raise)


_SAYS = re.compile(
    "(debug|info|warn|warning|error|critical|exception|log)(_once)?|print|(.*_)?(assert|check)(_.*)?", re.IGNORECASE
)
"""The functions that are called for what they say: of a log, or of one that raises with it."""


def only_says(site: Site) -> bool:
    """Whether a text made at a line is only logged, printed, or the message of an error; it is no result then."""
    return any(first <= site.line <= last for first, last in _sayings(site.file))


@functools.lru_cache(maxsize=64)
def _sayings(file: str) -> list[tuple[int, int]]:
    """The statements of a file that only say something: first line, last line."""
    found = []
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            called = node.value.func
            name = (
                called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
            )
            if _SAYS.fullmatch(name):
                found.append((node.lineno, node.end_lineno or node.lineno))
        elif isinstance(node, ast.Raise):
            found.append((node.lineno, node.end_lineno or node.lineno))
    return found


_PURE = ("abs", "bool", "complex", "float", "int", "len", "list", "max", "min", "repr", "round", "str", "sum", "tuple")


def goes_nowhere(site: Site) -> bool:
    """Whether what is computed at a line is for a log, or for names that only it and tests of validation ask for."""
    lines = itertools.chain(_sayings(site.file), _nowhere(site.file))
    return any(first <= site.line <= last for first, last in lines)


@functools.lru_cache(maxsize=64)
def _nowhere(file: str) -> list[tuple[int, int]]:
    beside = [*_lines_of_tests(file), *_sayings(file)]
    found = []
    for function in ast.walk(parsed(file)):
        if not isinstance(function, ast.FunctionDef):
            continue
        every = list(ast.walk(function))
        shared = {name for each in every if isinstance(each, (ast.Global, ast.Nonlocal)) for name in each.names}
        dead = [each for each in every if isinstance(each, (ast.Assign, ast.Expr)) and _is_idle(each, shared)]
        before: list[ast.Assign | ast.Expr] = []
        while len(before) != len(dead):
            within = {id(each) for statement in dead for each in ast.walk(statement)}
            loaded = {
                each.id
                for each in every
                if isinstance(each, ast.Name)
                and isinstance(each.ctx, ast.Load)
                and id(each) not in within
                and not any(first <= each.lineno <= last for first, last in beside)
            }
            before, dead = dead, [each for each in dead if not loaded & _names(each)]
        simple = [each for each in every if isinstance(each, ast.stmt) and not hasattr(each, "body")]
        alive = {line for each in simple if each not in dead for line in range(*_lines(each))}
        found += [(first, last - 1) for first, last in map(_lines, dead) if alive.isdisjoint(range(first, last))]
    return found


def _lines(statement: ast.stmt) -> tuple[int, int]:
    return statement.lineno, (statement.end_lineno or statement.lineno) + 1


def _is_idle(statement: ast.Assign | ast.Expr, shared: set[str]) -> bool:
    """Whether a statement but gives names of the function values, which nothing is called with that may keep them."""
    if isinstance(statement, ast.Assign):
        if not all(isinstance(each, (ast.Name, ast.Tuple)) for each in statement.targets):
            return False
        plain = all(
            isinstance(each, (ast.Name, ast.Tuple, ast.expr_context))
            for target in statement.targets
            for each in ast.walk(target)
        )
        if not plain or shared & _names(statement):
            return False
    calls = [each for each in ast.walk(statement.value) if isinstance(each, ast.Call)]
    odd = (ast.NamedExpr, ast.Yield, ast.YieldFrom, ast.Await)
    return all(map(_is_pure, calls)) and not any(isinstance(each, odd) for each in ast.walk(statement.value))


def _is_pure(call: ast.Call) -> bool:
    if isinstance(call.func, ast.Name):
        return call.func.id in _PURE
    given = [*call.args, *(each.value for each in call.keywords)]
    return isinstance(call.func, ast.Attribute) and all(isinstance(each, ast.Constant) for each in given)


def _names(statement: ast.Assign | ast.Expr) -> set[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
