"""What neither a tracer nor a mode sees: models that seed their random numbers, and that lend their memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import dlpack

import hybridjit as hj


class Seeded(nn.Module):
    """Projects at random, the same way at each call, and otherwise where its sum is positive."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def forward(self, x: Tensor) -> Tensor:
        torch.manual_seed(self.seed)
        y = x @ torch.randn(x.shape[1], 3)
        if y.sum() > 0:
            torch.manual_seed(5)
            y = y + torch.rand(3)
        return y


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("told", [True, False])
def test_the_file_seeds_too(seed: int, told: bool) -> None:
    """It draws what the model draws, whatever was drawn before; at other sizes, and on each path."""
    model, x = Seeded(seed).eval(), torch.randn(2, 4)
    exported = hj.export(model, x, check_inputs=[-x] if told else [], branches="auto")
    before = torch.manual_seed
    for each in (x, -x, torch.randn(3, 6)):
        torch.manual_seed(98)
        got = exported(each)
        torch.manual_seed(99)
        assert torch.equal(got, model(each))
    assert torch.manual_seed is before


class Projects(nn.Module):
    """Projects at random, the same way at each call."""

    def forward(self, x: Tensor) -> Tensor:
        torch.manual_seed(3)
        return x @ torch.randn(4, 3)


def test_a_program_that_does_not_seed_is_refused() -> None:
    """A format in which the seed is lost draws other numbers, which the comparison sees."""
    with pytest.raises(hj.VerificationError):
        hj.export(Projects().eval(), torch.ones(2, 4), format="pt2")


class Lends(nn.Module):
    """Decides by what it hands to another library."""

    def __init__(self, lend: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.lend = lend

    def forward(self, x: Tensor) -> Tensor:
        return x * (2 if dlpack.from_dlpack(self.lend(x)).detach().max() > 7.5 else 1)


@pytest.mark.parametrize("lend", ["torch.to_dlpack", "torch.utils.dlpack.to_dlpack"])
def test_lent_memory_is_guarded(lend: str) -> None:
    """Memory that is lent by a function is seen as that lent by the method is."""
    model = Lends(lambda x: eval(lend)(x)).eval()
    exported = hj.export(model, torch.rand(3))
    with pytest.raises(hj.GuardError):
        exported(torch.rand(3) + 9)
