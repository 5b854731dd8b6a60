"""The options of `export`."""

from typing import Any

import pytest
import torch
from torch import nn

import hybridjit as hj


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"format": "onnx"}, hj.UnsupportedError),
        ({"rtol": 1e-3}, hj.InputError),
        ({"check_inputs": torch.ones(1, 2)}, hj.InputError),
        ({"devices": ["nonsense"]}, hj.InputError),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception]) -> None:
    """An option that is not what it should be is refused, with a page to read."""
    with pytest.raises(error, match=r"docs/errors.md#"):
        hj.export(nn.Linear(2, 1).eval(), torch.ones(1, 2), **options)


def test_other_sizes_are_checked() -> None:
    """Every check input is a check."""
    checks = [torch.ones(5, 2), torch.ones(0, 2)]
    report = hj.export(nn.Linear(2, 1).eval(), torch.ones(1, 2), check_inputs=checks).report
    assert [check.input for check in report.checks] == ["input", "check_inputs[0]", "check_inputs[1]"]
    assert report.ok
