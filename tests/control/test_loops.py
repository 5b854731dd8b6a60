"""`while_loop`, `fori_loop`, `scan` and `map` in eager mode and in a trace, saved and loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit import CaptureError, InputError
from tests.control.checks import Net, check, lines, plain, traced

ROWS = [torch.randn(n, 3, generator=torch.Generator().manual_seed(n)) for n in (2, 0, 1, 5)]


def halve(net: Net, x: Tensor) -> Any:
    """Trip count from data; zero for the small ones."""
    return hj.while_loop(lambda y, n: y.abs().sum() > 1, lambda y, n: (y / 2, n + 1), (x, 0))


def tree(net: Net, x: Tensor) -> Any:
    def body(state: Any, i: Any) -> Any:
        return {"a": [state["a"][0] + net.shift, None], "b": state["b"] * 2}, i + 1

    def goes(state: Any, i: Any) -> Any:
        return i < x.shape[0]

    start: Any = ({"a": [x, None], "b": 1.5}, 0)
    state, i = hj.while_loop(goes, body, start)
    assert state["a"][1] is None
    return state["a"][0], state["b"], i


def shrinking(net: Net, x: Tensor) -> Any:
    """The shape changes in each round."""
    return hj.while_loop(lambda y: y.shape[0] > 1, lambda y: (y[1:] + net.big(y[:1]),), (x,))[0]


def early(net: Net, x: Tensor) -> Any:
    """Early exit: a flag in what is carried."""

    def body(i: Any, y: Tensor, done: Tensor) -> Any:
        y = y + net.shift
        return i + 1, y, y.max() > 3

    i, y, _ = hj.while_loop(lambda i, y, done: torch.logical_not(done) & (i < 20), body, (0, x.sum(0), x.sum() > 99))
    return i, y


def power(net: Net, x: Tensor) -> Any:
    return hj.fori_loop(0, x.shape[0], lambda i, y: net.big(y) * i + x.shape[0], x)


def bounds(net: Net, x: Tensor) -> Any:
    """Bounds that are tensors, negative ones too; no round where they cross."""
    low, high = -x.shape[0] // 2, (x.sum() * 3).long()
    first = hj.fori_loop(low, high, lambda i, s: s + i, 0)
    return first, hj.fori_loop(high, low, lambda i, s: s + i, 0), hj.fori_loop(3, 1, lambda i, s: s * 0, x)


def rows_by_index(net: Net, x: Tensor) -> Any:
    return hj.fori_loop(0, x.shape[0], lambda i, c: (c[0] + x[i], torch.cat([c[1], x[i : i + 1]])), (net.shift, x[:0]))


def sums(net: Net, x: Tensor) -> Any:
    carry, ys = hj.scan(lambda c, row: (c + row, {"y": c * 2, "z": row.sum()}), net.shift, x)
    return carry, ys["y"], ys["z"]


def backwards(net: Net, x: Tensor) -> Any:
    return hj.scan(lambda c, row: (net.big(c) + row, c), net.shift, x, reverse=True)


def columns(net: Net, x: Tensor) -> Any:
    start = x.sum(1) * 0
    one = hj.scan(lambda c, column: (c + column, c - column), start, x, dim=1)
    two = hj.scan(lambda c, column: (c + column, c.sum()), start, x, dim=-1, reverse=True)
    return one, two


def several(net: Net, x: Tensor) -> Any:
    """A tree of tensors to go along, none to carry but a number."""
    xs: Any = {"a": x, "b": [x + 1]}
    return hj.scan(lambda n, xs: (n + 1, xs["a"] * xs["b"][0].sum()), 0, xs)


def each(net: Net, x: Tensor) -> Any:
    return hj.map(lambda row: (net.big(row), row.max()), x), hj.map(lambda pair: pair[0] + pair[1], (x, x * 2))


def nested(net: Net, x: Tensor) -> Any:
    def outer(i: Any, y: Tensor) -> Tensor:
        inner = hj.fori_loop(0, i + 1, lambda j, z: z + i * j, y)
        return hj.map(lambda row: hj.while_loop(lambda r: r.sum() > 2, lambda r: (r / 2,), (row,))[0], inner)

    return hj.fori_loop(0, x.shape[0], outer, x)


CASES = [
    halve, tree, shrinking, early, power, bounds, rows_by_index, sums, backwards, columns, several, each, nested,
]  # fmt: skip


def example_of_many(forward: Callable[..., Any]) -> list[Tensor]:
    """Of no rows no body can be recorded that takes the first one."""
    return [x for x in ROWS if len(x)] if forward in (shrinking, rows_by_index) else ROWS


@pytest.mark.parametrize("forward", CASES, ids=lambda forward: str(forward.__name__))
def test_a_trace_is_right_for_other_counts(forward: Callable[..., Any]) -> None:
    """Traced with 2, 0, 1 and 5 rows each, the loaded file is right for all of them."""
    check(Net(forward), *example_of_many(forward))


@pytest.mark.parametrize("forward", [power, sums, backwards, each, nested, shrinking], ids=lambda f: str(f.__name__))
def test_gradients(forward: Callable[..., Any]) -> None:
    """Loops of the loaded file have the gradients of eager mode, whatever was traced."""
    net = Net(forward)
    for example in (ROWS[0], ROWS[3]):
        loaded = traced(net, example)
        for x in [*example_of_many(forward), *ROWS[2:]]:
            torch.testing.assert_close(gradients(loaded, x), gradients(net, x))


def gradients(module: Any, x: Tensor) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    wanted = {"x": x, **{name: value for name, value in module.named_parameters() if name.startswith("big")}}
    leaves = torch.utils._pytree.tree_leaves(plain(module(x)))
    losses = [leaf.sum() for leaf in leaves if leaf.requires_grad]
    found = torch.autograd.grad(sum(losses), list(wanted.values()), allow_unused=True) if losses else [None] * 3
    return {
        name: torch.zeros_like(value) if gradient is None else gradient
        for (name, value), gradient in zip(wanted.items(), found, strict=True)
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32, torch.bool])
def test_dtypes(dtype: torch.dtype) -> None:
    """What is carried and what is stacked keep any dtype."""

    def forward(x: Tensor) -> Any:
        flipped = hj.fori_loop(0, x.shape[0], lambda i, y: y.flip(0), x)
        return hj.scan(lambda c, row: (row, c), flipped.sum(0).to(x.dtype), flipped)

    check(forward, *[(x * 4).to(dtype) for x in ROWS])


def test_eager_values() -> None:
    """In eager mode they are the plain loops of their documentation."""
    assert hj.while_loop(lambda n: n < 3, lambda n: (n + 1,), (0,)) == (3,)
    lone: Any = lambda n: n + 1  # noqa: E731
    assert hj.while_loop(lambda n: n < 3, lone, (0,)) == (3,)
    assert hj.fori_loop(2, torch.tensor(5), lambda i, c: [*c, i], []) == [2, 3, 4]
    carry, ys = hj.scan(lambda c, x: (c + x, c), torch.tensor(0), torch.tensor([1, 2, 3]), reverse=True)
    assert (int(carry), ys.tolist()) == (6, [5, 3, 0])
    assert torch.equal(hj.map(lambda row: row.sum(), torch.ones(2, 3)), torch.tensor([3.0, 3.0]))


@pytest.mark.parametrize("length", [0, 1, 3])
def test_scan_of_a_length(length: int) -> None:
    """The first carry of no slices, and a stack whose other sizes come from a step on zeros."""
    carry, ys = hj.scan(lambda c, x: (c + 1, torch.cat([x, x])), torch.tensor(7), torch.ones(length, 3))
    assert int(carry) == 7 + length and ys.shape == (length, 6)
    loaded = traced(lambda x: hj.scan(lambda c, x: (c + 1, torch.cat([x, x])), 7, x), torch.ones(2, 3))
    carry, ys = loaded(torch.ones(length, 3))
    assert int(carry) == 7 + length and ys.shape == (length, 6)


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        ys: Tensor = hj.scan(lambda h, row: ((h := self.cell(row, h)), h), torch.zeros(3), x)[1]
        return ys


def test_a_module_in_a_body_inside_a_submodule() -> None:
    """A recurrent cell of a submodule, scanned; its weights stay the module's own."""
    model = nn.Sequential(nn.Linear(3, 3), Decoder())
    loaded = check(model, *ROWS)
    assert set(loaded.state_dict()) == set(model.state_dict())


