"""Questions about a tensor other than its values and sizes: rank, dtype, layout, memory, identity."""

from __future__ import annotations

import torch
from torch import Tensor

import hybridjit as hj

from .entry import floats, leak

X, DOUBLE, HALF = floats(4, 3), floats(4, 3).double(), floats(4, 3).half()
UP, DOWN = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([-1.0, -2.0, -4.0])
IMAGE = floats(2, 3, 4, 5)
LAST = IMAGE.to(memory_format=torch.channels_last)


@leak(X, floats(2, 4, 3))
def rank(x: Tensor) -> Tensor:
    return x.mean(0) if x.dim() == 3 else x * 2


@rank.fixed
def _(x: Tensor) -> Tensor:
    return hj.script_if_tracing(by_rank)(x)


def by_rank(x: Tensor) -> Tensor:
    return x.mean(0) if x.dim() == 3 else x * 2


@leak(X, floats(2, 4, 3))
def length_of_shape(x: Tensor) -> Tensor:
    return x * len(x.shape)


@length_of_shape.fixed
def _(x: Tensor) -> Tensor:
    return hj.script_if_tracing(times_rank)(x)


def times_rank(x: Tensor) -> Tensor:
    return x * x.dim()


@leak(X, X[0])
def added_dimension(x: Tensor) -> Tensor:
    return (x[None] if x.ndim == 1 else x).sum(0)


@added_dimension.fixed
def _(x: Tensor) -> Tensor:
    return hj.script_if_tracing(summed_rows)(x)


def summed_rows(x: Tensor) -> Tensor:
    return (x[None] if x.dim() == 1 else x).sum(0)


@leak(X, DOUBLE, HALF)
def dtype(x: Tensor) -> Tensor:
    return x.round() if x.dtype == torch.float64 else x


@dtype.fixed
def _(x: Tensor) -> Tensor:
    return hj.script_if_tracing(rounded_if_double)(x)


def rounded_if_double(x: Tensor) -> Tensor:
    return x.round() if x.dtype == torch.float64 else x


@leak(X, (X * 10).long())
def floating(x: Tensor) -> Tensor:
    return x / 2 if x.is_floating_point() else x // 2


@floating.fixed
def _(x: Tensor) -> Tensor:
    return hj.script_if_tracing(halved)(x)


def halved(x: Tensor) -> Tensor:
    return x / 2 if x.is_floating_point() else x // 2


@leak(X, HALF)
def smallest_number(x: Tensor) -> Tensor:
    return x.float().clamp(max=0.0) + torch.finfo(x.dtype).min / 2


@smallest_number.fixed
def _(x: Tensor) -> Tensor:
    return hj.script_if_tracing(with_smallest)(x)


def with_smallest(x: Tensor) -> Tensor:
    least = -65504.0 if x.dtype == torch.float16 else -3.4028234663852886e38
    return x.float().clamp(max=0.0) + least / 2


@leak(X, HALF)
def smallest_difference(x: Tensor) -> Tensor:
    return x + torch.finfo(x.dtype).eps * 1000


@smallest_difference.fixed
def _(x: Tensor) -> Tensor:
    return hj.script_if_tracing(with_difference)(x)


def with_difference(x: Tensor) -> Tensor:
    return x + (0.0009765625 if x.dtype == torch.float16 else 1.1920928955078125e-07) * 1000


@leak(X, (X * 10).byte())
def bytes_scaled(x: Tensor) -> Tensor:
    return x.float() / 255 if x.dtype == torch.uint8 else x * 2


@bytes_scaled.fixed
def _(x: Tensor) -> Tensor:
    return hj.script_if_tracing(scaled_if_bytes)(x)


def scaled_if_bytes(x: Tensor) -> Tensor:
    return x.float() / 255 if x.dtype == torch.uint8 else x * 2


MASK = X.mean() < X


@leak((X, torch.zeros_like(X)), (X, MASK))
def mask_or_what_to_add(x: Tensor, mask: Tensor) -> Tensor:
    scores = x @ x.T
    return scores @ (x.masked_fill(mask, 0.0) if mask.dtype == torch.bool else x + mask)


@mask_or_what_to_add.fixed
def _(x: Tensor, mask: Tensor) -> Tensor:
    return x @ x.T @ hj.script_if_tracing(masked_or_added)(x, mask)


