"""The programs of the fuzz: statements that run in eager mode and under any capture, as a model's code would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import hybridjit as hj

WIDTH = 3
"""Size of the last dimension of rows."""
MOST = 7
"""The most rows."""


class Type(NamedTuple):
    """What a variable is: ``rows`` [n, 3], ``vec`` [n], ``scalar`` [] or a ``number``, and its dtype."""

    kind: str
    dtype: torch.dtype


class Pair(NamedTuple):
    first: Any
    second: Any


Env = list[Any]


def tensor(value: Any) -> Any:
    """A number of eager mode as the tensor that it is in a trace."""
    return value if isinstance(value, Tensor) else torch.tensor(value)


taken: set[tuple[int, int]] | None = None
"""Which side (second) of which statement (first) eager code took; ``None`` while nobody asks."""


def note(statement: object, side: object) -> None:
    if taken is not None:
        taken.add((id(statement), int(bool(side)) if not isinstance(side, int) else side))


def pack(container: str, values: Sequence[Any]) -> Any:
    """Puts a branch's results into one of the containers that pytrees know."""
    match container:
        case "bare" if len(values) == 1:
            return values[0]
        case "list":
            return list(values)
        case "dict":
            return {f"key{index}": value for index, value in enumerate(values)}
        case "pair":
            return Pair(values[0], {"rest": list(values[1:]), "none": None})
    return tuple(values)


def unpack(container: str, packed: Any, count: int) -> list[Any]:
    match container:
        case "bare" if count == 1:
            return [packed]
        case "dict":
            return [packed[f"key{index}"] for index in range(count)]
        case "pair":
            return [packed.first, *packed.second["rest"]]
    return list(packed)


@dataclass(frozen=True, eq=False)
class Test:
    """A predicate: ``what`` of a variable compared with a constant; ``python`` joins two with and, or, not."""

    what: str
    var: int
    constant: float = 0.0
    other: Test | None = None
    __test__ = False  # for pytest, which would collect it

    def value(self, env: Env) -> Any:
        x = env[self.var]
        match self.what:
            case "sum":
                return x.sum() > self.constant
            case "sum1":
                return (x.sum() < self.constant).reshape(1)
            case "any":
                return (x > self.constant).any()
            case "truth":
                return x
            case "size":
                return x.shape[0] > int(self.constant)
            case "empty":
                return x.numel() == 0
            case "number":
                return x > int(self.constant)
            case "not":
                return torch.logical_not(tensor(self._other(env)))
        return torch.logical_and(x.sum() > 0, tensor(self._other(env)).reshape(()))

    def _other(self, env: Env) -> Any:
        assert self.other is not None
        return self.other.value(env)

    def python(self, env: Env) -> Any:
        """The same as Python's own operators write it."""
        if self.what == "not":
            return not self._other(env)
        if self.what == "and":
            return env[self.var].sum() > 0 and self._other(env)
        return self.value(env)


@dataclass(frozen=True, eq=False)
class Block:
    """Statements, and which variables they result in."""

    body: tuple[Any, ...]
    results: tuple[int, ...]
    container: str = "tuple"

    def run(self, model: Any, env: Env, given: Sequence[Any] = ()) -> Any:
        env = [*env, *given]
        for statement in self.body:
            if isinstance(statement, Return):
                if statement.test.python(env):
                    note(statement, 1)
                    return statement.block.run(model, env)
                note(statement, 0)
            else:
                statement.run(model, env)
        return pack(self.container, [env[index] for index in self.results])

    def unpacked(self, packed: Any) -> list[Any]:
        return unpack(self.container, packed, len(self.results))


@dataclass(frozen=True, eq=False)
class Op:
    """One operation; its result is a new variable."""

    name: str
    fn: Callable[..., Any]
    args: tuple[int, ...]

    def run(self, model: Any, env: Env) -> None:
        env.append(self.fn(model, *(env[index] for index in self.args)))


