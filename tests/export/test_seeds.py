"""Models that seed the random numbers they draw."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

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
