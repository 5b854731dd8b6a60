"""Loops over a traced range, which a trace unrolls: turns that do the same become a loop in the file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from tests.control.checks import kinds
from tests.export.call import Call

jit: Any = torch.jit
SIZES = ((2, 9, 4), (3, 2, 4), (2, 40, 4), (2, 1, 4), (5, 5, 4))


def exported(fn: Callable[..., object], *shape: int, branches: str | None = "auto") -> tuple[hj.Exported, nn.Module]:
    """A function of one tensor, exported on an example alone."""
    torch.manual_seed(0)
    model = Call(fn).eval()
    return hj.export(model, torch.randn(shape), branches=branches), model


def same_at(found: hj.Exported, model: nn.Module, sizes: Sequence[Sequence[int]]) -> None:
    """Compares at other sizes."""
    for size in sizes:
        x = torch.randn(*size)
        torch.testing.assert_close(found(x), model(x))


def rolls(found: hj.Exported) -> bool:
    """Whether the file has a loop."""
    return kinds(found.module.inlined_graph)["prim::Loop"] > 0


def recurrence(x: Tensor) -> object:
    state, outs = x.new_zeros(x.shape[0], 4), []
    for i in range(x.shape[1]):
        state = torch.tanh(x[:, i] + state)
        outs.append(state)
    return torch.stack(outs, 1), state


def in_steps(x: Tensor) -> object:
    return torch.cat([x[:, at : at + 2].softmax(1) for at in range(0, x.shape[1], 2)], 1)


def backwards(x: Tensor) -> object:
    return torch.stack([x[:, i].cumsum(-1) for i in range(x.shape[1] - 1, -1, -1)], 1)


def from_the_end(x: Tensor) -> object:
    state = x.new_zeros(x.shape[0], 4)
    for i in reversed(range(x.shape[1])):
        state = torch.tanh(x[:, i] * (i + 1) + state)
    for i in reversed(range(x.shape[1] - 1, -1, -2)):
        state = state * 0.5 + x[:, i]
    return state + torch.stack([x[:, i] for i in reversed(range(0, x.shape[1], 3))]).sum(0)


def nested(x: Tensor) -> object:
    rows = []
    for i in range(x.shape[0]):
        rows.append(torch.stack([x[i, j] * (i + j) for j in range(x.shape[1])]))
    return torch.stack(rows)


def first_turn_apart(x: Tensor) -> object:
    out = x[:, 0] * 0
    for i in range(x.shape[1]):
        out = out + x[:, i] if i == 0 else out * 0.5 + x[:, i]
    return out


def in_place(x: Tensor) -> object:
    out = x.clone()
    for i in range(1, x.shape[1]):
        out[:, i] += out[:, i - 1] * i
    return out


def two_a_turn(x: Tensor) -> object:
    outs = [x[:, 0]]
    for i in range(x.shape[1]):
        outs.append(x[:, i] + 1)
        outs.append(x[:, i] - i)
    return torch.stack([*outs, x[:, 0] * 7])


def grows(x: Tensor) -> object:
    y = x[:, :1]
    for i in range(1, x.shape[1]):
        y = torch.cat([y, x[:, i : i + 1] * y.shape[1]], 1)
    return y


def by_fraction(x: Tensor) -> object:
    out, n = x[:, 0] * 0, x.shape[1]
    for i in range(n):
        out = out + x[:, i] * (i / n)
    return out


def for_the_next_turn(x: Tensor) -> object:
    """Both states of the last turn are used by nothing, and torch takes them out of the trace."""
    out, total, most = torch.zeros_like(x), torch.zeros_like(x[:, 0]), torch.zeros_like(x[:, 0])
    for i in range(x.shape[1]):
        highest = torch.maximum(most, x[:, i] + 1)
        out[:, i] = (total + x[:, i]) * torch.exp(most - highest)
        total = torch.exp(most - highest) * total + x[:, i]
        most = torch.maximum(most - 1, x[:, i])
    return out


def two_back(x: Tensor) -> object:
    a, b = x[:, 0], x[:, 0] * 2
    for i in range(x.shape[1]):
        a, b = b, a + b * x[:, i]
    return a + b


def what_turns_begin_with(x: Tensor) -> object:
    state, rows = x[:, 0], []
    for i in range(x.shape[1]):
        rows.append(state)
        state = torch.tanh(state + x[:, i])
    return torch.stack([*rows, state], 1)


def the_last_number(x: Tensor) -> object:
    for i in range(x.shape[1]):
        y = x[:, i] * 2
    return y + i


def but_in_the_last_turn(x: Tensor) -> object:
    """The last turn lacks what the others do, and what it gives depends on that."""
    out, step = [], x[:, 0] * 0
    for i in range(x.shape[1]):
        if i < x.shape[1] - 1:
            step = step + x[:, i]
        out.append(step * 2)
    return torch.stack(out, 1)


@pytest.mark.parametrize(
    "fn",
    [
        recurrence,
        in_steps,
        backwards,
        from_the_end,
        nested,
        first_turn_apart,
        in_place,
        two_a_turn,
        grows,
        by_fraction,
        for_the_next_turn,
        two_back,
        what_turns_begin_with,
        the_last_number,
    ],
    ids=lambda fn: fn.__name__,
)
def test_right_at_every_size(fn: Callable[..., object]) -> None:
    """Carried values, lists, steps, nesting, writes: the file has a loop, and as many turns as the input wants."""
    found, model = exported(fn, 2, 5, 4)
    assert rolls(found)
    same_at(found, model, SIZES)


def test_a_last_turn_that_does_less_is_no_turn_of_the_loop() -> None:
    """Where what the last turn leaves out matters, its `if` is a branch, or the turns stay apart and are guarded."""
    found, model = exported(but_in_the_last_turn, 2, 5, 4)
    assert rolls(found)
    same_at(found, model, SIZES)
    found, model = exported(but_in_the_last_turn, 2, 5, 4, branches=None)
    same_at(found, model, [(2, 5, 4), (3, 5, 4)])
    for size in ((2, 4, 4), (2, 9, 4)):
        with pytest.raises(hj.GuardError):
            found(torch.randn(*size))


def test_a_module_called_in_each_turn() -> None:
    """A submodule is called in the loop as in eager mode, with its one set of weights."""

    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.out = nn.GRUCell(4, 4), nn.Sequential(nn.Linear(4, 4), nn.ReLU())

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            state, outs = x.new_zeros(x.shape[0], 4), []
            for i in range(x.shape[1]):
                state = self.cell(x[:, i], state)
                outs.append(self.out(state))
            return torch.stack(outs, 1), state

    model = Cell().eval()
    found = hj.export(model, torch.randn(2, 5, 4))
    assert rolls(found)
    with torch.no_grad():
        same_at(found, model, SIZES)


ROWS: dict[str, Callable[[Tensor, Tensor], object]] = {
    "for": lambda x, n: torch.stack([each.cumsum(0) * 2 for each in x]),
    "enumerate": lambda x, n: torch.stack([x[i, :count].mean(0) for i, count in enumerate(n)]),
    "enumerate from 1": lambda x, n: torch.stack([row * i for i, row in enumerate(x, 1)]),
    "enumerate of zip": lambda x, n: torch.stack(
        [row[: int(count)].sum(0) * i for i, (row, count) in enumerate(zip(x, n, strict=False), 2)]
    ),
    "zip": lambda x, n: torch.stack([row[: int(count)].sum(0) for row, count in zip(x, n, strict=False)]),
    "a list of lengths": lambda x, n: nn.utils.rnn.pad_sequence([x[0, :count] for count in n], batch_first=True),
}


@pytest.mark.parametrize("kind", ROWS)
def test_rows(kind: str) -> None:
    """Going through a tensor, or its list, is a loop in the file: as many rows as there are."""
    model = Call(ROWS[kind]).eval()
    found = hj.export(model, (torch.randn(2, 6, 3), torch.tensor([3, 5])), branches="auto")
    assert rolls(found)
    for lengths in ([3, 5, 2], [4], [1, 6], [2, 2, 2, 6, 1]):
        x, n = torch.randn(len(lengths), 6, 3), torch.tensor(lengths)
        torch.testing.assert_close(found(x, n), model(x, n))


@pytest.mark.parametrize("kind", ROWS)
def test_rows_of_check_inputs(kind: str) -> None:
    """Given inputs of other numbers of rows, one among them, the file is right on each."""
    model = Call(ROWS[kind]).eval()
    calls = [(torch.randn(len(n), 6, 3), torch.tensor(n)) for n in ([3, 5], [4], [1, 2, 3])]
    found = hj.export(model, calls[0], branches="auto", check_inputs=calls[1:])
    for call in calls:
        torch.testing.assert_close(found(*call), model(*call))


def test_check_inputs_on_paths_of_their_own() -> None:
    """Where a loop over a list can't be joined with the path of a check input, a way of capturing that can is taken."""

    def fn(x: Tensor, n: Tensor) -> Tensor:
        parts = [x[0, :count] * len(n) for count in n.tolist()]
        return torch.cat(parts) if len(parts) > 1 else parts[0].exp()

    model = Call(fn).eval()
    calls = [(torch.randn(len(n), 6, 3), torch.tensor(n)) for n in ([4], [3, 5], [1, 2, 3])]
    found = hj.export(model, calls[0], branches="auto", check_inputs=calls[1:])
    for call in calls:
        torch.testing.assert_close(found(*call), model(*call))