@dataclass(frozen=True, eq=False)
class Cond:
    test: Test
    sides: tuple[Block, Block]
    operands: tuple[int, ...] = ()

    def run(self, model: Any, env: Env) -> None:
        pred = self.test.value(env)
        if taken is not None:
            note(self, bool(pred))
        given = tuple(env[index] for index in self.operands)
        yes, no = self.sides
        packed = hj.cond(pred, lambda *a: yes.run(model, env, a), lambda *a: no.run(model, env, a), given)
        env.extend(yes.unpacked(packed))


@dataclass(frozen=True, eq=False)
class Switch:
    index: int
    sides: tuple[Block, ...]

    def run(self, model: Any, env: Env) -> None:
        index = env[self.index]
        if taken is not None:
            note(self, min(max(int(index), 0), len(self.sides) - 1))
        packed = hj.switch(index, [partial(side.run, model, env) for side in self.sides])
        env.extend(self.sides[0].unpacked(packed))


@dataclass(frozen=True, eq=False)
class While:
    """Goes on while ``test`` of what is carried holds, at most ``limit`` rounds."""

    limit: int
    test: Test
    carried: tuple[int, ...]
    body: Block

    def run(self, model: Any, env: Env) -> None:
        def goes(i: Any, *carried: Any) -> Any:
            going = torch.logical_and(i < self.limit, tensor(self.test.value([*env, *carried])).reshape(()))
            if taken is not None:
                note(self, bool(going))
            return going

        def step(i: Any, *carried: Any) -> Any:
            return (i + 1, *self.body.unpacked(self.body.run(model, env, carried)))

        env.extend(hj.while_loop(goes, step, (torch.tensor(0), *(env[index] for index in self.carried)))[1:])


@dataclass(frozen=True, eq=False)
class Fori:
    """Bounds are ints, sizes (``size``) or tensors; the body sees the number after what is carried."""

    lower: int
    upper: tuple[str, int]
    carried: tuple[int, ...]
    body: Block
    container: str

    def run(self, model: Any, env: Env) -> None:
        kind, number = self.upper
        upper = number if kind == "int" else env[number].shape[0] if kind == "size" else env[number]

        def step(i: Any, carry: Any) -> Any:
            given = [*unpack(self.container, carry, len(self.carried)), i]
            return pack(self.container, self.body.unpacked(self.body.run(model, env, given)))

        if taken is not None:
            note(self, int(upper) > self.lower)
        init = pack(self.container, [env[index] for index in self.carried])
        env.extend(unpack(self.container, hj.fori_loop(self.lower, upper, step, init), len(self.carried)))


@dataclass(frozen=True, eq=False)
class Scan:
    """Carries variables along a dimension; ``y`` is an affine function of the slice, so that slices stack."""

    xs: int
    dim: int
    reverse: bool
    carried: tuple[int, ...]
    body: Block
    scalar: bool

    def run(self, model: Any, env: Env) -> None:
        def step(carry: Any, x: Any) -> Any:
            *state, factor = self.body.unpacked(self.body.run(model, env, [*carry, x]))
            return tuple(state), factor if self.scalar else (x * 2 + factor.to(x.dtype))

        if taken is not None:
            note(self, env[self.xs].shape[self.dim] > 0)
        init = tuple(env[index] for index in self.carried)
        carry, ys = hj.scan(step, init, env[self.xs], dim=self.dim, reverse=self.reverse)
        env.extend([*carry, ys])


@dataclass(frozen=True, eq=False)
class Map:
    xs: int
    body: Block

    def run(self, model: Any, env: Env) -> None:
        if taken is not None:
            note(self, env[self.xs].shape[0] > 0)
        env.append(hj.map(lambda x: self.body.unpacked(self.body.run(model, env, [x]))[0] + x, env[self.xs]))


