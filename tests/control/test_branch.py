"""`branch_if_tracing`: ordinary Python ifs stay ifs in a trace, saved and loaded."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit import InputError
from tests.control.checks import check, kinds, lines, traced, work

INPUTS = [
    torch.arange(1.0, 5.0),
    -torch.arange(1.0, 4.0),
    torch.zeros(1),
    torch.full((6,), 0.25),
    torch.tensor([-3.0, 5]),
]


@hj.branch_if_tracing
def ladder(x: Tensor) -> Tensor:
    if x.sum() > 4:
        return x * 2
    elif x.sum() > 1:
        x = x + 1
    elif x.numel() == 1:
        return x - 1
    else:
        x = x.abs()
    return x * 3


@hj.branch_if_tracing
def logic(x: Tensor) -> Tensor:
    low, high = x.min(), x.max()
    y = x + 1 if low > 0 and high > 2 else x - 1
    if not (low > -1 or x.shape[0] >= 3):
        y = y * 10
    return y if bool(high > 0) else -y


@hj.branch_if_tracing
def between(x: Tensor) -> Tensor:
    if 1 < x.shape[0] < 4 and x.shape[0] % 2 == 1:
        return x + x.shape[0]
    return x


def undecorated(x: Tensor, limit: float) -> Tensor:
    if x.max() > limit:
        return x.clamp(max=limit)
    return x


@hj.branch_if_tracing
def helpers(x: Tensor) -> Any:
    """Helpers that know nothing of hybridjit branch, in a loop and a comprehension too."""
    for limit in (1.0, 3.0):
        x = undecorated(x, limit) + limit
    return tuple([undecorated(y, 2.0) for y in (x, -x)])


@hj.branch_if_tracing
def searched(x: Tensor) -> Any:
    try:
        scale = next(k for k in range(1, 4) if (x * k).sum() > 5)
    except StopIteration:
        scale = 0
    return x * scale, scale


def nested(x: Tensor) -> Tensor:
    factor = x.sum() * 2

    @hj.branch_if_tracing
    def outer(y: Tensor) -> Tensor:
        @hj.branch_if_tracing
        def inner(z: Tensor) -> Tensor:
            return z * factor if z.sum() > factor else z

        y = inner(y + 1)
        if y.max() > 3:
            y = inner(-y)
        return y

    return outer(x)


@hj.branch_if_tracing
def with_others(x: Tensor) -> Tensor:
    """cond, loops and their own ifs inside of a path."""

    def body(i: Any, y: Tensor) -> Tensor:
        return y + 1 if y.sum() > i else y - 2

    if x.sum() > 0:
        x = hj.cond(x.max() > 1, lambda: x if x.min() > 1 else -x, lambda: x * 5)
    x = hj.fori_loop(0, x.shape[0], body, x)
    total, ys = hj.scan(lambda c, v: (c + v, c * v if c > 0 else v), x.sum(), x)
    if total > 10:
        return ys
    return hj.while_loop(lambda y: y.abs().sum() > 8, lambda y: (y / 2,), (ys,))[0]


@hj.branch_if_tracing
def own_memory(x: Tensor) -> Tensor:
    """A tensor made before an if is changed in place after it."""
    y = x.clone()
    y += 1
    if y.sum() > 6:
        y[0] = 9
        y.mul_(2)
    else:
        y[-1:] = -9
    y.sub_(1)
    return y


@hj.branch_if_tracing
def validated(x: Tensor, *, least: int = 1) -> Tensor:
    assert x.shape[0] >= least, "too short"
    return x * 2 if x[0] > 0 else x


@hj.branch_if_tracing
def truths(x: Tensor) -> Tensor:
    if torch.is_nonzero(x.sum()):
        x = x + 1
    return x if x.max().is_nonzero() else x + 7


CASES = [ladder, logic, between, helpers, searched, nested, with_others, own_memory, validated, truths]


@pytest.mark.parametrize("fn", CASES, ids=lambda fn: str(fn.__name__))
def test_every_path_is_in_the_trace(fn: Callable[..., Any]) -> None:
    """Traced along each path in turn and loaded again, it is right on the others."""
    check(fn, *INPUTS)


class Block(nn.Module):
    """Methods, properties, static methods and submodules, among them ones that branch themselves."""

    limit = 1.5

    def __init__(self, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.big, self.small = nn.Linear(1, 2), nn.Linear(1, 2)
        self.inner = inner

    @property
    def threshold(self) -> Tensor:
        return self.big.bias.sum() + self.limit

    @staticmethod
    @hj.branch_if_tracing
    def turned(x: Tensor) -> Tensor:
        return x.flip(0) if x.numel() > 3 else x

    @hj.branch_if_tracing
    def layers(self, x: Tensor, n: int = 2) -> Tensor:
        for _ in range(n):
            if x.mean() > self.threshold:
                return self.big(x[:, :1])
            x = self.small(x[:, -1:])
        return x

    @hj.branch_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        y = self.turned(x)[:, None] + 0
        y = self.big(y) if y.sum() > 0 else self.small(y)
        if self.inner is not None and y.max() > 0:
            return self.inner(y[:, 0])
        return self.layers(y)


def test_methods_properties_and_submodules() -> None:
    """A model of decorated methods, one inside another and shared, keeps its weights and its gradients."""
    shared = Block()
    model = nn.Sequential(Block(shared), nn.Flatten(0), shared)
    loaded = check(model, *INPUTS)
    assert set(loaded.state_dict()) <= set(model.state_dict())
    for x in INPUTS:
        model.zero_grad()
        model(x).sum().backward()
        expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        loaded.zero_grad()
        loaded(x).sum().backward()
        got = dict(loaded.named_parameters())
        assert any(grad.abs().sum() > 0 for grad in expected.values())
        for name, grad in expected.items():
            torch.testing.assert_close(got[name].grad, grad)


def test_eager_is_the_function_itself() -> None:
    """Outside a trace the very objects go in and come out; name, signature and errors are the function's."""

    @hj.branch_if_tracing
    def own(x: Any, *rest: Any, flag: bool = False, **more: Any) -> Any:
        """Gives back what it got."""
        return x, rest, flag, more

    assert own(1, 2, flag=True, other=3) == (1, (2,), True, {"other": 3})
    assert own.__doc__ == "Gives back what it got."
    assert str(inspect.signature(own)) == "(x: 'Any', *rest: 'Any', flag: 'bool' = False, **more: 'Any') -> 'Any'"
    with pytest.raises(AssertionError, match="too short"):
        validated(INPUTS[0], least=9)


