"""Sizes given to operations as numbers: groups, padding and strides of convolutions, whether attention is causal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hybridjit as hj

from .call import Call

attend = F.scaled_dot_product_attention


class Modulated(nn.Module):
    """A convolution with weights of its own for each row, as one with a group for each."""

    def __init__(self, dims: int, by_name: bool, convolution: Callable[..., Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, *[3] * dims, generator=torch.Generator().manual_seed(0)))
        self.dims, self.by_name, self.convolution = dims, by_name, convolution

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        rows = x.shape[0]
        weight = self.weight[None] * style.view(rows, 1, 3, *[1] * self.dims)
        if self.convolution.__name__.startswith("conv_transpose"):
            weight = weight.transpose(1, 2)
        weight = weight.reshape(-1, *weight.shape[2:])
        x = x.reshape(1, -1, *x.shape[2:])
        if self.by_name:
            y = self.convolution(x, weight, padding=1, groups=rows)
        else:
            last = (0, rows) if self.convolution.__name__.startswith("conv_transpose") else (1, rows)
            y = self.convolution(x, weight, None, 1, 1, *last)
        return y.reshape(rows, 4, *y.shape[2:])


@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize("name", ["conv1d", "conv2d", "conv3d", "conv_transpose2d"])
def test_groups_are_those_of_the_input(name: str, by_name: bool, first: int, tmp_path: Path) -> None:
    """A file from one batch is right for others, without a guard, and in plain torch."""
    dims = int(name[-2])
    model = Modulated(dims, by_name, getattr(F, name)).eval()

    def inputs(rows: int, size: int) -> tuple[Tensor, Tensor]:
        return torch.randn(rows, 3, *[size] * dims), torch.randn(rows, 3)

    exported = hj.export(model, inputs(first, 6))
    assert not exported.report.guards
    exported.save(tmp_path / "model.pt")
    plain = torch.jit.load(tmp_path / "model.pt")  # type: ignore[no-untyped-call]
    for rows, size in ((first, 6), (1, 5), (3, 7), (5, 6)):
        call = inputs(rows, size)
        torch.testing.assert_close(exported(*call), model(*call))
        torch.testing.assert_close(plain(*call), model(*call))


CONVOLUTIONS: list[Callable[[Tensor, Tensor], Tensor]] = [
    lambda x, w: F.conv1d(x, w, padding=w.shape[-1] - 1),
    lambda x, w: F.conv1d(x, w, None, 1, (w.shape[-1] // 2,)),
    lambda x, w: F.conv1d(x, w, stride=w.shape[-1] - 2, dilation=w.shape[-1] // 2),
    lambda x, w: F.conv2d(x[:1, None], w[None], padding=(0, w.shape[-1] // 2)),
    lambda x, w: F.conv_transpose1d(x, w, stride=w.shape[-1], output_padding=w.shape[-1] - 2),
    lambda x, w: F.conv1d(input=x, weight=w, stride=1, padding=w.shape[-1] - 1, groups=x.shape[1]),
]


@pytest.mark.parametrize("function", CONVOLUTIONS, ids=range(len(CONVOLUTIONS)))
def test_sizes_of_convolutions(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """What a convolution is told of the size of a kernel is of the kernel given; a trace keeps the first one."""
    model = Call(function).eval()
    exported = hj.export(model, (torch.randn(1, 1, 30), torch.randn(1, 1, 5)))
    assert not exported.report.guards
    for rows, length, size in ((1, 30, 5), (2, 40, 7), (3, 20, 3)):
        x, kernel = torch.randn(rows, 1, length), torch.randn(1, 1, size)
        torch.testing.assert_close(exported(x, kernel), model(x, kernel))


def test_an_equal_number_of_another_kind_is_left_alone() -> None:
    """A number that reaches an operation by another way than its argument is guarded, as ever."""

    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv1d(x, x.new_ones(1, 1, 3), padding=int(x.sum()))

    model, x = Model().eval(), torch.tensor([[[0.0, 1.0, 0.0, 1.0]]])
    exported = hj.export(model, x)
    for given in (x, x.roll(1), torch.zeros(1, 1, 6), 2 * x):
        try:
            torch.testing.assert_close(exported(given), model(given))
        except hj.GuardError:
            assert given.sum() != 2


def causal(x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x, x, x, is_causal=x.shape[1] > 1)


def by_place(x: Tensor) -> Tensor:
    return attend(x, x[:, :4], x[:, :4], None, 0.0, x.shape[1] > 3)


def on_a_side(x: Tensor) -> Tensor:
    if x.sum() > 0:
        x = x + 1
    return attend(x, x, x, is_causal=x.shape[0] != x.shape[1])


@pytest.mark.parametrize("function", [causal, by_place, on_a_side])
def test_attention_that_is_causal_as_a_size_says(function: Callable[[Tensor], Tensor]) -> None:
    """A comparison of sizes is one in the file; torch refuses it in a trace, and every size was kept for it."""
    model, own = Call(function).eval(), vars(sys.modules[__name__])
    exported = hj.export(model, torch.ones(2, 5, 8), branches="auto")
    assert F.scaled_dot_product_attention is own["attend"] is torch._C._nn.scaled_dot_product_attention
    assert not exported.report.guards
    for shape in ((2, 5, 8), (1, 9, 8), (3, 1, 8), (4, 4, 8), (2, 3, 8)):
        for sign in (1, -1):
            x = sign * torch.rand(shape)
            torch.testing.assert_close(exported(x), model(x))


def test_attention_asks_a_tensor_of_data() -> None:
    """What eager mode refuses is refused: a tensor that is no size is no truth there."""
    with pytest.raises(hj.HybridJitError, match="is_causal"):
        hj.export(Call(lambda x: attend(x, x, x, is_causal=x.sum() > 0)).eval(), torch.ones(2, 5, 8))


def total(x: Tensor) -> Any:
    """A tensor, where a type checker wants a number."""
    return x.sum()


def whole(x: Tensor) -> Any:
    return x.sum().long()


NUMBERS: dict[str, Callable[[Tensor], Tensor]] = {
    "scale": lambda x: attend(x[None, :, None], x[None, :, None], x[None, :, None], scale=total(x)),
    "p": lambda x: torch.cdist(x[:, None], x[:, None], p=total(x)),
    "delta": lambda x: F.huber_loss(x, x + 3, delta=total(x)),
    "eps": lambda x: F.group_norm(x[None, :, None].repeat(1, 2, 1), 2, eps=total(x)),
    "by place": lambda x: F.layer_norm(x, (3,), None, None, total(x)),
    "momentum": lambda x: F.instance_norm(x[None, :, None].repeat(1, 1, 3), eps=total(x)),
    "value": lambda x: F.pad(x, (1, 1), value=total(x)),
    "nan": lambda x: torch.nan_to_num(x * float("nan"), nan=total(x)),
    "in place": lambda x: x.clone().clamp_(max=total(x) * 0.3),
    "alpha": lambda x: torch.add(x, x, alpha=total(x)),
    "shift": lambda x: torch.roll(x, whole(x)),
    "bins": lambda x: torch.histc(x, bins=whole(x)),
    "slope": lambda x: F.leaky_relu(-x, total(x)),
    "another order": lambda x: F.batch_norm(x[:, None], x[:1] * 0, x[:1] * 0 + 1, eps=total(x)),
    "twice": lambda x: F.pad(x, (1, 1), value=total(x)) + F.pad(x, (1, 1), value=total(x + 1)),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_data(name: str) -> None:
    """A number that comes of the data is that of the data given, as long as the operation is one of the graph."""
    model, x = Call(NUMBERS[name]).eval(), torch.tensor([1.0, 2.0, 3.0])
    exported = hj.export(model, x)
    assert not exported.report.guards
    for given in (x, torch.tensor([8.0, 0.5, 6.0]), torch.ones(3)):
        torch.testing.assert_close(exported(given), model(given), equal_nan=True)
