"""An ``if`` whose sides meet again where it ends: it becomes a function of its own, of the variables that it reads.

Paths that part in one statement after another double in number each time. A function with such statements is rewritten
so that each is a call, whose paths are its own, and that gives the variables that are read later.
"""

from __future__ import annotations

import ast
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .effects import is_users
from .names import assigned, declared, kept, loaded, local_names, needed, parameters, surely, walk
from .plans import compiled, definition
from .statements import blocks, jumps, own_expressions, unplace, why_not

_AT_ONCE = ("all", "any", "list", "max", "min", "set", "sorted", "sum", "tuple")
"""Builtins that are through with what they are given when they return."""
_STAYS = (ast.Return, ast.Yield, ast.YieldFrom, ast.Await, ast.Delete, ast.Import, ast.ImportFrom)
"""What leaves a statement, or does something to the function's own variables besides setting them."""


class _Found(NamedTuple):
    """An ``if`` that can be a function: what it is given, and what it gives."""

    node: ast.If | ast.IfExp
    reads: tuple[str, ...]
    gives: tuple[str, ...]


def mergeable(fn: FunctionType, lines: Iterable[int]) -> frozenset[int]:
    """Those of some lines of a function that ask for a truth by which such an ``if`` goes."""
    function = _function(fn)
    return frozenset(_found(function, lines)) if function else frozenset()


def merged(fn: FunctionType, lines: Mapping[int, Callable[..., Any]]) -> CodeType:
    """The code of a function in which ``if``s are calls.

    Args:
        fn: The function.
        lines: Lines that are `mergeable`, and what is called instead of the ``if``: with a function, and its arguments.
    """
    found = definition(fn.__code__)
    assert found is not None and isinstance(found[0], ast.FunctionDef)
    calls: dict[str, Callable[..., Any]] = {}
    chosen: dict[ast.AST, tuple[_Found, str]] = {}
    for line, each in _found(found[0], lines).items():
        if each.node not in chosen:
            mark = f"_hj_meet {len(calls)}"
            chosen[each.node], calls[mark] = (each, mark), lines[line]
    made = _Calls(chosen).visit(found[0])
    return _given(compiled(made, fn.__code__, found[1]), calls)


def _function(fn: FunctionType) -> ast.FunctionDef | None:
    """The syntax tree of a function of which parts can move into another."""
    found = definition(fn.__code__)
    if found is None or not isinstance(found[0], ast.FunctionDef) or why_not(found[0], local_names(found[0])):
        return None
    return found[0]


def _found(function: ast.FunctionDef, lines: Iterable[int]) -> dict[int, _Found]:
    """The innermost such ``if`` of each line, where there is one."""
    own = local_names(function)
    bound: dict[ast.If | ast.IfExp, frozenset[str]] = {}
    _note(function.body, frozenset(parameters(function)), bound)
    found: dict[int, _Found] = {}
    for line in lines:
        asking = [n for n in bound if n.test.lineno <= line <= (n.test.end_lineno or line)]
        if asking:
            node = max(asking, key=lambda n: (n.test.lineno, n.test.col_offset))
            made = _moved(function, node, own, bound[node])
            if made:
                found[line] = made
    return found


def _note(
    statements: Sequence[ast.stmt], bound: frozenset[str], found: dict[ast.If | ast.IfExp, frozenset[str]]
) -> None:
    """Notes of each ``if`` the names that are set before it for sure."""
    for statement in statements:
        if isinstance(statement, ast.If):
            found[statement] = bound
        found.update((n, bound) for n in walk(own_expressions(statement)) if isinstance(n, ast.IfExp))
        inside = bound
        if isinstance(statement, ast.For):
            inside |= assigned([statement.target])
        elif isinstance(statement, ast.With):
            inside |= assigned([each.optional_vars for each in statement.items if each.optional_vars])
        if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            for name in ("body", "orelse", "finalbody"):
                _note(getattr(statement, name, []), inside, found)
            for part in blocks(statement)[1:]:
                _note([node for node in ast.iter_child_nodes(part) if isinstance(node, ast.stmt)], inside, found)
        bound = surely([statement], bound) or bound


def _moved(function: ast.FunctionDef, node: Any, own: set[str], bound: frozenset[str]) -> _Found | None:
    """An ``if`` as a function; ``None`` if it can't be one, or reads or gives what may not be set."""
    inside = [node]
    if any(isinstance(each, _STAYS) for each in walk(inside)) or {"super", "__class__"} & loaded(inside):
        return None
    if jumps(inside) or kept(inside, _AT_ONCE):
        return None
    sets = assigned(inside)
    if sets and (sets & kept(function.body, _AT_ONCE) or _is_within(function, node)):
        return None
    handled = {n.name for n in walk(function.body) if isinstance(n, ast.ExceptHandler)}
    elsewhere = {name for each in declared(function.body) for name in each.names}
    if sets & elsewhere or (isinstance(node, ast.IfExp) and sets):
        return None
    reads = (loaded(inside) if isinstance(node, ast.IfExp) else needed(inside)) & own
    gives = sets & (loaded(function.body, node) | reads)
    reads |= gives - (surely(inside, frozenset()) or frozenset())
    if not reads <= bound or (reads | gives) & handled or gives & _identified(function):
        return None
    return _Found(node, tuple(sorted(reads)), tuple(sorted(gives)))


