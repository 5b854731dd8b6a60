"""Why a check differs, in words: the operation, and what is not the export's doing."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit._sites import Site
from hybridjit.export.compare import changed_places, is_chaotic
from hybridjit.export.explain import _of_operation
from hybridjit.export.observe import Event, Parting, Values, Watched, first_parting, same

is_tracing: Callable[[], bool] = torch.jit.is_tracing  # type: ignore[attr-defined]
X = torch.linspace(-1, 1, 12).reshape(3, 4)


class Lambda(nn.Module):
    def __init__(self, fn: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Any:
        return self.fn(x)


def refused(fn: Callable[[Tensor], Any] | nn.Module, first: Tensor = X, *others: Tensor) -> str:
    model = fn if isinstance(fn, nn.Module) else Lambda(fn)
    with pytest.raises(hj.VerificationError) as error:
        hj.export(model.eval(), first, check_inputs=others, on_frozen="ignore")
    return str(error.value)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.linear(x))
        return x * float(x.max())


def test_the_operation_is_named() -> None:
    """The first operation whose value parts is named with its line and module path, not what follows from it."""
    torch.manual_seed(0)
    text = refused(nn.Sequential(Block(), nn.ReLU(), Block()), X, X.flip(0) * 3)
    line = Block.forward.__code__.co_firstlineno + 2
    assert f"test_explain.py:{line} in 0: torch.Tensor.mul: float32[3, 4] cpu: " in text
    assert text.count("parts first at") == 1


def test_a_branch_that_the_file_has_not() -> None:
    """Where the model takes a side that was never recorded, the line of that side is named."""

    def forward(x: Tensor) -> Tensor:
        if x.sum() > 1:
            return x.cumsum(0)
        return x - 1

    assert f"test_explain.py:{forward.__code__.co_firstlineno + 2}: torch.Tensor.cumsum" in refused(forward, X, X + 5)
    assert "the file does not run this line" in refused(forward, X, X + 5)


def test_what_goes_nowhere_is_not_blamed() -> None:
    """A value that only an `if` looks at is none that parts, though the file has it not."""

    def forward(x: Tensor) -> Tensor:
        y = x + 1
        if y.sum() > 100:
            y = y * 2
        return y.clamp(max=float(x.max()))

    assert "torch.Tensor.clamp" in refused(forward, X, X + 1)


def test_another_call_another_result() -> None:
    """A model that counts its calls outside of itself is told apart from a wrong export."""
    calls = itertools.count()
    text = refused(lambda x: x + next(calls))
    assert "the model itself gives something else when it is called again with the same input and seed" in text
    assert "it depends on something outside of it" in text and "parts first" not in text
    assert "write instead: a model that gives the same for the same input and seed" in text


def test_random() -> None:
    """A random operation, and dropout that is left on, are named where the result depends on them."""

    def forward(x: Tensor) -> Tensor:
        if is_tracing():
            x = x + 0 * torch.rand(3, 4)  # in a trace another number of them
        return x + torch.rand_like(x)

    text = refused(forward)
    assert "a random operation at" in text and "(torch.rand_like)" in text

    def dropping(x: Tensor) -> Tensor:
        if is_tracing():
            x = x + 0 * torch.rand(3, 4)
        return nn.functional.dropout(x, 0.5, training=True)

    assert "dropout that is left on at" in refused(dropping, X + 2)

    def idle(x: Tensor) -> Tensor:
        return forward(nn.functional.dropout(x, 0.5, training=False))

    assert "dropout" not in (said := refused(idle, X + 2)) and "a random operation at" in said


def test_ties() -> None:
    """Equal scores whose order differs are said to be ties."""

    def forward(x: Tensor) -> Tensor:
        return x.sort(stable=not is_tracing(), descending=True).indices

    text = refused(forward, torch.ones(300).index_fill(0, torch.tensor([5, 7]), 3.0))
    assert "ties: equal values go into torch.Tensor.sort, and which of them comes first is not defined" in text


def test_buffers() -> None:
    """A buffer that the file leaves otherwise is named as what later calls depend on."""

    class Counts(nn.Module):
        seen: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.seen += float(x.max())
            return x * 2

    assert "a buffer that the call writes (seen): a later call depends on it" in refused(Counts(), X, X + 1)


def parting(name: str, given: tuple[Tensor, ...], made: Tensor, got: Tensor, *numbers: float) -> list[str]:
    event = Event(name, Site("model.py", 1), given, (made,), (), numbers)
    return _of_operation(Parting(event, made, "", got))


def test_thresholds() -> None:
    """A comparison, or a rounding, that differs only where values are all but equal is near a threshold."""
    scores = torch.tensor([0.5, 0.5000001, 0.9])
    above, other = torch.tensor([False, True, True]), torch.tensor([False, False, True])
    assert parting("torch.Tensor.gt", (scores,), above, other, 0.5)[0].startswith(
        "near a threshold: what torch.Tensor.gt"
    )
    assert parting("torch.gt", (scores, torch.full((3,), 0.5)), above, other) != []
    assert parting("torch.gt", (scores, torch.full((3,), 0.9)), above, torch.tensor([True, True, True])) == []
    halves = torch.tensor([2.5000001, 7.2])
    assert (
        "rounds is within" in parting("torch.round", (halves,), torch.tensor([3.0, 7.0]), torch.tensor([2.0, 7.0]))[0]
    )
    assert parting("torch.round", (halves,), torch.tensor([3.0, 7.0]), torch.tensor([3.0, 6.0])) == []


def test_ties_only_of_equal_values() -> None:
    """Other places are ties only where equal values lie there."""
    x = torch.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 0.0]])
    assert parting("torch.argmax", (x,), torch.tensor([1, 0]), torch.tensor([2, 1])) != []
    assert parting("torch.argmax", (x,), torch.tensor([1, 0]), torch.tensor([0, 1])) == []
    assert parting("torch.argmax", (x,), torch.tensor(1), torch.tensor(2)) != []


def test_reduced_precision() -> None:
    """A product in half precision that differs in its last digits is reduced precision; a wrong one is not."""
    made = torch.tensor([1.0, 0.5], dtype=torch.bfloat16)
    [said] = parting("torch.matmul", (), made, made + 0.004)
    assert said.startswith("reduced precision: bfloat16 carries 2 to 3 digits; torch.matmul differs by 0.00")
    assert parting("torch.matmul", (), made, made * 2) == []


def test_changed_places() -> None:
    """Rows of nearly equal scores may change places; of others, or beside another value, they may not."""
    boxes, scores = torch.rand(4, 4), torch.tensor([0.9, 0.5, 0.5 - 1e-8, 0.1])
    order = torch.tensor([0, 2, 1, 3])
    assert changed_places([boxes, scores], [boxes[order], scores[order]])
    assert not changed_places([boxes, scores], [boxes[order] + torch.eye(4), scores[order]])
    apart = torch.tensor([0.9, 0.5, 0.3, 0.1])
    assert not changed_places([boxes, apart], [boxes[order], apart[order]])
    assert not changed_places([boxes, apart], [boxes[order], apart])
    assert not changed_places([boxes], [boxes[order]]) and not changed_places([boxes, scores], [boxes[:3], scores[:3]])


def test_chaotic() -> None:
    """A result that changes with a rounding error of the input is the model's own affair; a smooth one is not."""
    flat = (torch.tensor([0.5, 1.0]),)
    assert is_chaotic(flat, (flat[0] > 0.5).int(), lambda flat: (flat[0] > 0.5).int())
    assert not is_chaotic(flat, flat[0] * 2, lambda flat: flat[0] * 2)


