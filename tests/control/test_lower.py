"""Branches and loops under torch.export, `make_fx` and torch.compile, against the same code in eager mode."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch._functorch.aot_autograd import aot_function
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim, export
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from hybridjit import CaptureError, UnsupportedError
from hybridjit.control.lower import capturing, lower_cond, lower_fori_loop, lower_map, lower_scan, lower_while_loop

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


def each(fn: Callable[[Tensor], Any], xs: Tensor) -> Any:
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


def layouts(net: Any, x: Tensor) -> Any:
    return cond(x.sum() > 0, lambda: x.t(), lambda: (x * 2).t().contiguous())


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
    in_place_inside, without_gradient,
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


def over_range(net: Any, x: Tensor) -> Any:
    def body(i: Any, y: Tensor) -> Tensor:
        return net.small(y) * i + x[i]

    def loop(lower: Any, upper: Any) -> Any:
        if capturing():
            return lower_fori_loop(lower, upper, body, net.shift)
        carry = net.shift
        for i in range(int(lower), int(upper)):
            carry = body(i, carry)
        return carry

    return loop(0, x.shape[0]), loop(1, (x.sum() > 0).long()), loop(torch.tensor([1]), 2)


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
    halve, counted, over_range, no_trips, carried_structure, branch_in_loop, loop_in_branch, loop_in_loop,
    along_rows, backwards, along_columns, integers, branch_in_scan, mapped, branch_in_map,
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


@pytest.mark.parametrize("forward", [rows_and_transposed, layouts], ids=name)
def test_export_beyond_dynamo(forward: Any) -> None:
    """Rows and transposes of a captured tensor, and sides of another memory layout, export all the same."""
    test_export(forward, strict=False)


def skip_old_scan(forward: Any) -> None:
    """torch 2.11 and 2.12 refuse their own scan where it has gradients and is compiled."""
    if forward in (along_rows, integers, walked) and str(torch.__version__) < "2.13":
        pytest.skip("before 2.13, torch finds that its scan with gradients might alias its inputs")


@pytest.mark.parametrize("forward", [*BRANCHES, *LOOPS], ids=name)
def test_compile(forward: Any) -> None:
    """A compiled model gives what eager mode gives, in one graph."""
    skip_old_scan(forward)
    net = Net(forward)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    for x in INPUTS:
        assert_same(compiled(x), net(x))


@pytest.mark.parametrize("mode", ["real", "symbolic"])
@pytest.mark.parametrize("forward", [structured, nested, branch_in_loop, along_rows, mapped], ids=name)
def test_make_fx(forward: Any, mode: Any) -> None:
    """A graph of `make_fx` keeps the branch."""
    net = Net(forward)
    traced = copy.deepcopy(net)  # make_fx does not put a shared module's parameters back
    state = {key: value.detach() for key, value in (*net.named_parameters(), *net.named_buffers())}

    def call(state: dict[str, Tensor], x: Tensor) -> Any:
        return torch.func.functional_call(traced, state, (x,))

    graph = make_fx(call, tracing_mode=mode)(state, INPUTS[0])
    for x in INPUTS[: 2 if mode == "real" else 4]:
        assert_same(graph(state, x), net(x))


def test_inductor() -> None:
    """The default backend compiles a branch and a loop, with gradients."""
    net = Net(lambda net, x: branch_in_loop(net, cond(x.sum() > 0, lambda: net.big(x), lambda: x))[1])
    compiled = torch.compile(net, fullgraph=True)
    for x in INPUTS[::2]:
        assert_same_gradients(net, compiled(x).sum(), net(x).sum())


def assert_same_gradients(net: nn.Module, got: Tensor, expected: Tensor) -> None:
    """Torch gives zeros for a parameter that only the other side uses, where eager mode gives nothing."""
    torch.testing.assert_close(got, expected)
    parameters = list(net.parameters())
    pairs = [torch.autograd.grad(each, parameters, allow_unused=True) for each in (got, expected)]
    for parameter, one, other in zip(parameters, *pairs, strict=True):
        zero = torch.zeros_like(parameter)
        torch.testing.assert_close(zero if one is None else one, zero if other is None else other)


def best(net: Any, x: Tensor) -> Tensor:
    values, places, flag = cond(
        x.sum() > 0, lambda: (*net.big(x).topk(2), True), lambda: (*(x * net.small.bias).topk(2), False)
    )
    return values.sum() * (1 + places.sum()) * (1 + flag)


def walked(net: Any, x: Tensor) -> Tensor:
    (count, last), (ys, places) = lower_or_eager_scan(
        lambda c, row: ((c[0] + 1, net.small(c[1]) + row), (c[1] * row, c[0] * 2)), (torch.tensor(0), net.shift), x
    )
    return (last * count).sum() + ys.sum() + places.sum()


def lower_or_eager_scan(combine_fn: Any, init: Any, xs: Tensor) -> Any:
    if capturing():
        return lower_scan(combine_fn, init, xs)
    carry, ys = init, []
    for row in xs:
        carry, y = combine_fn(carry, row)
        ys.append(y)
    return carry, tuple(torch.stack(column) for column in zip(*ys, strict=True))


@pytest.mark.parametrize(
    "forward", [closure, nested, best, halve, branch_in_loop, along_rows, walked, mapped], ids=name
)
def test_gradients(forward: Any) -> None:
    """Compiled branches and loops train, integers beside what has gradients included."""
    skip_old_scan(forward)
    net = Net(lambda net, x: sum((y.sum() for y in tensors_of(forward(net, x))), net.big.weight.sum() * 0))
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    for x in INPUTS:
        assert_same_gradients(net, compiled(x), net(x))


def test_gradients_of_a_loop_in_aot() -> None:
    """A loop that AOT traces with its backward has the gradients of every iteration."""
    weight, x = torch.rand(3, 3, requires_grad=True), torch.rand(4, 3)

    def loop(weight: Tensor, x: Tensor) -> Tensor:
        body = lambda n, y: (n + 1, y * 0.5 - (y @ weight).tanh())  # noqa: E731
        return while_loop(lambda n, y: n < 4, body, (torch.tensor(0), x))[1].sum()

    def gradient(weight: Tensor, x: Tensor) -> Tensor:
        return torch.autograd.grad(loop(weight, x), weight)[0]

    got = aot_function(loop, lambda graph, _: graph, dynamic=True)(weight, x)
    torch.testing.assert_close(got, loop(weight, x))
    torch.testing.assert_close(torch.autograd.grad(got, weight)[0], gradient(weight, x))


def tensors_of(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [t for item in value for t in tensors_of(item)]


def test_parameters_keep_their_names() -> None:
    """What branches and loops use are the program's parameters and buffers, stored once, not copies of them."""
    program = export(Net(nested), (INPUTS[0],), dynamic_shapes=(({0: Dim.AUTO},),), strict=False)
    signature = program.graph_signature
    shared = {"again.weight", "again.bias"}  # torch.export lists a shared parameter by all its names
    assert set(signature.parameters) - shared == {"big.weight", "big.bias", "small.weight", "small.bias"}
    assert list(signature.buffers) == ["shift"]
    assert not program.constants


