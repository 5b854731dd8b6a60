"""Expressions that ask for a tensor's truth, rewritten into calls that may answer with a tensor.

Where only the truth counts (the test of an ``if``), ``a and b`` becomes ``and_(a, lambda: b)``. Where the value counts,
a conditional expression is lifted out, into an ``if`` statement before its own; what is evaluated before it goes first.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from .names import Function, outer_parts, parameters, walk
from .names import Scope as Nested


class Refused(Exception):
    """A place where a tensor's truth is asked can't be rewritten."""

    def __init__(self, site: int, reason: str) -> None:
        super().__init__(reason)
        self.site = site
        self.reason = reason


def load(name: str) -> ast.Name:
    """A name that is read."""
    return ast.Name(name, ast.Load())


def assign(name: str, value: ast.expr, at: ast.AST) -> ast.stmt:
    """An assignment to a name."""
    return locate(ast.Assign([ast.Name(name, ast.Store())], value), at)


def locate(node: ast.stmt, at: ast.AST) -> ast.stmt:
    """Gives a statement the lines of another node."""
    ast.copy_location(node, at)
    return ast.fix_missing_locations(node)


def within(name: str) -> ast.Attribute:
    """What rewritten code calls."""
    return ast.Attribute(load("_hj"), name, ast.Load())


def call(name: str, *args: ast.expr) -> ast.Call:
    """A call of it."""
    return ast.Call(within(name), list(args), [])


def later(value: ast.expr) -> ast.Lambda:
    """An expression as a function."""
    return ast.Lambda(ast.arguments([], [], None, [], [], None, []), value)


class Truths:
    """The places of one function where a truth is asked, in the order of its source.

    Args:
        function: The function's syntax tree, which is changed.
        chosen: The numbers of the places at which it is a tensor's.
        meant: The functions that it calls, as it spells them, if they are what they are called.
        plan: The number by which rewritten code says whose it is.

    Attributes:
        sites: The number of each place.
    """

    def __init__(self, function: Function, chosen: Iterable[int], meant: Iterable[str], plan: int) -> None:
        self.plan = plan
        self.chosen: frozenset[int] = frozenset(chosen)
        self.meant: frozenset[str] = frozenset(meant)
        self._count = itertools.count()
        _Plain(self, function).visit(function)
        found = [node for node in ast.walk(function) if isinstance(node, _ASKING) and not _is_minus(node)]
        self.sites: dict[ast.AST, int] = {node: number for number, node in enumerate(found)}

    def fresh(self, kind: str = "") -> str:
        """A name that nothing has."""
        return f"_hj_{kind}{next(self._count)}"

    def is_chosen(self, node: ast.AST) -> bool:
        """Whether a tensor's truth is asked by a node itself."""
        return self.sites.get(node) in self.chosen

    def refuse(self, node: ast.AST, reason: str) -> None:
        """Refuses the first place to rewrite in a node.

        Raises:
            Refused: Always.
        """
        raise Refused(self.first(node), reason)

    def first(self, node: ast.AST) -> int:
        """The number of the first place to rewrite in a node, which is not rewritten yet."""
        return next(self.sites[each] for each in ast.walk(node) if self.is_chosen(each))

    def asked(self, node: ast.AST, value: ast.expr) -> ast.expr:
        """An expression whose truth Python itself will ask; it must not be a tensor."""
        number = ast.Constant(self.sites[node])
        return ast.fix_missing_locations(
            ast.copy_location(call("asked", ast.Constant(self.plan), value, number), value)
        )

    # --- in place ---------------------------------------------------------------------------------

    def test(self, node: ast.expr) -> ast.expr:
        """Rewrites an expression of which only the truth counts."""
        return ast.fix_missing_locations(ast.copy_location(self._test(node), node))

    def _test(self, node: ast.expr) -> ast.expr:
        if isinstance(node, ast.BoolOp):
            first, rest = node.values[0], self._rest(node)
            if not self.is_chosen(node):
                return ast.BoolOp(node.op, [self.asked(node, self.test(first)), self.test(rest)])
            return call("and_" if isinstance(node.op, ast.And) else "or_", self.test(first), self._later(node, rest))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return call("not_", self.test(node.operand))
        if isinstance(node, ast.IfExp):
            if not self.is_chosen(node):
                return ast.IfExp(self.asked(node, self.test(node.test)), self.test(node.body), self.test(node.orelse))
            return call("pick", self.test(node.test), self._later(node, node.body), self._later(node, node.orelse))
        asked = self._asked_by_call(node)
        if asked is None:
            return self.value(node)
        name, value = asked
        return call("truth_of", ast.Constant(name), self.test(value) if name == "bool" else self.value(value))

    def _asked_by_call(self, node: ast.expr) -> tuple[str, ast.expr] | None:
        """Which way of asking a truth a call spells, and of what: ``bool(x)``, ``x.item()``, ``x.is_nonzero()``."""
        if not isinstance(node, ast.Call) or node.keywords:
            return None
        called = ast.unparse(node.func) if isinstance(node.func, (ast.Name, ast.Attribute)) else ""
        if len(node.args) == 1 and called in self.meant & {"bool", "torch.is_nonzero"}:
            return called, node.args[0]
        if isinstance(node.func, ast.Attribute) and not node.args and node.func.attr in ("item", "is_nonzero"):
            return node.func.attr, node.func.value
        return None

    def _rest(self, node: ast.BoolOp) -> ast.expr:
        if len(node.values) == 2:
            return node.values[1]
        rest = ast.copy_location(ast.BoolOp(node.op, node.values[1:]), node)
        self.sites[rest] = self.sites[node]
        return rest

    def _later(self, site: ast.expr, value: ast.expr) -> ast.Lambda:
        set_ = [each.target.id for each in walk([value]) if isinstance(each, ast.NamedExpr)]
        if any(not name.startswith("_hj_") for name in set_):
            self.refuse(site, "a side of it sets a variable with :=")
        return later(self.test(value))

    def value(self, node: ast.expr) -> ast.expr:
        """Rewrites an expression whose value counts."""
        if isinstance(node, (ast.BoolOp, ast.IfExp, ast.UnaryOp)) and self.is_chosen(node):
            self.refuse(node, "no statement can go before it: write it as one, y = a if c else b")
        if isinstance(node, ast.BoolOp):
            node.values[:-1] = [self.asked(node, self.value(each)) for each in node.values[:-1]]
            node.values[-1] = self.value(node.values[-1])
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            node.operand = self.asked(node, self.test(node.operand))
        elif isinstance(node, ast.IfExp):
            node.test = self.asked(node, self.test(node.test))
            node.body, node.orelse = self.value(node.body), self.value(node.orelse)
        elif isinstance(node, ast.Lambda):
            self._defaults(node.args)
            node.body = self.value(node.body)
        else:
            self._children(node)
        return node

    def _children(self, node: ast.AST) -> None:
        for field, old in ast.iter_fields(node):
            if isinstance(node, ast.comprehension) and field == "ifs":
                if self.is_chosen(node):
                    self.refuse(node, "it is the condition of a comprehension")
                node.ifs = [self.asked(node, self.test(each)) for each in node.ifs]
            elif isinstance(old, ast.expr):
                setattr(node, field, self.value(old))
            elif isinstance(old, ast.AST):
                self._children(old)
            elif isinstance(old, list):
                for index, each in enumerate(old):
                    if isinstance(each, ast.expr):
                        old[index] = self.value(each)
                    elif isinstance(each, ast.AST):
                        self._children(each)

    def _defaults(self, args: ast.arguments) -> None:
        args.defaults = [self.value(each) for each in args.defaults]
        args.kw_defaults = [each and self.value(each) for each in args.kw_defaults]

    # --- lifted before the statement ----------------------------------------------------------------

    def is_lifted(self, node: ast.expr, test: bool = False) -> bool:
        """Whether something in an expression must become a statement before its own."""
        if isinstance(node, (ast.BoolOp, ast.IfExp)) or (
            isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
        ):
            if self.is_chosen(node) and not test:
                return True
            if isinstance(node, ast.BoolOp):
                return any(self.is_lifted(each, test) for each in node.values)
            if isinstance(node, ast.UnaryOp):
                return self.is_lifted(node.operand, True)
            return self.is_lifted(node.test, True) or any(
                self.is_lifted(each, test) for each in (node.body, node.orelse)
            )
        asked = self._asked_by_call(node) if test else None
        if asked is not None:
            return self.is_lifted(asked[1], asked[0] == "bool")
        children = outer_parts(node) if isinstance(node, Nested) else _children_of(node)
        return any(self.is_lifted(child) for child in children)

    def lift(self, node: ast.expr, before: list[ast.stmt], test: bool = False) -> ast.expr:
        """Lifts what must be, and returns what stands in its place.

        Args:
            node: The expression.
            before: Gets the statements that go before.
            test: Whether only its truth counts.
        """
        if not self.is_lifted(node, test):
            return node
        name = self.fresh("v")
        if isinstance(node, ast.BoolOp):
            before.append(assign(name, self.lift(node.values[0], before), node))
            inner: list[ast.stmt] = []
            inner.append(assign(name, self.lift(self._rest(node), inner), node))
            sides = (inner, []) if isinstance(node.op, ast.And) else ([locate(ast.Pass(), node)], inner)
            self._if(node, load(name), *sides, before)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yes, no = ([assign(name, ast.Constant(value), node)] for value in (False, True))
            self._if(node, self.lift(node.operand, before, True), yes, no, before)
        elif isinstance(node, ast.IfExp):
            asked = self.lift(node.test, before, True)
            yes, no = [], []
            yes.append(assign(name, self.lift(node.body, yes), node))
            no.append(assign(name, self.lift(node.orelse, no), node))
            self._if(node, asked, yes, no, before)
        else:
            self._lift_children(node, before)
            return node
        return ast.copy_location(load(name), node)

    def _if(
        self, node: ast.expr, test: ast.expr, yes: list[ast.stmt], no: list[ast.stmt], before: list[ast.stmt]
    ) -> None:
        made = locate(ast.If(test, yes, no), node)
        self.sites[made] = self.sites[node]
        before.append(made)

    def _lift_children(self, node: ast.expr, before: list[ast.stmt]) -> None:
        if isinstance(node, Nested):
            self.refuse(node, "it stands in a comprehension or a lambda")
        slots = list(_slots(node))
        last = max((index for index, (child, _) in enumerate(slots) if self.is_lifted(child)), default=-1)
        if last < 0:
            self.refuse(node, "no statement can go before it: write it as one, y = a if c else b")
        for child, put in slots[:last]:
            if not isinstance(child, ast.Constant):
                name = self.fresh("v")
                before.append(assign(name, self.lift(child, before), child))
                put(ast.copy_location(load(name), child))
        child, put = slots[last]
        put(self.lift(child, before))


