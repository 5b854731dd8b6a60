"""`cond` and `switch` in eager mode and in a trace, saved and loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit import CaptureError, InputError
from tests.control.checks import Net, check, kinds, lines, reloaded, traced

UP, DOWN = torch.arange(1.0, 7.0).reshape(2, 3), -torch.arange(1.0, 7.0).reshape(2, 3)


class Pair(NamedTuple):
    first: Any
    second: Any


@hj.script_if_tracing
def scripted(x: Tensor) -> Tensor:
    return x.abs() if bool(x.max() > 4) else x * 3


def closure(net: Net, x: Tensor) -> Any:
    y, scale, many = x * 2, 1.5, [x, x + 1]
    return hj.cond(y.sum() > 0, lambda: net.big(x) + y * scale + many[1], lambda: many[0] - net.constant)


def operands(net: Net, x: Tensor) -> Any:
    return hj.cond(x.sum() > 0, lambda a, b: a + b["w"], lambda a, b: a * b["w"], (x, {"w": net.shift}))


def returned(net: Net, x: Tensor) -> Any:
    pred = x.sum() > 0
    row, weight = hj.cond(pred, lambda: (x, net.big.weight), lambda: (x + 1, net.big.weight))
    return row, weight, hj.cond(pred, lambda: net.small.bias, lambda: net.big.bias)


def structured(net: Net, x: Tensor) -> Any:
    def side(sign: int) -> Any:
        return Pair(net.big(x) * sign, {"none": None, "text": "a", "more": [x + sign, ()], "same": 2})

    found = hj.cond(x.sum() > 0, lambda: side(1), lambda: side(-1))
    assert isinstance(found, Pair) and found.second["none"] is None
    assert found.second["text"] == "a" and found.second["same"] == 2
    return found.first, found.second["more"][0]


def numbers(net: Net, x: Tensor) -> Any:
    a, b, c, d = hj.cond(x.sum() > 0, lambda: (1, 2.5, True, x.shape[0]), lambda: (2, 0.5, False, 7))
    return a + x.sum(), b * x, c, d


def shapes(net: Net, x: Tensor) -> Any:
    y, rank = hj.cond(x.sum() > 0, lambda: (x[1:], x), lambda: (torch.cat([x, x, x]), x.sum()))
    return y, rank, y.shape[0] * 2


def nested(net: Net, x: Tensor) -> Any:
    def inner() -> Any:
        low = x.min()
        return hj.cond(low < -5, lambda: (net.small(x) * low, x), lambda: (x - low, net.big(x)))

    return hj.cond(x.sum() > 0, lambda: (x, x * 2), inner)


def mixed(net: Net, x: Tensor) -> Any:
    """A module called in a branch and outside, and under its second name; a scripted piece in a branch."""
    first = net.big(x)
    middle = hj.cond(first.sum() > 0, lambda: net.again(first), lambda: scripted(first) + net.again(x))
    return net.again(middle), net.big(middle)


def in_loop(net: Net, x: Tensor) -> Any:
    def body(i: Any, y: Tensor) -> Tensor:
        return hj.cond(y.sum() > i, lambda: net.small(y) - 1, lambda: y + net.shift)

    return hj.fori_loop(0, x.shape[0] + 1, body, x)


def with_loop(net: Net, x: Tensor) -> Any:
    return hj.cond(
        x.sum() > 0,
        lambda: hj.while_loop(lambda y: y.sum() > 1, lambda y: (y / 2,), (x,))[0],
        lambda: hj.map(lambda row: net.big(row), x),
    )


def sizes(net: Net, x: Tensor) -> Any:
    return hj.cond(x.shape[0] > 1, lambda: x[1:], lambda: x - 1), hj.cond(x.numel() == 0, lambda: 1, lambda: 2)


def forked(net: Net, x: Tensor) -> Any:
    future = torch.jit.fork(net.small, x)
    y = hj.cond(x.sum() > 0, lambda: net.big(x), lambda: x)
    return y + torch.jit.wait(future)


def modes(net: Net, x: Tensor) -> Any:
    def yes() -> Tensor:
        with torch.no_grad():
            return net.big(x)

    def no() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return net.big(x).float()

    return hj.cond(x.sum() > 0, yes, no)


CASES = [
    closure,
    operands,
    returned,
    structured,
    numbers,
    shapes,
    nested,
    mixed,
    in_loop,
    with_loop,
    sizes,
    modes,
    forked,
]


@pytest.mark.parametrize("forward", CASES, ids=lambda forward: str(forward.__name__))
def test_a_trace_of_either_side_is_right_on_the_other(forward: Callable[..., Any]) -> None:
    """Traced on each input and loaded again, it gives what eager mode gives on all of them."""
    inputs = [UP, DOWN, DOWN / 10, torch.zeros(1, 3)]
    if forward not in (nested, mixed):  # of nothing there is no least and no largest
        inputs.append(torch.zeros(0, 3))
    check(Net(forward), *inputs)


@pytest.mark.parametrize("forward", [closure, returned, nested, mixed, in_loop], ids=lambda forward: forward.__name__)
def test_weights_stay_the_modules_own(forward: Callable[..., Any]) -> None:
    """The trace has the parameters and buffers of the model under their names, and no copy of one as a constant."""
    net = Net(forward)
    module = torch.jit.trace(net, UP.clone(), check_trace=False)
    assert set(module.state_dict()) <= set(net.state_dict())
    for name, value in module.state_dict().items():
        assert value.data_ptr() == net.state_dict()[name].data_ptr()
    graph = module.inlined_graph
    constants = graph.findAllNodes("prim::Constant", True)
    tensors = [node.output().toIValue() for node in constants if node.output().type().kind() == "TensorType"]
    copies = [each for each in tensors if isinstance(each, Tensor) and each.dim()]
    assert not any(torch.equal(value, each) for value in net.state_dict().values() for each in copies)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(-0.5)
    for x in (UP, DOWN):
        torch.testing.assert_close(module(x), net(x))


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return hj.cond(x.sum() > 0, lambda: self.linear(x), lambda: x)


class Twice(nn.Module):
    """One submodule that branches, under two names, the second fed by the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Inner()
        self.second = self.first
        self.third = nn.Sequential(Inner(), self.first)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        z = self.second(-y)
        return hj.cond(z.sum() > 1, lambda: self.first(z) + y, lambda: self.third(z))


