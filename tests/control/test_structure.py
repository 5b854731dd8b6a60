"""Two results compared: what may differ, and what the message says of what may not."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit import CaptureError
from hybridjit.control.structure import check_same, flatten, is_static, spell_function, spell_spec, tensors_of
from tests.control.checks import lines, traced

X = torch.ones(2)


class Found(NamedTuple):
    boxes: Any
    scores: Any


def refused(one: Any, other: Any) -> list[str]:
    with pytest.raises(CaptureError) as error:
        check_same("they differ", "model.py:3", ("yes", "no"), (flatten(one), flatten(other)))
    what, where, *rows, page = lines(error)
    assert (what, where) == ("they differ", "  at model.py:3")
    assert page == "  see docs/errors.md#branches-that-differ"
    return rows


def test_a_result_is_taken_apart_and_put_together() -> None:
    """Leaves come in order, each with its path, and other leaves go into the same structure."""
    flat = flatten(Found({"a": X, "b": [1, None]}, (X, "text")))
    assert [str(leaf) if isinstance(leaf, str) else leaf for leaf in flat.leaves[1:3]] == [1, None]
    assert flat.paths == [".boxes['a']", ".boxes['b'][0]", ".boxes['b'][1]", ".scores[0]", ".scores[1]"]
    assert flat.rebuild([1, 2, 3, 4, 5]) == Found({"a": 1, "b": [2, 3]}, (4, 5))
    assert flatten(X).paths == [""]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (X, torch.zeros(5, 5)),
        ([X, None, "a", 2], [X, None, "a", 2]),
        (1, 2),
        (1.5, 2.5),
        (True, False),
        (torch.tensor(1), 2),
        ({"a": X, "b": ()}, {"a": X, "b": ()}),
    ],
)
def test_what_may_differ(one: Any, other: Any) -> None:
    """Shapes, and numbers of one type; text and None that are the same on both sides."""
    check_same("they differ", "", ("yes", "no"), (flatten(one), flatten(other)))


@pytest.mark.parametrize(
    ("one", "other", "rows"),
    [
        (X, X.double(), ["result: yes gives float32[2] cpu, no float64[2] cpu"]),
        ((X, 1), (X.half(), 1.0), [
            "result[0]: yes gives float32[2] cpu, no float16[2] cpu", "result[1]: yes gives int, no float",
        ]),
        ({"n": True}, {"n": torch.tensor(1)}, ["result['n']: yes gives bool, no int64[] cpu"]),
    ],
)  # fmt: skip
def test_dtypes_are_not_guessed(one: Any, other: Any, rows: list[str]) -> None:
    """Each path whose dtypes differ is named with both."""
    advice = "  write instead: the same dtype on both sides: result.to(x.dtype), x.new_zeros(()) for 0.0"
    assert refused(one, other) == [*(f"  - {row}" for row in rows), advice]


@pytest.mark.parametrize(
    ("one", "other", "row"),
    [
        (X, None, "result: yes gives float32[2] cpu, no None"),
        (["a"], ["b"], "result[0]: yes gives str, no str"),
        (Found(X, nn.Linear), Found(X, X), "result.scores: yes gives type, no float32[2] cpu"),
    ],
)
def test_what_no_graph_carries(one: Any, other: Any, row: str) -> None:
    """None beside a tensor and text that differs are refused, with what to return instead."""
    advice = "  write instead: a tensor on both sides: an empty one for None, a number for what only a program reads"
    assert refused(one, other) == [f"  - {row}", advice]


@pytest.mark.parametrize(
    ("one", "other", "rows"),
    [
        ({"a": X, "b": 1}, {"a": X}, ["result['b']: only yes gives it, int"]),
        ((X, X), (X, X, None), ["result[2]: only no gives it, None"]),
        ([X], (X,), ["yes gives [*]", "no gives (*,)"]),
        (Found(X, X), {"c": [X]}, [
            "result.boxes: only yes gives it, float32[2] cpu", "result.scores: only yes gives it, float32[2] cpu",
            "result['c'][0]: only no gives it, float32[2] cpu",
        ]),
    ],
)  # fmt: skip
def test_structures(one: Any, other: Any, rows: list[str]) -> None:
    """Each path that only one side has is named; containers of one size are spelled whole."""
    advice = (
        "  write instead: the same containers with the same keys on both sides; an empty tensor for what is missing"
    )
    assert refused(one, other) == [*(f"  - {row}" for row in rows), advice]


def test_many_differences_are_counted() -> None:
    """A message lists twelve differences, and how many more there are."""
    rows = refused([X] * 20, [X.double()] * 20)
    assert len(rows) == 14 and rows[12] == "  - … and 8 more"


def tall(x: Any) -> Any:
    return {"y": x, "n": 1}


def test_the_message_of_a_cond() -> None:
    """Both functions with file and line, the place of the cond, and each differing path."""
    line = tall.__code__.co_firstlineno
    with pytest.raises(CaptureError) as error:
        traced(lambda x: hj.cond(x.sum() > 0, tall, lambda y: {"y": y.long(), "n": 2}, (x,)), X)
    here = test_the_message_of_a_cond.__code__.co_firstlineno + 4
    assert lines(error) == [
        "the sides of a branch return different things",
        f"  at tests/control/test_structure.py:{here}",
        f"  - result['y']: true_fn (tall at tests/control/test_structure.py:{line}) gives float32[2] cpu, "
        f"false_fn (<lambda> at tests/control/test_structure.py:{here}) int64[2] cpu",
        "  write instead: the same dtype on both sides: result.to(x.dtype), x.new_zeros(()) for 0.0",
        "  see docs/errors.md#branches-that-differ",
    ]


def test_the_message_of_paths() -> None:
    """Paths are called by the line of their if, and which way it went."""

    @hj.branch_if_tracing
    def uneven(x: Tensor) -> Any:
        if x.sum() > 0:
            return x, x
        return x

    at = f"tests/control/test_structure.py:{uneven.__wrapped__.__code__.co_firstlineno + 2}"  # type: ignore[attr-defined]
    with pytest.raises(CaptureError) as error:
        traced(uneven, X)
    assert lines(error)[1:5] == [
        f"  at {at}",
        f"  - result[0]: only the path where {at} holds gives it, float32[2] cpu",
        f"  - result[1]: only the path where {at} holds gives it, float32[2] cpu",
        f"  - result: only the path where {at} does not hold gives it, float32[2] cpu",
    ]


def test_static_leaves() -> None:
    """A leaf that is no tensor and equal on both sides stays what it is; 1 and True are not equal."""
    assert is_static("a", "a") and is_static(None, None) and is_static(2, 2)
    assert not is_static(1, True) and not is_static(1, 1.0) and not is_static(1, 2) and not is_static(X, X)


def test_functions_are_spelled_with_their_line() -> None:
    """A partial and a decorated function by what they wrap, a module by its class."""
    place = f"tall at tests/control/test_structure.py:{tall.__code__.co_firstlineno}"
    assert (
        spell_function(tall) == spell_function(partial(tall, 1)) == spell_function(hj.branch_if_tracing(tall)) == place
    )
    assert spell_function(nn.Linear(1, 1)) == "Linear"
    assert spell_function(nn.Linear(1, 1).forward).startswith("forward at ")


def test_structures_are_spelled_as_python_writes_them() -> None:
    """A star for each leaf."""
    assert spell_spec(flatten((X, {"a": [X]})).spec) == "(*, {'a': [*]})"
    assert spell_spec(flatten(X).spec) == "*"
    assert "('a', *)" in spell_spec(flatten(OrderedDict(a=X)).spec) or "'a': *" in spell_spec(
        flatten(OrderedDict(a=X)).spec
    )


def test_tensors_in_nested_containers() -> None:
    """Tensors are found in order in lists, tuples, NamedTuples and dicts, and nothing else is."""
    a, b, c = torch.ones(1), torch.ones(2), torch.ones(3)
    found = tensors_of([a, [1, (b, "x")], {"k": Found(c, 2)}, None])
    assert [id(tensor) for tensor in found] == [id(a), id(b), id(c)]
    assert tensors_of(a)[0] is a and tensors_of(None) == tensors_of("text") == []
