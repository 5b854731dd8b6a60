"""What a function with paths changes besides its result: the same on every path, or refused by name."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit import CaptureError
from tests.control.checks import check, lines, traced

UP, DOWN = torch.ones(3), -torch.ones(3)


class Stateful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []
        self.table: dict[str, Any] = {}
        self.last: Any = None
        self.count = 0
        self.mode = ""
        self.register_buffer("total", torch.zeros(()))
        self.inner = nn.Linear(3, 3)


class Attribute(Stateful):
    @hj.branch_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        self.mode = "up" if x.sum() > 0 else "down"
        return x


class TensorAttribute(Stateful):
    @hj.branch_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            self.last = x * 2
        return x


class Appended(Stateful):
    @hj.branch_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            self.seen.append(1)
        return x


class Keyed(Stateful):
    @hj.branch_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        self.table["up" if x.sum() > 0 else "down"] = 1
        return x


class Submodule(Stateful):
    @hj.branch_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        self.inner.scale = "up" if x.sum() > 0 else "down"  # type: ignore[assignment]
        return x


REFUSED: dict[type[nn.Module], str] = {
    Attribute: "self.mode: str or str",
    TensorAttribute: "self.last: float32[3] cpu or None",
    Appended: "self.seen: differs in what it holds",
    Keyed: "self.table.up: int or None",
    Submodule: "self.inner.scale: str or str",
}


@pytest.mark.parametrize("model", REFUSED, ids=lambda model: str(model.__name__))
def test_what_the_paths_leave_different_is_refused_by_name(model: type[nn.Module]) -> None:
    """An attribute, a list or a dict that two paths leave different, with the line of the if and what to write."""
    with pytest.raises(CaptureError) as error:
        traced(model(), UP)
    what, where, row, *rest = lines(error)
    assert what == "the paths of a function leave different things behind, and only its result can be a branch"
    assert where.startswith("  at tests/control/test_effects.py:")
    assert row == f"  - {REFUSED[model]}"
    assert rest[-3].startswith("  - first on the path where tests/control/test_effects.py:")
    assert rest[-2:] == [
        "  write instead: return what the paths make different, and set or append it after the call",
        "  see docs/errors.md#paths-that-differ",
    ]


class Counts(nn.Module):
    """A side that counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x


def test_what_modules_leave_that_are_sides_themselves_is_refused() -> None:
    """A trace runs both sides, and Python after them would go on with both counts."""
    counts, plain = Counts(), nn.Identity()

    def forward(x: Tensor) -> Tensor:
        return hj.cond(x.sum() > 0, counts, plain, (x,)) + counts.calls

    with pytest.raises(CaptureError) as error:
        traced(forward, UP)
    assert lines(error)[2:4] == [
        "  - Counts.calls: int or int",
        "  - first on true_fn (Counts), then on false_fn (Identity)",
    ]


def test_a_variable_of_an_outer_function_is_refused() -> None:
    """nonlocal is a way out of a path that no branch can follow."""

    def forward(x: Tensor) -> Tensor:
        state = ""

        @hj.branch_if_tracing
        def path() -> Tensor:
            nonlocal state
            if x.sum() > 0:
                state = "up"
            return x

        return path() * len(state)

    with pytest.raises(CaptureError) as error:
        traced(forward, UP)
    assert lines(error)[2] == "  - state: differs in what it holds"


class Same(Stateful):
    """Every path sets, appends and counts alike, before and after the if."""

    @hj.branch_if_tracing
    def forward(self, x: Tensor, box: list[int] | None = None) -> Tensor:
        self.count += 1
        self.seen.append(self.count)
        y = x * 2 if x.sum() > 0 else x - 1
        self.table["n"] = len(self.seen)
        self.count += 1
        return y * self.table["n"]


def test_what_every_path_does_happens_once() -> None:
    """A trace leaves attributes and lists as one eager call does, though the function ran for each path."""
    model = Same()
    module = torch.jit.trace(model, UP.clone(), check_trace=False)
    assert (model.count, model.seen, model.table) == (2, [1], {"n": 1})
    for x in (UP, DOWN):
        assert torch.equal(module(x), x * 2 if x.sum() > 0 else x - 1)


def test_pythons_random_numbers_are_those_of_one_call() -> None:
    """Each path draws the same from `random`, and the draws after the call go on from there."""

    @hj.branch_if_tracing
    def forward(x: Tensor) -> Tensor:
        scale = random.randrange(1, 1000)
        return x * scale if x.sum() > 0 else x - scale

    random.seed(3)
    module = torch.jit.trace(forward, UP.clone(), check_trace=False)
    after = random.random()
    random.seed(3)
    expected = forward(DOWN)
    assert torch.equal(module(DOWN), expected)
    assert random.random() == after