def test_a_module_called_again_on_its_own_result() -> None:
    """A value of a module's first call is known in the branch of its second."""
    check(Twice(), UP, DOWN, UP / 9, DOWN / 9)
    check(nn.Sequential(*[Inner()] * 3), UP, DOWN)


def test_a_branch_in_a_traced_module_of_a_scripted_one() -> None:
    """A scripted module holds the traced one, and both sides work there too."""

    class Outer(nn.Module):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor, n: int) -> Tensor:
            for _ in range(n):
                x = self.inner(x)
            return x

    inner = Inner()
    scripted_outer = reloaded(torch.jit.script(Outer(torch.jit.trace(inner, UP.clone(), check_trace=False))))
    for x in (UP, DOWN):
        torch.testing.assert_close(scripted_outer(x, 2), inner(inner(x)))


@pytest.mark.parametrize("x", [UP, DOWN, DOWN / 10], ids=["up", "down", "little"])
@pytest.mark.parametrize("forward", [closure, nested, mixed, in_loop, with_loop], ids=lambda f: f.__name__)
def test_gradients(forward: Callable[..., Any], x: Tensor) -> None:
    """The loaded file has the gradients of eager mode, of inputs and weights, whichever side was traced."""
    net = Net(forward)
    expected = gradients(net, x, net)
    for example in (UP, DOWN):
        loaded = traced(net, example)
        torch.testing.assert_close(gradients(loaded, x, net), expected)
        torch.testing.assert_close(gradients(loaded, x, net), expected)  # as optimised after a first run


def gradients(module: Any, x: Tensor, names: nn.Module) -> list[Tensor]:
    x = x.clone().requires_grad_()
    result = module(x)
    weights = dict(module.named_parameters())
    wanted = [x] + [weights[name] for name, _ in names.named_parameters() if name in weights]
    outputs = result if isinstance(result, tuple) else (result,)
    found = torch.autograd.grad(sum(each.sum() for each in outputs), wanted, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, found, strict=True)]


def test_no_grad_around_the_loaded_file() -> None:
    """Without gradients the results are the same, and need none."""
    net = Net(closure)
    loaded = traced(net, UP)
    with torch.no_grad():
        assert not loaded(DOWN).requires_grad
        torch.testing.assert_close(loaded(DOWN), net(DOWN))


