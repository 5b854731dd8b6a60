"""Code that goes by how many turns a loop took keeps the loop as the example had it, and the file says so."""

from __future__ import annotations

import array
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit.export.counts import Asked, asked_at
from tests.export.call import Call


class Counter:
    """An object of the user's."""

    def __init__(self) -> None:
        self.count = 0
        self.total: Tensor | float = 0.0

    def take(self, row: Tensor) -> None:
        self.count += 1
        self.total = self.total + row


def is_long(rows: object) -> bool:
    return len(rows) > 40  # type: ignore[arg-type]


def of_a_comprehension(x: Tensor) -> Tensor:
    rows = [row * 2 for row in x]
    return torch.stack(rows) + (1 if len(rows) > 40 else 0)


def of_a_range(x: Tensor) -> Tensor:
    rows = [x[i] * 2 for i in range(x.shape[0])]
    return torch.stack(rows) + (1 if len(rows) > 40 else 0)


def of_a_generator(x: Tensor) -> Tensor:
    rows = tuple(row * 2 for row in x)
    count = len(rows)
    return torch.stack(rows) + (1 if count > 40 else 0)


def of_another_name(x: Tensor) -> Tensor:
    rows = [row for row in x]
    others = [*rows, x[0]]
    return torch.stack(rows) + (1 if len(others) > 40 else 0)


def made_anew(x: Tensor) -> Tensor:
    rows: list[Tensor] = []
    for row in x:
        rows = [*rows, row * 2]
    return torch.stack(rows) + (1 if len(rows) > 40 else 0)


def of_a_slice(x: Tensor) -> Tensor:
    rows = [row * 2 for row in x]
    return torch.stack(rows) + (1 if rows[40:] else 0)


def in_another_function(x: Tensor) -> Tensor:
    rows = [row * 2 for row in x]
    return torch.stack(rows) + (1 if is_long(rows) else 0)


def of_a_sum(x: Tensor) -> Tensor:
    return x + (1 if sum(row.dim() for row in x) > 40 else 0)


def of_a_further_loop(x: Tensor) -> Tensor:
    rows = [row * 2 for row in x]
    out = torch.stack(rows)
    for index, _ in enumerate(rows):
        out = out + (1 if index > 40 else 0)
    return out


def of_a_number(x: Tensor) -> Tensor:
    out, rate = x[0] * 0, 1.0
    for row in x:
        out, rate = out + row, rate * 0.9
    return out + (1 if rate < 0.015 else 0)


def of_a_truth(x: Tensor) -> Tensor:
    out, odd = x[0] * 0, False
    for row in x:
        out, odd = out + row, not odd
    return out if odd else -out


def of_an_item(x: Tensor) -> Tensor:
    out, count = x[0] * 0, [0]
    for row in x:
        out = out + row
        count[0] += 1
    return out + (1 if count[0] > 40 else 0)


def of_an_object(x: Tensor) -> Tensor:
    counter = Counter()
    for row in x:
        counter.take(row)
    return counter.total + x * (2 if counter.count > 40 else 1)


def of_an_iterator(x: Tensor) -> Tensor:
    out, numbers = x[0] * 0, iter(range(99))
    for row in x:
        out = out + row
        next(numbers)
    return out + (1 if next(numbers) > 40 else 0)


def of_a_generator_that_goes_on(x: Tensor) -> Tensor:
    def numbers() -> Iterator[int]:
        at = 0
        while True:
            at += 1
            yield at

    out, counting = x[0] * 0, numbers()
    for row in x:
        out = out + row
        next(counting)
    return out + (1 if next(counting) > 40 else 0)


def of_itertools(x: Tensor) -> Tensor:
    out, numbers = x[0] * 0, itertools.count()
    for row in x:
        out = out + row
        next(numbers)
    return out + (1 if next(numbers) > 40 else 0)


def of_bytes(x: Tensor) -> Tensor:
    out, counts = x[0] * 0, array.array("i", [0])
    for row in x:
        out = out + row
        counts[0] += 1
    return out + (1 if counts[0] > 40 else 0)


def of_a_deque(x: Tensor) -> Tensor:
    last: deque[int] = deque([0], maxlen=1)
    out = x[0] * 0
    for row in x:
        out = out + row
        last.append(last[0] + 1)
    return out + (1 if last[0] > 40 else 0)


def by_a_far_place(x: Tensor) -> Tensor:
    rows = [row * 2 for row in x]
    return torch.stack(rows[:40])


def by_a_memory(x: Tensor) -> Tensor:
    rows: list[Tensor] = []
    for row in x:
        rows.append(row * 2)
        rows = rows[-40:]
    return torch.stack(rows)


def in_a_generator(x: Tensor) -> Tensor:
    def rows() -> Iterator[Tensor]:
        for row in x:
            yield row * 2

    return torch.stack([row for at, row in enumerate(rows()) if at < 40])


def cut_short(x: Tensor) -> Tensor:
    return torch.stack([row * 2 for row in itertools.islice(x, 40)])


def in_a_function_of_another(x: Tensor) -> Tensor:
    rows = []

    def fill() -> None:
        for row in x:
            rows.append(row)

    fill()
    return torch.stack(rows) + (1 if len(rows) > 40 else 0)