def test_rows_that_stay_apart() -> None:
    """Where a loop can't stay one, another number of rows is loud, with its line."""
    model = Call(lambda x: tuple(each * 2 for each in x)).eval()
    found = hj.export(model, torch.randn(2, 3))
    torch.testing.assert_close(found(torch.ones(2, 3)), model(torch.ones(2, 3)))
    with pytest.raises(hj.GuardError, match=r"test_rolled\.py:\d+: for x in tensor, captured 2, got 3"):
        found(torch.ones(3, 3))


@pytest.mark.parametrize("fn", [lambda x: x.unbind(), lambda x: {"rows": x.unbind(1), "first": x[0].tolist()}])
def test_parts_as_results(fn: Callable[[Tensor], object]) -> None:
    """What a model gives of the rows of a tensor has the class that it has in eager mode."""
    model = Call(fn).eval()
    x = torch.arange(2.0)[:, None]
    assert repr(hj.export(model, x)(x)) == repr(model(x))


def test_parts_of_a_known_number_are_no_loop() -> None:
    """What is unpacked into as many names is as the trace has it, and leaves no guard."""
    model = Call(_two).eval()
    found = hj.export(model, torch.randn(2, 5, 4))
    assert not found.report.findings
    same_at(found, model, [(2, 9, 4), (2, 1, 3)])


