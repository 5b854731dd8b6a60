"""Tensors that a model makes of Python values in a trace."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj

from .call import Call

X, LONGER = torch.tensor([3.0, 1.0]), torch.tensor([1.0, -2.0, 5.0])


def same_on(fn: Callable[..., object], *calls: Tensor, path: Path) -> None:
    """Exported from the first call, the function gives on each what it gives in Python, also in plain torch."""
    exported = hj.export(Call(fn).eval(), copy.deepcopy(calls[0]))
    exported.save(path / "model.pt")
    for run in (exported, torch.jit.load(path / "model.pt")):
        for each in (*calls, *calls):  # and again: nothing that a call wrote may be there in the next
            torch.testing.assert_close(run(each.clone()), fn(each.clone()))


def accumulated(x: Tensor) -> Tensor:
    total = torch.tensor([1.0, 2.0])
    total += x.sum()
    return total


def written_by_view(x: Tensor) -> Tensor:
    table = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    table[0].mul_(x.sum())
    return table


def filled(x: Tensor) -> Tensor:
    pair = torch.Tensor([1, 2])
    pair[0] = x.sum()
    return pair


@pytest.mark.parametrize("fn", [accumulated, written_by_view, filled])
def test_constants_may_be_written_to(fn: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    """A constant that the model changes in place is the same at the start of every call."""
    same_on(fn, X, LONGER, path=tmp_path)


def test_constants_may_ask_for_a_gradient(tmp_path: Path) -> None:
    """A sum that begins with a number that requires a gradient, as losses do, ends as it does in Python."""

    def loss(x: Tensor) -> Tensor:
        total = torch.tensor(0.0, requires_grad=True)
        for each in (x, x * 2):
            total = total + each.sum()
        return total

    same_on(loss, X, LONGER, path=tmp_path)


def test_constants_may_be_handed_out() -> None:
    """A constant that is the result is a new one in each call, which the caller may write to."""
    exported = hj.export(Call(lambda x: (x, torch.tensor([1.0, 2.0]))).eval(), X)
    exported(X)[1].add_(5)
    assert exported(X)[1].tolist() == [1.0, 2.0]


def test_constants_that_are_read_cost_nothing() -> None:
    """Where nobody writes there is no copy."""
    read = hj.export(Call(lambda x: torch.stack([x, torch.tensor([1.0, 2.0])]) * torch.tensor([0.5, 1.0])).eval(), X)
    assert "aten::clone" not in str(read.module.inlined_graph)
    written = hj.export(Call(accumulated).eval(), X)
    assert "aten::clone" in str(written.module.inlined_graph)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: torch.Tensor([x.shape[0], 2]) * x.sum(),
        lambda x: torch.Tensor([[x.sum(), 1.0], [2.0, x[0]]]),
        lambda x: torch.Tensor(x.shape[0], 2).zero_() + x[0],
        lambda x: torch.Tensor(x.shape).zero_() + x,
        lambda x: torch.where(torch.as_tensor(x.shape[0] == 2), x, x * 2),
        lambda x: torch.as_tensor(x.sum(), dtype=torch.float64),
        lambda x: x * x.__len__(),
        lambda x: x[[0, x.shape[0] - 1]],
        lambda x: x.expand(2, -1)[[0, 1], [0, x.shape[0] - 1]],
    ],
)
def test_traced_values(fn: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    """What is made of sizes and sums is made of those of each call, and nothing is found to be frozen."""
    same_on(fn, X, LONGER, path=tmp_path)
    assert not [found for found in hj.export(Call(fn).eval(), X).report.findings if found.code < "HJ200"]


def test_constructors_of_one_dtype_get_numbers() -> None:
    """A constructor that no trace can keep is given Python's numbers, which are guarded."""

    def fn(x: Tensor) -> Tensor:
        return x * torch.FloatTensor([x.shape[0], 2])  # type: ignore[attr-defined,unused-ignore]

    exported = hj.export(Call(fn).eval(), X)
    torch.testing.assert_close(exported(X + 1), fn(X + 1))
    line = fn.__code__.co_firstlineno + 1
    with pytest.raises(hj.GuardError, match=rf"test_made.py:{line}: int\(tensor\), captured 2"):
        exported(torch.ones(1))


def test_constructors_of_one_dtype_are_refused() -> None:
    """Given numbers that are computed from data, it is refused with its line, not with an assertion of torch's."""

    def fn(x: Tensor) -> Tensor:
        return x * torch.FloatTensor([x.sum(), 2])  # type: ignore[attr-defined,unused-ignore]

    with pytest.raises(hj.CaptureError) as caught:
        hj.export(Call(fn).eval(), X)
    rows = str(caught.value).splitlines()
    assert rows[1].endswith(f"test_made.py:{fn.__code__.co_firstlineno + 1}")
    assert rows[2].endswith("such as torch.FloatTensor or torch.LongTensor, was given traced values")
    assert rows[3] == "  write instead: torch.tensor([...], dtype=torch.float32), or torch.stack"


def test_the_constructor_is_torchs_again() -> None:
    """After an export `torch.Tensor` has no constructor of its own."""
    hj.export(nn.Identity().eval(), X)
    assert "__new__" not in vars(Tensor) and torch.Tensor([1, 2]).tolist() == [1.0, 2.0]
