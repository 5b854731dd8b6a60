"""Every rule of the comparison, with a model that must fail it; and `verify` on its own."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj


class Lambda(nn.Module):
    def __init__(self, fn: Callable[..., object]) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> object:
        return self.fn(x)


class Counter(nn.Module):
    seen: Tensor

    def __init__(self, reassign: bool) -> None:
        super().__init__()
        self.reassign = reassign
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        if self.reassign:
            self.seen = self.seen + 1
        else:
            self.seen += 1
        return x * 2


def failed(fn: Callable[..., object], other: Tensor, first: Tensor | None = None) -> hj.VerificationError:
    with pytest.raises(hj.VerificationError) as error:
        hj.export(Lambda(fn).eval(), torch.ones(3) if first is None else first, check_inputs=[other])
    report = error.value.report
    assert report is not None and not report.ok
    assert "no file was written" in str(error.value)
    return error.value


def test_branch_frozen() -> None:
    """A data-dependent if fails with count, place and largest difference."""
    error = failed(lambda x: x + 1 if x.sum() > 0 else x, -torch.ones(3))
    assert "result: 3 of 3 values differ, most at [0]: by 1 absolute" in str(error)
    assert "HJ101" in str(error.report)


def test_size_baked_in() -> None:
    """A size taken out as a Python number makes the file raise on another size."""
    error = failed(lambda x: x.reshape(int(x.shape[0]), 1), torch.ones(5))
    assert "the model runs, the file raises" in str(error)


def test_shape_and_values() -> None:
    """A range that was unrolled gives another shape, and a constant another value."""
    shape = failed(lambda x: torch.stack([x[i] for i in range(len(x))]), torch.ones(5))
    assert "expected float32[5] cpu, got float32[3] cpu" in str(shape)
    failed(lambda x: x * float(x.sum()), torch.full((3,), 7.0))


def test_dtype_and_structure() -> None:
    """A dtype or a structure that depends on the input fails by path."""
    dtype = failed(lambda x: x.long() if float(x[0]) < 0 else x, -torch.ones(3))
    assert "expected int64[3] cpu, got float32[3] cpu" in str(dtype)
    structure = failed(lambda x: {"a": x} if float(x[0]) > 0 else {"b": x}, -torch.ones(3))
    assert "structure: result: expected dict(" in str(structure.report)


def test_frozen_int_result() -> None:
    """A Python number in the result that is another one for another input fails."""
    failed(lambda x: (x, int(x.sum())), torch.full((3,), 5.0))


def test_buffer_reassigned() -> None:
    """A buffer that the file does not change as the model does fails; in place it passes."""
    with pytest.raises(hj.VerificationError, match="buffer seen"):
        hj.export(Counter(True).eval(), torch.ones(3))
    assert hj.export(Counter(False).eval(), torch.ones(3)).report.ok


def test_nan_and_random_pass() -> None:
    """NaN equals NaN, and random numbers agree under one seed."""
    assert hj.export(Lambda(lambda x: x / 0 * 0).eval(), torch.ones(3)).report.ok
    assert hj.export(Lambda(lambda x: x + torch.rand_like(x)).eval(), torch.ones(3)).report.ok


def test_verify_tells_good_from_bad() -> None:
    """`verify` reports other weights without raising."""
    model = nn.Linear(2, 1).eval()
    exported = hj.export(model, torch.ones(3, 2))
    assert hj.verify(exported, model, [torch.ones(7, 2)]).ok
    report = hj.verify(exported, nn.Linear(2, 1).eval(), [torch.ones(7, 2)])
    assert not report.ok
    assert report.checks[0].differences[0].startswith("result: 7 of 7 values differ")


def test_model_raises_on_a_check_input() -> None:
    """The message names the check input that the model itself refuses."""
    with pytest.raises(hj.CaptureError, match=r"raises on check_inputs\[0\]"):
        hj.export(nn.Linear(2, 1).eval(), torch.ones(3, 2), check_inputs=[torch.ones(3, 5)])


def test_other_structure_is_an_input_error() -> None:
    """A check input of another structure is refused."""
    model = Lambda(lambda x: x[0] + 1).eval()
    with pytest.raises(hj.InputError):
        hj.export(model, ([torch.ones(2)],), check_inputs=[([torch.ones(2), torch.ones(2)],)])


def test_verify_on_meta() -> None:
    """Shapes alone are compared on the meta device."""
    model = nn.Linear(2, 1).eval()
    report = hj.verify(hj.export(model, torch.ones(3, 2)), model, [torch.ones(7, 2)], devices=["meta"])
    assert report.ok
    assert report.checks[0].max_abs_error is None
