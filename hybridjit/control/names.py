"""Which names a piece of Python reads, sets and keeps for later, told from its syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Comprehension: tuple[type[ast.ListComp], type[ast.SetComp], type[ast.DictComp], type[ast.GeneratorExp]]
Comprehension = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
Scope: tuple[type[ast.AST], ...] = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef, *Comprehension)
LEAVES = (ast.Return, ast.Raise, ast.Break, ast.Continue)


def walk(nodes: Iterable[ast.AST], but: ast.AST | None = None) -> Iterator[ast.AST]:
    """Every node that belongs to the same function; the functions, classes and comprehensions inside are not entered.

    What they evaluate outside of themselves is: decorators, defaults, bases, the first iterable. One node, and all in
    it, may be left out.
    """
    stack = list(nodes)[::-1]
    while stack:
        node = stack.pop()
        if node is but:
            continue
        yield node
        stack += (outer_parts(node) if isinstance(node, Scope) else list(ast.iter_child_nodes(node)))[::-1]


def outer_parts(scope: ast.AST) -> list[ast.expr]:
    """What a nested scope has evaluated in the scope around it."""
    parts: list[ast.expr | None] = []
    if isinstance(scope, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        parts += [*scope.args.defaults, *scope.args.kw_defaults]
    if isinstance(scope, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        parts += scope.decorator_list
    if isinstance(scope, (ast.FunctionDef, ast.AsyncFunctionDef)):
        parts += [node.annotation for node in ast.walk(scope.args) if isinstance(node, ast.arg)]
        parts.append(scope.returns)
    if isinstance(scope, ast.ClassDef):
        parts += [*scope.bases, *(keyword.value for keyword in scope.keywords)]
    if isinstance(scope, Comprehension):
        parts.append(scope.generators[0].iter)
    return [part for part in parts if part is not None]


def parameters(function: Function) -> list[str]:
    """The parameters of a function."""
    args = function.args
    each = [*args.posonlyargs, *args.args, args.vararg, *args.kwonlyargs, args.kwarg]
    return [arg.arg for arg in each if arg is not None]


def assigned(nodes: Iterable[ast.AST]) -> set[str]:
    """The names that statements or expressions set, deleted ones among them."""
    found: set[str] = set()
    for node in walk(nodes):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.alias):
            found.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
            found.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            found.add(node.rest)
        elif isinstance(node, Comprehension):  # a walrus in one sets a name outside
            found |= {each.target.id for each in ast.walk(node) if isinstance(each, ast.NamedExpr)}
    return found


def declared(nodes: Iterable[ast.AST]) -> list[ast.Global | ast.Nonlocal]:
    """The ``global`` and ``nonlocal`` statements."""
    return [node for node in walk(nodes) if isinstance(node, (ast.Global, ast.Nonlocal))]


def local_names(function: Function) -> set[str]:
    """The variables of a function's own."""
    if isinstance(function, ast.Lambda):
        return {*parameters(function), *assigned([function.body])}
    elsewhere = {name for statement in declared(function.body) for name in statement.names}
    return {*parameters(function), *assigned(function.body)} - elsewhere


def loaded(nodes: Iterable[ast.AST], but: ast.AST | None = None) -> set[str]:
    """The names that statements or expressions need, those of the functions inside among them; one may be left out."""
    found: set[str] = set()
    for node in walk(nodes, but):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, Scope):
            found |= free(node)
    return found


def free(scope: ast.AST) -> set[str]:
    """The names that a nested scope takes from around it."""
    if isinstance(scope, ast.Lambda):
        return loaded([scope.body]) - local_names(scope)
    if isinstance(scope, (ast.FunctionDef, ast.AsyncFunctionDef)):
        outer = {name for each in declared(scope.body) if isinstance(each, ast.Nonlocal) for name in each.names}
        return (loaded(scope.body) - local_names(scope)) | outer
    if isinstance(scope, Comprehension):
        own = {n.id for each in scope.generators for n in ast.walk(each.target) if isinstance(n, ast.Name)}
        return loaded(_inside(scope)) - own
    return loaded(scope.body) if isinstance(scope, ast.ClassDef) else set()


