"""Where a model only validates (an `assert`, an `if` that does nothing but raise) or only says something."""

from __future__ import annotations

import ast
import functools
import linecache

from .._sites import Site


def only_validates(site: Site, holds: bool) -> bool:
    """Whether the model itself raises where the test at a line comes out otherwise.

    A guard then raises where the model does, and takes no generality from the file.

    Args:
        site: The line.
        holds: How the test came out.
    """
    return any(first <= site.line <= last and holds == passes for first, last, passes in _tests(site.file))


@functools.lru_cache(maxsize=64)
def _tests(file: str) -> list[tuple[int, int, bool]]:
    """The tests of a file that validate: first line, last line, and how they come out if nothing is raised."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:  # a notebook cell with magic commands, say
        return []
    found: list[tuple[ast.expr, bool]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert) and not _has(node.test, ast.Or):
            found.append((node.test, True))
        elif isinstance(node, ast.If) and _raises(node.body) and not _has(node.test, ast.And):
            found.append((node.test, False))
        elif isinstance(node, ast.If) and _raises(node.orelse) and not _has(node.test, ast.Or):
            found.append((node.test, True))
    return [(test.lineno, test.end_lineno or test.lineno, passes) for test, passes in found]


def _raises(body: list[ast.stmt]) -> bool:
    return bool(body) and isinstance(body[0], ast.Raise)


_WORDS = "debug info warning warn error critical exception log warning_once info_once warn_once print"
_SAYS = frozenset(_WORDS.split())


def only_says(site: Site) -> bool:
    """Whether a line does nothing but log, warn or print; what it says is no result."""
    return any(first <= site.line <= last for first, last in _sayings(site.file))


@functools.lru_cache(maxsize=64)
def _sayings(file: str) -> list[tuple[int, int]]:
    """The statements of a file that only say something: first line, last line."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:  # a notebook cell with magic commands, say
        return []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            called = node.value.func
            name = (
                called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
            )
            if name in _SAYS:
                found.append((node.lineno, node.end_lineno or node.lineno))
        elif isinstance(node, ast.Raise):
            found.append((node.lineno, node.end_lineno or node.lineno))
    return found


def _has(test: ast.expr, kind: type[ast.boolop]) -> bool:
    return any(isinstance(node, kind) for node in ast.walk(test))
