"""Dicts whose class gives something else than they hold."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit.control import dicts


class Made(OrderedDict[str, Any]):
    """Gives a new object of the class it holds, as transformers' activations do."""

    def __getitem__(self, key: str) -> Any:
        return super().__getitem__(key)()


class Fixed(dict[str, Any]):
    """Takes nothing new, as transformers' results do."""

    def __setitem__(self, key: str, value: Any) -> None:
        raise TypeError("fixed")

    def update(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("fixed")

    def copy(self) -> dict[str, Any]:
        raise TypeError("fixed")


MADE = Made(relu=nn.ReLU, gelu=nn.GELU)
FIXED = Fixed(scale=2.0)


@pytest.mark.parametrize("held", [MADE, FIXED], ids=["made", "fixed"])
def test_contents_and_fill(held: dict[str, Any]) -> None:
    """What is taken is what is held, and can be put back."""
    before = dicts.contents(held)
    assert type(before) is dict and all(value is not None for value in before.values())
    dicts.fill(held, {"other": int, **before})
    assert list(dicts.contents(held)) == ["other", *before]
    dicts.fill(held, before)
    assert dicts.contents(held) == before and [*held] == [*before]


class Layer(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.linear = nn.Linear(3, 3)
        self.own = Made(tanh=nn.Tanh)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = x * FIXED["scale"] + self.own["tanh"](x)
        result: Tensor = MADE[self.name](self.linear(x))
        return result


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Layer("relu"), Layer("gelu")

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] == 1:
            one: Tensor = self.first(x)
            return one
        if x.max() > 3:
            x = x - 1
        both: Tensor = self.second(self.first(x))
        return both


def test_branches_beside_them() -> None:
    """Such dicts within reach of a branch cost no branch, and hold afterwards what they held."""
    model = Net().eval()
    exported = hj.export(model, torch.randn(4, 3), branches="auto")
    for rows in (4, 1, 3):
        for scale in (1, -1, 5):
            x = torch.randn(rows, 3).abs() * scale
            torch.testing.assert_close(exported(x), model(x))
    assert dicts.contents(MADE) == {"relu": nn.ReLU, "gelu": nn.GELU}
    assert dicts.contents(model.first.own) == {"tanh": nn.Tanh} and dicts.contents(FIXED) == {"scale": 2.0}
