"""Where a model only validates (an `assert`, an `if` that does nothing but raise) or only says something."""

from __future__ import annotations

import ast
import functools
import linecache
import re

from .._sites import Site


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
    for node in ast.walk(_parsed(file)):
        if not isinstance(node, (ast.Assert, ast.If)):
            continue
        raises = isinstance(node, ast.Assert) or _raises(node.body) or _raises(node.orelse)
        # What an assignment in it names goes on.
        if raises and not any(isinstance(each, ast.NamedExpr) for each in ast.walk(node.test)):
            found.append((node.test.lineno, node.test.end_lineno or node.test.lineno))
    return found


def _parsed(file: str) -> ast.Module:
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:  # a notebook cell with magic commands, say
        return ast.Module([], [])


@functools.lru_cache(maxsize=64)
def _tests(file: str) -> list[tuple[int, int, bool, str]]:
    """The tests of a file that validate: first and last line, how they come out if nothing is raised, what is else."""
    found: list[tuple[ast.expr, bool, str]] = []
    for node in ast.walk(_parsed(file)):
        if isinstance(node, ast.Assert) and not _has(node.test, ast.Or):
            says = _text(node.msg) if node.msg else ast.unparse(node.test)
            found.append((node.test, True, f"AssertionError: {says}"))
        elif isinstance(node, ast.If) and _raises(node.body) and not _has(node.test, ast.And):
            found.append((node.test, False, _raised(node.body[0])))
        elif isinstance(node, ast.If) and _raises(node.orelse) and not _has(node.test, ast.Or):
            found.append((node.test, True, _raised(node.orelse[0])))
    return [(test.lineno, test.end_lineno or test.lineno, passes, says) for test, passes, says in found]


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
    for node in ast.walk(_parsed(file)):
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


def _has(test: ast.expr, kind: type[ast.boolop]) -> bool:
    return any(isinstance(node, kind) for node in ast.walk(test))
