"""Blocks of a graph: sides that raise, clean graphs, and what torch's own passes do with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from tests.control.checks import Net, check, kinds, reloaded, traced, work

UP, DOWN = torch.ones(2, 3), -torch.ones(2, 3)


class Checked(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        def refuse() -> Tensor:
            raise ValueError("no negative {sizes}: 100%")

        return hj.cond(x.sum() > 0, lambda: x * 2, refuse)


def test_a_side_that_raises_stays_a_raise() -> None:
    """The file raises with the model's message and line, and is right elsewhere, frozen too."""
    model = Checked().eval()
    module = torch.jit.trace(model, UP.clone(), check_trace=False)
    line = Checked.forward.__code__.co_firstlineno + 2
    for each in (module, reloaded(module), torch.jit.freeze(module.eval())):
        assert torch.equal(each(UP * 3), UP * 6)
        with pytest.raises(torch.jit.Error) as error:
            each(DOWN)
        message = "hybridjit: ValueError: no negative {sizes}: 100% (raised at tests/control/test_blocks.py:"
        assert f"RuntimeError: {message}{line})" in str(error.value)


def test_the_side_that_the_example_takes_may_not_raise() -> None:
    """There the model's own error is the answer, as in eager mode."""
    with pytest.raises(ValueError, match="no negative"):
        traced(Checked(), DOWN)


def test_a_side_that_fails_on_the_examples_data() -> None:
    """An index into nothing becomes a raise, in torch's words, with the line."""

    def forward(x: Tensor) -> Tensor:
        return hj.cond(x.shape[0] > 2, lambda: x[2] @ x.T, lambda: x.sum(1))

    loaded = traced(forward, UP)
    assert torch.equal(loaded(UP[:1]), UP[:1].sum(1))
    with pytest.raises(
        torch.jit.Error,
        match=r"traced one raises: IndexError: index 2 is out of bounds .* \(raised at tests/",
    ):
        loaded(torch.ones(4, 3))


def test_a_body_that_fails_without_rounds() -> None:
    """A loop that the example does not enter, and whose body raises on its data, raises when it is entered."""

    def forward(x: Tensor) -> Any:
        return hj.fori_loop(0, x.shape[0], lambda i, c: c + x[0], torch.ones(3))

    loaded = traced(forward, UP[:0])
    assert torch.equal(loaded(UP[:0]), torch.ones(3))
    with pytest.raises(torch.jit.Error, match="on which the traced one raises: IndexError: "):
        loaded(UP)


def test_an_export_tells_which_sides_raise() -> None:
    """The report's branches are there, with the line and which side raises."""
    exported = hj.export(Checked().eval(), (UP,), check_inputs=[(UP * 2,)])
    assert [(each.line) for each in exported.report.branches] == [Checked.forward.__code__.co_firstlineno + 4]


# Nobody needs a loop, or a branch around one; torch can't load a loop without a body.
def dead_loop(x: Tensor) -> Tensor:
    hj.fori_loop(0, x.shape[0], lambda i, c: c + 1, x)
    hj.scan(lambda c, row: (c, row * 2), x[:1], x)
    return x + 1


def dead_branch(x: Tensor) -> Tensor:
    def side() -> Any:
        return hj.fori_loop(0, 2, lambda i, c: hj.scan(lambda s, r: (s, r), c, x)[0], x)

    hj.cond(x.sum() > 0, side, lambda: x)
    return x + 1


def dead_column(x: Tensor) -> Tensor:
    _, ys = hj.cond(
        x.sum() > 0,
        lambda: (hj.map(lambda r: r * 2, x), x + 1),
        lambda: (x, hj.fori_loop(0, x.shape[0], lambda i, c: c * 2, x)),
    )
    return hj.cond(x.sum() > 0, lambda: x, lambda: hj.map(lambda r: r + 1, x)) + 0 * ys


@pytest.mark.parametrize("fn", [dead_loop, dead_branch, dead_column], ids=lambda fn: str(fn.__name__))
def test_what_nobody_needs(fn: Callable[[Tensor], Tensor]) -> None:
    """A loop or branch without a use saves and loads."""
    check(fn, UP, DOWN, UP[:0])


