"""Random programs of branches, loops, scripted pieces and submodules, and inputs for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import eq
from random import Random
from typing import Any

import hypothesis.strategies as st
import torch
from torch import Tensor

from .language import (
    MOST,
    WIDTH,
    Block,
    Branching,
    Call,
    Check,
    Cond,
    Fori,
    If,
    Keep,
    Map,
    Model,
    Op,
    Recall,
    Return,
    Scan,
    Scripted,
    Switch,
    Test,
    Type,
    While,
    alternate,
    at_most,
    split_sign,
)

DTYPES = (torch.float32,) * 5 + (torch.float64, torch.int64, torch.int64, torch.float16, torch.int32)
NUMBER = Type("number", torch.int64)
WEIGHT = Type("vec", torch.float32)
_CONTAINERS = ("bare", "tuple", "list", "dict", "pair")

Rule = tuple[str, Callable[[Type], bool], Callable[[Type], Type], Callable[..., Any]]


def _sized(t: Type) -> bool:
    return t.kind in ("rows", "vec")


def _tensor(t: Type) -> bool:
    return t.kind != "number"


def _same(t: Type) -> Type:
    return t


def _to(kind: str) -> Callable[[Type], Type]:
    return lambda t: Type(kind, t.dtype)


def _positive(m: Any, x: Tensor) -> Tensor:
    return x[(x if x.dim() == 1 else x[:, 0]) > 0]


# name, what it takes, what it gives, what it does; a name that ends in _ changes its argument.
UNARY: list[Rule] = [
    ("neg", _tensor, _same, lambda m, x: -x),
    ("scale", _tensor, _same, lambda m, x: (x * 2 - 1).clamp(-50, 50)),
    ("abs", _tensor, _same, lambda m, x: x.abs()),
    ("double", _tensor, _same, lambda m, x: (x + x).clamp(-50, 50)),
    ("tanh", lambda t: _tensor(t) and t.dtype.is_floating_point, _same, lambda m, x: x.tanh() * 3),
    ("clone", _tensor, _same, lambda m, x: x.clone()),
    ("flip", _sized, _same, lambda m, x: x.flip(0)),
    ("tail", _sized, _same, lambda m, x: x[1:]),
    ("head", _sized, _same, lambda m, x: x[:2]),
    ("last", _sized, _same, lambda m, x: x[-1:]),
    ("every other", _sized, _same, lambda m, x: x[::2]),
    ("positive", _sized, _same, _positive),
    ("twice", _sized, _same, lambda m, x: torch.cat([x, x + 1])[:MOST]),
    ("sort", _sized, _same, lambda m, x: x.sort(dim=0, stable=True).values),
    ("times size", _sized, _same, lambda m, x: x * x.shape[0]),
    ("zeros", _sized, _same, lambda m, x: x.new_zeros(x.shape) + 1),
    ("centre", _sized, _same, lambda m, x: x - x[:1].sum(0, dtype=x.dtype)),
    ("linear", lambda t: t == Type("rows", torch.float32), _same, lambda m, x: m.linear(x)),
    ("weigh", lambda t: t == Type("rows", torch.float32), _same, lambda m, x: x * m.weight + m.shift),
    ("row sums", lambda t: t.kind == "rows", _to("vec"), lambda m, x: x.sum(1, dtype=x.dtype)),
    ("column", lambda t: t.kind == "rows", _to("vec"), lambda m, x: x[:, 1]),
    ("to rows", lambda t: t.kind == "vec", _to("rows"), lambda m, x: x[:, None].expand(-1, WIDTH)),
    ("sum", _sized, _to("scalar"), lambda m, x: x.sum(dtype=x.dtype).clamp(-50, 50)),
    ("size", _sized, lambda t: NUMBER, lambda m, x: x.shape[0]),
    ("range", _sized, lambda t: Type("vec", torch.int64), lambda m, x: torch.arange(x.shape[0])),
    ("whole", _tensor, lambda t: Type(t.kind, torch.int64), lambda m, x: x.nan_to_num(0, 9, -9).clamp(-9, 9).long()),
    ("float", _tensor, lambda t: Type(t.kind, torch.float32), lambda m, x: x.float()),
    ("number", lambda t: t.kind == "number", _same, lambda m, n: n + 1),
    ("constant", _tensor, lambda t: Type("vec", torch.float32), lambda m, x: m.weight),
]
IN_PLACE: list[Rule] = [
    ("add_", _tensor, _same, lambda m, x: x.add_(1)),
    ("set_", _sized, _same, lambda m, x: x.__setitem__(slice(0, 1), 2) or x),
    ("view_", _sized, _same, lambda m, x: x[1:].mul_(2)),
]
BINARY: list[tuple[str, Callable[[Type, Type], bool], Callable[..., Any]]] = [
    ("cat", lambda a, b: _sized(a) and a == b, lambda m, x, y: torch.cat([x, y])[:MOST]),
    ("add sum", lambda a, b: _sized(a) and a == b, lambda m, x, y: (x + y.sum(0)).clamp(-50, 50).to(x.dtype)),
    ("add scalar", lambda a, b: _tensor(a) and b == Type("scalar", a.dtype), lambda m, x, y: (x + y).clamp(-50, 50)),
    ("times number", lambda a, b: _sized(a) and b == NUMBER, lambda m, x, n: x * n),
    ("first n", lambda a, b: _sized(a) and b == NUMBER, lambda m, x, n: x[:n]),
    ("n zeros", lambda a, b: a.kind == "vec" and b == NUMBER, lambda m, x, n: x.new_zeros(n + 1)[:MOST]),
]


@dataclass(frozen=True)
class Program:
    """One program: how its model is made, and what it takes."""

    block: Block
    inner: dict[str, Block]
    takes: tuple[Type, ...]
    leaving: bool = False

    def model(self) -> Model:
        return Model(self.block, self.inner, self.leaving)


class Generator:
    """Draws one program."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.left = random.randrange(3, 14)
        self.signatures: dict[str, tuple[Type, ...]] = {}
        self.returned: dict[str, tuple[Type, ...]] = {}
        self.points: list[tuple[int, int]] = []
        self.own: list[Type] = []

    def program(self) -> Program:
        inner, signatures = {}, {}
        for name in ("first", "second")[: self.random.randrange(3)]:
            takes = self.types(2)
            budget, self.left = self.left, 3
            inner[name], self.returned[name] = self.block([WEIGHT, *takes], 2, False)
            signatures[name], self.left = takes, budget
        self.signatures = signatures
        takes = self.types(3)
        if len(inner) > 1:
            self.signatures["other"], self.returned["other"] = self.signatures["first"], self.returned["first"]
        return Program(self.block([WEIGHT, *takes], 0, False)[0], inner, takes)

    def types(self, most: int) -> tuple[Type, ...]:
        kinds = ("rows", "rows", "vec", "scalar")
        count = self.random.randrange(1, most + 1)
        return tuple(Type(self.random.choice(kinds), self.random.choice(DTYPES)) for _ in range(count))

    def pick(self, types: Sequence[Type], fits: Callable[[Type], bool]) -> int | None:
        """A variable of a kind; later ones more often."""
        found = [index for index, t in enumerate(types) if fits(t)]
        return self.random.choice([*found, *found[-2:]]) if found else None

    def block(
        self, types: Sequence[Type], depth: int, paths: bool, wants: Sequence[Type] | None = None
    ) -> tuple[Block, tuple[Type, ...]]:
        """A block that starts with variables of these types, and results in the types wanted, or in any."""
        own = list(types)
        body: list[Any] = []
        points = [(0, len(own))]
        for _ in range(self.random.randrange(1, 5 - min(depth, 3))):
            body += self.statement(own, depth, paths)
            points.append((len(body), len(own)))
        if wants is None:
            count = min(len(own), self.random.randrange(1, 4))
            results = [self.random.randrange(max(0, len(own) - 4), len(own)) for _ in range(count)]
        else:
            results = [self.make(own, body, want) for want in wants]
        self.points, self.own = points, own
        return Block(tuple(body), tuple(results), self.random.choice(_CONTAINERS)), tuple(own[i] for i in results)

    def make(self, own: list[Type], body: list[Any], want: Type) -> int:
        """A variable of a type, made from another where there is none."""
        found = self.pick(own, lambda t: t == want)
        if found is not None:
            return found
        dtype = want.dtype
        if want == NUMBER:
            number = self.random.randrange(4)
            body.append(Op("constant number", lambda m: number, ()))
        elif want.kind == "scalar":
            body.append(Op("scalar", lambda m: torch.ones((), dtype=dtype), ()))
        else:
            source = self.pick(own, _tensor) or 0
            shape = (-1, 1) if want.kind == "rows" else (-1,)
            width = (-1, WIDTH) if want.kind == "rows" else (-1,)
            body.append(
                Op("cast", lambda m, x: x.nan_to_num(0, 9, -9).to(dtype).reshape(shape)[:MOST].expand(width), (source,))
            )
        own.append(want)
        return len(own) - 1

    def statement(self, own: list[Type], depth: int, paths: bool) -> list[Any]:
        """One statement (sometimes with one before it), whose variables join ``own``."""
        self.left -= 1
        simple = depth > 2 or self.left < 0
        kinds = ["op"] * 5 + ["scripted", "call", "in place"]
        if not simple:
            kinds += ["cond"] * 4 + ["while", "fori", "scan", "map", "switch"] * 2 + ["branching"] * (1 if paths else 4)
            kinds += ["if"] * 6 + ["check"] if paths else []
        made = getattr(self, "_" + self.random.choice(kinds).replace(" ", "_"))(own, depth, paths)
        return made if made is not None else self._op(own, depth, paths)

    def _op(self, own: list[Type], depth: int, paths: bool) -> list[Any]:
        if self.random.randrange(3) == 0:
            name, fits, fn = self.random.choice(BINARY)
            pairs = [(a, b) for a in range(len(own)) for b in range(len(own)) if fits(own[a], own[b])]
            if pairs:
                args = self.random.choice(pairs)
                own.append(own[args[0]])
                return [Op(name, fn, args)]
        return self._rule(own, self.random.choice(UNARY)) or self._rule(own, UNARY[0]) or []

    def _in_place(self, own: list[Type], depth: int, paths: bool) -> list[Any] | None:
        if self.random.randrange(2):  # of something new, which every block may change
            source = self.pick(own, _tensor)
            if source is not None:
                own.append(own[source])
                copy = Op("clone", lambda m, x: x.clone(), (source,))
                name, fits, _, fn = self.random.choice(IN_PLACE)
                if fits(own[-1]):
                    own.append(own[-1])
                    return [copy, Op(name, fn, (len(own) - 2,))]
                return [copy]
        return self._rule(own, self.random.choice(IN_PLACE), first=1) if self.random.randrange(3) == 0 else None

    def _rule(self, own: list[Type], rule: Rule, first: int = 0) -> list[Any] | None:
        name, fits, gives, fn = rule
        source = self.pick(own, fits)
        if source is None or source < first:
            return None
        own.append(gives(own[source]))
        return [Op(name, fn, (source,))]

    def test(self, own: Sequence[Type], depth: int = 0) -> Test:
        tensor = self.pick(own, _tensor)
        whats = [("sum", _tensor), ("sum", _tensor), ("sum1", _tensor), ("any", _tensor), ("size", _sized)]
        whats += [("empty", _sized), ("truth", lambda t: t.kind == "scalar"), ("number", lambda t: t == NUMBER)]
        if depth < 2:
            whats += [("not", _tensor), ("and", _tensor)]
        what, fits = self.random.choice(whats)
        var = self.pick(own, fits)
        if var is None or tensor is None:
            what, var = "sum", tensor or 0
        other = self.test(own, depth + 1) if what in ("not", "and") else None
        return Test(what, var, float(self.random.randrange(-1, 4)), other)

    def sides(self, own: list[Type], depth: int, paths: bool, count: int = 2) -> list[Block]:
        first, types = self.block(own, depth + 1, paths)
        rest = [self.block(own, depth + 1, paths, types)[0] for _ in range(count - 1)]
        own.extend(types)
        same = [Block(each.body, each.results, first.container) for each in rest]
        return [first, *same]

    def _cond(self, own: list[Type], depth: int, paths: bool) -> list[Any]:
        operands = tuple(self.random.randrange(len(own)) for _ in range(self.random.randrange(3)))
        inner = [*own, *(own[index] for index in operands)]
        test = self.test(own)
        before = len(inner)
        sides = self.sides(inner, depth, paths)
        own.extend(inner[before:])
        return [Cond(test, (sides[0], sides[1]), operands)]

    def _if(self, own: list[Type], depth: int, paths: bool) -> list[Any]:
        test = self.test(own)
        yes, no = self.sides(own, depth, True)
        return [If(test, (yes, no))]

    def _switch(self, own: list[Type], depth: int, paths: bool) -> list[Any] | None:
        index = self.pick(own, lambda t: t in (NUMBER, Type("scalar", torch.int64)))
        if index is None:
            return None
        return [Switch(index, tuple(self.sides(own, depth, paths, self.random.randrange(1, 4))))]

    def carried(self, own: Sequence[Type], least: int) -> tuple[int, ...]:
        usable = [index for index, t in enumerate(own) if _tensor(t)]
        return tuple(self.random.choice(usable) for _ in range(self.random.randrange(least, 3)))

    def _while(self, own: list[Type], depth: int, paths: bool) -> list[Any]:
        carried = self.carried(own, 1)
        types = [own[index] for index in carried]
        test = self.test([*own, *types])
        body, _ = self.block([*own, *types], depth + 1, paths, types)
        own.extend(types)
        return [While(self.random.randrange(0, 5), test, carried, body)]

    def _fori(self, own: list[Type], depth: int, paths: bool) -> list[Any]:
        carried = self.carried(own, 1)
        types = [own[index] for index in carried]
        whats: list[tuple[str, int]] = [("int", self.random.randrange(0, 4))]
        if (sized := self.pick(own, _sized)) is not None:
            whats += [("size", sized)] * 2
        number = self.pick(own, lambda t: t == NUMBER)
        if number is not None:
            whats += [("tensor", number)] * 2
        body, _ = self.block([*own, *types, NUMBER], depth + 1, paths, types)
        own.extend(types)
        container = self.random.choice(_CONTAINERS)
        return [Fori(self.random.randrange(-1, 3), self.random.choice(whats), carried, body, container)]

    def _scan(self, own: list[Type], depth: int, paths: bool) -> list[Any] | None:
        xs = self.pick(own, _sized)
        if xs is None:
            return None
        dtype, rows = own[xs].dtype, own[xs].kind == "rows"
        dim = self.random.choice([0, 1, -1, -2] if rows else [0, -1])
        carried = self.carried(own, 0)
        types = [own[index] for index in carried]
        scalar = self.random.randrange(2) == 0
        x = Type("vec" if rows else "scalar", dtype)
        body, _ = self.block([*own, *types, x], depth + 1, paths, [*types, Type("scalar", dtype)])
        own.extend([*types, Type("vec", dtype) if scalar else own[xs]])
        return [Scan(xs, dim, self.random.randrange(2) == 0, carried, body, scalar)]

    def _map(self, own: list[Type], depth: int, paths: bool) -> list[Any] | None:
        xs = self.pick(own, _sized)
        if xs is None:
            return None
        x = Type("vec" if own[xs].kind == "rows" else "scalar", own[xs].dtype)
        body, _ = self.block([*own, x], depth + 1, paths, [Type("scalar", own[xs].dtype)])
        own.append(own[xs])
        return [Map(xs, body)]

    def _branching(self, own: list[Type], depth: int, paths: bool) -> list[Any]:
        inner, types = self.block(own, depth + 1, True)
        body, points, known = list(inner.body), self.points, self.own
        if self.random.randrange(2):
            place, count = self.random.choice(points)
            early, _ = self.block(known[:count], depth + 1, True, types)
            early = Block(early.body, early.results, inner.container)
            body.insert(place, Return(self.test(known[:count]), early))
        own.extend(types)
        return [Branching(Block(tuple(body), inner.results, inner.container))]

    def _check(self, own: list[Type], depth: int, paths: bool) -> list[Any]:
        return [Check(self.test(own))]

    def _scripted(self, own: list[Type], depth: int, paths: bool) -> list[Any] | None:
        x = self.pick(own, _sized)
        if x is None:
            return None
        pieces: list[Callable[..., Any]] = [at_most, alternate, split_sign]
        piece = self.random.choice(pieces)
        if piece is split_sign:
            own.extend([own[x], own[x]])
            return [Scripted(piece, (x,))]
        body: list[Any] = []
        n = self.make(own, body, NUMBER)
        own.append(own[x])
        return [*body, Scripted(piece, (x, n))]

    def _call(self, own: list[Type], depth: int, paths: bool) -> list[Any] | None:
        if not self.signatures:
            return None
        name = self.random.choice(list(self.signatures))
        args = [self.pick(own, partial(eq, want)) for want in self.signatures[name]]
        if any(arg is None for arg in args):
            return None
        own.extend(t if t != NUMBER else Type("scalar", torch.int64) for t in self.returned[name])
        return [Call(name, tuple(arg for arg in args if arg is not None))]