def test_a_container_that_is_given_is_put_back_for_each_path() -> None:
    """A list and a dict among the arguments are as new at the start of each path."""

    def forward(x: Tensor) -> Any:
        box: list[Tensor] = [x]
        table = {"n": 1}

        @hj.branch_if_tracing
        def path(box: list[Tensor], table: dict[str, int]) -> Tensor:
            box.append(x + 1)
            table["n"] += 1
            y = box[-1] * table["n"] if x.sum() > 0 else box[0] - table["n"]
            return y + len(box)

        return path(box, table)

    check(forward, UP, DOWN)


def test_drawn_numbers_are_shared_by_the_paths() -> None:
    """What was drawn before an if is drawn once, and both sides use it."""

    @hj.branch_if_tracing
    def forward(x: Tensor) -> Any:
        noise = torch.rand_like(x)
        return (noise, noise * 2 if x.sum() > 0 else noise * 3)

    for example in (UP, DOWN):
        loaded = traced(forward, example)
        for x, factor in ((UP, 2), (DOWN, 3)):
            first, second = loaded(x)
            torch.testing.assert_close(second, first * factor)


def test_drawn_numbers_that_a_side_changes_in_place() -> None:
    """They can't be drawn again for the side, so it is refused."""

    @hj.branch_if_tracing
    def forward(x: Tensor) -> Tensor:
        noise = torch.rand_like(x)
        if x.sum() > 0:
            noise.mul_(2)
        return noise

    with pytest.raises(CaptureError) as error:
        traced(forward, UP)
    assert lines(error)[0] == "a side of a branch changes random numbers in place that were drawn before it"
    assert lines(error)[2:] == [
        "  - drawn by rand_like",
        "  write instead: a new tensor instead of the change: noise = noise * mask",
        "  see docs/errors.md#branches-that-write",
    ]


def test_a_path_that_raises_leaves_nothing() -> None:
    """A side that ends in a raise may have set anything before."""

    class Model(Stateful):
        @hj.branch_if_tracing
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[0] > 3:
                self.last = "too long"
                raise ValueError(self.last)
            return x * 2

    model = Model()
    loaded = traced(model, UP)
    assert model.last is None
    assert torch.equal(loaded(DOWN), DOWN * 2)
    with pytest.raises(torch.jit.Error, match="hybridjit: ValueError: too long"):
        loaded(torch.ones(4))


def write_input(x: Tensor) -> Tensor:
    if x.sum() > 0:
        x.add_(1)
    return x * 2


def write_view(x: Tensor) -> Tensor:
    y = x[:2]
    if x.sum() > 0:
        y[0] = 5
    return x * 2


@pytest.mark.parametrize("fn", [write_input, write_view], ids=lambda fn: str(fn.__name__))
def test_a_write_to_a_tensor_from_outside_is_refused(fn: Callable[[Tensor], Tensor]) -> None:
    """A path that changes its argument in place, itself or through a view, is refused with the line."""
    with pytest.raises(CaptureError) as error:
        traced(hj.branch_if_tracing(fn), UP)
    assert "changes a tensor in place that was made outside of it" in lines(error)[0]
    assert lines(error)[1].startswith("  at tests/control/test_effects.py:")


class Plain:
    def __init__(self) -> None:
        self.number = 0
        self.table = torch.arange(4.0)


def on_an_object(x: Tensor) -> Any:
    state = Plain()

    @hj.branch_if_tracing
    def path() -> Tensor:
        state.number = 1 if x.sum() > 0 else 2
        return x

    return path() * state.number


in_a_global = 0


def on_a_global(x: Tensor) -> Any:
    @hj.branch_if_tracing
    def path() -> Tensor:
        global in_a_global
        in_a_global = 1 if x.sum() > 0 else 2
        return x

    return path() * in_a_global


def in_a_list_of_a_dict(x: Tensor) -> Any:
    state: dict[str, list[int]] = {"seen": [1]}

    @hj.branch_if_tracing
    def path() -> Tensor:
        if x.sum() > 0:
            state["seen"].append(2)
        return x

    return path() * len(state["seen"])


def on_a_module_in_a_list(x: Tensor) -> Any:
    modules: list[Any] = [nn.Identity()]

    @hj.branch_if_tracing
    def path() -> Tensor:
        modules[0].number = 1 if x.sum() > 0 else 2
        return x

    return path() * modules[0].number