def test_a_file_is_right_on_every_run() -> None:
    """The first runs, the profiled and the optimised ones give the same."""
    net = Net(lambda net, x: hj.cond(x.sum() > 0, lambda: net.big(x).relu() + net.small(x), lambda: net.small(x)))
    loaded = traced(net, UP)
    for _ in range(4):
        for x in (UP, DOWN, UP[:1]):
            torch.testing.assert_close(loaded(x), net(x))


# The comparison set: the same control flow, by hand, as statements.
# ruff: noqa: SIM108
@torch.jit.script
def script_cond(x: Tensor) -> Tensor:
    if bool(x.sum() > 0):
        y = x * 2
    else:
        y = x - 1
    return y


def our_cond(x: Tensor) -> Tensor:
    return hj.cond(x.sum() > 0, lambda: x * 2, lambda: x - 1)


@torch.jit.script
def script_nested(x: Tensor) -> Tensor:
    if x.size(0) > 2:
        if bool(x.max() > 1):
            y = x * 2
        else:
            y = x.neg()
    else:
        y = x - 1
    return y


def our_nested(x: Tensor) -> Tensor:
    return hj.cond(x.shape[0] > 2, lambda: hj.cond(x.max() > 1, lambda: x * 2, lambda: x.neg()), lambda: x - 1)


@hj.branch_if_tracing
def our_paths(x: Tensor) -> Tensor:
    if x.shape[0] > 2:
        return x * 2 if x.max() > 1 else x.neg()
    return x - 1


@torch.jit.script
def script_switch(x: Tensor) -> Tensor:
    index = x.argmax()
    if bool(index <= 0):
        y = x * 2
    elif bool(index <= 1):
        y = x - 1
    else:
        y = x.neg()
    return y


def our_switch(x: Tensor) -> Tensor:
    return hj.switch(x.argmax(), [lambda: x * 2, lambda: x - 1, lambda: x.neg()])


@torch.jit.script
def script_while(x: Tensor) -> Tensor:
    while bool(x.sum() > 1):
        x = x / 2
    return x


def our_while(x: Tensor) -> Tensor:
    return hj.while_loop(lambda x: x.sum() > 1, lambda x: (x / 2,), (x,))[0]


@torch.jit.script
def script_fori(x: Tensor) -> Tensor:
    y = x
    for _ in range(x.size(0)):
        y = y * 2
    return y


def our_fori(x: Tensor) -> Tensor:
    return hj.fori_loop(0, x.shape[0], lambda i, y: y * 2, x)


PAIRS = [
    (our_cond, script_cond), (our_nested, script_nested), (our_paths, script_nested), (our_switch, script_switch),
    (our_while, script_while), (our_fori, script_fori),
]  # fmt: skip


@pytest.mark.parametrize(("ours", "script"), PAIRS, ids=lambda fn: str(getattr(fn, "__name__", "")))
def test_the_graph_is_that_of_hand_written_script(ours: Callable[..., Any], script: Any) -> None:
    """Node for node the same work, and nothing of ours besides."""
    module = torch.jit.trace(ours, torch.ones(3), check_trace=False)
    script(torch.ones(3))
    graph = script.inlined_graph.copy()
    torch._C._jit_pass_dce(graph)
    assert work(module.graph) == work(graph)
    assert not any(kind.startswith("prim::Tuple") or "Uninitialized" in kind for kind in kinds(module.graph))
    for x in (torch.ones(3), -torch.ones(3), torch.ones(2), torch.tensor([0.1, 3.0, 0.2])):
        torch.testing.assert_close(module(x), script(x))
        torch.testing.assert_close(module(x), ours(x))


def test_code_reads_like_the_source() -> None:
    """The file's code has the if, and the two lines of its sides."""
    module = torch.jit.trace(our_cond, torch.ones(3), check_trace=False)
    body = [line.strip() for line in module.code.splitlines()]
    assert body[1].startswith("if bool(torch.gt(torch.sum(x), ")
    assert "torch.mul(x, " in body[2] and body[3] == "else:" and "torch.sub(x, " in body[4]