_ASKING = (ast.If, ast.While, ast.Assert, ast.IfExp, ast.BoolOp, ast.UnaryOp, ast.comprehension)


def _is_minus(node: ast.AST) -> bool:
    return isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.Not)


def _children_of(node: ast.AST) -> Iterator[ast.expr]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            yield child
        else:
            yield from _children_of(child)


class _Slot:
    def __init__(self, node: ast.AST, field: str, index: int | None = None) -> None:
        self.node, self.field, self.index = node, field, index

    def __call__(self, value: ast.expr) -> None:
        if self.index is None:
            setattr(self.node, self.field, value)
        else:
            getattr(self.node, self.field)[self.index] = value


def _slots(node: ast.AST) -> Iterator[tuple[ast.expr, _Slot]]:
    """What an expression evaluates, in that order, and how to put something else in its place."""
    if isinstance(node, ast.Dict):
        for index, (key, value) in enumerate(zip(node.keys, node.values, strict=True)):
            if key is not None:
                yield key, _Slot(node, "keys", index)
            yield value, _Slot(node, "values", index)
        return
    if not isinstance(node, _STRICT):
        return
    for field, old in ast.iter_fields(node):
        pairs: list[tuple[int | None, Any]] = [*enumerate(old)] if isinstance(old, list) else [(None, old)]
        for at, child in pairs:
            if isinstance(child, (ast.Slice, ast.Starred, ast.keyword, ast.FormattedValue)):
                yield from _slots(child)
            elif isinstance(child, ast.expr) and not (isinstance(node, ast.NamedExpr) and field == "target"):
                yield child, _Slot(node, field, at)