def test_verify_explains() -> None:
    """`verify` names the operation as well."""
    model = Lambda(lambda x: x.relu() * 2).eval()
    exported = hj.export(model, X)
    model.fn = lambda x: x.relu() * 3
    report = hj.verify(exported, model, [X])
    assert any("parts first at" in line and "torch.Tensor.mul" in line for line in report.checks[0].differences)
    assert "parts first at" in str(report)


def test_the_order_of_calls() -> None:
    """A file that is right on each call alone and not in a row is said to depend on the calls before."""

    class Twice(nn.Module):
        seen: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.seen += 1
            return x * 100 if float(self.seen) > 2 else x + self.seen

        def again(self, x: Tensor) -> Tensor:
            self.seen += 1
            return x + self.seen

    with pytest.raises(hj.VerificationError, match="the call alone is as the model's: what differs"):
        hj.export(Twice().eval(), X, methods={"again": (X,)}, on_frozen="ignore")


def test_without_a_copy(tmp_path: Path) -> None:
    """A file that can't be copied to look inside is judged all the same, and the report says why there is no reason."""
    model = Lambda(lambda x: (x.relu(), x * 2)).eval()
    hj.export(model, X).save(tmp_path / "model.pt")
    exported = hj.load(tmp_path / "model.pt")  # it has not run yet, so that its graph can be changed
    next(iter(exported.module.graph.outputs())).node().removeInput(0)
    [check] = hj.verify(exported, model, [X]).checks
    assert not check.passed
    assert check.differences[0].startswith("expected 2 tensors, got 1")
    assert check.differences[-1].startswith("why can't be told: RuntimeError: ")


def test_values_on_another_device() -> None:
    """A value on another device is another value, whatever it holds."""
    assert same(X, X.clone()) and not same(X, X.to("meta"))
    event = Event("torch.zeros", Site("model.py", 1), (), (X,))
    values = Values({("model.py", 1): [X.to("meta")]})
    found = first_parting(Watched([event], X, frozenset([0])), values)
    assert found is not None and found.got is None
    assert found.says == "the model has float32[3, 4] cpu there, the file float32[3, 4] meta"