def _two(x: Tensor) -> tuple[Tensor, Tensor]:
    q, k = x.unbind(0)
    return q * k, q


def test_split_by_a_size() -> None:
    """The size of the parts stays computed; another number of parts is loud."""
    fn = lambda x: [part * i for i, part in enumerate(torch.cat([x, x + 1]).split(x.shape[0]))]  # noqa: E731
    model = Call(fn).eval()
    found = hj.export(model, torch.randn(2, 3))
    same_at(found, model, [(5, 3), (1, 4), (2, 3)])
    other = hj.export(Call(lambda x: [part.sum() for part in x.split(x.shape[1])]).eval(), torch.randn(6, 3))
    with pytest.raises(hj.GuardError, match=r"test_rolled\.py:\d+"):
        other(torch.randn(6, 2))


def test_a_told_input_of_one_turn_on_a_path_of_its_own() -> None:
    """One of few turns that takes a path no other takes is told apart by what parts it."""

    def once(x: Tensor) -> Tensor:
        out = x[:, 0] * 0
        for i in range(x.shape[1]):
            out = out * 0.5 + x[:, i]
        return out.exp() if x.shape[1] == 1 else x[:, 1] + out

    model = Call(once).eval()
    found = hj.export(model, torch.randn(2, 5, 4), check_inputs=[torch.randn(2, 1, 4)])
    same_at(found, model, [(2, 5, 4), (2, 1, 4), (3, 5, 4), (2, 9, 4), (2, 2, 4)])


def test_the_example_has_one_turn() -> None:
    """Of one turn no loop can be told: another size of the example is traced instead."""
    found, model = exported(lambda x: torch.stack([each(x, b) for b in range(x.shape[0])]), 1, 5, 4)
    assert rolls(found)
    same_at(found, model, [(2, 5, 4), (3, 4, 4), (1, 9, 4)])


def each(x: Tensor, b: Any) -> Tensor:
    """What a loop over a batch does."""
    return x[b].mm(x[b].t()).sum(0)


def test_the_report_has_the_loop() -> None:
    """It is a branch point like those that a user writes."""
    found, _ = exported(recurrence, 2, 5, 4)
    (point,) = [each for each in found.report.branches if each.kind == "loop"]
    assert point.file == __file__
    assert [(side.name, side.checks) for side in point.sides] == [("0 rounds", 0), ("1 round", 0), ("more rounds", 1)]