def by_a_function_that_counts(x: Tensor) -> Tensor:
    out, count = x[0] * 0, 0

    def one(row: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return row

    def every(step: Callable[[Tensor], Tensor]) -> Tensor:
        total = out
        for row in x:
            total = total + step(row)
        return total

    return every(one) + (1 if count > 40 else 0)


class OfAModule(nn.Module):
    """A count that is an attribute."""

    def forward(self, x: Tensor) -> Tensor:
        self.count = 0
        out = x[0] * 0
        for row in x:
            out = out + row
            self.count += 1
        return out + (1 if self.count > 40 else 0)


def asked_before(x: Tensor) -> Tensor:
    rows: Any = []
    for row in x:
        rows.append(row.cumsum(0))
    many = len(rows) > 40
    rows = torch.stack(rows)
    made: Tensor = rows * 2 if many else rows
    return made


ASKING: list[Callable[..., object]] = [
    of_a_comprehension,
    of_a_range,
    of_a_generator,
    of_another_name,
    made_anew,
    of_a_slice,
    in_another_function,
    of_a_sum,
    of_a_further_loop,
    of_a_number,
    of_a_truth,
    of_an_item,
    of_an_object,
    of_an_iterator,
    of_a_generator_that_goes_on,
    of_itertools,
    of_bytes,
    of_a_deque,
    by_a_far_place,
    by_a_memory,
    in_a_generator,
    cut_short,
    in_a_function_of_another,
    by_a_function_that_counts,
    asked_before,
    OfAModule(),
]


@pytest.mark.parametrize("fn", ASKING, ids=lambda fn: getattr(fn, "__name__", "of_a_module"))
def test_how_many(fn: Callable[..., object]) -> None:
    """No probe has so many rows: the file raises where it has others than the example."""
    model = fn if isinstance(fn, nn.Module) else Call(fn)
    x, more = torch.rand(5, 3), torch.rand(45, 3)
    exported = hj.export(model.eval(), x, branches="auto")
    torch.testing.assert_close(exported(x), model(x))
    with pytest.raises(hj.GuardError, match=r"test_counts\.py:.*captured 5.*, got 45"):
        exported(more)


def whether_any(x: Tensor) -> Tensor:
    rows = [row.cumsum(0) for row in x]
    return torch.stack(rows) if len(rows) > 0 else x * 2


def whether_none(x: Tensor) -> Tensor:
    rows = []
    for row in x:
        rows.append(row.cumsum(0))
    if not rows:
        return x * 2
    return torch.stack(rows)


def made_a_tensor(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """What one side fills and stacks is a tensor afterwards, as is what the other one has in its place."""
    rows: Any
    sums: Any
    if mask is not None:
        rows, sums = x.cumsum(1), x.sum(1)
    else:
        rows = []
        sums = []
        for row in x:
            rows.append(row.cumsum(0))
            sums.append(row.sum(0))
        rows = torch.stack(rows)
        sums = torch.stack(sums)
    return torch.cat([rows, sums[:, None]], 1)


def test_a_list_that_becomes_a_tensor() -> None:
    """What a function does later with a variable is not asked of the list that it had before."""
    model = Call(made_a_tensor).eval()
    exported = hj.export(model, torch.rand(5, 3), branches="auto")
    for count in (5, 1, 45):
        x = torch.rand(count, 3)
        torch.testing.assert_close(exported(x), model(x))


@pytest.mark.parametrize("fn", [whether_any, whether_none])
def test_whether_any(fn: Callable[[Tensor], Tensor]) -> None:
    """What is one thing for all numbers but none takes no generality, and the file wants a row."""
    model = Call(fn).eval()
    exported = hj.export(model, torch.rand(5, 3), branches="auto")
    for count in (5, 1, 45):
        x = torch.rand(count, 3)
        torch.testing.assert_close(exported(x), model(x))
    with pytest.raises(hj.GuardError, match="captured at least 1 rounds, got 0"):
        exported(torch.rand(0, 3))


def only_torch(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    state, outs = x[0] * 0, []
    for t in range(x.shape[0]):
        state = torch.tanh(x[t] + state)
        outs.append((state, state * 2))
    return torch.stack([one for one, _ in outs]), torch.cat([each[1] for each in outs]), outs[-1][0]


def test_only_torch() -> None:
    """Lists of a loop that torch makes tensors of, that are gone through, and of which the last item is used."""
    model = Call(only_torch).eval()
    exported = hj.export(model, torch.rand(5, 3), branches="auto")
    for count in (5, 2, 45):
        x = torch.rand(count, 3)
        torch.testing.assert_close(exported(x), model(x))


def test_what_is_no_loop() -> None:
    """Of a line that holds no loop nothing is known."""
    first = is_long.__code__.co_firstlineno
    assert asked_at((__file__, first)) is Asked.HOW_MANY
    assert asked_at((__file__, whether_any.__code__.co_firstlineno + 1)) is Asked.WHETHER_ANY
    assert asked_at((__file__, only_torch.__code__.co_firstlineno + 2)) is Asked.NOTHING
