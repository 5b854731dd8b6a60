"""Values on their way into a trace's graph and back: what is refused, what is checked at run time."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import hybridjit as hj
from hybridjit import CaptureError

UP, DOWN = torch.arange(1.0, 6.0), -torch.ones(2)


class Pair(NamedTuple):
    x: Tensor
    n: int


class Deep(NamedTuple):
    pair: Pair
    items: list[Tensor]


@hj.script_if_tracing
def takes_int(x: Tensor, n: int) -> Tensor:
    return x[:n] if x.shape[0] > n else x + n


@hj.script_if_tracing
def takes_float(x: Tensor, scale: float) -> Tensor:
    return x * scale if x.sum() > 0 else x - scale


@hj.script_if_tracing
def takes_tensor(x: Tensor, other: Tensor) -> Tensor:
    return x + other.sum() if x.sum() > 0 else x


@hj.script_if_tracing
def takes_pair(pair: Pair, items: list[Tensor], named: dict[str, Tensor]) -> Deep:
    if pair.x.shape[0] > pair.n:
        return Deep(Pair(pair.x[: pair.n], pair.n), [items[0], named["a"]])
    return Deep(Pair(pair.x + 1, pair.x.shape[0]), [named["a"], items[0] * 2])


@hj.script_if_tracing
def takes_text(x: Tensor, mode: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    y = x.sum() if mode == "sum" else x.mean()
    return (x + y if x.sum() > 0 else x).to(dtype).to(device)


def trace(fn: Callable[..., Any], *inputs: Tensor) -> Callable[..., Any]:
    traced: Callable[..., Any] = torch.jit.trace(fn, inputs, check_trace=False)
    return traced


def check(fn: Callable[..., Any], example: Tensor, *others: Tensor) -> None:
    """A trace of one input gives what eager code gives, on every input."""
    traced = trace(fn, example.clone())
    for x in (example, *others):
        torch.testing.assert_close(traced(x.clone()), fn(x.clone()), rtol=0, atol=0)


def refused(fn: Callable[[Tensor], Any]) -> list[str]:
    with pytest.raises(CaptureError) as error:
        trace(fn, UP)
    return str(error.value).splitlines()


def test_static_arguments() -> None:
    """Text, dtypes and devices go in as constants; both sides stay."""
    device = torch.device("cpu")
    for mode in ("sum", "mean"):
        check(lambda x, mode=mode: takes_text(x, mode, torch.float64, device), UP, DOWN)


def test_an_int_is_a_float_where_a_float_is_wanted() -> None:
    """An int for a float parameter works as in Python."""
    check(lambda x: takes_float(x, 3), UP, DOWN)


def test_a_size_is_converted_to_the_parameters_type() -> None:
    """A traced size, a traced bool and a traced float fit the parameters that Python would let them fit."""
    check(lambda x: takes_float(x, x.shape[0]), UP, DOWN)
    check(lambda x: takes_int(x, x.sum() > 0), UP, DOWN)


def test_nested_containers_in_both_directions() -> None:
    """NamedTuples in NamedTuples, lists and dicts go in and out, with their classes, and stay dynamic."""
    seen = []

    def model(x: Tensor) -> Tensor:
        result = takes_pair(Pair(x, 3), [x * 2], {"a": x * 3})
        seen.append((type(result), type(result.pair), type(result.items)))
        return torch.cat([result.pair.x * result.pair.n, *result.items])

    check(model, UP, DOWN)
    check(model, DOWN, UP)
    assert set(seen) == {(Deep, Pair, list)}


def test_a_wrong_argument_line_by_line() -> None:
    """The message has the call's line, expected and got, the pitfall and what to write."""

    def model(x: Tensor) -> Tensor:
        return takes_tensor(x, 3)  # type: ignore[arg-type]

    line = inspect.getsourcelines(model)[1] + 1
    here = os.path.relpath(__file__)
    assert refused(model) == [
        "a scripted piece got an argument of another type than it declares",
        f"  at {__name__}.takes_tensor, called at {here}:{line}: argument other",
        "  - expected Tensor, got int",
        "  - pitfall: an unannotated parameter, or one of another type",
        "  write instead: other: int",
        "  see docs/errors.md#scripting-pitfalls",
    ]