def test_the_branch_is_in_the_program() -> None:
    """A branch is torch's own operator, and a returned input the only copy in it."""
    graph = export(Net(returned), (INPUTS[0],), strict=False).graph_module
    operators = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    assert operators.count(torch.ops.higher_order.cond) == 2
    copies = [
        [node.target for node in getattr(graph, side).graph.nodes].count(torch.ops.aten.clone.default)
        for side in ("true_graph_0", "false_graph_0")
    ]
    assert copies == [2, 0]


def test_eager_is_no_capture() -> None:
    """Plain eager code, and modes that record nothing, are no capture; fake tensors are."""
    assert capturing() == ""
    with torch.device("cpu"), FlopCounterMode(display=False):
        assert capturing() == ""
    with FakeTensorMode():
        assert capturing() == "export"
    assert torch.compile(lambda x: (x, capturing()), fullgraph=True, backend="eager")(torch.ones(2))[1] == "dynamo"


def lengths(net: Any, x: Tensor) -> Any:
    return cond(x.sum() > 0, lambda: (x[:2], x[:, 1:]), lambda: (x, x[:, :2] * 2))


def found(net: Any, x: Tensor) -> Any:
    return cond(x.sum() > 0, lambda: x[x.sum(1) > 2], lambda: x.new_zeros(0, 3)) * 2


