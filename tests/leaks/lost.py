"""Copies and aliases that a trace does not hear of, and numbers that matter beyond a limit that no example reaches."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from .entry import floats, leak

LOW, HIGH = torch.tensor([1.0, 2.0, -1.0]), torch.tensor([1.0, 9.0, -1.0])
FEW, MANY = floats(4, 3), floats(70, 3)


@leak(LOW, HIGH, does="guard", auto="right")
def data_compared(x: Tensor) -> Tensor:
    return x * 2 if x.data.max() > 5 else x


@data_compared.fixed
def _(x: Tensor) -> Tensor:
    return torch.where(x.max() > 5, x * 2, x)


@leak(LOW, HIGH, does="right")
def data_masked(x: Tensor) -> Tensor:
    x = x + 1
    x.data[x.data > 5] = 0
    return x


@data_masked.fixed
def _(x: Tensor) -> Tensor:
    return (x + 1).masked_fill(x + 1 > 5, 0)


@leak(FEW, MANY, does="guard", auto="right")
def data_counted(x: Tensor) -> Tensor:
    return x * 2 if x.data.shape[0] > 60 else x


@data_counted.fixed
def _(x: Tensor) -> Tensor:
    return torch.where(torch.tensor(x.shape[0]) > 60, x * 2, x)


@leak(LOW, HIGH, does="right")
def deep_copied(x: Tensor) -> Tensor:
    return copy.deepcopy(x).clamp(max=5)


@deep_copied.fixed
def _(x: Tensor) -> Tensor:
    return x.clone().clamp(max=5)


@leak(LOW, HIGH, does="guard", auto="right")
def copied(x: Tensor) -> Tensor:
    return x * 2 if copy.copy(x).max() > 5 else x


@copied.fixed
def _(x: Tensor) -> Tensor:
    return torch.where(x.max() > 5, x * 2, x)


@leak(LOW, HIGH, does="refused")
def applied(x: Tensor) -> Tensor:
    return x.clone().apply_(lambda value: min(value, 5.0))


@applied.fixed
def _(x: Tensor) -> Tensor:
    return x.clamp(max=5)


@leak(FEW, MANY)
def parts_counted(x: Tensor) -> Tensor:
    return x * 2 if len(x.unbind()) > 60 else x


@parts_counted.fixed
def _(x: Tensor) -> Tensor:
    return torch.where(torch.tensor(x.shape[0]) > 60, x * 2, x)


@leak(FEW, MANY)
def digits(x: Tensor) -> Tensor:
    return x * len(hex(x.shape[0]))


@digits.fixed
def _(x: Tensor) -> Tensor:
    return x * (torch.tensor(x.shape[0]).log2() // 4 + 3)


@leak(FEW, MANY)
def close_to_a_size(x: Tensor) -> Tensor:
    return x * 2 if math.isclose(x.shape[0], 70, abs_tol=9) else x


@close_to_a_size.fixed
def _(x: Tensor) -> Tensor:
    return torch.where((torch.tensor(x.shape[0]) - 70).abs() <= 9, x * 2, x)


@leak(LOW, HIGH)
def number_from_text(x: Tensor) -> Tensor:
    return x * 2 if float(repr(float(x.max()))) > 5 else x


@number_from_text.fixed
def _(x: Tensor) -> Tensor:
    return torch.where(x.max() > 5, x * 2, x)


@leak(FEW, floats(1, 3))
def gradient(x: Tensor) -> Tensor:
    with torch.enable_grad():
        y = x.detach().requires_grad_()
        (grad,) = torch.autograd.grad(y.clamp(max=5).pow(2).sum(), y)
    return grad


@gradient.fixed
def _(x: Tensor) -> Tensor:
    return torch.where(x <= 5, 2 * x, 0)


@leak(FEW, MANY, does="guard", auto="right")
def kind_of_number(x: Tensor) -> Tensor:
    return x * 2 if isinstance(x.shape[0], int) and x.shape[0] > 60 else x


@kind_of_number.fixed
def _(x: Tensor) -> Tensor:
    return torch.where(torch.tensor(x.shape[0]) > 60, x * 2, x)


@leak(FEW, MANY, does="refused")
def caught(x: Tensor) -> Tensor:
    try:
        return x + x[60]
    except IndexError:
        return x


@caught.fixed
def _(x: Tensor) -> Tensor:
    row = torch.cat([x, x.new_zeros(61, 3)])[60]
    return torch.where(torch.tensor(x.shape[0]) > 60, x + row, x)


@leak(FEW, MANY, does="guard", auto="right")
def elements(x: Tensor) -> Tensor:
    return x * 2 if torch.numel(x) > 180 else x


@elements.fixed
def _(x: Tensor) -> Tensor:
    return torch.where(torch.tensor(x.numel()) > 180, x * 2, x)


@leak(FEW, MANY)
def turns_counted(x: Tensor) -> Tensor:
    rows = []
    for index in range(x.shape[0]):
        rows.append(x[index])
    return x * 2 if len(rows) > 60 else x


@turns_counted.fixed
def _(x: Tensor) -> Tensor:
    return torch.where(torch.tensor(x.shape[0]) > 60, x * 2, x)
