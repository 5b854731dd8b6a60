"""Statements looked at and changed as a whole: jumps out of them, functions without a name, variables not set."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any, TypeVar

from .names import Scope, assigned, free, loaded, outer_parts, rebound, used_at_once, walk
from .truths import Truths, call, load, locate, within

N = TypeVar("N", bound=ast.AST)

LAZY = {"enumerate", "zip", "reversed"}
"""Builtins that keep what they are given."""

_BLIND = ("locals", "vars", "eval", "exec", "dir")
"""Builtins that see the variables of the function that calls them."""


def why_not(function: ast.FunctionDef, own: set[str]) -> str:
    """Why no part of a function can move into another, if it can't; empty if it can.

    Args:
        function: The function.
        own: Its variables.
    """
    calls = [n.func.id for n in walk(function.body) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    blind = [name for name in calls if name in _BLIND]
    if blind:
        return f"the function calls {blind[0]}()"
    if any(isinstance(node, (ast.Yield, ast.YieldFrom, ast.Await)) for node in walk(function.body)):
        return "the function is a generator"
    late = sorted(rebound(function.body) & own)
    return f"a function inside sets {late[0]}, which is nonlocal to it" if late else ""


def own_expressions(statement: ast.stmt) -> list[ast.expr]:
    """The expressions of a statement, without those of the statements in it."""
    return [node for node in ast.iter_child_nodes(statement) if isinstance(node, ast.expr)]


class Lambdas(ast.NodeTransformer):
    """Makes definitions of the lambdas in which a truth to rewrite is asked, since they can't hold statements."""

    def __init__(self, truths: Truths, used_at_once: set[ast.AST], before: list[ast.stmt]) -> None:
        self.truths = truths
        self.used_at_once = used_at_once
        self.before = before

    def visit(self, node: ast.AST) -> Any:  # noqa: D102
        return node if isinstance(node, Scope) and not isinstance(node, ast.Lambda) else super().visit(node)

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:  # noqa: D102
        if node.args.defaults or any(node.args.kw_defaults):
            return node  # evaluated where the lambda stands, and the truth in it is refused
        if not any(self.truths.is_chosen(each) for each in ast.walk(node.body)):
            return node
        made = ast.parse(f"def _lambda{self.truths.fresh()}(): pass").body[0]
        assert isinstance(made, ast.FunctionDef)
        made.args, made.body = node.args, [ast.copy_location(ast.Return(node.body), node.body)]
        if node in self.used_at_once:
            vars(made)["at_once"] = True
        self.before.append(ast.copy_location(made, node))
        return ast.copy_location(load(made.name), node)