def test_arguments_of_every_kind() -> None:
    """Positional, keyword and variadic arguments, containers among them, reach the function in a trace."""

    @hj.branch_if_tracing
    def takes(x: Tensor, /, pair: Any, *rest: Tensor, sign: int = 1, **more: Any) -> Any:
        first, table = pair
        if (first + table["b"]).sum() > 0:
            return rest[0] * sign + more["shift"], None
        return x - sign, None

    check(lambda x: takes(x, (x, {"b": x * 2}), x + 1, sign=3, shift=x[:1])[0], *INPUTS)


@hj.branch_if_tracing
def prefixed(x: Tensor, ifs: int) -> Tensor:
    y = x.exp().sin().cos().tanh()
    for k in range(ifs):
        y = y * 2 if y.sum() > k else y - 1
    return y


@pytest.mark.parametrize("ifs", [0, 1, 2, 3])
def test_what_ran_before_an_if_is_recorded_once(ifs: int) -> None:
    """The operations in front of the branches are in the graph once, whatever the number of paths."""
    module = torch.jit.trace(lambda x: prefixed(x, ifs), torch.ones(3), check_trace=False)
    found = kinds(module.graph)
    assert [found[f"aten::{name}"] for name in ("exp", "sin", "cos", "tanh")] == [1, 1, 1, 1]
    assert found["prim::If"] == 2**ifs - 1
    check(lambda x: prefixed(x, ifs), *INPUTS)


