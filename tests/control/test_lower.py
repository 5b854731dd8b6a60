"""Branches and loops under torch.export, `make_fx` and torch.compile, against the same code in eager mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export

from hybridjit import CaptureError, UnsupportedError
from hybridjit.control.lower import capturing, lower_cond, lower_map, lower_scan, lower_while_loop

# torch's own, when it traces: deprecations inside it, and a note that ints are compiled in.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:.*:UserWarning")


def cond(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], operands: Any = ()) -> Any:
    if capturing():
        return lower_cond(pred, true_fn, false_fn, operands)
    return (true_fn if pred else false_fn)(*operands)


def while_loop(cond_fn: Callable[..., Any], body_fn: Callable[..., Any], carried: Any) -> Any:
    if capturing():
        return lower_while_loop(cond_fn, body_fn, carried)
    while cond_fn(*carried):
        carried = body_fn(*carried)
    return tuple(carried)


def scan(combine_fn: Callable[..., Any], init: Any, xs: Tensor, dim: int = 0, reverse: bool = False) -> Any:
    if capturing():
        return lower_scan(combine_fn, init, xs, dim, reverse)
    rows = list(xs.unbind(dim)) or [xs.new_zeros(xs.movedim(dim, 0).shape[1:])]
    carry, ys = init, []
    for row in rows[:: -1 if reverse else 1]:
        carry, y = combine_fn(carry, row)
        ys.append(y)
    stacked = torch.stack(ys[:: -1 if reverse else 1], dim)
    return (carry, stacked) if xs.shape[dim] else (init, stacked.narrow(dim, 0, 0))


def each(fn: Callable[[Tensor], Tensor], xs: Tensor) -> Any:
    if capturing():
        return lower_map(fn, xs)
    rows = list(xs) or [xs.new_zeros(xs.shape[1:])]
    return torch.stack([fn(row) for row in rows])[: xs.shape[0]]


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclass
class Found:
    boxes: Any
    extra: Any


torch.export.register_dataclass(Found)


class Net(nn.Module):
    """A forward of a test, with two layers, one of them shared, a buffer and a plain constant."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.big, self.small = nn.Linear(3, 3), nn.Linear(3, 3)
        self.again = self.big
        self.register_buffer("shift", torch.arange(3.0))
        self.constant = torch.full((3,), 0.5)
        self.run = forward

    def forward(self, *args: Any) -> Any:
        return self.run(self, *args)


def closure(net: Any, x: Tensor) -> Any:
    y = x * 2
    return cond(y.sum() > 0, lambda: net.big(x) + y + net.shift, lambda: x - net.constant)


def operands(net: Any, x: Tensor) -> Any:
    return cond(x.sum() > 0, lambda a, b: a + b["w"], lambda a, b: a * b["w"], (x, {"w": net.shift}))


def returned(net: Any, x: Tensor) -> Any:
    row, weight = cond(x.sum() > 0, lambda: (x, net.big.weight), lambda: (x + 1, net.again.weight + 1))
    return row, weight, cond(x.sum() > 0, lambda: x, lambda: x)


def views(net: Any, x: Tensor) -> Any:
    return cond(x.sum() > 0, lambda: (x.t(), x.view(-1)), lambda: (x.t() * 2, x.view(-1) + 1))


def structured(net: Any, x: Tensor) -> Any:
    def yes() -> Any:
        return Pair(net.big(x), {"none": None, "text": "a", "found": Found(x, 3), "empty": (), "same": 2.5})

    def no() -> Any:
        return Pair(x, {"none": None, "text": "a", "found": Found(x + 1, 3), "empty": (), "same": 2.5})

    return cond(x.sum() > 0, yes, no)


def numbers(net: Any, x: Tensor) -> Any:
    a, b, c, d = cond(x.sum() > 0, lambda: (1, 2.5, True, x.shape[0]), lambda: (2, 0.5, False, 7))
    return a + x.sum(), b * x, c, d


def nested(net: Any, x: Tensor) -> Any:
    def inner() -> Any:
        low = x.min()
        return cond(low < -5, lambda: (net.small(x) * low, x), lambda: (x - low, net.big(x)))

    def other() -> Any:
        return cond(x.max() > 5, lambda: (x, x + net.shift), lambda: (net.again(x), x))

    return cond(x.sum() > 0, other, inner)


def by_size(net: Any, x: Tensor) -> Any:
    return cond(x.shape[0] > 4, lambda: net.big(x), lambda: x)


def one_element(net: Any, x: Tensor) -> Any:
    return cond(x.sum().reshape(1, 1), lambda: net.big(x), lambda: x) + cond(x.sum().relu(), lambda: x, lambda: -x)


def known(net: Any, x: Tensor) -> Any:
    return cond(True, lambda: x + 1, lambda: [x]), cond(x.dim() > 5, lambda: [x], lambda: x + 2)


def sizes(net: Any, x: Tensor) -> Any:
    n, y = x.shape[0], torch.ones(3)
    return cond(x.sum() > 0, lambda: y * n, lambda: y.new_zeros(n + 1).sum() + y)


def rows_and_transposed(net: Any, x: Tensor) -> Any:
    def first() -> Tensor:
        total = x.new_zeros(3)
        for row in net.big.weight.T:
            total = total + row
        return total

    return cond(x.sum() > 0, first, lambda: net.shift.clone())


def in_place_inside(net: Any, x: Tensor) -> Any:
    def fill() -> Tensor:
        made = torch.zeros(3)
        made[0] = x.sum()
        made += 1
        return made

    return cond(x.sum() > 0, fill, lambda: net.shift)


