"""Guards in a graph: what they let pass, and what they say."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from hybridjit.control.guards import guard_sizes, insert_guard
from tests.control.checks import kinds, reloaded

NAN, INF = float("nan"), float("inf")


def guarded(make: Callable[[Tensor], Tensor], captured: Sequence[Any], example: Tensor) -> Any:
    """A file that gives its input back where a value of it is one of those captured."""

    def fn(x: Tensor) -> Tensor:
        insert_guard(make(x), captured, "value frozen at m.py:3: it {odd}, captured C", "write {that}")
        return x + 0

    return reloaded(torch.jit.trace(fn, (example,), check_trace=False))


CASES: dict[str, tuple[Callable[[Tensor], Tensor], list[Any], list[Tensor], Tensor, str]] = {
    "bool": (lambda x: x.sum() > 0, [True], [torch.ones(2), torch.full((5,), 3.0)], -torch.ones(2), "False"),
    "false": (lambda x: x.sum() > 0, [False], [-torch.ones(2)], torch.ones(2), "True"),
    "either": (lambda x: x.sum() > 0, [True, False], [torch.ones(2), -torch.ones(2)], torch.ones(0), ""),
    "int": (lambda x: x.sum().long(), [2], [torch.ones(2)], torch.ones(3), "3"),
    "ints": (lambda x: x.sum().long(), [2, -3, 2**40], [torch.ones(2), -torch.ones(3)], torch.ones(5), "5"),
    "float": (lambda x: x.sum(), [2.5], [torch.tensor([2.0, 0.5])], torch.tensor([2.5000002]), "2.5"),
    "nan": (lambda x: x.sum(), [NAN], [torch.tensor([NAN])], torch.ones(1), "1."),
    "inf": (lambda x: x.sum(), [INF, NAN], [torch.tensor([INF]), torch.tensor([NAN])], torch.tensor([-INF]), "-inf"),
}


@pytest.mark.parametrize("kind", CASES)
def test_values(kind: str) -> None:
    """A value of those captured passes, another one raises with it in the message; braces in the text stay."""
    make, captured, passing, other, got = CASES[kind]
    file = guarded(make, captured, passing[0])
    for x in passing:
        torch.testing.assert_close(file(x), x, equal_nan=True)
    if not got:
        return
    with pytest.raises(torch.jit.Error) as caught:  # type: ignore[attr-defined]
        file(other)
    text = "hybridjit: value frozen at m.py:3: it {odd}, captured C, got "
    assert re.search(re.escape(text + got) + r"\S*; write \{that\}", str(caught.value))


def test_tensors() -> None:
    """Of whole tensors all values must be the same, of any shape and in any number of variants."""
    one, two = torch.tensor([[1.0, 2.0]]), torch.zeros(0)
    file = guarded(lambda x: x * 1, [one, two], one)
    assert torch.equal(file(one), one) and torch.equal(file(two), two)
    for other in (one + 1, one[0], torch.zeros(1)):
        with pytest.raises(torch.jit.Error, match=r"captured C, got others; write \{that\}"):  # type: ignore[attr-defined]
            file(other)


def test_the_captured_tensor_is_a_copy() -> None:
    """What is written later to what was captured does not change the guard."""
    held = torch.ones(2)
    file = guarded(lambda x: x * 1, [held], torch.ones(2))
    held.zero_()
    assert torch.equal(file(torch.ones(2)), torch.ones(2))


def test_a_guard_is_one_branch() -> None:
    """It is a comparison, an ``if`` and a raise; nothing of it runs where it holds but the comparison."""
    file = guarded(lambda x: x.sum().long(), [2], torch.ones(2))
    found = kinds(file.graph)
    assert (found["prim::If"], found["prim::RaiseException"], found["aten::eq"]) == (1, 1, 1)


def test_sizes() -> None:
    """The sizes of an input are compared as a whole; the message says what it was and which input."""

    def fn(x: Tensor) -> Tensor:
        guard_sizes("image", x)
        return x * 2

    file = reloaded(torch.jit.trace(fn, (torch.ones(2, 3),), check_trace=False))
    assert torch.equal(file(torch.ones(2, 3)), torch.full((2, 3), 2.0))
    for other, sizes in ((torch.ones(3, 3), "[3, 3]"), (torch.ones(6), "[6]")):
        text = f"hybridjit: image: captured float32[2, 3] cpu, got sizes {sizes}; export the model with such an input"
        with pytest.raises(torch.jit.Error, match=re.escape(text)):  # type: ignore[attr-defined]
            file(other)
