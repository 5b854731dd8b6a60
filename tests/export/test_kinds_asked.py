"""What a model goes by of the kinds of its inputs is guarded, whichever kind the example has."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import hybridjit as hj

from .call import Call


def masked(scores: Tensor) -> Tensor:
    return scores.masked_fill(scores < 0, torch.finfo(scores.dtype).min)


def counted_down(x: Tensor) -> Tensor:
    return torch.iinfo(x.dtype).max - x


def named(x: Tensor) -> Tensor:
    return x * (2 if x.type() == "torch.FloatTensor" else 3)


X = torch.tensor([[1.5, -2.0], [-3.0, 4.0]])


@pytest.mark.parametrize("model", [masked, named])
@pytest.mark.parametrize(
    ("captured", "given"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float32, torch.float16)],
)
def test_another_precision(model: Callable[[Tensor], Tensor], captured: torch.dtype, given: torch.dtype) -> None:
    """The smallest number of a dtype, and its name, are the example's: the file stops on another one."""
    x, other = X.to(captured), X.to(given)
    exported = hj.export(Call(model).eval(), x, devices=["cpu"])
    torch.testing.assert_close(exported(-x), model(-x))
    with pytest.raises(hj.GuardError, match="got another dtype"):
        exported(other)


def test_a_precision_that_was_given() -> None:
    """Beside an input of that dtype both are right."""
    exported = hj.export(Call(masked).eval(), X.half(), check_inputs=[X], devices=["cpu"])
    for x in (X.half(), X, -X.half(), -X):
        assert torch.equal(exported(x), masked(x))


@pytest.mark.parametrize(("captured", "given"), [(torch.int32, torch.int64), (torch.int64, torch.int32)])
def test_other_integers(captured: torch.dtype, given: torch.dtype) -> None:
    """So is the largest integer."""
    x = torch.arange(6).reshape(2, 3)
    exported = hj.export(Call(counted_down).eval(), x.to(captured), devices=["cpu"])
    with pytest.raises(hj.GuardError, match="got another dtype"):
        exported(x.to(given))


def of_channels(x: Tensor) -> Tensor:
    if x.shape[-3] not in (1, 3):
        raise TypeError("an image of one channel or three is needed")
    return x * 2


def test_the_model_raises_for_no_rank_that_it_takes() -> None:
    """Of a batch, whose third last size is not its first, the file does not say what the model says of images."""
    exported = hj.export(Call(of_channels).eval(), torch.rand(3, 8, 8), branches="auto", devices=["cpu"])
    assert exported(torch.rand(1, 5, 4)).shape == (1, 5, 4)
    with pytest.raises(hj.GuardError, match="one channel or three"):
        exported(torch.rand(2, 8, 8))
    with pytest.raises(hj.GuardError, match=r"captured float32\[3, 8, 8\] cpu, got 4 dimensions"):
        exported(torch.rand(2, 3, 8, 8))