def halves(net: Any, x: Tensor) -> Any:
    half, other = x.half(), x.bfloat16()
    total = scan(lambda c, row: (c + row, c * 2), torch.zeros(3, dtype=torch.bfloat16), other)
    return cond(half.sum() > 0, lambda: half * net.shift.half(), lambda: half), total


def of_nothing(net: Any, x: Tensor) -> Any:
    empty = x[:0]
    branch = cond(empty.sum() > 0, lambda: net.big(empty), lambda: empty)
    return branch, scan(lambda c, row: (c + row, c * 2), net.shift, empty), each(lambda row: row + 1, empty)


def single(net: Any, x: Tensor) -> Any:
    return scan(lambda c, row: (c + row, c * 2), net.shift, x[:1]), each(lambda row: net.big(row), x[:1])


@pytest.mark.parametrize("mode", ["nonstrict", "strict", "compile"])
@pytest.mark.parametrize("forward", [lengths, found, halves, of_nothing, single], ids=name)
def test_sizes_and_dtypes(forward: Any, mode: str) -> None:
    """Sizes that differ between the sides, half precision, and lengths of 0 and 1."""
    net = Net(forward)
    if mode == "compile":
        run: Any = torch.compile(net, fullgraph=True, backend="aot_eager")
    else:
        shapes = (({0: Dim.AUTO},),)
        run = export(net, (INPUTS[0],), dynamic_shapes=shapes, strict=mode == "strict").module()
    for x in INPUTS:
        assert_same(run(x), net(x))


@pytest.mark.parametrize("forward", [along_rows, backwards, mapped, counted], ids=name)
@pytest.mark.parametrize("strict", [False, True], ids=["nonstrict", "strict"])
def test_length_zero_and_one_when_run(forward: Any, strict: bool) -> None:
    """A program exported at four rows runs at one and at none."""
    net = Net(forward)
    program = export(net, (INPUTS[0],), dynamic_shapes=(({0: Dim.AUTO},),), strict=strict)
    for rows in (0, 1):
        x = torch.randn(rows, 3)
        assert_same(program.module()(x), net(x))


def refused(net: Any, x: Tensor) -> Any:
    def no() -> Tensor:
        raise ValueError("no row is positive")

    return cond(x.sum() > 0, lambda: net.big(x), no)


def checked(net: Any, x: Tensor) -> Any:
    def no() -> None:
        raise AssertionError("no row is positive")

    cond(x.sum() > 0, lambda: None, no)
    return x + 1


@pytest.mark.parametrize("mode", ["nonstrict", "strict", "compile"])
@pytest.mark.parametrize("forward", [refused, checked], ids=name)
def test_a_side_that_raises(forward: Any, mode: str) -> None:
    """A side that raises is an assertion with its message, also where nobody uses what the branch gives."""
    net = Net(forward)
    if mode == "compile":
        run: Any = torch.compile(net, fullgraph=True, backend="aot_eager")
    else:
        run = export(net, (INPUTS[0],), dynamic_shapes=(({0: Dim.AUTO},),), strict=mode == "strict").module()
    for x in INPUTS[::2]:
        assert_same(run(x), net(x))
    with pytest.raises(RuntimeError, match=r"Error.*: no row is positive"):
        run(INPUTS[1])


def differing_keys(net: Any, x: Tensor) -> Any:
    return cond(x.sum() > 0, lambda: {"a": x, "b": x}, lambda: {"a": x})


def differing_dtypes(net: Any, x: Tensor) -> Any:
    return cond(x.sum() > 0, lambda: (x, x, "one"), lambda: (x.double(), x.sum(), "two"))


