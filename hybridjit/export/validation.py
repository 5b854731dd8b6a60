"""Where a model only validates: an `assert`, or an `if` that does nothing but raise."""

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
        elif isinstance(node, ast.If) and isinstance(node.body[0], ast.Raise) and not _has(node.test, ast.And):
            found.append((node.test, False))
        elif isinstance(node, ast.If) and node.orelse and isinstance(node.orelse[0], ast.Raise):
            if not _has(node.test, ast.Or):
                found.append((node.test, True))
    return [(test.lineno, test.end_lineno or test.lineno, passes) for test, passes in found]


def _has(test: ast.expr, kind: type[ast.boolop]) -> bool:
    return any(isinstance(node, kind) for node in ast.walk(test))
