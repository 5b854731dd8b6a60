"""Sides that the traced example contradicts, recorded with another example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hybridjit.control.asides import Arguments
from hybridjit.control.paths import trace_paths
from tests.control.checks import kinds, plain, reloaded

EVEN, ODD, LARGE = torch.arange(4.0), torch.arange(5.0) + 1, torch.arange(8.0) - 2


def halves(x: Tensor) -> Tensor:
    """Adds the two halves of what has an even number; one side each takes."""
    y = x.sin() + 1
    if y.shape[0] % 2 == 1:
        rest = y[1:].reshape(2, -1).sum(0)
        return torch.cat([rest, y[:1]])
    return torch.cat([y.reshape(2, -1).sum(0), y[:0]])


def recorded(fn: Callable[..., Any], example: Tensor, *others: Any) -> Any:
    """A trace of a function's paths, given what other calls had, saved and loaded."""
    calls: list[Arguments] = [((other,), {}) for other in others]
    made = torch.jit.trace(lambda x: trace_paths(fn, (x,), {}, others=calls), (example,), check_trace=False)
    return reloaded(made)


@pytest.mark.parametrize(("example", "other"), [(EVEN, ODD), (ODD, EVEN)], ids=["even", "odd"])
def test_the_other_example_records_the_side(example: Tensor, other: Tensor) -> None:
    """Either way round, and for sizes that neither of the two has."""
    alone, both = recorded(halves, example), recorded(halves, example, other)
    for x in (EVEN, ODD, LARGE, torch.arange(11.0)):
        torch.testing.assert_close(both(x), halves(x))
    with pytest.raises(torch.jit.Error, match="is invalid for input of size"):
        alone(other)


def test_what_comes_before_the_branch_is_recorded_once() -> None:
    """It runs again for the other example, aside, and leaves nothing in the graph."""
    for made in (recorded(halves, EVEN), recorded(halves, EVEN, ODD)):
        assert kinds(made.graph)["aten::sin"] == 1
    assert kinds(recorded(halves, EVEN, ODD).graph)["prim::If"] == 1


def test_examples_that_do_not_fit_are_passed_over() -> None:
    """Of another dtype, rank or structure, and those that take the same side; the first that fits is taken."""
    unfit = [ODD.double(), ODD[None], [ODD], "text", LARGE]
    made = recorded(halves, EVEN, *unfit, ODD)
    torch.testing.assert_close(made(ODD), halves(ODD))
    with pytest.raises(torch.jit.Error, match="is invalid for input of size"):
        recorded(halves, EVEN, *unfit)(ODD)


def test_a_number_in_place_of_a_traced_one() -> None:
    """A size that the caller passes on is traced in the example, and a number in the other's call."""

    def rows(x: Tensor, n: Any) -> Tensor:
        if n % 2 == 1:
            return x[1:].reshape(2, -1).sum(0) * n
        return x.reshape(2, -1).sum(0)

    def forward(x: Tensor) -> Tensor:
        result: Tensor = trace_paths(rows, (x, x.shape[0]), {}, others=[((ODD, 5), {})])
        return result

    made = reloaded(torch.jit.trace(forward, (EVEN,), check_trace=False))
    for x in (EVEN, ODD, LARGE, torch.arange(9.0)):
        torch.testing.assert_close(made(x), rows(x, x.shape[0]))


def test_sides_within_sides() -> None:
    """Each of four ways has an example; none of them takes two."""

    def grid(x: Tensor) -> Tensor:
        if x.shape[0] % 2 == 1:
            x = x[1:]
        x = x.reshape(2, -1, x.shape[1]).sum(0)
        if x.shape[1] % 2 == 1:
            x = x[:, 1:]
        return x.reshape(x.shape[0], 2, -1).sum(1)

    examples = [torch.rand(n, m) for n in (4, 5) for m in (6, 7)]
    made = recorded(grid, *examples)
    for shape in ((4, 6), (5, 6), (4, 7), (5, 7), (8, 10), (9, 3), (7, 12)):
        x = torch.rand(shape)
        torch.testing.assert_close(made(x), grid(x))


