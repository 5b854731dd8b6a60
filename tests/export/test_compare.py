"""The comparison of tensors in pairs."""

import sys
import warnings
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import hybridjit as hj
from hybridjit.export.compare import compare, is_chaotic

F8 = torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn)
EYE = torch.eye(3)
MOVED = EYE.index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(1.0))

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch calls some of these beta, or deprecated, once
    HALF = torch.tensor([1.0, 2.0]).to(torch.complex32)
    CSR, MOVED_CSR, BSC = EYE.to_sparse_csr(), MOVED.to_sparse_csr(), EYE.to_sparse_bsc((1, 1))
    QUANTIZED, FINER = (torch.quantize_per_tensor(EYE * 2 * scale, scale, 0, torch.quint8) for scale in (0.5, 0.25))
    CHANNELS = torch.quantize_per_channel(EYE, torch.full((3,), 0.5), torch.zeros(3).long(), 0, torch.quint8)


@pytest.mark.parametrize(
    ("expected", "got", "text"),
    [
        (torch.ones(2), torch.ones(2, device="meta"), "expected float32[2] cpu, got float32[2] meta"),
        (torch.ones(2), torch.ones(2).double(), "expected float32[2] cpu, got float64[2] cpu"),
        (torch.ones(2), torch.ones(3), "expected float32[2] cpu, got float32[3] cpu"),
        (torch.tensor([2**60]), torch.tensor([2**60 + 1]), "1 of 1 values differ"),
        (torch.ones(1).double(), torch.ones(1).double() + 1e-6, "1 of 1 values differ"),
        (torch.tensor([1.0, float("nan")]), torch.ones(2), "1 of 2 values differ, most at [1]: by inf"),
        (torch.tensor([True, False]), torch.tensor([True, True]), "1 of 2 values differ, most at [1]: by 1"),
        (torch.tensor(1.0), torch.tensor(2.0), "1 of 1 values differ, most at []: by 1"),
        (torch.tensor(float("inf")), -torch.tensor(float("inf")), "1 of 1 values differ, most at []: by inf"),
        (torch.zeros(0, 2), torch.zeros(0, 3), "expected float32[0, 2] cpu, got float32[0, 3] cpu"),
        (F8, torch.tensor([1.0, 4.0]).to(F8.dtype), "1 of 2 values differ, most at [1]: by 2"),
        (F8.bfloat16(), torch.tensor([1.0, 4.0]).bfloat16(), "1 of 2 values differ, most at [1]: by 2"),
        (torch.tensor([1 + 2j]), torch.tensor([1 + 5j]), "1 of 1 values differ, most at [0]: by 3"),
        (HALF, HALF * 0, "2 of 2 values differ, most at [1]: by 2"),
        (torch.tensor([2**63], dtype=torch.uint64), torch.tensor([1], dtype=torch.uint64), "1 of 1 values differ"),
        (EYE.to_sparse(), EYE, "expected float32[3, 3] sparse_coo cpu, got float32[3, 3] cpu"),
        (EYE.to_sparse(), (EYE * 3).to_sparse(), "3 of 9 values differ, most at [0, 0]: by 2"),
        (EYE.to_sparse(), MOVED.to_sparse(), "1 of 9 values differ, most at [1, 2]: by 1"),
        (CSR, MOVED_CSR, "1 of 9 values differ, most at [1, 2]: by 1"),
        (QUANTIZED, FINER, "3 of 9 values differ, most at [0, 0]: by 0.5"),
        (QUANTIZED, CHANNELS, "got quint8[3, 3] cpu torch.per_channel_affine"),
    ],
)  # fmt: skip
def test_differences(expected: Tensor, got: Tensor, text: str) -> None:
    """Device, dtype, shape and values differ by path, with a true count."""
    (line,) = compare(["result"], [expected], [got]).differences
    assert line.startswith("result: ") and text in line


