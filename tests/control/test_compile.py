"""Compiling a piece: once, again when what it reads from outside changes, and by Python's own scoping."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit import CaptureError, _torch

LIMIT = 2
FLOOR = float("-inf")
NOTHING = None
SIZES = [2, 1]
OFFSET = torch.tensor([10.0])
shape = 3
mean = nn.Linear(1, 1)
i = 7

UP, DOWN = torch.arange(1.0, 6.0), -torch.ones(2)


def trace(fn: Callable[..., Any], *inputs: Tensor) -> Callable[..., Any]:
    traced: Callable[..., Any] = torch.jit.trace(fn, inputs, check_trace=False)
    return traced


def check(fn: Callable[..., Any], example: Tensor, *others: Tensor) -> None:
    """A trace of one input gives what eager code gives, on every input."""
    traced = trace(fn, example.clone())
    for x in (example, *others):
        torch.testing.assert_close(traced(x.clone()), fn(x.clone()), rtol=0, atol=0)


@hj.script_if_tracing
def limited(x: Tensor) -> Tensor:
    return x[:LIMIT] if x.shape[0] > LIMIT else x + 1


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the functions and methods compiled so far."""
    names: list[str] = []
    function, method = _torch.compile_function, _torch.compile_method

    def count_function(fn: Any, *rest: Any) -> _torch.Compiled:
        names.append(fn.__name__)
        return function(fn, *rest)

    def count_method(fn: Any, *rest: Any) -> _torch.Compiled:
        names.append(fn.__name__)
        return method(fn, *rest)

    monkeypatch.setattr(_torch, "compile_function", count_function)
    monkeypatch.setattr(_torch, "compile_method", count_method)
    return names