@pytest.mark.parametrize(
    ("value", "got", "instead"),
    [
        (None, "None", "other: Optional[Tensor] = None"),
        ([UP], "list", "other: List[Tensor]"),
        ((UP, UP), "tuple", "other: Tuple[Tensor, Tensor]"),
        ({"a": UP}, "dict", "other: Dict[str, Tensor]"),
        ("text", "str", "other: str"),
    ],
)
def test_what_to_write_for_another_type(value: Any, got: str, instead: str) -> None:
    """The annotation to write fits what was given."""
    lines = refused(lambda x: takes_tensor(x, value))
    assert lines[2] == f"  - expected Tensor, got {got}"
    assert lines[4] == f"  write instead: {instead}"


def test_a_tensor_that_is_no_number() -> None:
    """Many elements, or a float tensor for an int, are refused; the device and shape are told."""
    lines = refused(lambda x: takes_int(x, x))  # type: ignore[arg-type]
    assert lines[2:4] == [
        "  - expected int, got float32[5] cpu",
        "  write instead: a Python int, or a tensor with one element of that kind",
    ]
    assert refused(lambda x: takes_int(x, x.sum()))[2] == (  # type: ignore[arg-type]
        "  - expected int, got float32[] cpu"
    )


def test_a_float_for_an_int() -> None:
    """A Python float for an int is refused, as in TorchScript."""
    assert refused(lambda x: takes_int(x, 2.5))[2] == (  # type: ignore[arg-type]
        "  - expected int, got float"
    )


def test_the_wrong_element_is_named() -> None:
    """In a container the element that does not fit is named by its path."""
    lines = refused(lambda x: takes_pair(Pair(x, 3), [x], {"a": x, "n": 3}))  # type: ignore[dict-item]
    assert lines[1].endswith(": argument named['n']")
    assert "  - pitfall: mixed values in a dict or list" in lines
    lines = refused(lambda x: takes_pair((x, 3, 4), [x], {"a": x}))  # type: ignore[arg-type]
    assert lines[1].endswith(": argument pair")


@hj.script_if_tracing
def maybe_many(x: Tensor) -> tuple[Tensor, Tensor | None, list[Tensor]]:
    if x.sum() > 0:
        return x, x * 2, [x, x]
    return x, None, [x, x]


def test_guards_inside_a_tuple() -> None:
    """An optional inside a tuple is guarded on its own; the rest goes through."""

    def model(x: Tensor) -> Tensor:
        first, second, rest = maybe_many(x)
        return first + rest[1] if second is None else first + second + rest[0]

    traced = trace(model, UP)
    torch.testing.assert_close(traced(UP * 2), model(UP * 2))
    with pytest.raises(torch.jit.Error, match="maybe_many captured a result that is a value, got None"):
        traced(DOWN)


@hj.script_if_tracing
def anything(x: Tensor) -> dict[str, Any]:
    return {"a": x, "n": 3}


def test_a_result_that_a_trace_cannot_carry() -> None:
    """Any is refused, with the definition's line and a NamedTuple to write."""
    line = inspect.getsourcelines(anything)[1]
    assert refused(lambda x: anything(x)["a"]) == [
        f"{__name__}.anything returns what a trace can't carry",
        f"  at {os.path.relpath(__file__)}:{line}",
        "  - expected tensors, numbers, tuples, lists and dicts of them, got Any",
        "  - pitfall: mixed values in a dict or list",
        "  write instead: class Out(NamedTuple):  # a field for each value",
        "        boxes: Tensor",
        "        count: int",
        "  see docs/errors.md#scripting-pitfalls",
    ]


def test_guards_survive_saving(tmp_path: Any) -> None:
    """A saved and loaded trace still stops, with the message."""
    traced: Any = trace(lambda x: torch.cat(maybe_many(x)[2]) + maybe_many(x)[0].sum(), UP)
    traced.save(str(tmp_path / "traced.pt"))
    loaded = torch.jit.load(str(tmp_path / "traced.pt"))
    torch.testing.assert_close(loaded(UP * 2), traced(UP * 2))
    with pytest.raises(torch.jit.Error, match=r"value frozen at .*test_values\.py"):
        loaded(DOWN)