def _inside(comprehension: ast.AST) -> list[ast.AST]:
    parts = list(ast.iter_child_nodes(comprehension))
    first = next(part for part in parts if isinstance(part, ast.comprehension))
    return [part for part in parts if part is not first] + [first.target, *first.ifs]


def kept(nodes: Iterable[ast.AST], at_once: Iterable[str] = ()) -> set[str]:
    """The names that functions made here may read later: their values then, not now.

    Args:
        nodes: Statements or expressions.
        at_once: Functions, as they are spelled, that are through with what they are given when they return.
    """
    nodes = list(nodes)
    consumed = used_at_once(nodes, at_once)
    makers = [node for node in _everything(nodes) if isinstance(node, (*Scope[:4], ast.GeneratorExp))]
    return {name for node in makers if node not in consumed and not hasattr(node, "at_once") for name in free(node)}


def used_at_once(nodes: Iterable[ast.AST], at_once: Iterable[str]) -> set[ast.AST]:
    """What the calls of such functions are given."""
    calls = [call for call in _everything(nodes) if isinstance(call, ast.Call) and _spelled(call.func) in at_once]
    return {arg for call in calls for arg in (*call.args, *(keyword.value for keyword in call.keywords))}


def _spelled(node: ast.expr) -> str:
    return ast.unparse(node) if isinstance(node, (ast.Name, ast.Attribute)) else ""


def called(function: ast.AST) -> set[str]:
    """The functions that are called by names that nothing in a function sets."""
    found = {_spelled(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)}
    own = {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)}
    own |= {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    return {name for name in found if name.partition(".")[0] not in own}


def _everything(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Every node of the same function and of the comprehensions in it, which run at once."""
    for node in walk(nodes):
        yield node
        if isinstance(node, Comprehension):
            yield from _everything(_inside(node))


def rebound(nodes: Iterable[ast.AST]) -> set[str]:
    """The names that functions inside set from within."""
    inner = [node for root in nodes for node in ast.walk(root) if isinstance(node, ast.Nonlocal)]
    return {name for node in inner for name in node.names}


def surely(statements: Sequence[ast.stmt], bound: frozenset[str]) -> frozenset[str] | None:
    """The names that are set after statements, given those before; ``None`` where nothing comes after."""
    for statement in statements:
        after = _surely(statement, bound)
        if after is None:
            return None
        bound = after
    return bound


def _surely(statement: ast.stmt, bound: frozenset[str]) -> frozenset[str] | None:
    if isinstance(statement, LEAVES):
        return None
    if isinstance(statement, ast.If):
        sides = [surely(statement.body, bound), surely(statement.orelse, bound)]
        known = [side for side in sides if side is not None]
        return frozenset.intersection(*known) if known else None
    if isinstance(statement, (ast.With, ast.AsyncWith)):
        # A manager may swallow what its body raises, and then only what was set before is.
        return bound
    if isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
        if isinstance(statement, ast.AnnAssign) and statement.value is None:
            return bound
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        return bound | assigned(targets)
    if isinstance(statement, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return bound | assigned([statement])
    return bound


def needed(statements: Sequence[ast.stmt], bound: frozenset[str] = frozenset()) -> set[str]:
    """The names whose values from before statements may be read in them."""
    found: set[str] = set()
    for statement in statements:
        if isinstance(statement, (ast.If, ast.While)):
            found |= loaded([statement.test]) - bound
            found |= needed(statement.body, bound) | needed(statement.orelse, bound)
        elif isinstance(statement, ast.For):
            found |= loaded([statement.iter, statement.target]) - bound
            found |= needed(statement.body, bound | assigned([statement.target])) | needed(statement.orelse, bound)
        else:
            found |= loaded([statement]) - bound
        after = _surely(statement, bound)
        if after is None:
            return found
        bound = after
    return found
