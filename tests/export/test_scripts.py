"""Calls of what torch has scripted, by a model that is traced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from tests.export.call import Call


def clipped(x: Tensor) -> Tensor:
    if bool(x.max() > 1):
        x = x / x.sum()
    return x


def both(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if x.shape[0] > 3:
        return x + y, y
    return x, y


def listed(x: Tensor) -> list[Tensor]:
    if bool(x.sum() > 3):
        return [x * 0, x]
    return [x, x * 1]


def nested(x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    if bool(x.sum() > 3):
        return x * 2, (x * 3, x)
    return x, (x, x)


def doubled_in_place(x: Tensor) -> Tensor:
    if bool(x.sum() > 3):
        x.mul_(2)
    return x


class Clip(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if bool(x.max() > 1):
            x = x / x.sum()
        return x


_script: Any = torch.jit.script
_script_function: Any = torch.jit.ScriptFunction
CLIPPED, BOTH, LISTED, DOUBLED = map(_script, (clipped, both, listed, doubled_in_place))
LATER: Any = torch.jit.script_if_tracing(clipped)


class Inside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.clip = _script(Clip())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.clip(x)
        return y - x


def _list(x: Tensor) -> Tensor:
    first, _ = LISTED(x)
    return first + x


def _twice(x: Tensor) -> tuple[Tensor, Tensor]:
    y = x * 2
    first, second = BOTH(y, y)
    return first - y, second


def _changed(x: Tensor) -> tuple[Tensor, Tensor]:
    y = x * 1
    z = DOUBLED(y)
    return y, z


GIVEN_BACK: dict[str, Callable[[Tensor], Any]] = {
    "the result beside the argument": lambda x: CLIPPED(x) - x,
    "the argument after the call": lambda x: (CLIPPED(x), x.max()),
    "scripted where it is traced": lambda x: LATER(x) - x,
    "a keyword": lambda x: CLIPPED(x=x) - x,
    "one of two": lambda x: BOTH(x, x * 2)[0] - x,
    "a list": _list,
    "one tensor twice": _twice,
    "changed in place": _changed,
    "twice": lambda x: CLIPPED(CLIPPED(x)) - x,
}


@pytest.mark.parametrize("name", [*GIVEN_BACK, "a module"])
@pytest.mark.parametrize("branches", [None, "auto"])
def test_an_argument_that_comes_back(name: str, branches: Any) -> None:
    """What follows about the argument is about it, also on the paths where the function gives something else."""
    model = (Inside() if name == "a module" else Call(GIVEN_BACK[name])).eval()
    exported = hj.export(model, torch.tensor([0.2, 0.7]), branches=branches)
    for values in ([0.2, 0.7], [0.3, 0.1, 0.5], [2.0, 6.0, 1.0, 1.0]):
        x = torch.tensor(values)
        torch.testing.assert_close(exported(x.clone()), model(x.clone()))


def test_one_tensor_in_several_places_of_a_nested_result() -> None:
    """What stands for which in the graph is not known: refused, with what to write."""
    function: Any = _script(nested)
    with pytest.raises(hj.CaptureError, match=r"one tensor back in several places[\s\S]*y\.clone\(\)"):
        hj.export(Call(lambda x: function(x)[0] - x).eval(), torch.tensor([0.2, 0.7]))


def test_the_classes_of_torch_are_as_before() -> None:
    """What is called while a model is captured is torch's own again after it."""
    before = _script_function.__call__
    hj.export(Inside().eval(), torch.tensor([0.2, 0.7]))
    assert _script_function.__call__ is before