@hj.branch_if_tracing
def repeated(x: Tensor) -> Tensor:
    y = x * 2 if x.shape[0] > 2 else x + 1
    if x.shape[0] > 2:
        return y - 1
    return y if not x.shape[0] > 2 else y * 100


def test_a_size_asked_twice_is_decided_once() -> None:
    """The same comparison of the same size makes one branch, and no side that nothing can reach."""
    module = torch.jit.trace(repeated, torch.ones(3), check_trace=False)
    assert work(module.graph) == {
        "aten::size": 1, "aten::gt": 1, "prim::If": 1, "aten::mul": 1, "aten::sub": 1, "aten::add": 1,
    }  # fmt: skip
    check(repeated, *INPUTS)


def test_two_decorated_ifs_meet_again() -> None:
    """Functions of their own keep the paths of one from multiplying with those of the next."""

    @hj.branch_if_tracing
    def step(x: Tensor, k: int) -> Tensor:
        return x * 2 if x.sum() > k else x - 1

    def chain(x: Tensor) -> Tensor:
        for k in range(10):
            x = step(x, k)
        return x

    module = torch.jit.trace(chain, torch.ones(3), check_trace=False)
    assert kinds(module.graph)["prim::If"] == 10
    check(chain, *INPUTS)


def test_an_assertion_stays_in_the_file() -> None:
    """Where eager mode raises, the file raises too, with the message and the line."""
    for example in INPUTS[:2]:
        loaded = traced(lambda x: validated(x, least=2), example)
        with pytest.raises(torch.jit.Error) as error:
            loaded(torch.ones(1))
        *_, last = lines(error)
        assert "RuntimeError: hybridjit: AssertionError: too short" in str(error.value)
        assert re.search(r"\(raised at tests/control/test_branch.py:\d+\)$", last)


def test_an_input_on_which_the_model_raises() -> None:
    """An assertion that fails on the example itself is the model's own error, not a recorded one."""
    with pytest.raises(AssertionError, match="too short"):
        traced(lambda x: validated(x, least=99), INPUTS[0])


def test_a_scripted_piece_in_a_path() -> None:
    """script_if_tracing inside branch_if_tracing, and the other way round a traced path in a scripted module."""

    @hj.script_if_tracing
    def piece(x: Tensor, n: int) -> Tensor:
        for i in range(n):
            x = x + i if bool(x.sum() > 0) else x - i
        return x

    @hj.branch_if_tracing
    def path(x: Tensor) -> Tensor:
        return piece(x, x.shape[0]) if x.max() > 1 else piece(-x, 2)

    check(path, *INPUTS)


@pytest.mark.parametrize("what", [nn.Linear(1, 1), nn.Linear, len], ids=["module", "class", "builtin"])
def test_what_is_no_function(what: Any) -> None:
    """Decorating anything but a function is refused at once."""
    with pytest.raises(InputError) as error:
        hj.branch_if_tracing(what)
    assert lines(error)[0] == "branch_if_tracing takes a Python function"


@hj.branch_if_tracing
def adds(found: dict[str, Tensor], x: Tensor, turn: int) -> None:
    if x.mean() > 0.25 * turn:
        found["sum"] = found["sum"] + turn


@hj.branch_if_tracing
def totals(x: Tensor) -> Tensor:
    found = {"sum": x.sum() * 0}
    for turn in range(4):
        adds(found, x, turn)
    return x * found["sum"] if x.shape[0] > 4 else x + found["sum"]


@pytest.mark.parametrize("mean", [-1.0, 0.3, 0.6, 2.0])
def test_what_a_side_leaves_stays_in_later_runs(mean: float) -> None:
    """What a branch left in a dictionary has the memory of the example's side, and is what either side left."""
    module = traced(totals, torch.full((3,), mean))
    for size in (2, 6):
        for level in (-1.0, 0.1, 0.3, 0.6, 2.0):
            x = torch.full((size,), level)
            torch.testing.assert_close(module(x), totals(x))
