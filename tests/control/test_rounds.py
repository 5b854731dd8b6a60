"""The parts of a recorded loop: its count, what it carries, what a step of a scan gives."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit import CaptureError
from hybridjit.control.rounds import as_carry, stack, stack_dim, zero_slice
from tests.control.checks import check, kinds, lines, traced, work

UP, DOWN = torch.ones(3), -torch.ones(3)


def test_a_lone_value_is_a_carry_of_one() -> None:
    """A body of one thing may return it bare; lists are tuples."""
    assert as_carry(3, 1) == (3,)
    assert as_carry((3,), 1) == (3,) and as_carry([1, 2], 2) == (1, 2)


@pytest.mark.parametrize(("dims", "dim", "place"), [(0, 0, 0), (2, 1, 1), (2, 2, 2), (1, 2, 0)])
def test_where_results_are_stacked(dims: int, dim: int, place: int) -> None:
    """Along the scan's dimension, or along the first where a result has too few."""
    assert stack_dim(dims, dim) == place
    assert stack([torch.zeros([2] * dims)] * 3, dim).shape[place] == 3


def test_a_slice_of_an_empty_tensor() -> None:
    """It has the other sizes, dtype and zeros."""
    made = zero_slice(torch.ones(4, 0, 5, dtype=torch.int32), 1)
    assert (made.shape, made.dtype, int(made.sum())) == ((4, 5), torch.int32, 0)


def count(graph: Any) -> Any:
    """The type of a loop's count, and whether it is a constant."""
    (loop,) = graph.findAllNodes("prim::Loop", True)
    trips = next(iter(loop.inputs()))
    return str(trips.type()), trips.node().kind()


def test_a_count_from_a_size_stays_an_integer() -> None:
    """No detour by tensors: the loop's count is the size itself."""
    module = torch.jit.trace(
        lambda x: hj.fori_loop(0, x.shape[0], lambda i, y: y * 2, x), UP.clone(), check_trace=False
    )
    graph = module.graph
    assert count(graph) == ("int", "aten::size")
    assert work(graph) == {"aten::size": 1, "prim::Loop": 1, "aten::mul": 1}


def test_the_number_of_a_round_is_used_as_it_is() -> None:
    """From 0 on nothing is added; from elsewhere the lower bound once a round."""

    def forward(low: int) -> Callable[[Tensor], Tensor]:
        return lambda x: hj.fori_loop(low, 4, lambda i, y: y * i, x)

    for low, adds in ((0, 0), (2, 1)):
        module = torch.jit.trace(forward(low), UP.clone(), check_trace=False)
        graph = module.graph
        assert kinds(graph)["aten::add"] == adds
        assert torch.equal(module(UP), forward(low)(UP))


def test_several_outputs_and_the_row_of_each_step() -> None:
    """A carry of three leaves and a row of two, some from outside, in a loop in a branch in a loop."""
    weight = torch.arange(3.0)

    def step(carry: Any, v: Tensor) -> Any:
        a, (b, _) = carry
        return (b, (a + v, weight)), {"now": a, "fixed": weight}

    def forward(x: Tensor) -> Any:
        def body(i: Any, y: Tensor) -> Tensor:
            def side() -> Tensor:
                (a, (b, c)), rows = hj.scan(step, (y, (y * 2, y - 1)), x)
                return a + b + c + rows["now"].sum(0) + rows["fixed"].sum(0)

            return hj.cond(y.sum() < 50, side, lambda: y / 4)

        return hj.fori_loop(0, x.shape[0], body, x * 1)

    check(forward, UP, DOWN, torch.zeros(3))


def test_a_carry_that_is_not_changed() -> None:
    """What a body hands on as it got it, and what it swaps."""

    def forward(x: Tensor) -> Any:
        return hj.fori_loop(0, x.shape[0], lambda i, c: (c[1], c[0], c[2]), (x, x * 2, x + 3))

    check(forward, UP, DOWN[:2], UP[:0])


def test_a_body_runs_once_in_a_trace() -> None:
    """It is recorded once, and on the example's data once for each later round."""
    calls: deque[bool] = deque()  # which hybridjit does not look into: what it leaves behind is the test's alone

    def body(i: Any, y: Tensor) -> Tensor:
        calls.append(hj.is_tracing())
        return y + 1

    torch.jit.trace(lambda x: hj.fori_loop(0, 4, body, x), UP.clone(), check_trace=False)
    assert [*calls] == [True, False, False, False]


def test_the_example_goes_on_behind_a_loop() -> None:
    """What follows a loop sees the example's data of its last round, not of the first: the side it takes is known."""

    def refuse() -> Tensor:
        raise ValueError("too small")

    def forward(x: Tensor) -> Tensor:
        y = hj.fori_loop(0, 5, lambda i, y: y + 1, x)
        return hj.cond(y.sum() > 12, lambda: y * 2, refuse)

    loaded = traced(forward, UP)
    assert torch.equal(loaded(UP * 2), forward(UP * 2))
    with pytest.raises(torch.jit.Error, match="hybridjit: ValueError: too small"):
        loaded(DOWN)
    with pytest.raises(ValueError, match="too small"):
        traced(forward, DOWN)


def test_an_inner_structure_that_changes_is_refused() -> None:
    """A body that returns more than it takes is refused with each path."""
    longer: Any = lambda i, c: [*c, c[0]]  # noqa: E731
    with pytest.raises(CaptureError) as error:
        traced(lambda x: hj.fori_loop(0, x.shape[0], longer, [x]), UP)
    assert lines(error)[0] == "the body of a loop returns something else than it takes"
    assert lines(error)[2:] == [
        "  - result[1]: only the body gives it, float32[3] cpu",
        "  write instead: the same containers with the same keys on both sides; an empty tensor for what is missing",
        "  see docs/errors.md#branches-that-differ",
    ]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return hj.while_loop(lambda i, h: i < x.shape[0], lambda i, h: (i + 1, self.cell(h).tanh() + x[i]), (0, x[0]))[
            1
        ]


def test_a_number_in_the_carry_indexes() -> None:
    """A count carried as an int is a tensor in the trace, and selects rows."""
    model = Recurrent()
    rows = torch.randn(4, 3)
    check(model, rows, rows[:1], rows[:3])