def test_no_grad_inside_a_side_stops_gradients() -> None:
    """What eager mode gives no gradient has none in the file, and only there."""
    net = Net(modes)
    loaded = traced(net, UP)
    assert (net(UP).requires_grad, net(DOWN).requires_grad) == (False, True)
    assert (loaded(UP).requires_grad, loaded(DOWN).requires_grad) == (False, True)


def test_random_numbers_in_a_side() -> None:
    """Each call draws anew, from the distribution that eager mode draws from."""

    def forward(x: Tensor) -> Tensor:
        return hj.cond(x.sum() > 0, lambda: torch.randn_like(x) + 5, lambda: torch.zeros_like(x).uniform_(2, 3))

    loaded = traced(forward, torch.ones(2000))
    first, second = loaded(torch.ones(2000)), loaded(torch.ones(2000))
    assert not torch.equal(first, second)
    assert abs(first.mean() - 5) < 0.2 and abs(first.std() - 1) < 0.2
    low = loaded(-torch.ones(2000))
    assert low.min() >= 2 and low.max() <= 3 and abs(low.mean() - 2.5) < 0.1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.int64])
def test_dtypes(dtype: torch.dtype) -> None:
    """Any dtype goes through both sides, empty tensors too."""

    def forward(x: Tensor) -> Any:
        return hj.cond(x.sum() > 0, lambda: (x * 2, x.sum()), lambda: (x[:1] - 1, x.sum() + 1))

    check(forward, UP.to(dtype), DOWN.to(dtype), UP[:0].to(dtype))


def test_frozen_and_optimised() -> None:
    """`freeze` and `optimize_for_inference` keep both sides."""
    net = Net(mixed).eval()
    module = torch.jit.trace(net, UP.clone(), check_trace=False)
    for changed in (torch.jit.freeze(module), torch.jit.optimize_for_inference(module)):
        for x in (UP, DOWN, DOWN / 10):
            torch.testing.assert_close(changed(x), net(x), rtol=1e-4, atol=1e-4)


class Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.dropout = nn.BatchNorm1d(3), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return hj.cond(x.sum() > 0, lambda: self.dropout(y) + x, lambda: y)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # torch's own check of the batch's size
def test_training_mode() -> None:
    """A batch norm before a branch counts its batches in the file; a dropout in a side drops anew at each call."""
    model, expected = Norm().train(), Norm().train()
    loaded = traced(model, DOWN)
    expected.load_state_dict(loaded.state_dict())
    for x in (DOWN, DOWN * 2):
        torch.testing.assert_close(loaded(x), expected(x))
    torch.testing.assert_close(loaded.norm.running_mean, expected.norm.running_mean)
    big = torch.ones(500, 3) + torch.eye(500, 3)
    kept = loaded(big) - big
    assert not torch.equal(kept, loaded(big) - big)
    assert 0.4 < (kept == 0).float().mean() < 0.6


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_batch_norm_that_trains_inside_a_side_is_refused() -> None:
    """Its statistics are tensors from outside, which only one side would change."""
    norm = nn.BatchNorm1d(3).train()
    with pytest.raises(CaptureError) as error:
        traced(lambda x: hj.cond(x.sum() > 0, lambda: norm(x), lambda: x), UP)
    assert "changes a tensor in place that was made outside of it" in lines(error)[0]
    assert lines(error)[2] == "  - add_ changes int64[] cpu"


def picked(net: Net, x: Tensor) -> Any:
    branches = [lambda: net.big(x), lambda: x * 2, lambda: net.again(x) + x]
    index = x.sum().long() + 1
    return hj.switch(index, branches), hj.switch(x.shape[0], [lambda y: y + 1, lambda y: y * 3], (x,))


def test_switch() -> None:
    """Every branch is in the trace, and an index outside of them is clamped."""
    rows = [torch.full((n, 3), value) for n, value in ((1, -9.0), (1, -0.3), (2, 0.0), (2, 0.2), (0, 1.0), (3, 5.0))]
    check(Net(picked), *rows)