def _is_within(function: ast.FunctionDef, node: ast.AST) -> bool:
    """Whether what leaves a statement by an exception may be caught in its function: what it has set by then stays."""
    blocks = [each for each in walk(function.body) if isinstance(each, (ast.Try, ast.With))]
    return any(each is node for block in blocks for each in ast.walk(block))


def _identified(function: ast.FunctionDef) -> set[str]:
    """The names of what is asked to be one object with another: what an ``if`` gives is a new one."""
    asked = [node for node in ast.walk(function) if isinstance(node, ast.Compare)]
    found: set[str] = set()
    for node in asked:
        sides = [node.left, *node.comparators]
        for op, pair in zip(node.ops, itertools.pairwise(sides), strict=True):
            none = any(isinstance(each, ast.Constant) and each.value is None for each in pair)
            if isinstance(op, (ast.Is, ast.IsNot)) and not none:
                found |= {each.id for each in pair if isinstance(each, ast.Name)}
    return found


def covers(value: Any, depth: int = 6) -> bool:
    """Whether `Effects` sees all that code may change of a value: an iterator, a deque, slots, … change unseen."""
    kind = type(value)
    if isinstance(value, (*_FIXED, Tensor, nn.Module)) or kind in _CONSTANT or value is None or not depth:
        return bool(depth)
    if kind in (list, tuple, set, frozenset):
        return all(covers(each, depth - 1) for each in value)
    if kind is dict:
        return all(covers(each, depth - 1) for each in value.values())
    if isinstance(value, (dict, list, set, bytearray)) or hasattr(kind, "__next__") or not hasattr(value, "__dict__"):
        return isinstance(value, tuple) and all(covers(each, depth - 1) for each in value)
    return is_users(kind.__module__) and all(covers(each, depth - 1) for each in vars(value).values())


_FIXED = (FunctionType, MethodType, ModuleType, functools.partial, type)
_CONSTANT = (bool, int, float, complex, str, bytes, range, slice, torch.Size, torch.dtype, torch.device)


class _Calls(ast.NodeTransformer):
    """Puts a function and its call in place of each chosen ``if``, the inner ones first."""

    def __init__(self, chosen: dict[ast.AST, tuple[_Found, str]]) -> None:
        self.chosen = chosen

    def visit_If(self, node: ast.If) -> Any:
        self.generic_visit(node)
        if node not in self.chosen:
            return node
        found, mark = self.chosen[node]
        made = _taking(ast.parse(f"def _hj_if({', '.join(found.reads)}): pass").body[0], node)
        assert isinstance(made, ast.FunctionDef)
        made.body = [node, ast.Return(ast.Tuple([ast.Name(name, ast.Load()) for name in found.gives], ast.Load()))]
        call = _call(mark, ast.Name("_hj_if", ast.Load()), found.reads)
        after: ast.stmt = ast.Expr(call)
        if found.gives:
            after = ast.Assign([ast.Tuple([ast.Name(name, ast.Store()) for name in found.gives], ast.Store())], call)
        return [_at(made, node), _at(after, node)]

    def visit_IfExp(self, node: ast.IfExp) -> Any:
        self.generic_visit(node)
        if node not in self.chosen:
            return node
        found, mark = self.chosen[node]
        made = _taking(ast.parse(f"lambda {', '.join(found.reads)}: 0", mode="eval").body, node)
        assert isinstance(made, ast.Lambda)
        made.body = node
        return _at(_call(mark, made, found.reads), node)


def _call(mark: str, fn: ast.expr, reads: Sequence[str]) -> ast.Call:
    given = [fn, *(ast.Name(name, ast.Load()) for name in reads)]
    return ast.Call(ast.Attribute(ast.Constant(mark), "__call__", ast.Load()), given, [])


def _at(made: Any, node: ast.AST) -> Any:
    """A new node where an old one was; the old one in it stays where it is."""
    return ast.fix_missing_locations(ast.copy_location(made, node))


def _taking(made: Any, node: ast.AST) -> Any:
    """A new function, of which nothing has a place yet."""
    for each in ast.walk(made):
        unplace(each)
    return ast.copy_location(made, node)


def _given(code: CodeType, calls: dict[str, Callable[..., Any]]) -> CodeType:
    """The code with what is to be called in place of its marks."""
    constants = [_given(each, calls) if isinstance(each, CodeType) else each for each in code.co_consts]
    return code.replace(co_consts=tuple(calls.get(each, each) if isinstance(each, str) else each for each in constants))