def test_a_later_turn_that_differs() -> None:
    """What depends on the turn's number is a branch, or guarded in the loop: the file stops at another turn."""

    def late(x: Tensor) -> Tensor:
        out = x[:, 0] * 0
        for i in range(x.shape[1]):
            if i == 30:
                out = out * 2
            out = out + x[:, i]
        return out

    found, model = exported(late, 2, 5, 4)
    same_at(found, model, [*SIZES, (2, 31, 4)])
    found, model = exported(late, 2, 5, 4, branches=None)
    assert rolls(found)
    same_at(found, model, [(2, 9, 4), (2, 30, 4), (2, 1, 4)])
    with pytest.raises(hj.GuardError, match=r"bool\(tensor\), captured False, got True"):
        found(torch.randn(2, 31, 4))


def table(x: Tensor) -> object:
    out = x[:, 0] * 0
    for i in range(x.shape[1]):
        out = out + x[:, i] * [1, 2, 3, 10, 20, 30, 40, 50, 60, 70, 80, 90][i]
    return out


def counter(x: Tensor) -> object:
    out, k = x[:, 0] * 0, 1
    for i in range(x.shape[1]):
        out, k = out + x[:, i] * k, k * 2
    return out


def three_back(x: Tensor) -> object:
    a, b, c = x[:, 0], x[:, 0] * 2, x[:, 0] * 3
    for i in range(x.shape[1]):
        a, b, c = b, c, a + b * x[:, i]
    return a + b


@pytest.mark.parametrize("fn", [table, counter, three_back], ids=lambda fn: fn.__name__)
def test_turns_that_are_not_one(fn: Callable[..., object]) -> None:
    """A list asked by the turn's number, a Python number that changes, one from three turns ago: guarded as ever."""
    found, model = exported(fn, 2, 5, 4)
    same_at(found, model, [(2, 5, 4)])
    for size in ((2, 9, 4), (2, 4, 4)):
        with pytest.raises(hj.GuardError, match=r"range\(tensor\), captured 5"):
            found(torch.randn(size))


def test_break_on_data() -> None:
    """A loop that data end: right for those that end it as the example does, and loud for others, never wrong."""

    def until(x: Tensor) -> Tensor:
        y = x[:, 0] * 0
        for i in range(x.shape[1]):
            if y.sum() > 3:
                break
            y = y + x[:, i].abs()
        return y

    found, model = exported(until, 2, 5, 4)
    for x in (torch.randn(2, 5, 4), torch.randn(2, 9, 4), torch.randn(2, 9, 4) * 0.05, torch.randn(2, 5, 4) * 0.05):
        try:
            result = found(x)
        except hj.GuardError:
            continue
        torch.testing.assert_close(result, model(x))


def test_fewer_turns_than_needed() -> None:
    """Where the first turn is apart from the loop, an input without it stops the file with the line."""
    found, model = exported(first_turn_apart_of_zeros, 2, 5, 4)
    same_at(found, model, [*SIZES, (2, 0, 4)])
    found, _ = exported(first_turn_apart_of_zeros, 2, 5, 4, branches=None)
    with pytest.raises(hj.GuardError, match=r"loop at .*test_rolled\.py:\d+: captured at least 1 rounds, got 0"):
        found(torch.randn(2, 0, 4))


def first_turn_apart_of_zeros(x: Tensor) -> object:
    out = x.new_zeros(x.shape[0], 4)
    for i in range(x.shape[1]):
        out = out + x[:, i] if i == 0 else out * 0.5 + x[:, i]
    return out


def beside_a_loop_of_one(x: Tensor) -> object:
    summed = torch.stack([row * 2 for row in x.sum(0, keepdim=True)])
    return torch.stack([row.cumsum(0) for row in x]) + summed


