"""Random functions of plain numbers do the same once all places where a truth is asked are rewritten."""

from __future__ import annotations

import ast
import contextlib
import random
from collections.abc import Callable
from types import CellType, FunctionType, SimpleNamespace
from typing import Any

import pytest

from hybridjit.control import plans, splits
from hybridjit.control.rewrite import rewrite
from hybridjit.control.truths import Refused, Truths

NAMES = "abcd"
MEANT = {"bool", "enumerate", "zip", "reversed", "sum", "max"}
LOOPS = ["range(3)", "[1, 2]", "enumerate([4, 5])", "zip([1, 2], [3, 4, 5])", "reversed([1, 2])", "[a, b]"]


class Program:
    """Writes a function; ``note`` in it tells the order in which things happen."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.notes = self.loops = self.depth = 0
        body = [*self.block(1), *self.statement(1), *self.statement(1), f"    return {self.value()}"]
        self.source = "def fn(a, b):\n" + "\n".join(body) + "\n"

    def number(self) -> int:
        self.notes += 1
        return self.notes

    def value(self, deep: int = 0) -> str:
        def more() -> str:
            return self.value(deep + 1)

        name = self.random.choice(NAMES)
        if deep > 1 or self.random.random() < 0.4:
            return name
        return self.random.choice(
            [
                lambda: str(self.random.randint(-3, 3)),
                lambda: f"(({more()} {self.random.choice('+-*')} {more()}) % 7 - 3)",
                lambda: f"note({self.number()}, {more()})",
                lambda: f"({more()} if {self.test(deep + 1)} else {more()})",
                lambda: f"({more()} {self.random.choice(['and', 'or'])} {more()})",
                lambda: f"[{more()}, {more()}][{more()} % 2]",
                lambda: f"(not {more()})",
                lambda: f"(lambda q: {more()} + q)({more()})",
                lambda: f"sum(i * {more()} for i in range(3))",
                lambda: f"({name} := {more()})",
                lambda: f"max({more()}, {more()})",
            ]
        )()

    def test(self, deep: int = 0) -> str:
        def more() -> str:
            return self.test(deep + 1)

        if deep > 1 or self.random.random() < 0.4:
            return f"{self.value(deep + 1)} {self.random.choice('<>')} {self.value(deep + 1)}"
        return self.random.choice(
            [
                lambda: f"{self.value(deep + 1)} < {self.value(deep + 1)} <= {self.value(deep + 1)}",
                lambda: f"({more()} {self.random.choice(['and', 'or'])} {more()})",
                lambda: f"(not {more()})",
                lambda: f"bool({self.value(deep + 1)})",
                lambda: f"({more()} if {more()} else {more()})",
            ]
        )()

    def block(self, indent: int) -> list[str]:
        self.depth += 1
        lines = [line for _ in range(self.random.randint(1, 2)) for line in self.statement(indent)]
        self.depth -= 1
        return lines

    def statement(self, indent: int) -> list[str]:
        name, pad = self.random.choice(NAMES), "    " * indent
        simple = [
            [f"{name} = {self.value()}"],
            [f"{name} = {self.value()}"],
            [f"{name} += {self.value()}"],
            [f"note({self.number()}, {self.value()})"],
            [f"return {self.value()}" if self.depth > 1 else f"{name} = 1"],
            [self.random.choice(["break", "continue"]) if self.loops else f"{name} = 2"],
            [f"assert {self.test()}, note({self.number()}, 'x')"],
            [f"if {self.test()}:", f"    raise ValueError({self.value()})"],
            [f"del {name}"],
            [f"held.append(lambda: {self.value()})"],
        ]
        if self.depth > 2 or self.random.random() < 0.4:
            return [pad + line for line in self.random.choice(simple)]
        kinds = [self.branch, self.branch, self.branch, self.loop, self.loop, self.counted, self.guarded, self.inner]
        return self.random.choice(kinds)(indent, pad)

    def maybe(self, word: str, indent: int, pad: str) -> list[str]:
        return [pad + word, *self.block(indent + 1)] if self.random.random() < 0.4 else []

    def branch(self, indent: int, pad: str) -> list[str]:
        lines = [f"{pad}if {self.test()}:", *self.block(indent + 1)]
        return [*lines, *self.maybe(f"elif {self.test()}:", indent, pad), *self.maybe("else:", indent, pad)]

    def loop(self, indent: int, pad: str) -> list[str]:
        rows = self.random.choice(LOOPS)
        target = ", ".join(self.random.sample(NAMES, 2)) if rows[0] in "ez" else self.random.choice(NAMES)
        return self.looped([f"{pad}for {target} in {rows}:"], indent, pad)

    def counted(self, indent: int, pad: str) -> list[str]:
        count = f"w{self.number()}"
        first = [f"{pad}{count} = 0", f"{pad}while {count} < 3 and {self.test()}:", f"{pad}    {count} += 1"]
        return self.looped(first, indent, pad)

    def looped(self, first: list[str], indent: int, pad: str) -> list[str]:
        self.loops += 1
        body = self.block(indent + 1)
        self.loops -= 1
        return [*first, *body, *self.maybe("else:", indent, pad)]

    def guarded(self, indent: int, pad: str) -> list[str]:
        if self.random.random() < 0.5:
            return [f"{pad}with context:", *self.block(indent + 1)]
        return [f"{pad}try:", *self.block(indent + 1), f"{pad}except ValueError as error:", *self.block(indent + 1)]

    def inner(self, indent: int, pad: str) -> list[str]:
        name, parameter, loops = f"f{self.number()}", self.random.choice(NAMES + "q"), self.loops
        self.loops = 0
        body = self.block(indent + 1)
        self.loops = loops
        call = f"{pad}note({self.number()}, {name}({self.value()}))"
        return [f"{pad}def {name}({parameter}):", *body, f"{pad}    return {parameter}", call]


class TooLong(Exception):
    """A program that goes on and on."""


def outcome(fn: Callable[..., Any], args: tuple[int, int], log: list[Any], held: list[Any]) -> Any:
    """What a function gives or raises, what it did, and what the functions that it left behind give."""
    log.clear()
    held.clear()

    def ran(run: Callable[[], Any]) -> Any:
        try:
            return run()
        except NameError:
            return "NameError"
        except TooLong:
            raise
        except Exception as error:
            return type(error).__name__

    result = ran(lambda: fn(*args))
    notes = list(log) if result != "NameError" else []  # an augmented assignment reads later what it changes
    return result, notes, [ran(each) for each in held[:50]] if notes else []


@pytest.mark.parametrize("first", range(0, 120, 20))
def test_random_functions_do_the_same(first: int) -> None:
    """Results, errors, the order of what happens and later calls of inner functions are those of the function."""
    rewritten = 0
    for seed in range(first, first + 20):
        source = Program(seed).source
        log: list[Any] = []
        held: list[Any] = []

        def note(number: int, value: Any, log: list[Any] = log) -> Any:
            log.append((number, value))
            if len(log) > 2000:
                raise TooLong
            return value

        space: dict[str, Any] = {"note": note, "held": held, "context": contextlib.nullcontext()}
        try:
            exec(compile(source, "<random>", "exec", dont_inherit=True), space)
        except SyntaxError:  # := in a comprehension, say
            continue
        fn = space["fn"]
        chosen = set(Truths(definition(source), [], MEANT, 0).sites.values())
        chosen = {site for site in chosen if random.Random(seed + site).random() < 0.8}
        while True:
            try:
                made, _ = rewrite(definition(source), chosen, MEANT, 0)
                break
            except Refused as refused:
                chosen.remove(refused.site)
        rewritten += len(chosen)
        code = plans.compiled(made, fn.__code__, "")
        new = FunctionType(code, space, "fn", None, tuple(CellType(tools()) for _ in code.co_freevars))
        for args in ((1, 2), (-1, 3), (0, 0), (5, -2)):
            with contextlib.suppress(TooLong):
                assert outcome(new, args, log, held) == outcome(fn, args, log, held), (seed, args, source)
    assert rewritten > 40


def tools() -> Any:
    """What rewritten functions call; there is no plan whose paths could be counted."""
    return SimpleNamespace(**{**vars(splits), "begin": lambda plan: 0})


def definition(source: str) -> ast.FunctionDef:
    """The syntax tree of a program."""
    (made,) = ast.parse(source).body
    assert isinstance(made, ast.FunctionDef)
    return made
