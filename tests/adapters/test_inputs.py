"""`Inputs` and what is read as a call's arguments."""

from typing import NamedTuple

import torch
from torch import Tensor

import hybridjit as hj
from hybridjit.adapters.inputs import as_inputs


class Pair(NamedTuple):
    a: Tensor
    b: Tensor


def test_a_tuple_is_the_positional_arguments() -> None:
    """A tuple is spread, anything else is one argument, a NamedTuple and a list too."""
    x = torch.ones(1)
    assert as_inputs((x, 2)).args == (x, 2)
    pair = Pair(x, x)
    for one in (x, [x], {"a": x}, pair, None):
        assert as_inputs(one).args == (one,)
    assert as_inputs(()).args == ()


def test_keywords_of_inputs_win() -> None:
    """The keyword arguments given beside `Inputs` are overridden by its own."""
    inputs = as_inputs(hj.Inputs(1, by=2), {"by": 3, "plus": 4})
    assert inputs.args == (1,) and inputs.kwargs == {"by": 2, "plus": 4}
    assert as_inputs(1, {"by": 3}).kwargs == {"by": 3}


def test_an_argument_may_be_called_self() -> None:
    """`Inputs` takes every keyword."""
    assert hj.Inputs(**{"self": 1}).kwargs == {"self": 1}


def test_repr_shows_kinds() -> None:
    """The repr never shows values."""
    spelled = repr(hj.Inputs(torch.ones(2, 3), None, by="secret"))
    assert spelled == "Inputs(float32[2, 3] cpu, None, by=str)"