@pytest.mark.parametrize(("index", "side"), [(-2, 0), (0, 0), (1, 1), (7, 1)])
def test_switch_on_an_int_picks_for_good(index: int, side: int) -> None:
    """An int picks one branch, in eager mode and in a trace, and leaves no branch."""
    forward = lambda x: hj.switch(index, [lambda: x + 1, lambda: x * 2])  # noqa: E731
    module = torch.jit.trace(forward, UP.clone(), check_trace=False)
    assert torch.equal(module(DOWN), (DOWN + 1, DOWN * 2)[side])
    assert torch.equal(forward(DOWN), (DOWN + 1, DOWN * 2)[side])
    assert "prim::If" not in kinds(module.graph)


def test_a_bool_is_static() -> None:
    """A Python bool picks one side for good, and the report of an export says so."""

    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return hj.cond(x.dim() == 2, lambda: x * 2, lambda: x)

    exported = hj.export(Model().eval(), (UP,), check_inputs=[(DOWN,)])
    (static,) = exported.report.statics
    assert (static.value, static.reason) == ("True", "a bool given to cond")
    assert exported.report.branches == ()
    assert kinds(exported.module.inlined_graph)["prim::If"] == 1  # the guard of the input's rank


def test_eager_is_a_plain_if() -> None:
    """Outside a capture the function of one side runs, the other does not, and objects go through as they are."""
    box: list[object] = []
    marker = object()
    assert hj.cond(torch.tensor(True), lambda: marker, lambda: box.append(1)) is marker
    assert hj.cond(False, lambda a: box.append(a), lambda a: a, (marker,)) is marker
    assert hj.cond(torch.tensor([[0.5]]), lambda: 1, lambda: 2) == 1
    assert box == []


@pytest.mark.parametrize("how", ["eager", "trace"])
def test_a_predicate_of_several_elements(how: str) -> None:
    """It is refused with its shape and what to write."""
    forward = lambda x: hj.cond(x > 0, lambda: x, lambda: -x)  # noqa: E731
    with pytest.raises(InputError) as error:
        forward(UP) if how == "eager" else traced(forward, UP)
    what, where, *rest = lines(error)
    assert what == "cond takes a predicate of one element"
    assert where.startswith("  at tests/control/test_cond.py:")
    assert rest == [
        "  - pred: expected a tensor of one element or a bool, got bool[2, 3] cpu",
        "  write instead: pred.any() or pred.all()",
        "  see docs/errors.md#inputerror",
    ]


@pytest.mark.parametrize("pred", [None, "yes", 3.5, torch.zeros(0)], ids=["None", "str", "float", "empty"])
def test_a_predicate_that_is_none(pred: Any) -> None:
    """What has no one truth value is refused in eager mode and in a trace alike."""
    forward = lambda x: hj.cond(pred, lambda: x, lambda: x)  # noqa: E731
    for attempt in (forward, lambda x: traced(forward, x)):
        with pytest.raises(InputError, match="cond takes a predicate of one element"):
            attempt(UP)


@pytest.mark.parametrize("index", [True, 1.5, torch.tensor(1.0), torch.tensor([0, 1])], ids=str)
def test_an_index_that_is_none(index: Any) -> None:
    """switch refuses it, and branches that are no list, in one message."""
    with pytest.raises(InputError) as error:
        hj.switch(index, [])
    assert lines(error)[0] == "switch takes an integer and a list of functions"
    assert lines(error)[2].startswith("  - index: expected an integer tensor of one element or an int, got ")
    assert lines(error)[3:] == [
        "  - branches: expected a list of functions, got none",
        "  write instead: hj.switch(index.long(), [first, second], (x,)), or hj.cond for a bool",
        "  see docs/errors.md#inputerror",
    ]


def test_no_grad_around_a_part_of_a_side() -> None:
    """What a side computes without gradients stops them, what it computes after that does not."""

    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def side(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                scale = self.linear(x).abs().sum() + x.sum()
            y: Tensor = self.linear(x)
            return y * scale

        def forward(self, x: Tensor) -> Any:
            return hj.cond(x.sum() > 0, lambda: self.side(x), lambda: self.linear(x) * 2)

    net = Part()
    for example in (torch.ones(3), -torch.ones(3)):
        loaded = traced(net, example)
        for x in (torch.ones(3), -torch.ones(3)):
            torch.testing.assert_close(gradients(loaded, x, net), gradients(net, x, net))