class Leaving(Generator):
    """Draws one program that leaves things behind besides results, and goes on with them."""

    def program(self) -> Program:
        return replace(super().program(), leaving=True)

    def statement(self, own: list[Type], depth: int, paths: bool) -> list[Any]:
        if self.random.randrange(3):
            return super().statement(own, depth, paths)
        self.left -= 1
        if self.random.randrange(2):
            return [Keep(self.pick(own, partial(eq, WEIGHT)) or 0, self.random.randrange(2) == 0)]
        what = self.random.choice(("kept", "last", "many"))
        own.append(NUMBER if what == "many" else WEIGHT)
        return [Recall(what)]


def generate(random: Random, leaving: bool = False) -> Program:
    """Draws a program; one that leaves things behind besides results, if that is wanted."""
    return (Leaving if leaving else Generator)(random).program()


def draw_inputs(program: Program, random: Random) -> tuple[Tensor, ...]:
    """Draws inputs of the types that a program takes: sizes 0 to 7, values around 0."""
    generator = torch.Generator().manual_seed(random.randrange(2**31))
    made = []
    for kind, dtype in program.takes:
        n = random.randrange(MOST + 1)
        shape = {"rows": (n, WIDTH), "vec": (n,), "scalar": ()}[kind]
        values = torch.randn(shape, generator=generator) * 2 + random.randrange(-2, 3)
        made.append(values.round().to(dtype) if not dtype.is_floating_point else values.to(dtype))
    return tuple(made)


programs = st.randoms(use_true_random=False).map(generate)
"""A strategy: random programs."""