def without_gradient(net: Any, x: Tensor) -> Any:
    def quiet() -> Tensor:
        with torch.no_grad():
            return net.big(x)

    return cond(x.sum() > 0, quiet, lambda: x)


BRANCHES = [
    closure, operands, returned, views, structured, numbers, nested, by_size, one_element, known, sizes,
    rows_and_transposed, in_place_inside, without_gradient,
]  # fmt: skip


def halve(net: Any, x: Tensor) -> Any:
    return while_loop(
        lambda y, n: y.abs().sum() > 1, lambda y, n: (y / 2 + net.constant * 0, n + 1), (x, torch.tensor(0))
    )


def counted(net: Any, x: Tensor) -> Any:
    i, y, f, same, none = while_loop(
        lambda i, y, f, same, none: i < x.shape[0],
        lambda i, y, f, same, none: (i + 1, net.small(y) + x[i], f * 0.5, same, none),
        (0, net.shift, 1.0, "text", None),
    )
    return i, y, f * y, same, none


def no_trips(net: Any, x: Tensor) -> Any:
    return while_loop(lambda y: y.sum() < -1e9, lambda y: (net.big(y),), (x,))


def carried_structure(net: Any, x: Tensor) -> Any:
    return while_loop(
        lambda s: s["n"] < 3, lambda s: ({"n": s["n"] + 1, "y": Pair(s["y"].second, s["y"].first * 2)},),
        ({"n": torch.tensor(0), "y": Pair(x, x + 1)},),
    )  # fmt: skip


def branch_in_loop(net: Any, x: Tensor) -> Any:
    def body(i: Any, y: Tensor) -> Any:
        return i + 1, cond(y.sum() > 0, lambda: y - net.small(x), lambda: x)

    return while_loop(lambda i, y: i < 4, body, (torch.tensor(0), x))


def loop_in_branch(net: Any, x: Tensor) -> Any:
    def loop() -> Any:
        return while_loop(lambda y: y.sum() > 1, lambda y: (y / 2 - net.shift,), (x,))[0]

    return cond(x.sum() > 0, loop, lambda: net.big(x))


def loop_in_loop(net: Any, x: Tensor) -> Any:
    def inner(y: Tensor) -> Tensor:
        return while_loop(lambda j, z: j < 2, lambda j, z: (j + 1, z + x * 0.5), (torch.tensor(0), y))[1]

    return while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, inner(y) * 0.5), (torch.tensor(0), x))[1]


def along_rows(net: Any, x: Tensor) -> Any:
    return scan(lambda c, row: (net.small(c) + row, c * row), net.shift, x)


def backwards(net: Any, x: Tensor) -> Any:
    return scan(lambda c, row: (c + row, c), torch.zeros(3), x, 0, True)


def along_columns(net: Any, x: Tensor) -> Any:
    return scan(lambda c, column: (c + column.sum(), column * c), torch.zeros(()), x, 1, True)


def integers(net: Any, x: Tensor) -> Any:
    return scan(lambda c, row: ((c[0] + 1, c[1] + net.big(row)), c[0] * 2), (torch.tensor(0), net.shift), x)


def branch_in_scan(net: Any, x: Tensor) -> Any:
    return scan(lambda c, row: (cond(c.sum() > 2, lambda: row, lambda: c + row), c * 2), torch.zeros(3), x)


def mapped(net: Any, x: Tensor) -> Any:
    return each(lambda row: net.big(row) * x.sum(), x), each(lambda row: row, x)


def branch_in_map(net: Any, x: Tensor) -> Any:
    return each(lambda row: cond(row.sum() > 0, lambda: row + net.shift, lambda: row), x)


LOOPS = [
    halve, counted, no_trips, carried_structure, branch_in_loop, loop_in_branch, loop_in_loop, along_rows, backwards,
    along_columns, integers, branch_in_scan, mapped, branch_in_map,
]  # fmt: skip

INPUTS = [torch.ones(4, 3), -torch.ones(4, 3), torch.full((5, 3), 6.0), torch.full((2, 3), -6.0)]


def assert_same(got: Any, expected: Any) -> None:
    """Numbers may have become tensors; anything else is equal, kind by kind."""
    if isinstance(expected, Tensor):
        torch.testing.assert_close(got, expected)
    elif isinstance(expected, (tuple, list)):
        assert type(got) is type(expected) and len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, dict):
        assert list(got) == list(expected)
        for key in expected:
            assert_same(got[key], expected[key])
    elif isinstance(expected, Found):
        assert_same((got.boxes, got.extra), (expected.boxes, expected.extra))
    else:
        assert (got.item() if isinstance(got, Tensor) else got) == expected


def name(value: Any) -> str:
    return str(getattr(value, "__name__", value))


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch.compiler.reset()
    yield


@pytest.mark.parametrize("strict", [False, True], ids=["nonstrict", "strict"])
@pytest.mark.parametrize("forward", [*BRANCHES, *LOOPS], ids=name)
def test_export(forward: Any, strict: bool) -> None:
    """An exported program gives what eager mode gives, on the other branch and on other sizes too."""
    net = Net(forward)
    program = export(net, (INPUTS[0],), dynamic_shapes=((({0: Dim.AUTO},),)), strict=strict)
    for x in INPUTS:
        assert_same(program.module()(x), net(x))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("forward", [*BRANCHES, *LOOPS], ids=name)
def test_compile(forward: Any, backend: str) -> None:
    """A compiled model gives what eager mode gives, in one graph."""
    net = Net(forward)
    compiled = torch.compile(net, fullgraph=True, backend=backend)
    for x in INPUTS:
        assert_same(compiled(x), net(x))