_STRICT = (
    ast.Call, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Attribute, ast.Subscript, ast.Tuple, ast.List, ast.Set,
    ast.JoinedStr, ast.NamedExpr, ast.Slice, ast.Starred, ast.keyword, ast.FormattedValue,
)  # fmt: skip
"""What evaluates all of its parts, once, from left to right."""


class _Plain(ast.NodeTransformer):
    """Spells out what depends on the function it stands in (``super()``), and chains of comparisons."""

    def __init__(self, truths: Truths, function: Function) -> None:
        self.truths = truths
        self.function = function
        self.first = next(iter(parameters(function)), "")
        self.depth = 0

    def visit(self, node: ast.AST) -> ast.AST:
        nested = isinstance(node, Nested) and node is not self.function
        self.depth += nested
        made: ast.AST = super().visit(node)
        self.depth -= nested
        return made

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "super" and not node.args and not self.depth:
            node.args = [ast.copy_location(load(name), node) for name in ("__class__", self.first)]
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        middle = node.comparators[:-1]
        simple = all(isinstance(each, (ast.Name, ast.Constant)) for each in middle)
        if not middle or (self.depth and not simple):
            return node
        links: list[ast.expr] = []
        left = node.left
        for op, right in zip(node.ops, node.comparators, strict=True):
            again = right
            if right is not node.comparators[-1] and not isinstance(right, (ast.Name, ast.Constant)):
                name = self.truths.fresh("v")
                again = ast.copy_location(load(name), right)
                right = ast.copy_location(ast.NamedExpr(ast.Name(name, ast.Store()), right), right)
            links.append(ast.copy_location(ast.Compare(left, [op], [right]), node))
            left = ast.copy_location(load(again.id), again) if isinstance(again, ast.Name) else again
        return ast.fix_missing_locations(ast.copy_location(ast.BoolOp(ast.And(), links), node))
