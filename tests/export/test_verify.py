"""Every rule of the comparison, with a model that must fail it; and `verify` on its own."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit._describe import short_path


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
    """What a file that keeps frozen values as a plain trace does is refused with."""
    model, start = Lambda(fn).eval(), torch.ones(3) if first is None else first
    with pytest.raises(hj.VerificationError) as error:
        hj.export(model, start, check_inputs=[other], on_frozen="ignore")
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
    with pytest.raises(hj.CaptureError, match="results of another structure"):
        failed(lambda x: {"a": x} if float(x[0]) > 0 else {"b": x}, -torch.ones(3))


def test_frozen_int_result() -> None:
    """A Python number in the result that is another one for another input fails."""
    failed(lambda x: (x, int(x.sum())), torch.full((3,), 5.0))


def test_buffer_reassigned() -> None:
    """A buffer that is replaced by another tensor, and one that is written in place, are so in the file."""
    assert hj.export(Counter(True).eval(), torch.ones(3)).report.ok
    assert hj.export(Counter(False).eval(), torch.ones(3)).report.ok


class Late(nn.Module):
    """Its buffer is there from the first call on; what the second call makes of it is for its owner to say."""

    seen: Tensor | None

    def __init__(self, uses: bool) -> None:
        super().__init__()
        self.register_buffer("seen", None)
        self.uses = uses

    def forward(self, x: Tensor) -> Tensor:
        if self.seen is None or not self.uses:
            self.seen = x + 1
        return x * self.seen if self.seen is not None else x


def test_buffer_that_comes_late() -> None:
    """A buffer that the first call makes is not in the file; refused if a later call depends on it."""
    exported = hj.export(Late(False).eval(), torch.ones(3))
    assert "forward sets the attribute seen; the file does not" in [f.message for f in exported.report.findings]
    with pytest.raises(hj.CaptureError, match="it remembers in attributes"):
        hj.export(Late(True).eval(), torch.ones(3))


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


def test_check_input_of_another_structure_is_named() -> None:
    """The message names the check input, and its argument, that has another structure or holds something else."""
    model = Lambda(lambda x: x[0] + 1).eval()
    good, long, wrong = ([torch.ones(2)],), ([torch.ones(2), torch.ones(2)],), ([object()],)
    with pytest.raises(hj.InputError, match="another structure") as other:
        hj.verify(hj.export(model, good), model, [good, good, long])
    assert str(other.value).splitlines()[1:3] == ["  at check_inputs[2]", "  - x: expected list of 1, got list of 2"]
    with pytest.raises(hj.InputError, match="neither a tensor") as unknown:
        hj.export(model, good, check_inputs=[wrong])
    assert str(unknown.value).splitlines()[1] == "  at check_inputs[0].args[0][0]"
    with pytest.raises(hj.InputError, match="neither a tensor") as unknown:
        hj.export(model, hj.Inputs(x={"a": object()}))
    assert str(unknown.value).splitlines()[1] == "  at input.kwargs['x']['a']"
    with pytest.raises(hj.InputError, match="don't fit") as unfit:
        hj.export(model, good, check_inputs=[hj.Inputs(torch.ones(2), y=1)])
    assert str(unfit.value).splitlines()[1].startswith("  at check_inputs[0], forward(")


def test_verify_takes_what_export_takes() -> None:
    """`verify` looks into DataParallel, and refuses a model in training mode, as `export` does."""
    model = nn.Sequential(nn.Linear(2, 1), nn.Dropout()).eval()
    exported = hj.export(model, torch.ones(3, 2))
    report = hj.verify(exported, nn.DataParallel(model), [torch.ones(7, 2)])
    assert report.ok and [finding.code for finding in report.findings] == ["HJ001"]
    model[1].train()
    with pytest.raises(hj.InputError, match="training: 1"):
        hj.verify(exported, model, [torch.ones(7, 2)])
    with pytest.raises(hj.InputError, match=r"verify takes an nn\.Module"):
        hj.verify(exported, torch.sin, [torch.ones(7, 2)])  # type: ignore[arg-type]


@pytest.mark.parametrize("checks", [5, None, "text", torch.ones(7, 2), {"x": 1}, []])
def test_verify_takes_a_list_of_calls(checks: Any) -> None:
    """Anything but a list of calls is an InputError that says what to write."""
    model = nn.Linear(2, 1).eval()
    with pytest.raises(hj.InputError, match=r"write instead: (check_inputs=|verify)"):
        hj.verify(hj.export(model, torch.ones(3, 2)), model, checks)


def test_errors_of_hybridjit_pass() -> None:
    """What `static` says about a line of the model is not hidden behind another error."""
    with pytest.raises(hj.InputError, match="static takes a tensor of one element") as error:
        hj.export(Lambda(lambda x: x + hj.static(x, reason="wrong")).eval(), torch.ones(3))
    assert f"  at {short_path(__file__)}:" in str(error.value)


class Memory(nn.Module):
    """Gives out its own buffer, a view of it, and a parameter."""

    buffer: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.register_buffer("buffer", torch.zeros(4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.buffer += x
        return self.buffer, self.buffer.view(2, 2)[0], self.weight


def test_a_result_that_is_a_buffer() -> None:
    """A result that is the model's own memory is compared as the call left it, not as it was put back."""
    model = Memory().eval()
    report = hj.export(model, torch.tensor(1.0), check_inputs=[torch.tensor(2.0), torch.tensor(3.0)]).report
    assert report.ok and model.buffer.tolist() == [0] * 4