def frozen(x: Tensor) -> Tensor:
    n = int(x.shape[0])
    if x.shape[0] % 2 == 1:
        return x[1:].reshape(2, (n - 1) // 2).sum(0)
    return x.reshape(2, n // 2).sum(0)


@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python integer")
def test_what_cannot_stand_for_the_example_stays_a_raise() -> None:
    """A number of the other example's that the first one does not have."""
    made = recorded(frozen, EVEN, ODD)
    torch.testing.assert_close(made(EVEN), frozen(EVEN))
    with pytest.raises(torch.jit.Error, match="is invalid for input of size"):
        made(ODD)


def changes_what_came_before(x: Tensor) -> Tensor:
    y = x * 2
    if x.shape[0] % 2 == 1:
        z = y[1:].reshape(2, -1)
        y[0] = 7
        return z.sum(0) + y[0]
    return y.reshape(2, -1).sum(0)


def changes_a_view_of_it(x: Tensor) -> Tensor:
    y = x * 2
    first, rest = y[:1], y[1:] + 1
    if x.shape[0] % 2 == 1:
        first.mul_(3)
        return (y[1:].reshape(2, -1) + y[0]).sum(0) + rest.sum()
    y.add_(1)
    return y.reshape(2, -1).sum(0) + first.sum() + rest.sum()


@pytest.mark.parametrize("fn", [changes_what_came_before, changes_a_view_of_it], ids=lambda fn: str(fn.__name__))
def test_a_side_that_changes_what_came_before(fn: Callable[[Tensor], Tensor]) -> None:
    """The side has memory of its own, and what the other one has is as it was."""
    made = recorded(fn, EVEN, ODD)
    for rows in (4, 5, 8, 9, 1, 2):
        x = torch.rand(rows)
        before = x.clone()
        torch.testing.assert_close(made(x), fn(x.clone()))
        assert torch.equal(x, before)


def test_a_container_that_the_side_changes() -> None:
    """The other example's list is none of the caller's, who would miss what is appended to it."""

    def appends(x: Tensor, rows: list[Tensor]) -> Tensor:
        if x.shape[0] % 2 == 1:
            rows.append(x)
            return x[1:].reshape(2, -1).sum(0)
        return x.reshape(2, -1).sum(0)

    def forward(x: Tensor) -> Tensor:
        rows: list[Tensor] = []
        result: Tensor = trace_paths(appends, (x, rows), {}, others=[((ODD, []), {})])
        return result * (1 + len(rows))

    made = reloaded(torch.jit.trace(forward, (EVEN,), check_trace=False))
    torch.testing.assert_close(made(EVEN), EVEN.reshape(2, -1).sum(0))
    with pytest.raises(torch.jit.Error, match="is invalid for input of size"):
        made(ODD)


def test_modules_and_random_numbers_before_the_branch() -> None:
    """Parameters stay parameters, and what was drawn is drawn once."""
    linear = nn.Linear(3, 3)

    def noisy(x: Tensor) -> Tensor:
        y = linear(x) + torch.rand_like(x) * 0
        if y.shape[0] % 2 == 1:
            return linear(y[1:].reshape(2, -1, 3).sum(0))
        return linear(y.reshape(2, -1, 3).sum(0))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear

        def forward(self, x: Tensor) -> Any:
            return trace_paths(noisy, (x,), {}, others=[((torch.rand(5, 3),), {})])

    model = Model()
    made = reloaded(torch.jit.trace(model, (torch.rand(4, 3),), check_trace=False))
    assert kinds(made.inlined_graph)["aten::rand_like"] == 1
    for rows in (4, 5, 9):
        x = torch.rand(rows, 3)
        torch.testing.assert_close(made(x), plain(noisy(x)))
    x = torch.rand(5, 3)
    made(x).sum().backward()
    got = [parameter.grad for parameter in made.parameters()]
    noisy(x).sum().backward()
    torch.testing.assert_close(got, [linear.weight.grad, linear.bias.grad])
