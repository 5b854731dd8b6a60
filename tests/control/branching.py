"""Functions with ifs on tensors, for tests: pytest changes the asserts in its own files, and these stay as written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import hybridjit as hj

INPUTS = [torch.tensor(values) for values in ([1.0, 2, 3], [-1.0, -2, -3], [0.0, 0, 0], [9.0, -1, 3], [-9.0, 9, 5])]


@hj.branch_if_tracing
def ladder(x: Tensor) -> Tensor:
    if x.sum() > 5:
        return x * 2
    elif x.sum() > 1:
        x = x + 1
    elif x.min() < -2:
        return x - 1
    else:
        x = x.abs() + 5
    return x * 3


@hj.branch_if_tracing
def one_side(x: Tensor) -> Tensor:
    y = x * 2
    if y.sum() > 3:
        z = y + 1
        y = z * z
    return y - x


@hj.branch_if_tracing
def logic(x: Tensor) -> Tensor:
    low, high = x.min(), x.max()
    if (low > 0 and high > 2) or not (low > -5 or high < 1):
        x = x * 10
    if bool(high > 2) and (low < 0).item():
        x = x - 1
    return x


@hj.branch_if_tracing
def guarded(x: Tensor, rows: tuple[int, ...] = ()) -> Tensor:
    """What comes after `and` is not run where what is before it does not hold."""
    if x.sum() > 0 and len(rows) > 0 and x[rows[0]] > 0:
        return x
    return x + 1


@hj.branch_if_tracing
def chained(x: Tensor) -> Tensor:
    return x * 2 if -1 <= x.min() < x.mean() * 2 <= 4 else x * 3


@hj.branch_if_tracing
def values(x: Tensor) -> Any:
    either = x.sum() or x.max()
    return {"either": either, "both": (x.sum() > 0) and (x.max() > 3)}


@hj.branch_if_tracing
def negated(x: Tensor) -> Any:
    return [not x.sum(), not x.shape]


calls: list[str] = []


def noted(name: str, value: Any) -> Any:
    calls.append(name)
    return value


def joined(*args: Tensor, scale: Any) -> Tensor:
    return torch.cat(args) * scale


@hj.branch_if_tracing
def ternaries(x: Tensor) -> Tensor:
    return joined(x + 1, x if x.sum() > 0 else -x, scale=(x.max() if x.max() > 3 else x.min()) + 1)


@hj.branch_if_tracing
def numbers(x: Tensor) -> Tensor:
    """Numbers that differ between the paths stay numbers on each."""
    rows = [x, x * 2]
    return rows[0 if x.sum() > 0 else 1] * 2 + (1 if x.min() < 0 else 0.5)


@hj.branch_if_tracing
def searched(x: Tensor) -> Tensor:
    for scale in range(1, 4):
        if (x * scale).sum() > 8:
            break
    else:
        return x
    return x * scale


@hj.branch_if_tracing
def skipping(x: Tensor) -> Tensor:
    total = x * 0
    for index, (row, factor) in enumerate(zip(x, (1.0, 2.0, 3.0)), 1):  # noqa: B905
        if index == 2:
            continue
        if row < 0:
            continue
        if row > 8:
            total = total - 1
            break
        total = total + row * factor * index
    return total + index


@hj.branch_if_tracing
def counted(x: Tensor) -> Tensor:
    n = 0
    while n < 3:
        n += 1
        if x.sum() > n * 3:
            return x * n
        for _ in range(2):
            x = x + 0.5
    return x - n


@hj.branch_if_tracing
def nested_loops(x: Tensor) -> Tensor:
    for i in range(2):
        for moved in reversed([x + i, x - i]):
            if moved.sum() > 9:
                return moved
            if i == 1:
                break
        x = x + 1
    return x


@hj.branch_if_tracing
def checked(x: Tensor, *, least: float = -5.0) -> Tensor:
    assert x.min() > least and x.shape[0] > 2, f"less than {least}"
    if x.max() > 8:
        raise ValueError("too much")
    return x.sqrt() if x.min() >= 0 else x


@hj.branch_if_tracing
def raising(x: Tensor) -> Tensor:
    if x.min() > -5:
        y = x + 1
    else:
        y = x - 1
        if y.sum() > 1:
            raise ValueError("too far apart")
    return y


def helper(x: Tensor, k: float) -> Tensor:
    return step(x, k) + 1


@hj.branch_if_tracing
def step(x: Tensor, k: float) -> Tensor:
    return x * 2 if x.sum() > k else x - 1


@hj.branch_if_tracing
def calling(x: Tensor) -> Tensor:
    for k in range(4):
        x = helper(x, k) / 2
    return step(x, 3.0) if x.max() > 1 else helper(x, -1.0)


def make_closure(offset: Tensor, depth: int) -> Callable[[Tensor], Tensor]:
    @hj.branch_if_tracing
    def closure(x: Tensor) -> Tensor:
        nonlocal offset
        if depth > 1:
            x = x + depth
        if x.sum() > offset:
            return x - offset
        return x + offset

    return closure


closure = make_closure(torch.tensor(4.0), 2)


@hj.branch_if_tracing
def inner_functions(x: Tensor) -> Tensor:
    def shrunk(y: Tensor) -> Tensor:
        if y.abs().max() > 4:
            return y / 2
        return y

    @hj.branch_if_tracing
    def lifted(y: Tensor, by: float = 1.0) -> Tensor:
        return y + by if y.min() < 0 else y

    factor = 3
    turned = lambda y: -y if y.sum() > factor else y  # noqa: E731
    x = turned(lifted(shrunk(x)))
    return hj.cond(x.sum() > 0, lambda: x * 2 if x.max() > 3 else x, lambda: shrunk(x - 1))


@hj.branch_if_tracing
def unset(x: Tensor, flag: bool = True) -> Tensor:
    if x.sum() > 0:
        found = x + 1
        kept = True
    else:
        kept = False
    del flag
    if kept:
        return found
    return x


@hj.branch_if_tracing
def walrus(x: Tensor) -> Tensor:
    if (total := x.sum()) > 3 and total < 7:
        return total * x
    return total + x


@hj.branch_if_tracing
def arguments(x: Tensor, /, pair: Any, *rest: Tensor, sign: int = 1, **more: Any) -> Any:
    first, table = pair
    if (first + table["b"]).sum() > 0:
        return rest[0] * sign + more["shift"], None
    return x - sign, None


def with_arguments(x: Tensor) -> Any:
    return arguments(x, (x, {"b": x * 2}), x + 1, sign=3, shift=x[:1])[0]


@hj.branch_if_tracing
def asserting_within(x: Tensor) -> Tensor:
    with torch.no_grad():
        assert x.min() > -5, "too small"
        y = [z * 2 for z in (x, x + 1) if z is not None]
    return y[0] if y[1].sum() > 0 else y[1]


lambda_ = hj.branch_if_tracing(lambda x: x * 2 if x.sum() > 0 else -x if x.min() < -5 else x)

CASES = [
    ladder, one_side, logic, guarded, chained, values, negated, ternaries, numbers, searched, skipping, counted,
    nested_loops, checked, raising, calling, closure, inner_functions, unset, walrus, with_arguments, asserting_within,
    lambda_,
]  # fmt: skip


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.big, self.small = nn.Linear(3, 3), nn.Linear(3, 3)
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))
        self.__limit = 0.1

    @property
    def limit(self) -> Tensor:
        return self.big.bias.sum() + self.__limit

    @hj.branch_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > self.limit + self.__limit:
            return self.big(x)
        return self.small(x)


class Model(Base):
    """Methods, properties, static methods and submodules; `super()` after an if and before it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Base()

    @staticmethod
    @hj.branch_if_tracing
    def turned(x: Tensor) -> Tensor:
        return x.flip(0) if x[0] > x[1] else x

    @classmethod
    @hj.branch_if_tracing
    def scaled(cls, x: Tensor) -> Tensor:
        return x / 2 if x.abs().max() > 4 else cls.turned(x)

    @hj.branch_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        x = self.scaled(x)
        for layer in self.layers:
            if x.max() > 2:
                return super().forward(x) + 1
            x = layer(x) + x
        return self.inner(super().forward(x))