def changed_structure(net: Any, x: Tensor) -> Any:
    return while_loop(lambda y: y.sum() > 9, lambda y: (y, y), (x,))


def changed_dtype(net: Any, x: Tensor) -> Any:
    return while_loop(lambda y: y.sum() > 9, lambda y: (y.double(),), (x,))


@pytest.mark.parametrize("mode", ["nonstrict", "strict"])
@pytest.mark.parametrize(
    ("forward", "rows"),
    [
        (differing_keys, [r"result\['b'\]: only .* gives it, "]),
        (differing_dtypes, [r"result\[0\]: .* float32.*float64", r"result\[1\]: ", r"result\[2\]: "]),
        (changed_structure, [r"\[1\]: only .* gives it, "]),
        (changed_dtype, [r"\[0\]: .*float32.*float64"]),
    ],
    ids=name,
)
def test_mismatch(forward: Any, rows: list[str], mode: str) -> None:
    """Results that no graph can have are refused with every path that differs."""
    with pytest.raises(Exception, match=r"(?s)different results|gives another") as error:  # Dynamo wraps every error
        export(Net(forward), (INPUTS[0],), strict=mode == "strict")
    if mode == "nonstrict":
        assert isinstance(error.value, CaptureError)
    for row in rows:
        assert re.search(row, str(error.value)), str(error.value)


def writes_input(net: Any, x: Tensor) -> Any:
    return cond(x.sum() > 0, lambda: x.add_(1) * 2, lambda: x)


def writes_buffer(net: Any, x: Tensor) -> Any:
    return cond(x.sum() > 0, lambda: net.shift.add_(x.sum()) * 2, lambda: net.shift)


def writes_view(net: Any, x: Tensor) -> Any:
    y = x * 2

    def write() -> Tensor:
        y[0][1] = 5
        return y + 1

    return cond(x.sum() > 0, write, lambda: y)


def writes_in_loop(net: Any, x: Tensor) -> Any:
    return while_loop(lambda n: n < 3, lambda n: (n + net.shift.mul_(2).sum(),), (x.sum(),))


@pytest.mark.parametrize("forward", [writes_input, writes_buffer, writes_view, writes_in_loop], ids=name)
def test_writes_are_refused(forward: Any) -> None:
    """A write to a tensor from outside is refused with the line and the operation, and never half done."""
    net, x = Net(forward), INPUTS[0].clone()
    with pytest.raises(CaptureError) as error:
        export(net, (x,), strict=False)
    lines, first = inspect.getsourcelines(forward)
    line = first + next(i for i, text in enumerate(lines) if re.search(r"_\(|= 5", text))
    operation = re.search(r"\b(\w+_)\(|= 5", lines[line - first])
    assert operation is not None
    assert f"test_lower.py:{line}\n  - {operation[1] or '__setitem__'} changes " in str(error.value)
    assert "write instead: a branch or loop body that returns the new value" in str(error.value)
    assert torch.equal(x, INPUTS[0]) and torch.equal(net.get_buffer("shift"), torch.arange(3.0))
    with pytest.raises(Exception, match=r"(?i)mutation"):
        torch.compile(net, fullgraph=True, backend="eager")(x)


def test_a_growing_carry_is_refused() -> None:
    """A loop that changes the size of what it carries is told what to write instead."""
    net = Net(
        lambda net, x: while_loop(lambda y, n: n < 3, lambda y, n: (torch.cat([y, x]), n + 1), (x, torch.tensor(0)))
    )
    with pytest.raises(UnsupportedError, match=r"(?s)changes the size.*carried\[0\].*write instead: carry a tensor of"):
        export(net, (INPUTS[0],), strict=False)


def test_an_endless_loop_is_refused() -> None:
    """A predicate that is true whatever is carried never ends the loop."""
    net = Net(lambda net, x: while_loop(lambda y: True, lambda y: (y + 1,), (x,)))
    with pytest.raises(CaptureError, match="never ends"):
        export(net, (INPUTS[0],), strict=False)
