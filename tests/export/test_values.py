"""The values of tensors of every dtype and layout."""

import warnings

import pytest
import torch
from torch import Tensor

from hybridjit.export.values import aligned, identical

EYE = torch.eye(4)
DTYPES = [
    torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu, torch.float16, torch.bfloat16, torch.float64,
    torch.complex32, torch.complex64, torch.bool, torch.uint8, torch.uint16, torch.uint64, torch.int64,
]  # fmt: skip
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch calls some of these layouts beta, once
    LAYOUTS = {
        "coo": EYE.to_sparse(),
        "csr": EYE.to_sparse_csr(),
        "csc": EYE.to_sparse_csc(),
        "bsr": EYE.to_sparse_bsr((2, 2)),
        "bsc": EYE.to_sparse_bsc((2, 2)),
        "mkldnn": EYE.to_mkldnn(),
        "quantized": torch.quantize_per_tensor(EYE, 0.5, 0, torch.quint8),
    }

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(dtype: torch.dtype) -> None:
    """Every dtype is told from another value, from itself in other memory, and from itself not."""
    tensor = torch.tensor([1.0, 2.0, 0.0]).to(dtype)
    assert identical(tensor, tensor) and identical(tensor, tensor.clone())
    assert not identical(tensor, torch.tensor([1.0, 2.0, 4.0]).to(dtype))
    assert not identical(tensor, tensor[:2])
    assert not identical(tensor, tensor.to(torch.complex128))


@pytest.mark.parametrize("tensor", LAYOUTS.values(), ids=list(LAYOUTS))
def test_layouts(tensor: Tensor) -> None:
    """So is every layout, and a dense tensor of the same values is another one."""
    other = EYE.clone()
    other[0, 0] = 5
    assert identical(tensor, tensor.clone())
    assert not identical(tensor, tensor.to_dense() if not tensor.is_quantized else tensor.dequantize())
    if tensor.layout == torch.sparse_coo:
        assert not identical(tensor, other.to_sparse())
    elif tensor.is_quantized:
        assert not identical(tensor, torch.quantize_per_tensor(other, 0.5, 0, torch.quint8))
    elif tensor.is_mkldnn:
        assert not identical(tensor, other.to_mkldnn())
    else:
        block = (2, 2) if tensor.layout in (torch.sparse_bsr, torch.sparse_bsc) else None
        assert not identical(tensor, other.to_sparse(layout=tensor.layout, blocksize=block))


def test_nan_is_nan() -> None:
    """NaN at the same places is no change."""
    nan = torch.tensor([float("nan"), 1.0])
    assert identical(nan, nan.clone()) and not identical(nan, nan.flip(0))


def test_a_huge_sparse_tensor_stays_sparse() -> None:
    """Only the places that one of two sparse tensors has are compared: all of these would fill 8 TB."""
    size = (1_000_000, 1_000_000)
    a = torch.sparse_coo_tensor(torch.tensor([[0, 5], [0, 7]]), torch.tensor([1.0, 2.0]), size, check_invariants=True)
    b = torch.sparse_coo_tensor(torch.tensor([[5, 9], [7, 9]]), torch.tensor([2.0, 3.0]), size, check_invariants=True)
    first, second, places = aligned(a, b)
    assert places is not None
    assert sorted(zip(*places.tolist(), first.tolist(), second.tolist(), strict=True)) == [
        (0, 0, 1.0, 0.0), (5, 7, 2.0, 2.0), (9, 9, 0.0, 3.0),
    ]  # fmt: skip
    empty = torch.sparse_coo_tensor(torch.empty(2, 0, dtype=torch.long), torch.empty(0), size, check_invariants=True)
    assert identical(empty, empty.clone()) and not identical(empty, a)
