"""Arithmetic of tensors with Python's numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from tests.export.call import Call


@pytest.mark.parametrize("taken", [lambda x: int(x.max()), lambda x: x.max().item(), lambda x: x.tolist()[-1]])
def test_integers_of_few_bits(taken: Callable[[Tensor], int]) -> None:
    """What Python takes out of bytes has as many bits as it needs."""
    model = Call(lambda x: x.float() + (taken(x) + 10)).eval()
    exported = hj.export(model, torch.tensor([3, 100], dtype=torch.uint8), branches="auto")
    for last in (9, 250):
        x = torch.tensor([3, last], dtype=torch.uint8)
        torch.testing.assert_close(exported(x), model(x))


@pytest.mark.parametrize("taken", [lambda x: x.max().item(), lambda x: x.tolist()[-1], lambda x: float(x.max())])
def test_floats_have_the_digits_of_python(taken: Callable[[Tensor], float]) -> None:
    """A float taken out is a double: the hundredth part of 0.29 is 28, where single precision has 29."""

    class Cut(nn.Module):
        def forward(self, x: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
            share = taken(part)
            return x[: int(share * 100)], x * 2 if share >= 0.7 else x

    model = Cut().eval()
    exported = hj.export(model, (torch.ones(100, 3), torch.tensor([0.1, 0.5])), branches="auto")
    for last in (0.29, 0.57, 0.58, 0.7, 0.8):
        given = torch.ones(100, 3), torch.tensor([0.1, last])
        torch.testing.assert_close(exported(*given), model(*given))


def test_parts_of_an_integer() -> None:
    """An integer taken out, times a float, is a double."""
    model = Call(lambda x: torch.arange(int(x.max().item() * 0.29)) + torch.arange(int(int(x.max()) * 0.29))).eval()
    exported = hj.export(model, torch.tensor([3, 60]), branches="auto")
    for last in (100, 88, 200):
        torch.testing.assert_close(exported(torch.tensor([3, last])), model(torch.tensor([3, last])))


class ByNumbers(nn.Module):
    """Arithmetic of Python's floats with tensors of no dimensions, whose dtype the results keep."""

    def forward(self, x: Tensor, counts: Tensor) -> tuple[Tensor, ...]:
        part = x.shape[0] * 0.3
        share = counts.tolist()[0] / counts.tolist()[1]
        few = counts.to(torch.int32).max()
        return (
            *(
                x.sum() * part,
                x.half().sum() / share,
                counts.max() * part,
                x.mean() - share,
                share * x.sum(),
                x * share,
            ),
            *(few * x.shape[0], few // counts.tolist()[0], few > x.shape[0], (few > 3) * x.shape[0], few % part),
            *(x.sum() // part, part ** x.mean(), x.sum().clamp(max=part), x.max() >= share, x.sum().add_(part)),
        )


def test_a_float_leaves_a_single_element_its_dtype() -> None:
    """What is a tensor of double precision in a trace does not make the result one."""
    model = ByNumbers().eval()
    exported = hj.export(model, (torch.rand(4, 3), torch.tensor([2, 5])), branches="auto")
    for rows, counts in ((7, (3, 4)), (1, (1, 9))):
        given = torch.rand(rows, 3), torch.tensor(counts)
        torch.testing.assert_close(exported(*given), model(*given))


CHOICES: dict[str, Callable[[Tensor], Tensor]] = {
    "numbers": lambda x: torch.where(x > 0.5, x.shape[0] / 2, 0.0),
    "integer and float": lambda x: torch.where(x > 0.5, 1.0, x.shape[0]),
    "integers": lambda x: torch.where(x > 0.5, x.shape[0], 0),
    "a number and a single element": lambda x: torch.where(x.sum() > 0, x.sum(), x.shape[0] * 0.5),
}


@pytest.mark.parametrize("kind", CHOICES)
def test_a_choice_of_numbers(kind: str) -> None:
    """`torch.where` makes of numbers what it makes of them in eager mode."""
    model = Call(CHOICES[kind]).eval()
    exported = hj.export(model, torch.rand(4, 3), branches="auto")
    for rows in (4, 1, 7):
        x = torch.rand(rows, 3)
        torch.testing.assert_close(exported(x), model(x))
