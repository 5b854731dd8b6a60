"""A function rewritten so that its ``if``s on tensors are calls: what follows an ``if`` becomes a function.

``if c: A`` with ``B`` after it becomes ``return if_(c, true, false)``, where ``true`` runs ``A`` and ``B``, and
``false`` runs ``B`` alone; each is given the variables that it reads. So every path of the function is as it was,
returns, ``break`` and all. Only chosen places are rewritten; the truth asked at any other is handed through
`splits.asked`, which tells a tensor's.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .names import (
    Function,
    assigned,
    declared,
    kept,
    local_names,
    needed,
    parameters,
    surely,
    walk,
)
from .statements import (
    LAZY,
    Unset,
    blocks,
    hands_on,
    hidden_jumps,
    is_lifted,
    lift,
    statements_in,
    stops,
    unplace,
    why_not,
)
from .truths import Refused, Truths, assign, call, load, locate, within

WHILE = "while"
"""The reason that has a message of its own."""

Bound = frozenset[str]


def _is_starred(node: ast.expr) -> bool:
    return isinstance(node, ast.Starred)


@dataclass
class Then:
    """What comes after a block of statements: a function, the variables that it reads, and a first argument."""

    name: str
    reads: tuple[str, ...]
    first: str = ""


@dataclass
class Loop:
    """Where ``continue`` and ``break`` go, in a loop that became a function."""

    again: Then
    after: Then


def rewrite(
    function: Function, chosen: Iterable[int], meant: Iterable[str], plan: int
) -> tuple[ast.FunctionDef, dict[int, int]]:
    """Rewrites a function.

    Args:
        function: Its syntax tree, which is used up.
        chosen: The numbers of the places at which a tensor's truth is asked.
        meant: The functions that it calls, as it spells them, if they are what they are called.
        plan: The number by which the new function says whose it is.

    Returns:
        The new function, and the line of each place.

    Raises:
        Refused: One of them can't be rewritten.
    """
    truths = Truths(function, chosen, meant, plan)
    if isinstance(function, ast.Lambda):
        body: list[ast.stmt] = [ast.copy_location(ast.Return(function.body), function.body)]
        whole = ast.parse("def _hj_lambda(): pass").body[0]
        assert isinstance(whole, ast.FunctionDef)
        whole.args, whole.body = function.args, body
    else:
        assert isinstance(function, ast.FunctionDef)
        whole = function
    lines = {number: getattr(getattr(node, "target", node), "lineno", 0) for node, number in truths.sites.items()}
    Writer(truths, whole).write(whole)
    whole.body[:0] = [assign("_hj_path", call("begin", ast.Constant(plan)), function)]
    return whole, lines


class Writer:
    """Rewrites one function; functions inside of it have writers of their own.

    Args:
        truths: The places where a truth is asked.
        function: The function.
    """

    def __init__(self, truths: Truths, function: ast.FunctionDef) -> None:
        self.truths = truths
        self.parameters: frozenset[str] = frozenset(parameters(function))
        self.locals: set[str] = local_names(function)
        self.unset: set[str] = set()
        self.frames: list[ast.FunctionDef] = []
        self.declared: list[ast.Global | ast.Nonlocal] = declared(function.body)
        deleted = [n.id for n in walk(function.body) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Del)]
        self.handled: set[str] = {n.name for n in walk(function.body) if isinstance(n, ast.ExceptHandler) and n.name}
        self.unsure: frozenset[str] = frozenset([*deleted, *self.handled])
        self.loops: list[Loop | None] = [None]
        self.why_not: str = why_not(function, self.locals)

    def write(self, function: ast.FunctionDef) -> None:
        """Rewrites the function."""
        early = needed(function.body, self.parameters) & self.locals
        body = self.block(function.body, self.parameters - self.unsure, frozenset(), None)
        if self.frames:  # else what is read too early could be found in a function around, or in the module
            self.unset |= early
        body = [node for node in body if not isinstance(node, (ast.Global, ast.Nonlocal))]
        if self.unset:
            mark = Unset(frozenset(self.unset))
            body = mark.visit(ast.Module(body, [])).body
        function.body = [*self.declared, *body]
        for frame in (function, *self.frames):
            self._begin(frame)

    def _begin(self, frame: ast.FunctionDef) -> None:
        """Sets the variables of a function that it may hand on before they are set."""
        names = self.unset - set(parameters(frame))
        names &= assigned(frame.body) if frame in self.frames else names
        count = sum(isinstance(node, (ast.Global, ast.Nonlocal)) for node in frame.body)
        frame.body[count:count] = [assign(name, within("Unset"), frame) for name in sorted(names)]
        frame.body = frame.body or [ast.Pass()]

    # --- statements that paths part at --------------------------------------------------------------

    def block(self, statements: Sequence[ast.stmt], bound: Bound, held: Bound, then: Then | None) -> list[ast.stmt]:
        """Rewrites statements, and goes on with what comes after them.

        Args:
            statements: The statements.
            bound: The variables that are set before them for sure.
            held: The variables that functions made before them may read later.
            then: What comes after them; nothing at the end of the function.
        """
        made: list[ast.stmt] = []
        for index, statement in enumerate(statements):
            rest = statements[index + 1 :]
            before: list[ast.stmt] = []
            lift(self.truths, statement, before)
            if before:
                self.locals |= assigned(before)
                return made + self.block([*before, statement, *rest], bound, held, then)
            if self.parts(statement):
                return made + self.parted(statement, rest, bound, held, then)
            after = surely([statement], bound)
            held |= self.kept(statement)
            made += self.plain(statement)
            if after is None:
                return made
            bound = after - self.unsure
        return made + (self.go(then, statements[-1] if statements else None) if then else [])

    def parts(self, statement: ast.stmt) -> bool:
        """Whether paths part in a statement: it is an ``if`` to rewrite, or contains one."""
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            return False
        if isinstance(statement, (ast.If, ast.While)) and self.truths.is_chosen(statement) and not stops(statement):
            return True
        inner = statements_in(statement)
        if isinstance(statement, ast.Try) and any(stops(each) and self.truths.is_chosen(each) for each in inner):
            return True
        return any(self.parts(each) or is_lifted(self.truths, each) for each in inner)

    def parted(
        self, statement: ast.stmt, rest: Sequence[ast.stmt], bound: Bound, held: Bound, then: Then | None
    ) -> list[ast.stmt]:
        """Rewrites a statement at or in which paths part, and all that follows it."""
        if isinstance(statement, (ast.For, ast.While)):
            return self.loop(statement, rest, bound, held, then)
        if not isinstance(statement, ast.If):
            self.truths.refuse(statement, f"it stands in a {type(statement).__name__.lower()} block")
        assert isinstance(statement, ast.If)
        site, first = self.truths.sites[statement], self.truths.first(statement)
        chosen = self.truths.is_chosen(statement)
        sides = (statement.body, statement.orelse)
        held |= self.kept(statement.test)
        made: list[ast.stmt] = []
        if rest:
            after = surely([statement], bound)
            definition, then = self.rest(
                first,
                rest,
                (bound if after is None else after) - self.unsure,
                held | self.kept(statement),
                then,
            )
            made.append(definition)
        if not chosen:
            statement.test = self.truths.asked(statement, self.truths.test(statement.test))
            statement.body = self.block(sides[0], bound, held, then) or [ast.Pass()]
            statement.orelse = self.block(sides[1], bound, held, then)
            return [*made, statement]
        reads = self.reads([ast.If(ast.Constant(True), *sides)], then, bound)
        names: list[ast.expr] = []
        for side in sides:
            self.check(first, side, reads, held)
            inner = bound & frozenset(reads)
            definition = self.function(side[0] if side else statement, reads, self.block(side, inner, held, then))
            made.append(definition)
            names.append(load(definition.name))
        given = ast.Tuple([hands_on(load(name)) for name in reads], ast.Load())
        where = (ast.Constant(self.truths.plan), load("_hj_path"), ast.Constant(site))
        value = call("if_", *where, self.truths.test(statement.test), *names, given)
        ast.copy_location(value, statement.test)
        return [*made, locate(ast.Return(value), statement)]

    def kept(self, node: ast.AST) -> set[str]:
        """The variables that functions made in a statement or expression may read later."""
        return kept([node], self.truths.meant - LAZY) & self.locals

    def rest(
        self, site: int, rest: Sequence[ast.stmt], bound: Bound, held: Bound, then: Then | None
    ) -> tuple[ast.stmt, Then]:
        """Makes a function of the statements that follow one."""
        reads = self.reads(rest, then, bound)
        self.check(site, rest, reads, held)
        made = self.function(rest[0], reads, self.block(rest, bound & frozenset(reads), held, then))
        return made, Then(made.name, reads)

    def loop(
        self, statement: ast.For | ast.While, rest: Sequence[ast.stmt], bound: Bound, held: Bound, then: Then | None
    ) -> list[ast.stmt]:
        """Makes a function of a loop, which calls itself for each iteration."""
        if isinstance(statement, ast.While) and (
            self.truths.is_chosen(statement) or self.truths.is_lifted(statement.test, test=True)
        ):
            self.truths.refuse(statement, WHILE)
        if hidden_jumps(statement.body):
            self.truths.refuse(statement, "a break or continue of the loop around it stands in a with or try block")
        made: list[ast.stmt] = []
        site = self.truths.first(statement)
        held |= self.kept(statement)
        # One more function also where nothing follows, for `break` to go to.
        definition, after = self.rest(site, [*rest, locate(ast.Pass(), statement)], bound, held, then)
        made.append(definition)
        ended = after
        if statement.orelse:
            definition, ended = self.rest(site, statement.orelse, bound, held, after)
            made.append(definition)
        count, rows = self.truths.fresh(), self.truths.fresh()
        first: list[ast.stmt] = []
        if isinstance(statement, ast.For):
            made.append(assign(rows, call("rows", self.rows(statement.iter)), statement))
            self.locals.add(rows)
            bound |= {rows}
            first.append(locate(ast.Assign([statement.target], call("row", load(rows), load(count))), statement))
            goes_on: ast.expr = call("has_row", load(rows), load(count))
            moved = [*first, *statement.body]
        else:
            moved = [locate(ast.Expr(statement.test), statement), *statement.body]
            goes_on = self.truths.asked(statement, self.truths.test(statement.test))
        shape = ast.If(ast.Constant(True), moved, [])
        own = {rows} & self.locals
        reads = tuple(sorted({*self.reads([shape], None, bound), *after.reads, *ended.reads, *own}))
        self.unset |= set(reads) - bound
        self.check(site, moved, reads, held)
        start = surely(moved[:1], bound & frozenset(reads)) or frozenset()
        turn = self.function(statement, (count, *reads), [])
        again = Then(turn.name, reads, f"{count} + 1")
        self.loops.append(Loop(again, after))
        body = self.block(statement.body, start - self.unsure, held, again)
        self.loops.pop()
        turn.body = [
            *copy.deepcopy(self.declared),
            locate(ast.If(goes_on, [*first, *body], []), statement),
            *self.go(ended, statement),
        ]
        return [*made, turn, *self.go(Then(turn.name, reads, "0"), statement)]

    def rows(self, value: ast.expr) -> ast.expr:
        """What a loop goes through."""
        plain = isinstance(value, ast.Call) and not value.keywords and not any(map(_is_starred, value.args))
        if plain and isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
            name = value.func.id
            if name in self.truths.meant & LAZY:
                return ast.copy_location(call("rows_by", ast.Constant(name), *map(self.rows, value.args)), value)
        return self.truths.value(value)

    def go(self, then: Then, at: ast.AST | None = None) -> list[ast.stmt]:
        """Goes on with what comes after."""
        given = [*([then.first] if then.first else []), *then.reads]
        made = ast.parse(f"return {then.name}({', '.join(given)})").body
        for node in ast.walk(made[0]):
            unplace(hands_on(node))
        return made if at is None else [locate(each, at) for each in made]

    def function(self, at: ast.AST, reads: Sequence[str], body: list[ast.stmt]) -> ast.FunctionDef:
        """Makes a function of statements."""
        made = ast.parse(f"def {self.truths.fresh()}({', '.join(reads)}): pass").body[0]
        assert isinstance(made, ast.FunctionDef)
        made.body = [*copy.deepcopy(self.declared), *body] or made.body
        nodes: list[ast.stmt | ast.arg] = [made, *made.args.args]
        for node in nodes:
            ast.copy_location(unplace(node), at)
        self.frames.append(made)
        return made

    def reads(self, statements: Sequence[ast.stmt], then: Then | None, bound: Bound) -> tuple[str, ...]:
        """The variables to give to a function of statements; those that may not be set get a stand-in."""
        found = (needed(statements) | set(then.reads if then else ())) & self.locals
        self.unset |= found - bound
        return tuple(sorted(found))

    def check(self, site: int, moved: Sequence[ast.stmt], reads: Sequence[str], held: Bound) -> None:
        """Refuses to move statements into a function where that would change what they do.

        Raises:
            Refused: With the reason.
        """
        late, caught = sorted(held & assigned(moved)), sorted(self.handled & set(reads))
        if self.why_not:
            raise Refused(site, self.why_not)
        if late:
            raise Refused(site, f"a function or generator before it reads {late[0]}, which is set again after it")
        if caught:
            raise Refused(site, f"the name {caught[0]} of an except clause is used outside of it")

    # --- all other statements -----------------------------------------------------------------------

    def plain(self, statement: ast.stmt) -> list[ast.stmt]:
        """Rewrites a statement in which no paths part, in its place."""
        loop = self.loops[-1]
        if isinstance(statement, (ast.Break, ast.Continue)):
            return (
                self.go(loop.after if isinstance(statement, ast.Break) else loop.again, statement)
                if loop
                else [statement]
            )
        if isinstance(statement, ast.FunctionDef):
            statement.decorator_list = [self.truths.value(each) for each in statement.decorator_list]
            Writer(self.truths, statement).write(statement)
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            return [statement]
        if self.truths.is_chosen(statement) and isinstance(statement, (ast.If, ast.Assert)):
            return self.stop(statement)
        is_loop = isinstance(statement, (ast.For, ast.While))
        for node in blocks(statement):
            for field, old in ast.iter_fields(node):
                if isinstance(old, list) and old and isinstance(old[0], ast.stmt):
                    if is_loop and field == "body":
                        self.loops.append(None)
                    setattr(node, field, [one for each in old for one in self.plain(each)])
                    if is_loop and field == "body":
                        self.loops.pop()
                elif isinstance(old, ast.expr):
                    asks = field == "test" and isinstance(node, (ast.If, ast.While, ast.Assert))
                    setattr(
                        node, field, self.truths.asked(node, self.truths.test(old)) if asks else self.truths.value(old)
                    )
                elif isinstance(old, list):
                    setattr(node, field, [self.truths.value(e) if isinstance(e, ast.expr) else e for e in old])
        return [statement]

    def stop(self, statement: ast.If | ast.Assert) -> list[ast.stmt]:
        """Makes an assertion of a statement that raises or does nothing: its paths part no further."""
        test = self.truths.test(statement.test)
        if isinstance(statement, ast.If):
            raises = self.plain(statement.body[0])
        else:
            said = [self.truths.value(statement.msg)] if statement.msg else []
            error = ast.Call(load("AssertionError"), said, [])
            raises, test = [locate(ast.Raise(error), statement)], call("not_", test)
        made = self.function(statement, (), raises)
        site = ast.Constant(self.truths.sites[statement])
        stops = call("stop", ast.Constant(self.truths.plan), site, test, load(made.name))
        return [made, locate(ast.Expr(stops), statement)]