def test_a_length_that_the_paths_leave_different() -> None:
    """A list in a dict of a closure that only one path appends to: refused too."""
    with pytest.raises(CaptureError):
        traced(in_a_list_of_a_dict, UP)


def on_a_nested_if(x: Tensor) -> Any:
    state = Plain()

    @hj.branch_if_tracing
    def path() -> Tensor:
        if x.sum() > 0:
            state.number = 3 if x.sum() > 5 else 4
        elif x.sum() < -5:
            state.number = 5
        return x

    return path() * state.number


def in_a_tuple(x: Tensor) -> Any:
    state: dict[str, Any] = {"kept": x, "pair": (x, 1)}

    @hj.branch_if_tracing
    def path() -> Tensor:
        if x.sum() > 0:
            state["pair"] = (x * 2, 3)
            state["kept"] = x + 1
        return x

    return path() * state["pair"][0] + state["pair"][1] + state["kept"]


def a_table_that_grows(x: Tensor) -> Any:
    state = Plain()

    @hj.branch_if_tracing
    def path() -> Tensor:
        if x.size(0) > state.table.size(0):
            state.table = torch.arange(x.size(0)) * 1.0
        return x + state.table[: x.size(0)].sum()

    y = path()
    return y.sum() + state.table.sum()


JOINED = [on_an_object, on_a_global, on_a_module_in_a_list, on_a_nested_if, in_a_tuple, a_table_that_grows]


@pytest.mark.parametrize("fn", JOINED, ids=lambda fn: str(fn.__name__))
def test_tensors_and_numbers_that_the_paths_leave_different(fn: Callable[[Tensor], Any]) -> None:
    """They are results of the branch, wherever they were left."""
    check(fn, UP, DOWN, UP * 5, DOWN * 5, torch.arange(9.0))


def counted_in_cond(x: Tensor) -> Any:
    count = [0]

    def side(n: int) -> Tensor:
        count[0] += n
        return x

    return hj.cond(x.sum() > 0, lambda: side(1), lambda: side(10)) * count[0]


def written_by_numpy(x: Tensor) -> Any:
    y = x * 2

    def side() -> Tensor:
        y.detach().numpy()[0] = 5
        return x

    return hj.cond(x.sum() > 0, side, lambda: x) + y


@pytest.mark.filterwarnings("ignore:Converting a tensor to a NumPy array")
@pytest.mark.parametrize("fn", [counted_in_cond, written_by_numpy], ids=lambda fn: str(fn.__name__))
def test_side_effects_of_the_sides_of_a_cond(fn: Callable[[Tensor], Any]) -> None:
    """A number that the sides change differently, and memory written past torch: refused too."""
    with pytest.raises(CaptureError):
        traced(fn, UP)


class Kept:
    """A caller's object."""

    count = 0
    last: Tensor | None = None
    items: list[Any]


@hj.branch_if_tracing
def leaves_in(x: Tensor, kept: Kept, items: list[Any], by_name: dict[str, Any]) -> Tensor:
    """Leaves the same behind on both paths, in each container that it is given."""
    kept.count = kept.count + 1
    kept.last = x * 3
    items.append(x + 1)
    items[0] = kept
    by_name["new"] = [x + 2]
    by_name.pop("old", None)
    return x * 2 if x.sum() > 0 else x - 1


def reads_it(x: Tensor, inner: Callable[..., Tensor]) -> Tensor:
    """Makes containers of its own in each run, and uses what the inner function left in them on one side alone."""
    kept, items, by_name = Kept(), [None], {"old": x, "mine": x * 5}
    kept.items = items
    y = inner(x, kept, items, by_name)
    if x.mean() > 1:
        assert items is kept.items and items[0] is kept and kept.last is not None
        by_name["new"].append(x)  # a list of this run alone
        y = y + 10 * kept.count + 100 * len(items) + 1000 * len(by_name["new"]) + kept.last + by_name["new"][0]
        y = y + by_name["mine"] + items[-1] + 10000 * ("old" in by_name)
    return y + kept.count


def leaves_in_cond(x: Tensor, kept: Kept, items: list[Any], by_name: dict[str, Any]) -> Tensor:
    """Likewise, on both sides of a branch."""
    mine = x + 1

    def side(y: Tensor) -> Tensor:
        kept.count, kept.last = kept.count + 1, mine
        items.append(mine)
        items[0] = kept
        by_name["new"] = [mine]
        by_name.pop("old", None)
        return y

    return hj.cond(x.sum() > 0, lambda: side(x * 2), lambda: side(x - 1))


