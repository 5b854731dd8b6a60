"""The comparison of tensors in pairs."""

import pytest
import torch
from torch import Tensor

from hybridjit.export.compare import compare


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