def lift(truths: Truths, statement: ast.stmt, before: list[ast.stmt]) -> None:
    """Lifts what must go before a statement: functions without a name, and sides of expressions."""
    if not isinstance(statement, (ast.While, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        lambdas = Lambdas(truths, used_at_once(own_expressions(statement), truths.meant - LAZY), before)
        for field, old in ast.iter_fields(statement):
            if isinstance(old, ast.expr):
                setattr(statement, field, lambdas.visit(old))
    if isinstance(statement, (ast.If, ast.Assert)):
        statement.test = truths.lift(statement.test, before, test=True)
    elif isinstance(statement, (ast.Return, ast.Assign, ast.AnnAssign, ast.Expr)) and statement.value:
        statement.value = truths.lift(statement.value, before)
    elif isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
        if not assigned([statement.value]):  # the old value is read first
            statement.value = truths.lift(statement.value, before)
    elif isinstance(statement, ast.For):
        statement.iter = truths.lift(statement.iter, before)
    elif isinstance(statement, ast.With):
        first = statement.items[0]
        first.context_expr = truths.lift(first.context_expr, before)


def is_lifted(truths: Truths, statement: ast.stmt) -> bool:
    """Whether something must go before a statement."""
    if isinstance(statement, (ast.If, ast.Assert)):
        return truths.is_lifted(statement.test, test=True)
    return any(truths.is_lifted(each) for each in ast.iter_child_nodes(statement) if isinstance(each, ast.expr))


def stops(statement: ast.stmt) -> bool:
    """Whether a statement raises or does nothing."""
    if isinstance(statement, ast.Assert):
        return True
    if not isinstance(statement, ast.If) or statement.orelse or len(statement.body) != 1:
        return False
    return isinstance(statement.body[0], ast.Raise) and not assigned(statement.body)


def blocks(statement: ast.AST) -> list[ast.AST]:
    """A statement and the parts of it that hold statements or expressions, but are neither."""
    parts = [n for n in ast.iter_child_nodes(statement) if not isinstance(n, (ast.stmt, ast.expr))]
    return [statement, *(each for part in parts for each in blocks(part))]


def statements_in(statement: ast.stmt) -> list[ast.stmt]:
    """The statements right below one."""
    return [n for part in blocks(statement) for n in ast.iter_child_nodes(part) if isinstance(n, ast.stmt)]


def jumps(statements: Sequence[ast.stmt]) -> bool:
    """Whether statements contain a ``break`` or ``continue`` of a loop around them."""
    for statement in statements:
        if isinstance(statement, (ast.Break, ast.Continue)):
            return True
        inner = statement.orelse if isinstance(statement, (ast.For, ast.While)) else statements_in(statement)
        if not isinstance(statement, (ast.FunctionDef, ast.ClassDef)) and jumps(inner):
            return True
    return False


def hidden_jumps(statements: Sequence[ast.stmt]) -> bool:
    """Whether such a jump leaves another block with an end of its own."""
    for statement in statements:
        if isinstance(statement, (ast.With, ast.Try, ast.Match)) and jumps([statement]):
            return True
        if isinstance(statement, ast.If) and hidden_jumps([*statement.body, *statement.orelse]):
            return True
        if isinstance(statement, (ast.For, ast.While)) and hidden_jumps(statement.orelse):
            return True
    return False


def hands_on(node: N) -> N:
    """Marks a node that hands a variable on, which may not be set."""
    vars(node)["is_handed_on"] = True
    return node


def unplace(node: N) -> N:
    """Takes a node's lines away: it gets those of what it is put into."""
    for name in ("lineno", "end_lineno", "col_offset", "end_col_offset"):
        if hasattr(node, name):
            delattr(node, name)
    return node


class Unset(ast.NodeTransformer):
    """Makes reading a variable that may not be set raise, as it does where nothing stands for it."""

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names

    def visit(self, node: ast.AST) -> Any:  # noqa: D102
        if isinstance(node, Scope) and not getattr(node, "name", "").startswith("_hj_"):
            return Unset(self.names & (free(node) | loaded(outer_parts(node)))).generic_visit(node)
        return super().visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:  # noqa: D102
        if node.id not in self.names or not isinstance(node.ctx, ast.Load) or hasattr(node, "is_handed_on"):
            return node
        return ast.copy_location(call("bound", node, ast.Constant(node.id)), node)

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST | list[ast.AST]:  # noqa: D102
        self.generic_visit(node)
        if not isinstance(node.target, ast.Name) or node.target.id not in self.names:
            return node
        name = node.target.id
        return [locate(ast.Expr(call("bound", load(name), ast.Constant(name))), node), node]

    def visit_Delete(self, node: ast.Delete) -> ast.AST | list[ast.AST]:  # noqa: D102
        made: list[ast.AST] = []
        for target in node.targets:
            if isinstance(target, ast.Name) and target.id in self.names:
                made.append(locate(ast.Expr(call("bound", load(target.id), ast.Constant(target.id))), node))
                made.append(locate(ast.Assign([ast.Name(target.id, ast.Store())], within("Unset")), node))
            else:
                made.append(ast.copy_location(ast.Delete([target]), node))
        return made
