"""The tensors of a call, taken without describing it."""

import inspect
from collections import OrderedDict
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from hybridjit.adapters.inputs import Inputs
from hybridjit.adapters.schema import CallSchema
from hybridjit.adapters.take import take
from hybridjit.adapters.tree import differences, scan


class Pair(NamedTuple):
    a: Any
    b: Any


class Other(NamedTuple):
    a: Any
    b: Any


@dataclass
class Boxes:
    xyxy: Any
    label: Any = "none"


class Mode(IntEnum):
    FAST = 1


X, Y = torch.zeros(2), torch.ones(3)
PARTLY = Boxes(X)
del PARTLY.label  # the class's default is found in its place
VALUES: list[Any] = [
    X, None, True, 1, 1.0, float("nan"), "a", Mode.FAST, torch.float32, torch.device("cpu"), torch.nn.Parameter(X),
    [X], [X, Y], (X,), (X, Y), Pair(X, Y), Other(X, Y), Boxes(X), Boxes(X, Y), PARTLY, {"a": X}, {"a": X, "b": Y},
    {"b": Y, "a": X}, OrderedDict(a=X, b=Y), {1: X}, {True: X}, {(1,): X}, {(True,): X}, {}, [], (), torch.Size([1, 2]),
    {"a": [X, (Y, 1)]}, {"a": [X, (Y, 2)]}, {"a": [X, (1, Y)]},
]  # fmt: skip


@pytest.mark.parametrize("expected", range(len(VALUES)))
def test_it_takes_what_has_no_differences(expected: int) -> None:
    """Of every value against every structure: taken exactly where the structures do not differ, the same tensors."""
    node = scan(VALUES[expected], [])
    for value in VALUES:
        tensors: list[Tensor] = []
        wanted: list[Tensor] = []
        alike = not differences(node, scan(value, wanted))
        assert take(node, value, tensors) is alike, value
        if alike:
            assert [*map(id, tensors)] == [*map(id, wanted)]


def test_what_no_call_can_hold_is_not_taken() -> None:
    """A set, and a nested tensor, are left to who says what is wrong with them."""
    assert not take(scan([X], []), [{1}], [])
    assert not take(scan(X, []), torch.nested.nested_tensor([X, Y], layout=torch.jagged), [])


def schema(function: Any, *args: Any, **kwargs: Any) -> CallSchema:
    return CallSchema.of(inspect.signature(function), Inputs(*args, **kwargs))[0]


def test_arguments_by_place_and_by_name() -> None:
    """The tensors come in the order of the parameters, whichever way they were given."""

    def forward(x: Tensor, scale: float = 2.0, *, y: Tensor) -> None: ...

    captured = schema(forward, X, y=Y)
    for call in (Inputs(X, y=Y), Inputs(y=Y, x=X)):
        taken = captured.take(call)
        assert taken is not None and taken[0] is X and taken[1] is Y
    for other in (Inputs(X), Inputs(X, 2.0, y=Y), Inputs(X, z=Y), Inputs(X, Y), Inputs(X, x=X), Inputs(X, y=None)):
        assert captured.take(other) is None
    assert captured.flatten(Inputs(X, 2.0, y=Y)) == (X, Y)  # the default given is the call that was captured


def test_any_number_of_arguments_is_left_to_the_signature() -> None:
    """With ``*args`` or ``**kwargs``, and with what has no name for callers, the signature binds the call."""

    def many(*tensors: Tensor, **named: Tensor) -> None: ...

    def nameless(x: Tensor, /) -> None: ...

    assert schema(many, X, Y, a=X).take(Inputs(X, Y, a=X)) is None
    assert schema(many, X, Y, a=X).flatten(Inputs(X, Y, a=X)) == (X, Y, X)
    assert schema(nameless, X).take(Inputs(x=X)) is None