def trace_of(fn: Callable[[Tensor], Any]) -> Callable[[], Any]:
    return lambda: traced(fn, torch.ones(2, 3))


halved: Any = lambda i, c: (c[0], c[1] / 2)  # noqa: E731
UNTYPED: Any = (lambda x: x, lambda x: x, torch.ones(2))
WRONG: dict[str, tuple[Callable[[], Any], type[Exception], list[str]]] = {
    "no tuple": (
        lambda: hj.while_loop(*UNTYPED),
        InputError,
        [
            "while_loop got another carried_inputs than it takes",
            "  - carried_inputs: expected a tuple, got float32[2] cpu",
            "  write instead: while_loop(cond_fn, body_fn, (x,))",
            "  see docs/errors.md#inputerror",
        ],
    ),
    "a bound": (
        trace_of(lambda x: hj.fori_loop(0, x.sum(), lambda i, y: y, x)),
        InputError,
        [
            "fori_loop got another upper than it takes",
            "  - upper: expected an int, or an integer tensor of one element, got float32[] cpu",
            "  write instead: x.shape[0], or n.long()",
            "  see docs/errors.md#inputerror",
        ],
    ),
    "no dimension": (
        trace_of(lambda x: hj.scan(lambda c, y: (c, y), x, x, dim=2)),
        InputError,
        [
            "scan got another xs than it takes",
            "  - xs: expected tensors that have the dimension 2, got float32[2, 3] cpu",
            "  write instead: hj.scan(fn, init, x.unsqueeze(0))",
            "  see docs/errors.md#inputerror",
        ],
    ),
    "lengths": (
        trace_of(lambda x: hj.map(lambda pair: pair[0], (x, x[:1]))),
        InputError,
        [
            "map takes tensors of one length along dimension 0",
            "  - xs[0]: float32[2, 3] cpu",
            "  - xs[1]: float32[1, 3] cpu",
            "  write instead: tensors of one length, and what all steps share from outside, or in init",
            "  see docs/errors.md#inputerror",
        ],
    ),
    "a dtype": (
        trace_of(lambda x: hj.fori_loop(0, x.shape[0], halved, (x, 1))),
        CaptureError,
        [
            "the body of a loop returns something else than it takes",
            "  - result[1]: the carry gives int64[] cpu, the body float32[] cpu",
            "  write instead: the same dtype on both sides: result.to(x.dtype), x.new_zeros(()) for 0.0",
            "  see docs/errors.md#branches-that-differ",
        ],
    ),
    "a constant condition": (
        trace_of(lambda x: hj.while_loop(lambda x: False, lambda x: (x,), (x,))),
        CaptureError,
        [
            "the condition of a while_loop does not depend on what it carries",
            "  - expected a tensor of one element, got bool",
            "  write instead: a comparison of tensors: lambda i, x: i < x.shape[0], "
            "with i = torch.tensor(0) in the carry",
            "  see docs/errors.md#loops-over-tensors",
        ],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_messages(name: str) -> None:
    """What a loop does not take is refused, with the place and what to write."""
    attempt, kind, expected = WRONG[name]
    with pytest.raises(kind) as error:
        attempt()
    what, where, *rest = lines(error)
    assert "tests/control/test_loops.py:" in where
    assert [what, *rest] == expected


class Counted(nn.Module):
    """A step of a loop that keeps something of each round."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds = 0
        self.kept: Any = None

    def forward(self, x: Tensor) -> Tensor:
        self.rounds += 1
        return x + 1


LEAVES: dict[str, tuple[Callable[[Tensor], Any], list[str]]] = {}


def leaves(*names: str) -> Callable[[Callable[[Tensor], Any]], Callable[[Tensor], Any]]:
    """A model whose loop leaves something in what is called so."""

    def add(fn: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
        LEAVES[fn.__name__] = fn, list(names)
        return fn

    return add


@leaves("items")
def appends(x: Tensor) -> Tensor:
    items: list[int] = []

    def body(i: Any, c: Tensor) -> Tensor:
        items.append(1)
        return c + 1

    return hj.fori_loop(0, x.shape[0], body, x) * len(items)


@leaves("total")
def counts(x: Tensor) -> Tensor:
    total = 0

    def body(c: Tensor) -> tuple[Tensor]:
        nonlocal total
        total += 1
        return (c / 2,)

    return hj.while_loop(lambda c: c.sum() > 1, body, (x,))[0] * total


@leaves("by_name.outer")
def keeps_what_is_outside(x: Tensor) -> Tensor:
    by_name: dict[str, Tensor] = {}

    def double(row: Tensor) -> Tensor:
        by_name["outer"] = x
        return row * 2

    return hj.map(double, x) + sum(by_name.values())


@leaves("step.rounds")
def in_a_submodule(x: Tensor) -> Tensor:
    step = Counted()
    y: Tensor = hj.fori_loop(0, x.shape[0], lambda i, c: step(c), x)
    return y * step.rounds


@pytest.mark.parametrize("name", LEAVES)
def test_what_a_body_leaves_behind_is_refused(name: str) -> None:
    """How often a body ran is known at run time only, so that what it counts or appends in Python would be frozen."""
    fn, changed = LEAVES[name]
    with pytest.raises(CaptureError, match="leaves something behind, as often as it runs on the example") as error:
        trace_of(fn)()
    assert [line for line in lines(error) if line.endswith(": is changed")] == [
        f"  - {each}: is changed" for each in changed
    ]


@pytest.mark.parametrize("rows", [3, 0])
@pytest.mark.parametrize("returned", [True, False])
def test_what_a_body_is_given_stays_in_it(rows: int, returned: bool) -> None:
    """The carry that a body keeps outside raises when it is used, whether it is also the result or not."""

    def fn(x: Tensor) -> tuple[Tensor, Tensor]:
        kept = [x]

        def body(i: Any, c: Tensor) -> Tensor:
            kept[0] = c
            return c if returned else c * 1

        return hj.fori_loop(0, x.shape[0], body, x), kept[0] * kept[0].shape[0]

    with pytest.raises(RuntimeError, match="is used outside of it; return it instead"):
        torch.jit.trace(fn, torch.ones(rows, 2), check_trace=False)(torch.ones(5, 2))
