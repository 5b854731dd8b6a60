"""The values of tensors of any dtype and layout, side by side."""

from __future__ import annotations

import torch
from torch import Tensor


def identical(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have the same dtype, device, layout, shape and values; NaN is NaN.

    Tensors on the meta device have no values to differ in.
    """
    if (a.dtype, a.device, a.layout, a.shape) != (b.dtype, b.device, b.layout, b.shape):
        return False
    if a.device.type == "meta":
        return True
    # Values on other devices stay there, as long as torch can compare them there.
    if _has_equal(a) and torch.equal(a.detach(), b.detach()):
        return True
    if _has_equal(a) and not (a.is_floating_point() or a.is_complex()):
        return False
    a, b, _ = aligned(a, b)
    return bool(same(a, b).all())


def aligned(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """The values of two tensors of one layout and shape at the same places, on the CPU.

    Args:
        a: A tensor.
        b: Another.

    Returns:
        Both as dense tensors of one shape; of sparse tensors only the values at places that one of
        them has, and these places, one a column. A whole dense copy might not fit into memory.
    """
    if a.layout == torch.strided or a.is_mkldnn:
        return plain(a), plain(b), None
    a, b = (tensor.detach().cpu().to_sparse().coalesce() for tensor in (a, b))
    indices = torch.cat([a.indices(), b.indices()], 1)
    places, which = indices, torch.arange(0)
    if indices.numel():
        places, which = torch.unique(indices, dim=1, return_inverse=True)
    count = a.indices().shape[1]
    return _spread(a, places, which[:count]), _spread(b, places, which[count:]), places


def _spread(tensor: Tensor, places: Tensor, which: Tensor) -> Tensor:
    values = plain(tensor.values())
    spread = values.new_zeros(places.shape[1], *values.shape[1:])
    spread[which] = values
    return spread


def same(a: Tensor, b: Tensor) -> Tensor:
    """Where two dense tensors are equal, or both NaN."""
    return (a == b) | (a.isnan() & b.isnan())


def plain(tensor: Tensor) -> Tensor:
    """A dense copy on the CPU, exact, in a dtype that torch compares and computes with."""
    tensor = tensor.detach().cpu()
    if tensor.is_quantized:
        return tensor.dequantize()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.dtype == torch.complex32:
        return tensor.to(torch.complex64)
    small = tensor.is_floating_point() and tensor.element_size() == 1  # the float8 dtypes
    return tensor.float() if small else tensor


def _has_equal(tensor: Tensor) -> bool:
    """Whether ``torch.equal`` knows the kind of a tensor."""
    if tensor.layout != torch.strided or tensor.dtype == torch.complex32:
        return False
    return not (tensor.is_floating_point() and tensor.element_size() == 1)
