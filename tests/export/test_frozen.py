"""Guards of a trace, each once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit._describe import place
from tests.control.checks import kinds


def raises(graph: torch.Graph) -> int:  # type: ignore[name-defined]
    return kinds(graph)["prim::RaiseException"]


def test_one_value_costs_one_guard() -> None:
    """Values that a guard has checked already are not checked again."""

    class Reads(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            total = x.sum()
            return x + int(bool(total)) + int(bool(total)) + int(bool(total))

    exported = hj.export(Reads().eval(), torch.ones(3))
    assert raises(exported.module.inlined_graph) == 1
    assert [finding.count for finding in exported.report.findings] == [3]


def test_values_that_differ_have_their_own() -> None:
    """Two values are two guards, each with its line."""

    class Two(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x * float(x.max().numpy())
            return x + float(x.min().numpy())

    exported = hj.export(Two().eval(), torch.tensor([1.0, 2.0]))
    assert raises(exported.module.inlined_graph) == 2
    with pytest.raises(hj.GuardError, match=r"tensor.numpy\(\), captured 2.0, got 4.; "):
        exported(torch.tensor([1.0, 4.0]))
    with pytest.raises(hj.GuardError, match=r"tensor.numpy\(\), captured 2.0, got 1.; "):
        exported(torch.tensor([0.5, 2.0]))


def test_a_guard_in_a_branch_does_not_count_outside() -> None:
    """What is checked on one side of a branch only is checked again behind it."""

    class Sided(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            top = x.max()
            y = hj.cond(x.sum() > 0, lambda: x * float(top.numpy()), lambda: x - 1)
            return y + float(top.numpy())

    model = Sided().eval()
    first, same, other = torch.tensor([2.0, 1.0]), torch.tensor([2.0, -9.0]), torch.tensor([1.0, -9.0])
    exported = hj.export(model, first)
    assert raises(exported.module.inlined_graph) == 2
    assert torch.equal(exported(same), model(same))
    with pytest.raises(hj.GuardError, match=r"captured 2.0, got 1.; "):
        exported(other)


def test_several_values_are_allowed() -> None:
    """A value that had two values in captures that give the same may have either; the message lists both."""

    class Steps(nn.Module):
        def forward(self, x: Tensor, n: Tensor) -> Tensor:
            return x * (1 + int(n.numpy()) // 2)

    model, x = Steps().eval(), torch.ones(2)
    exported = hj.export(model, (x, torch.tensor(4)), check_inputs=[(x, torch.tensor(n)) for n in (5, 6, 7)])
    for n in (4, 5, 6, 7):
        assert torch.equal(exported(x, torch.tensor(n)), model(x, torch.tensor(n)))
    with pytest.raises(hj.GuardError, match=r"captured .*4 or 5.*, got 9; "):
        exported(x, torch.tensor(9))


class Text(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * float(x.numpy().sum())


def test_guards_on_whole_tensors(tmp_path: Path) -> None:
    """Where many values left, the message counts them, and asks for all of them to be the same."""
    exported = hj.export(Text().eval(), torch.tensor([1.0, 2.0]))
    exported.save(tmp_path / "model.pt")
    assert torch.equal(exported(torch.tensor([1.0, 2.0])), torch.tensor([3.0, 6.0]))
    line = Text.forward.__code__.co_firstlineno + 1
    text = f"value frozen at {place(__file__, line)}: tensor.numpy(), captured 2 values, got others; write "
    with pytest.raises(hj.GuardError) as caught:
        exported(torch.tensor([2.0, 1.0]))
    assert str(caught.value).startswith(text)
    with pytest.raises(torch.jit.Error) as plain:  # type: ignore[attr-defined]
        torch.jit.load(tmp_path / "model.pt")(torch.tensor([2.0, 1.0]))
    assert f"hybridjit: {text}" in str(plain.value)


class Written(nn.Module):
    """Writes in a loop into what was made before the ``if``: its path begins anew, with memory of its own."""

    def forward(self, x: Tensor) -> Tensor:
        a = x.clone()
        count = x.shape[0]
        if count <= 4:
            for i in range(count):
                a[i] += i
        return a


def test_a_guard_of_a_path_that_began_anew() -> None:
    """What the path recorded before it began anew is no guard any more."""
    exported = hj.export(Written().eval(), torch.rand(3), branches="auto")
    for count in (3, 6):
        x = torch.rand(count)
        assert torch.equal(exported(x), Written()(x))
    for count in (1, 2, 4):
        with pytest.raises(hj.GuardError, match=r"range\(tensor\), captured 3"):
            exported(torch.rand(count))


class Picks(nn.Module):
    """One function called twice, whose sides begin with a guard."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.pick(x) + self.pick(y)

    def pick(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return torch.full((2,), float(len(x.tolist())))
        return torch.zeros(2)


def test_guards_of_blocks_that_look_alike() -> None:
    """A guard in a side of the first call says nothing in that of the second."""
    exported = hj.export(Picks().eval(), (torch.ones(3), torch.ones(4)), branches="auto")
    for sizes in ((3, 4), (4, 3), (3, 5), (3, 3)):
        given = [torch.ones(size) for size in sizes]
        try:
            assert torch.equal(exported(*given), Picks()(*given))
        except hj.GuardError:
            assert sizes != (3, 4)


class WritesAfter(nn.Module):
    """Writes, on both sides of an ``if`` on a size, into what was made before it."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        doubled = x * 2
        rows = doubled.view(-1)
        count = x.shape[0]
        bias: Tensor = self.bias
        if count > 4:
            bias = nn.functional.pad(bias, [0, count - 4])
        rows += bias[:count].view(count)
        return doubled + rows


def test_a_side_of_another_example_writes_into_what_came_before() -> None:
    """The side that the example contradicts is recorded by another one, with memory of its own."""
    exported = hj.export(WritesAfter().eval(), torch.rand(9), branches="auto")
    for count in (9, 20, 3, 4, 5, 1):
        x = torch.rand(count)
        assert torch.equal(exported(x), WritesAfter()(x))
