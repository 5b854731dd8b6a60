"""Truths of sizes in code that asks ``flag is True``: Python's there, as in eager mode, where a trace has tensors."""

from __future__ import annotations

import ast
import functools
import linecache
import re
import sys
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .. import _torch
from .._sites import user_frame
from .kinds import BOOL
from .numbers import is_number
from .validation import parsed

if TYPE_CHECKING:
    from .answers import See
    from .watch import Watch


def _see_compared(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    """Compares sizes; where code may ask by ``is`` for what comes of it, that is one of Python's truths."""
    frame = user_frame()  # none for torch's own code under `python -m hybridjit`
    result = watch.called(func, args, kwargs, frame or sys._getframe())
    asked = frame is not None and frame.f_lineno in _kept(frame.f_code.co_filename)
    if not asked or not isinstance(result, Tensor) or not is_number(result) or not watch.varies(result):
        return result
    with _torch.paused_tracing(), _torch.unwatched():
        truth = bool(result)
    watch.leak(BOOL, result, truth)
    return truth


@functools.lru_cache(maxsize=64)
def _kept(file: str) -> frozenset[int]:
    """The lines of a file at which something is compared, and what comes of it may be what ``is`` asks for."""
    text = "".join(linecache.getlines(file))
    if not re.search(r"\bis\s+(not\s+)?(True|False)\b|\bcase\b.*\b(True|False)\b", text):
        return frozenset()
    tree = parsed(file)
    above = {below: node for node in ast.walk(tree) for below in ast.iter_child_nodes(node)}
    asked = set(_asked(tree))
    found: set[int] = set()
    for node in ast.walk(tree) if asked else ():
        if isinstance(node, ast.Compare) and _is_kept(node, above, asked):
            found.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return frozenset(found)


def _asked(tree: ast.AST) -> Iterator[str]:
    """The names of what is asked for a truth by ``is`` or ``case``; of what has none, ``""``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.Is, ast.IsNot)):
            if any(isinstance(each, ast.Constant) and type(each.value) is bool for each in node.comparators):
                yield _name(node.left)
        elif isinstance(node, ast.Match):
            patterns = [each for case in node.cases for each in ast.walk(case.pattern)]
            if any(isinstance(each, ast.MatchSingleton) and each.value is not None for each in patterns):
                yield _name(node.subject)


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _is_kept(node: ast.expr, above: dict[ast.AST, ast.AST], asked: Collection[str]) -> bool:
    """Whether an expression's value goes on under a name that is asked, or where no name is known."""
    user = above[node]
    if isinstance(user, (ast.BoolOp, ast.NamedExpr)) or (isinstance(user, ast.IfExp) and user.test is not node):
        named = isinstance(user, ast.NamedExpr) and _name(user.target) in asked
        return named or _is_kept(user, above, asked)
    if isinstance(user, (ast.Assign, ast.AnnAssign)):
        targets = user.targets if isinstance(user, ast.Assign) else [user.target]
        return any(_name(each) in ("", *asked) for each in targets)
    if isinstance(user, ast.Tuple) and isinstance(assign := above[user], ast.Assign):
        into = assign.targets[0]
        if isinstance(into, ast.Tuple) and len(into.elts) == len(user.elts) and len(assign.targets) == 1:
            return _name(into.elts[[*user.elts].index(node)]) in ("", *asked)
    if isinstance(user, ast.keyword):
        return user.arg is None or user.arg in asked
    if isinstance(user, ast.Compare):
        return any(isinstance(each, (ast.Is, ast.IsNot)) for each in user.ops)
    if isinstance(user, ast.Call):
        return _name(user.func) != "bool"
    return isinstance(user, (ast.Return, ast.Yield, ast.Starred, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.Match))


SEEN: dict[Callable[..., Any], See] = {
    getattr(Tensor, spelled): _see_compared
    for name in ("lt", "le", "gt", "ge", "eq", "ne")
    for spelled in (name, f"__{name}__")
}