def test_a_function_is_compiled_once(compiled: list[str]) -> None:
    """Two calls in a trace and a second trace compile nothing more; eager calls compile nothing."""

    @hj.script_if_tracing
    def once(x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x

    once(UP)
    assert compiled == []
    trace(lambda x: once(once(x)), UP)
    trace(once, DOWN)
    assert compiled == ["once"]


def test_a_changed_number_compiles_again(compiled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A module-level number is compiled in at its value of now, and the old value is still known."""
    check(limited, UP, DOWN)
    before = len(compiled)
    with monkeypatch.context() as patch:
        patch.setitem(globals(), "LIMIT", 4)
        check(limited, UP, DOWN, torch.ones(4))
        assert len(compiled) == before + 1
    check(limited, UP, DOWN, torch.ones(4))
    assert len(compiled) == before + 1


class Counted(nn.Module):
    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    @hj.script_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        return x[: self.limit] if x.shape[0] > self.limit else x + 1


def test_a_method_is_compiled_once_per_module(compiled: list[str]) -> None:
    """Modules of one class are compiled apart, each once in a trace."""
    model = nn.ModuleList([Counted(4), Counted(1)])
    check(lambda x: model[1](model[0](model[0](x))), UP, DOWN, torch.ones(1))
    assert compiled == ["forward", "forward"]


def test_a_module_changed_between_traces() -> None:
    """A second trace sees what the module is then."""
    model = Counted(4)
    check(model, UP, DOWN)
    model.limit = 1
    check(model, UP, DOWN)


def test_modules_made_within_the_trace() -> None:
    """A module that is gone does not answer for one made later at the same address."""
    check(lambda x: torch.cat([Counted(limit)(x) for limit in (1, 2, 3)]), UP, DOWN)


@hj.script_if_tracing
def constants(x: Tensor) -> Tensor:
    x = x.masked_fill(x > LIMIT, FLOOR) if x.sum() > 0 else x
    for size in SIZES:
        x = x[:size] + OFFSET
    return x if NOTHING is None else -x


def test_constants_from_outside() -> None:
    """Numbers, infinity, None, lists of numbers and tensors of the module are used at their values."""
    check(constants, UP, DOWN)


@hj.script_if_tracing
def in_a_comprehension(x: Tensor) -> Tensor:
    return torch.stack([x[k] * LIMIT for k in range(x.shape[0])])


@hj.script_if_tracing
def local_of_the_same_name(x: Tensor) -> Tensor:
    n = x.shape[0]
    shape = x.sum() if n > 3 else x.max()
    return x * shape


@hj.script_if_tracing
def attribute_of_the_same_name(x: Tensor) -> Tensor:
    return x - x.mean() if x.sum() > 0 else x + x.mean()


@hj.script_if_tracing
def loop_variable_of_the_same_name(x: Tensor) -> Tensor:
    return torch.stack([x[i] * i for i in range(x.shape[0])])


@pytest.mark.parametrize(
    "piece",
    [
        in_a_comprehension,
        local_of_the_same_name,
        attribute_of_the_same_name,
        loop_variable_of_the_same_name,
    ],
)
def test_names_follow_pythons_scoping(piece: Callable[[Tensor], Tensor]) -> None:
    """Only a name that Python would look up outside is taken from outside."""
    check(piece, UP, DOWN)


def test_a_tensor_from_outside_is_an_input() -> None:
    """A closed-over tensor made in the trace is its traced value, not a constant."""

    def model(x: Tensor) -> Tensor:
        bias = x.sum()

        @hj.script_if_tracing
        def shifted(y: Tensor) -> Tensor:
            return y + bias if y.shape[0] > 3 else y - bias

        return shifted(x * 2)

    check(model, UP, DOWN)


def test_a_closure_cell_that_is_still_empty() -> None:
    """A function that is not defined yet when it is needed is an error of ours."""

    @hj.script_if_tracing
    def early(x: Tensor) -> Tensor:
        return later(x) if x.sum() > 0 else x

    with pytest.raises(CaptureError, match="early can't be scripted"):
        trace(early, UP)

    def later(x: Tensor) -> Tensor:
        return x * 2

    check(early, UP, DOWN)


def test_a_module_from_outside_is_refused() -> None:
    """A closed-over module is refused by its name, with the way out."""
    layer = nn.Linear(5, 5)

    @hj.script_if_tracing
    def piece(x: Tensor) -> Tensor:
        return layer(x) if x.sum() > 0 else x

    with pytest.raises(CaptureError) as error:
        trace(piece, UP)
    lines = str(error.value).splitlines()
    assert lines[0].endswith(".piece can't be scripted: it uses the module 'layer' from outside")
    assert lines[2:] == [
        "  - layer: Linear",
        "  - pitfall: a module from outside the function",
        "  write instead: make it a method of the module that owns 'layer', and call self.layer:",
        "    @script_if_tracing",
        "    def piece(self, ...): ...",
        "  see docs/errors.md#scripting-pitfalls",
    ]


class Annotated(nn.Module):
    """Class annotations that are text, as under the future import."""

    weight: Tensor
    limit: int
    unknown: Missing  # type: ignore[name-defined]  # noqa: F821

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.rand(1))
        self.limit = 3
        self.unknown = 2.0

    @hj.script_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        return x[: self.limit] * self.weight if x.shape[0] > self.limit else x * self.unknown


def test_class_annotations_as_text() -> None:
    """Annotations that are text are read; one that can't be is passed over; the class is left alone."""
    model = Annotated()
    check(model, UP, DOWN)
    assert "__annotations__" not in vars(model)
    assert Annotated.__annotations__["limit"] == "int"


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Unscriptable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + len({1, 2})  # no sets in TorchScript


class Owner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.good, self.bad = Inner(), Unscriptable()

    @hj.script_if_tracing
    def piece(self, x: Tensor) -> Tensor:
        return self.helper(x) if x.sum() > 0 else x

    def helper(self, x: Tensor) -> Tensor:
        return self.good(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.bad(self.piece(x))


def test_only_modules_in_reach_are_compiled() -> None:
    """A submodule that the piece never calls need not be TorchScript; one that a helper calls is found."""
    check(Owner(), UP[:, None], DOWN[:, None])


def test_torch_jit_script_after_a_trace() -> None:
    """Compiling a piece leaves nothing behind that torch.jit.script(model) would trip over."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        @hj.script_if_tracing
        def piece(self, x: Tensor) -> Tensor:
            return self.inner(x) * math.pi if x.sum() > 0 else x

        def forward(self, x: Tensor) -> Tensor:
            return self.piece(x) + 1

    model = Model()
    check(model, UP[:, None], DOWN[:, None])
    scripted = torch.jit.script(model)
    for x in (UP[:, None], DOWN[:, None]):
        torch.testing.assert_close(scripted(x), model(x))


class Setting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = torch.zeros(1)

    def forward(self, x: Tensor) -> Tensor:
        self.last = x
        return x


class CallsSetting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Setting()

    @hj.script_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def test_a_submodule_that_assigns_itself_is_refused() -> None:
    """An attribute set in a module that the piece calls is refused by its name."""
    with pytest.raises(CaptureError) as error:
        trace(CallsSetting(), UP)
    assert "  - the method assigns self.last, or a module it calls does" in str(error.value).splitlines()


class Buffered(nn.Module):
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    @hj.script_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            self.seen.add_(x.sum())
        return x + self.seen


def test_a_buffer_may_be_written_in_place() -> None:
    """In-place writes to a buffer happen in the file as in the model."""
    model, reference = Buffered(), Buffered()
    traced: Any = trace(model, UP)
    traced.seen.zero_()
    for x in (UP, DOWN, UP):
        torch.testing.assert_close(traced(x), reference(x))
    assert torch.equal(traced.seen, reference.seen)