def beside_a_loop_of_few(x: Tensor) -> object:
    total = x.new_zeros(())
    for at in range((x.shape[0] + 5) // 6):  # one of the example's, and two of inputs made of it
        total = total + x[at].sum()
    return torch.stack([row.cumsum(0) for row in x]) + total


def only_in_eager_mode(x: Tensor) -> object:
    if jit.is_tracing():
        return x * (x.shape[0] // 3)
    return torch.stack([row.cumsum(0) for row in x])


@pytest.mark.parametrize(
    "fn", [beside_a_loop_of_one, beside_a_loop_of_few, only_in_eager_mode], ids=lambda fn: fn.__name__
)
def test_a_loop_beside_what_is_none(fn: Callable[..., object]) -> None:
    """Neither a loop that always has one turn keeps another one unrolled, nor code that is another one in a trace."""
    found, model = exported(fn, 4, 3)
    assert rolls(found)
    same_at(found, model, ((4, 3), (2, 3), (6, 5)))


COUNTS: dict[str, Callable[[Tensor], int]] = {
    "len": lambda x: len(x),
    "int": lambda x: int(x.shape[0]),
    "divided": lambda x: int(x.shape[0] / 4),
    "times": lambda x: int(x.shape[0] * 0.5),
    "floor": lambda x: math.floor(x.shape[0] / 4),
    "ceil": lambda x: math.ceil(x.shape[0] / 4),
    "log2": lambda x: int(math.log2(x.shape[0])),
    "least": lambda x: min(x.shape[0], 30),
    "data": lambda x: int((x > 0).sum()),
}


@pytest.mark.parametrize("name", COUNTS)
def test_numbers_of_turns(name: str) -> None:
    """A loop over a number that Python has of a size is one, too, be it another line that makes the number."""

    def fn(x: Tensor) -> Tensor:
        turns = COUNTS[name](x)
        for i in range(turns):
            x = x + (i + 1) * x.cos()
        return x

    found, model = exported(fn, 14, 2)
    assert rolls(found)
    same_at(found, model, [(14, 2), (23, 2), (9, 2), (4, 3)])


def carried(x: Tensor) -> object:
    state, outs = x.sum() * 0, []
    for part in x.unbind(1):
        state = torch.tanh(part + state)
        outs.append(state)
    return torch.stack(outs)


@pytest.mark.parametrize(
    "fn",
    [
        carried,
        lambda x: torch.stack([row * 2 for row in x.unbind(1)]),
        lambda x: torch.stack([row.cumsum(0) for row in torch.unbind(x, dim=-1)]),
        lambda x: torch.stack([row.cumsum(0) for row in x.unbind()]),
        lambda x: torch.stack([row * i for i, row in enumerate(x.unbind(1))]),
        lambda x: torch.stack([a * b for a, b in zip(x.unbind(1), (x + 1).unbind(1))]),  # noqa: B905
    ],
    ids=range(6),
)
def test_parts_of_any_dimension(fn: Callable[..., object]) -> None:
    """A loop over what ``unbind`` gives is one, whatever dimension it takes apart."""
    found, model = exported(fn, 2, 4, 3)
    assert rolls(found)
    same_at(found, model, [(2, 7, 3), (3, 5, 3), (1, 1, 3), (2, 4, 6)])


def test_parts_that_are_unpacked_in_turns() -> None:
    """What a turn takes apart has the number of parts that the code names."""

    def fn(x: Tensor) -> Tensor:
        for row in x.unbind(1):
            q, k, v = row.unbind(-1)
            x = x + (q * k * v).sum()
        return x

    found, model = exported(fn, 2, 4, 3)
    same_at(found, model, [(2, 7, 3), (3, 1, 3)])
    with pytest.raises(hj.GuardError, match=r"test_rolled\.py:\d+: the number of parts, captured 3, got 4"):
        found(torch.ones(2, 4, 4))


class Pools(nn.Module):
    """As pooling of statistics does, with a list that a flag fills."""

    def __init__(self, deviations: bool) -> None:
        super().__init__()
        self.deviations = deviations

    def forward(self, x: Tensor) -> Tensor:
        means: Any = []
        deviations: Any = []
        for i in range(x.shape[0]):
            means.append(x[i].mean(0))
            if self.deviations:
                deviations.append(x[i].std(0))
        means = torch.stack(means)
        if self.deviations:
            deviations = torch.stack(deviations)
        return torch.cat((means, deviations), 1) if self.deviations else means + 0


@pytest.mark.parametrize("deviations", [True, False])
def test_lists_that_a_flag_fills(deviations: bool) -> None:
    """What stands beside a tensor where torch joins them is no list any more, whatever made it one."""
    model = Pools(deviations).eval()
    found = hj.export(model, torch.randn(3, 5, 4), branches="auto")
    assert rolls(found)
    same_at(found, model, [(3, 5, 4), (5, 5, 4), (2, 7, 4), (1, 5, 4)])