def test_nan_equals_nan_and_counts_of_tensors() -> None:
    """NaN agrees with NaN; another number of tensors does not pass."""
    nan = torch.tensor([float("nan"), float("inf")])
    assert compare(["a"], [nan], [nan.clone()]).differences == ()
    assert compare(["a"], [nan], []).differences == ("expected 1 tensors, got 0",)


SAME = [
    torch.tensor([float("nan"), float("inf")]), torch.tensor(3), torch.zeros(0, 2), torch.tensor([True]), F8, HALF,
    F8.bfloat16(), torch.tensor([complex("nan")]), EYE.to_sparse(), CSR, BSC,
    torch.zeros(3, 3).to_sparse(), EYE.to_mkldnn(), QUANTIZED, CHANNELS, torch.tensor([2**63 - 1]),
]  # fmt: skip


@pytest.mark.parametrize("tensor", SAME, ids=lambda tensor: f"{tensor.dtype}-{tensor.layout}")
def test_every_kind_agrees_with_itself(tensor: Tensor) -> None:
    """A tensor of any dtype and layout agrees with a copy of it."""
    compared = compare(["a"], [tensor], [tensor.clone()])
    assert compared.differences == () and (compared.max_abs_error, compared.max_rel_error) == (0.0, 0.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64])
@pytest.mark.parametrize("by", [0.5, 2.0])
def test_tolerances_are_those_of_assert_close(dtype: torch.dtype, by: float) -> None:
    """Half of torch's own tolerance passes and twice it fails, as `assert_close` has it."""
    rtol = {torch.float16: 1e-3, torch.bfloat16: 1.6e-2, torch.float64: 1e-7}.get(dtype, 1.3e-6)
    a = torch.full((1,), 1024.0, dtype=dtype)
    b = torch.full((1,), 1024.0 * (1 + by * rtol), dtype=torch.float64).to(dtype)
    try:
        torch.testing.assert_close(b, a)
        close = True
    except AssertionError:
        close = False
    assert (compare(["a"], [a], [b]).differences == ()) is close is (by < 1)


def test_given_tolerances() -> None:
    """Tolerances that are given hold for floating-point and whole numbers, and never for bools."""
    assert not compare(["a"], [torch.ones(2)], [torch.ones(2) + 0.05], 0.1, 0.0).differences
    assert not compare(["a"], [torch.tensor([100])], [torch.tensor([105])], 0.1, 0.0).differences
    assert compare(["a"], [torch.tensor([True])], [torch.tensor([False])], 0.1, 2.0).differences


def test_values_that_torch_cannot_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dtype that torch can't compare is named, with its path, instead of torch's own error."""

    def refuse(*tensors: Tensor) -> None:
        raise NotImplementedError("'eq' not implemented for 'Float4'\nand more")

    monkeypatch.setattr(sys.modules[compare.__module__], "identical", refuse)
    with pytest.raises(hj.UnsupportedError) as error:
        compare(["result['a']"], [torch.ones(2)], [torch.ones(2)])
    assert str(error.value).splitlines()[:3] == [
        "torch can't compare the values of result['a']",
        "  - float32[2] cpu",
        "  - NotImplementedError: 'eq' not implemented for 'Float4'",
    ]


def test_rounding_of_what_is_computed() -> None:
    """Scores that tie whatever the input is part by the rounding of a sum, which counts for extreme inputs alone."""
    weights = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))

    def order(flat: Sequence[Tensor]) -> Tensor:
        return torch.argmax(flat[0].sign() @ weights @ torch.full((8, 64), 0.1))

    flat = (torch.ones(8),)
    assert not is_chaotic(flat, order(flat), order)
    assert is_chaotic(flat, order(flat), order, extreme=True)


def test_whole_numbers_are_exact_in_any_order() -> None:
    """A count that a product of matrices gives is no matter of rounding."""

    def count(flat: Sequence[Tensor]) -> Tensor:
        return ((flat[0] > 0).float() @ torch.ones(8, 1)).int()

    flat = (torch.ones(8, 8),)
    assert not is_chaotic(flat, count(flat), count, extreme=True)