RESULTS: dict[str, Callable[[Tensor], object]] = {
    "coo": lambda x: x.to_sparse(),
    "csr": lambda x: torch.stack([x, x]).to_sparse_csr(),
    "complex": lambda x: torch.complex(x, x),
    "complex32": lambda x: torch.complex(x, x).to(torch.complex32),
    "float8": lambda x: x.to(torch.float8_e4m3fn),
    "bfloat16": lambda x: x.bfloat16(),
    "bool": lambda x: x > 0,
    "empty": lambda x: x[:0],
    "0-dim": lambda x: x.sum(),
    "nan": lambda x: x / 0 * 0,
    "inf": lambda x: (x + 1) / 0,
    "quantized": lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.quint8),
    "shared": lambda x: (lambda y: {"a": y, "b": [y, y[:1]]})(x + 1),
    "given": lambda x: (x, x),
}


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental", "ignore:Sparse CSR tensor support is in beta")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("kind", RESULTS)
def test_results_of_every_kind(kind: str) -> None:
    """Results of every dtype and layout pass where they agree, and fail where a value was frozen."""
    fn = RESULTS[kind]
    x, other = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([3.0, 0.0, 5.0])
    assert hj.export(Lambda(fn).eval(), x, check_inputs=[other]).report.ok
    if kind not in ("empty", "bool", "nan", "inf"):  # the same for every input
        failed(lambda x: fn(x * float(x.sum())), other, x)


def test_verify_on_meta() -> None:
    """Shapes alone are compared on the meta device."""
    model = nn.Linear(2, 1).eval()
    report = hj.verify(hj.export(model, torch.ones(3, 2)), model, [torch.ones(7, 2)], devices=["meta"])
    assert report.ok
    assert report.checks[0].max_abs_error is None


def test_scripted_model_on_meta() -> None:
    """A script module has a copy on the meta device too."""
    model = torch.jit.script(nn.Linear(2, 1).eval())
    assert hj.verify(hj.export(model, torch.ones(3, 2)), model, [torch.ones(7, 2)], devices=["meta"]).ok


def test_a_model_that_cannot_be_copied() -> None:
    """The message says what to write when a model can't be copied to another device."""
    model = Lambda(lambda x: x + 1).eval()
    model.register_buffer("buffer", torch.ones(2))
    exported = hj.export(model, torch.ones(2))
    model.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(hj.UnsupportedError, match="can't be copied to meta") as error:
        hj.verify(exported, model, [torch.ones(2)], devices=["meta"])
    assert 'write instead: model.to("meta"), its inputs there too, and devices=["meta"]' in str(error.value)