@dataclass(frozen=True, eq=False)
class Branching:
    """A nested function whose Python ifs are kept."""

    body: Block

    def run(self, model: Any, env: Env) -> None:
        @hj.branch_if_tracing
        def branching(given: list[Any]) -> Any:
            return self.body.run(model, env)

        env.extend(self.body.unpacked(branching(env)))


@dataclass(frozen=True, eq=False)
class If:
    """A Python if; only within `Branching`."""

    test: Test
    sides: tuple[Block, Block]

    def run(self, model: Any, env: Env) -> None:
        if self.test.python(env):
            note(self, 1)
            side = self.sides[0]
        else:
            note(self, 0)
            side = self.sides[1]
        env.extend(side.unpacked(side.run(model, env)))


@dataclass(frozen=True, eq=False)
class Return:
    """An early return; only within `Branching`."""

    test: Test
    block: Block


@dataclass(frozen=True, eq=False)
class Check:
    """An assertion; only within `Branching`."""

    test: Test

    def run(self, model: Any, env: Env) -> None:
        assert self.test.python(env), "the check of a program"


@dataclass(frozen=True, eq=False)
class Scripted:
    piece: Callable[..., Any]
    args: tuple[int, ...]

    def run(self, model: Any, env: Env) -> None:
        result = self.piece(*(env[index] for index in self.args))
        env.extend(result if isinstance(result, tuple) else [result])


@dataclass(frozen=True, eq=False)
class Call:
    """A call of a submodule; more than one may be of the same."""

    name: str
    args: tuple[int, ...]

    def run(self, model: Any, env: Env) -> None:
        env.extend(getattr(model, self.name)(*(env[index] for index in self.args)))


@dataclass(frozen=True, eq=False)
class Keep:
    """Leaves a variable behind: as an attribute of the model, or at the end of its list."""

    var: int
    appends: bool

    def run(self, model: Any, env: Env) -> None:
        value = env[self.var]
        if self.appends:
            model.items.append(value)
        else:  # a parameter would become one by another name
            model.kept = value * 1 if isinstance(value, nn.Parameter) else value


@dataclass(frozen=True, eq=False)
class Recall:
    """What was left behind last: ``kept``, ``last`` of the list, or how ``many`` it has."""

    what: str

    def run(self, model: Any, env: Env) -> None:
        env.append({"kept": model.kept, "last": model.items[-1], "many": len(model.items)}[self.what])


@hj.script_if_tracing
def at_most(x: Tensor, n: int) -> Tensor:
    return x[:n] if x.shape[0] > n else x * 2


@hj.script_if_tracing
def alternate(x: Tensor, n: int) -> Tensor:
    for i in range(min(n, 4)):
        x = x + 1 if i % 2 == 0 else -x
    return x


@hj.script_if_tracing
def split_sign(x: Tensor) -> tuple[Tensor, Tensor]:
    if bool(x.sum() > 0):
        return x, x.abs()
    return x.abs(), x - 1


class Model(nn.Module):
    """A block as a module, with weights, and modules that are blocks too.

    Args:
        block: What ``forward`` does; its first variables are ``own`` weight and the arguments.
        inner: The blocks of submodules, by name.
        leaving: Whether they leave things behind.
    """

    def __init__(self, block: Block, inner: dict[str, Block], leaving: bool = False) -> None:
        super().__init__()
        self.block = block
        self.leaving = leaving
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.weight = nn.Parameter(torch.randn(WIDTH))
        self.register_buffer("shift", torch.arange(float(WIDTH)))
        for name, each in inner.items():
            self.add_module(name, Model(each, {}, leaving))
        if len(inner) > 1:
            self.other = getattr(self, next(iter(inner)))  # a second name for the same module

    def forward(self, *args: Any) -> Any:
        if self.leaving:
            self.kept, self.items = self.weight * 1, [self.weight * 2]  # what `Keep` leaves, anew in each call
        packed = self.block.run(self, [self.weight, *args])
        return tuple(tensor(value) for value in self.block.unpacked(packed))
