"""The arena's judgement, on models of a few lines: no library is needed."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from benchmarks.arena import cases, columns, judge, tables
from benchmarks.arena.columns import FIRST, measure
from benchmarks.arena.process import limited, work
from hybridjit import Inputs

pytestmark = pytest.mark.filterwarnings("ignore")  # what a trace warns of is not what is tested

X = torch.arange(6.0).reshape(2, 3)


class Doubles(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


class Frozen(nn.Module):
    """Keeps its first length in a trace."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum() / len(x)


class Picky(nn.Module):
    def forward(self, x: Tensor, times: int = 1) -> dict[str, Tensor]:
        if x.shape[0] == 3:
            raise ValueError("three is too many")
        return {"x": x * times}


class Remembers(nn.Module):
    """Gives something else once it was called with another size."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0

    def forward(self, x: Tensor) -> Tensor:
        self.most = max(self.most, x.shape[0])
        return x.sum() + self.most


def found(column: str, model: Callable[[], nn.Module], *others: Inputs) -> dict[str, str]:
    """What becomes of each input, by its number."""
    made = lambda: cases.Case(model().eval(), Inputs(X), {str(i): call for i, call in enumerate(others)})  # noqa: E731
    return {line["input"]: line["verdict"] for line in measure(column, made) if "input" in line}


def test_a_right_export_is_right_on_all() -> None:
    """The first input and the further ones are judged."""
    assert found("trace", Doubles, Inputs(X[:1]), Inputs(X + 1)) == {FIRST: "right", "0": "right", "1": "right"}


def test_a_frozen_length_is_wrong() -> None:
    """Another value and no error is what the arena is there to find."""
    assert found("trace", Frozen, Inputs(X + 1), Inputs(X[:1])) == {FIRST: "right", "0": "right", "1": "wrong"}


def test_a_number_in_the_call_is_kept_by_a_trace() -> None:
    """A trace has no place for it, so that another number is silently the first one."""
    assert found("trace", Picky, Inputs(X, 2), Inputs(X, times=1)) == {FIRST: "right", "0": "wrong", "1": "right"}
    assert found("trace", Picky, Inputs(x=X)) == {FIRST: "right", "0": "loud"}


def test_an_input_that_the_model_refuses_counts_for_nothing() -> None:
    """What eager raises on is no task for an export."""
    assert found("script", Picky, Inputs(torch.zeros(3)))["0"] == judge.REFUSED


def test_an_export_that_raises_is_loud_for_all() -> None:
    """As one that was never made."""

    class Unscriptable(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * next(iter(yield_two()))

    assert set(found("script", Unscriptable, Inputs(X[:1])).values()) == {"loud"}


def yield_two() -> Any:
    yield 2


def test_a_model_that_remembers_is_seen_in_eager() -> None:
    """Every expected result is a new model's; the column `eager` is one model called again and again."""
    assert found("eager", Remembers, Inputs(X.repeat(2, 1)), Inputs(X[:1]))["1"] == "wrong"


@pytest.mark.parametrize("column", ["told", "untold", "left-out"])
def test_hybridjit_is_judged_likewise(column: str) -> None:
    """Each of its three ways gives one verdict for each further input."""
    verdicts = found(column, Doubles, Inputs(X[:1]), Inputs(X + 1))
    assert [verdicts["0"], verdicts["1"]] == ["right", "right"]


def busy(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


class Pair(NamedTuple):
    a: Tensor
    b: Tensor


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (X, X.clone(), ""),
        ([X], (X,), ""),
        (X, X + 1e-6, ""),
        (X, X + 1, "tensor 0: Tensor-likes are not close!"),
        (X, X.double(), "tensor 0: The values for attribute 'dtype' do not match"),
        (X, X[:1], "tensor 0: The values for attribute 'shape' do not match"),
        ({"a": X}, {"b": X}, "result: names a instead of names b"),
        (Pair(X, X), (X, X), "result: names a, b instead of 2 places"),
        ([X, X], [X], "2 tensors instead of 1"),
        ((X, None), (X, 3), "result.1: None instead of 3"),
        ((X, 1), (X, True), "result.1: 1 instead of True"),
        ((X, 1.0), (X, 1.0000001), ""),
        (torch.tensor([float("nan")]), torch.tensor([float("nan")]), ""),
    ],
)
def test_what_differs_is_said(one: Any, other: Any, said: str) -> None:
    """Structure first, then values that are no tensors, then tensors; NaN equals NaN."""
    found = judge.difference(one, other)
    assert found.startswith(said) and bool(found) == bool(said)


def test_a_value_is_put_together_again() -> None:
    """`fill` puts tensors where `flatten` found them."""
    value = ({"b": X, "a": [X + 1, "kept"]}, Pair(X + 2, X + 3))
    flat = judge.flatten(value)
    again = judge.fill(value, iter(flat.tensors))
    assert judge.difference(again, value) == "" and isinstance(again[1], Pair)


def test_the_time_limit_ends_a_process() -> None:
    """And says so; one that ends itself crashed."""
    start = time.monotonic()
    assert limited(time.sleep, (60,), 2, patience=2) == judge.LATE
    assert limited(busy, (60,), 2, patience=30) == judge.LATE
    assert time.monotonic() - start < 50
    assert limited(os._exit, (3,), 60) == "crashed (3)"


def test_a_model_that_cannot_be_built_is_said(tmp_path: Path) -> None:
    """The package may be missing; nothing is judged then."""
    lines = tmp_path / "lines"
    assert limited(work, ("no.such", "trace", str(lines)), 60) == ""
    assert "not built: KeyError: 'no.such'" in lines.read_text()


def test_tables_count_what_eager_accepts() -> None:
    """An input that the process did not come to shares its end, and one that eager refuses has no say."""
    model = {
        columns.EAGER: {"seconds": 0, "ended": "", "error": "", "inputs": _lines(a="right", b="refused", c="right")},
        "trace": {"seconds": 1, "ended": "late", "error": "", "inputs": _lines(a="wrong", b="wrong")},
    }
    assert tables.verdicts(model, "trace") == {"a": "wrong", "b": "refused", "c": "late"}
    assert tables.by_model({"m": model}, ["trace"]).splitlines()[1].split() == ["m", "W-t"]
    row = tables.summary({"m": model}, ["trace"]).splitlines()[1].split()
    assert row == ["trace", "1", "0", "1", "2", "0", "1", "1", "1", "1.00", "1.0"]


def _lines(**verdicts: str) -> list[dict[str, str]]:
    return [{"input": label, "verdict": verdict} for label, verdict in {FIRST: "right", **verdicts}.items()]


def test_weights_near_zero_are_made_larger() -> None:
    """Those that are large enough, and parameters of one dimension, stay."""
    large, zero, small = nn.Linear(16, 16), nn.Linear(16, 16), nn.Embedding(9, 16)
    before = large.weight.detach().clone()
    nn.init.zeros_(zero.weight)
    nn.init.normal_(small.weight, std=0.02)
    with torch.no_grad():
        columns.strengthen(nn.Sequential(large, zero, small))
    assert torch.equal(large.weight, before)
    assert zero.weight.std() > 0.2 and small.weight.std() > 0.4