def masked_or_added(x: Tensor, mask: Tensor) -> Tensor:
    return x.masked_fill(mask, 0.0) if mask.dtype == torch.bool else x + mask


@leak(X, DOUBLE)
def size_of_element(x: Tensor) -> Tensor:
    return x * x.element_size()


@size_of_element.fixed
def _(x: Tensor) -> Tensor:
    return hj.script_if_tracing(times_size)(x)


def times_size(x: Tensor) -> Tensor:
    return x * x.element_size()


@leak((X, X), (X, DOUBLE))
def common_dtype(x: Tensor, y: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, y.dtype))


@common_dtype.fixed
def _(x: Tensor, y: Tensor) -> Tensor:
    return hj.script_if_tracing(to_common)(x, y)


def to_common(x: Tensor, y: Tensor) -> Tensor:
    return x + torch.zeros_like(y)


@leak(X, DOUBLE)
def converted_to_dtype(x: Tensor) -> Tensor:
    return torch.arange(3).to(x.dtype)


@converted_to_dtype.fixed
def _(x: Tensor) -> Tensor:
    return torch.arange(3).type_as(x)


@leak(X, floats(3, 4).T)
def contiguity(x: Tensor) -> Tensor:
    return x * 2 if x.is_contiguous() else x


@contiguity.fixed
def _(x: Tensor) -> Tensor:
    return hj.script_if_tracing(doubled_if_contiguous)(x)


def doubled_if_contiguous(x: Tensor) -> Tensor:
    return x * 2 if x.is_contiguous() else x


@leak(IMAGE, LAST)
def memory_format(x: Tensor) -> Tensor:
    return x * 2 if x.is_contiguous(memory_format=torch.channels_last) else x


@memory_format.fixed
def _(x: Tensor) -> Tensor:
    return hj.script_if_tracing(doubled_if_last)(x)


def doubled_if_last(x: Tensor) -> Tensor:
    return x * 2 if x.stride(1) == 1 else x


@leak(X, floats(3, 4).T, does="right")
def strides(x: Tensor) -> Tensor:
    return x * x.stride(0)


@strides.fixed
def _(x: Tensor) -> Tensor:
    return hj.script_if_tracing(times_stride)(x)


def times_stride(x: Tensor) -> Tensor:
    return x * x.stride(0)


@leak(X, floats(3, 4).T, auto="right")
def branch_on_strides(x: Tensor) -> Tensor:
    return x * 2 if x.stride() == (3, 1) else x


@branch_on_strides.fixed
def _(x: Tensor) -> Tensor:
    return hj.script_if_tracing(doubled_if_contiguous)(x)


@leak(X, floats(6, 3)[2:], does="right")
def offset_in_memory(x: Tensor) -> Tensor:
    return x * (1 + int(x.storage_offset()))


@offset_in_memory.fixed
def _(x: Tensor) -> Tensor:
    return hj.script_if_tracing(times_offset)(x)


def times_offset(x: Tensor) -> Tensor:
    return x * (1 + int(x.storage_offset()))


@leak((UP, DOWN), (UP, UP), does="refused")
def same_memory(x: Tensor, y: Tensor) -> Tensor:
    return x * 3 if x.data_ptr() == y.data_ptr() else x + y


@same_memory.fixed
def _(x: Tensor, y: Tensor) -> Tensor:
    return torch.where((x == y).all(), x * 3, x + y)


@leak((UP, DOWN), (UP, UP))
def same_object(x: Tensor, y: Tensor) -> Tensor:
    return x * 3 if x is y else x + y


@same_object.fixed
def _(x: Tensor, y: Tensor) -> Tensor:
    return torch.where((x == y).all(), x * 3, x + y)


@leak((X, X + 1), (X, X[:1]), auto="right")
def same_size(x: Tensor, y: Tensor) -> Tensor:
    return x * y if x.is_same_size(y) else x - y


@same_size.fixed
def _(x: Tensor, y: Tensor) -> Tensor:
    return hj.cond(x.shape[0] == y.shape[0], lambda: x * y, lambda: x - y)


@leak(X, X.to_sparse())
def sparse(x: Tensor) -> Tensor:
    return x.to_dense() * 2 if x.is_sparse else x


@sparse.fixed
def _(x: Tensor) -> Tensor:
    return hj.script_if_tracing(dense)(x)


def dense(x: Tensor) -> Tensor:
    return x.to_dense() * 2 if x.is_sparse else x