@pytest.mark.parametrize("inner", [leaves_in, leaves_in_cond])
def test_what_one_operation_of_a_path_leaves_is_there_on_each(inner: Callable[..., Tensor]) -> None:
    """A function within a path runs once; the path that goes on later finds what it left, in containers of its own."""
    paths = hj.branch_if_tracing(lambda x: reads_it(x, inner))
    check(paths, UP, DOWN, UP * 5, UP * 0, DOWN * 5)


def test_what_a_side_leaves_that_raises() -> None:
    """It is gone with the error; what follows finds what the other side left, although it was recorded first."""

    @hj.branch_if_tracing
    def leaves(x: Tensor, kept: Kept) -> Tensor:
        kept.count = 1
        if x.sum() > 0:
            return x * 2
        kept.count = 7
        raise ValueError("nothing below")

    check(lambda x: leaves(x, kept := Kept()) + kept.count, UP, UP * 5)


def test_what_is_given_to_one_operation_of_a_path_differs() -> None:
    """A function that leaves something in a container that another run has not: refused."""
    runs = itertools.count()

    @hj.branch_if_tracing
    def outer(x: Tensor) -> Tensor:
        y = leaves(x, [[] for _ in range(next(runs) + 1)])
        return y if x.mean() > 1 else y + 1

    @hj.branch_if_tracing
    def leaves(x: Tensor, items: list[Any]) -> Tensor:
        items[0].append(1)
        return x * 2 if x.sum() > 0 else x - 1

    with pytest.raises(CaptureError, match="given something else when its caller runs again"):
        traced(outer, UP)


class Remembers(nn.Module):
    """Keeps a tensor of one side, with its gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.last: Any = None

    @hj.branch_if_tracing
    def part(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            self.last = self.inner(x)
            return x * 2
        return x - 1

    def forward(self, x: Tensor) -> Tensor:
        """Goes on after the branch."""
        return self.part(x) * 3 + 1


def test_what_an_earlier_call_left_with_its_gradient() -> None:
    """Such a tensor, of which the trace knows nothing, neither ends the trace nor switches it off."""
    model = Remembers().eval()
    model(UP)
    assert model.last.requires_grad
    captured = torch.jit.trace(model, UP, check_trace=False)
    exported = hj.export(model, UP)
    for x in (UP, DOWN, 5 * UP):
        torch.testing.assert_close(captured(x), model(x))
        torch.testing.assert_close(exported(x), model(x))


class Scales(nn.Module):
    """Keeps a scale that is computed after an `if` of which the example contradicts one side."""

    scale: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        if x.sum() > 0:
            y = y + 1
        if x.shape[0] > 5:
            y = y.reshape(3)
        self.scale = y.abs().max()
        return y


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Scales()

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        assert self.inner.scale is not None
        return y / self.inner.scale


def test_what_the_only_side_leaves_that_does_not_raise() -> None:
    """What it left is a result of the branch: code after it, and sides of a branch around it, go on with that."""
    model = Scaled().eval()
    exported = hj.export(model, torch.ones(2, 3), branches=["inner"])
    for x in (torch.ones(2, 3), -torch.ones(2, 3), torch.randn(4, 5)):
        torch.testing.assert_close(exported(x), model(x))


COLLECTED: ContextVar[list[Tensor] | None] = ContextVar("collected", default=None)


def collect(module: nn.Module, args: object, output: Tensor) -> None:
    """Records a result where code that asks for it looks, as transformers' recorders do."""
    collected = COLLECTED.get()
    if collected is not None:
        collected.append(output)


class Recorded(nn.Module):
    """A layer with a branch around a part whose result a hook records."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(3, 3)
        self.gate.register_forward_hook(collect)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = x * 2
        x = self.gate(x)
        return x - 1 if x.max() > 1 else x


class Recording(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(Recorded(), Recorded())

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        before = COLLECTED.set([])
        try:
            return self.layers(x), tuple(COLLECTED.get() or ())
        finally:
            COLLECTED.reset(before)


def test_what_hooks_record() -> None:
    """A list that hooks fill, in a context variable, has one item for each call, however many paths there are."""
    model = Recording().eval()
    exported = hj.export(model, torch.rand(4, 3), branches=["layers.0", "layers.1"])
    for rows in (4, 2):
        for scale in (1, 9, -9):
            x = torch.rand(rows, 3) * scale
            torch.testing.assert_close(exported(x), model(x))
