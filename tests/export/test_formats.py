"""`export(format=...)`: each rule of each format, with a model that breaks it."""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import hybridjit as hj
from hybridjit.export.formats import SUFFIXES

FILES = ("pt2", "onnx")
X = torch.rand(3, 4, generator=torch.Generator().manual_seed(0)) + 0.1


class Pair(NamedTuple):
    mixed: Tensor
    ends: dict[str, Tensor]


class Model(nn.Module):
    """Rich arguments and results, a static number, a branch on values and a size that is used."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, more: dict[str, Tensor], scale: float = 2.0) -> Pair:
        y = hj.cond(x.sum() > 0, lambda: self.linear(x), lambda: x)
        return Pair(y * scale, {"last": more["rows"] + x.shape[0]})


class Frozen(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(int(x.shape[0]), 4) * 2


class Asks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x * 2
        return x - 1


class Remembers(nn.Module):
    """Takes a number from elsewhere while it is captured."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.values = values

    def forward(self, x: Tensor) -> Tensor:
        return x * self.values[-1] if torch.compiler.is_exporting() or hj.is_tracing() else x * 2


class Counts(nn.Module):
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return x * self.count


class Grows(nn.Module):
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(0, 4))

    def forward(self, x: Tensor) -> Tensor:
        self.seen = torch.cat((self.seen, x))
        return self.seen.sum(0)


class One(nn.Module):
    """Something else for a single row, which torch.export does not ask about."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 3 if x.shape[0] == 1 else x * 2


def rich(rows: int, sign: float = 1.0) -> tuple[Tensor, dict[str, Tensor]]:
    return sign * torch.rand(rows, 4, generator=torch.Generator().manual_seed(rows)), {"rows": torch.ones(rows + 1)}


@pytest.fixture(scope="module", params=FILES)
def made(request: pytest.FixtureRequest) -> Iterator[tuple[str, Model, hj.Exported]]:
    pytest.importorskip("onnxruntime") if request.param == "onnx" else None
    model = Model().eval()
    yield request.param, model, hj.export(model, rich(3), format=request.param, check_inputs=[rich(5, -1.0)])


def same(got: Any, wanted: Any) -> None:
    assert type(got).__name__ == type(wanted).__name__ and got._fields == wanted._fields
    torch.testing.assert_close(got.mixed, wanted.mixed)
    torch.testing.assert_close(got.ends["last"], wanted.ends["last"])


def test_both_sides_and_other_sizes(made: tuple[str, Model, hj.Exported]) -> None:
    """The file gives the model's own types, on both sides of the branch, at sizes that no check had."""
    format, model, exported = made
    assert exported.format == exported.report.format == format and exported.report.ok
    for rows, sign in ((3, 1.0), (11, -1.0), (8, 1.0), (1, -1.0)):
        same(exported(*rich(rows, sign)), model(*rich(rows, sign)))
    with pytest.raises(hj.InputError, match="scale"):
        exported(*rich(3), scale=3.0)


def test_found_sizes_are_told_and_verified(made: tuple[str, Model, hj.Exported]) -> None:
    """Without dynamic_shapes the sizes that may change are found, listed and each verified at several."""
    _, _, exported = made
    (told,) = [each.message for each in exported.report.findings if each.code == "HJ304"]
    assert told == "sizes that may change: x[0], more_rows[0]; fixed: x[1] = 4"
    assert {"x[0]=0", "x[0]=1", "x[0]=24", "more_rows[0]=1"} <= {check.input for check in exported.report.checks}


def test_save_and_load(made: tuple[str, Model, hj.Exported], tmp_path: Path) -> None:
    """The saved file loads with its report and the rich call, and is saved again byte for byte."""
    format, model, exported = made
    path = tmp_path / f"model{SUFFIXES[format][0]}"
    exported.save(path)
    loaded = hj.load(path)
    assert loaded.report == exported.report and loaded.format == format
    same(loaded(*rich(6, -1.0)), model(*rich(6, -1.0)))
    again = tmp_path / f"again{SUFFIXES[format][0]}"
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes()
    assert exported.code == loaded.code and "4" in exported.code


def test_suffix_of_another_format(made: tuple[str, Model, hj.Exported], tmp_path: Path) -> None:
    """A suffix of another format is refused before anything is written."""
    format, _, exported = made
    other = {"pt2": ".onnx", "onnx": ".pt2"}[format]
    for suffix in (".pt", other):
        with pytest.raises(hj.ArchiveError, match=f"expected a suffix such as .{format} for {format}, got {suffix}"):
            exported.save(tmp_path / f"model{suffix}")
    assert not list(tmp_path.iterdir())


def test_damaged_files_are_refused(made: tuple[str, Model, hj.Exported], tmp_path: Path) -> None:
    """A file that is cut off is not loaded, nor one of which a byte of a weight is another."""
    format, model, exported = made
    path = tmp_path / f"model.{format}"
    exported.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(hj.ArchiveError):
        hj.load(path)
    at = whole.index(model.linear.weight.detach().numpy().tobytes()[:16])
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(hj.ArchiveError, match="does not match its checksum"):
        hj.load(path)


def test_verify_later(made: tuple[str, Model, hj.Exported]) -> None:
    """`verify` compares such a file as well, and finds a model with other weights."""
    _, model, exported = made
    assert hj.verify(exported, model, [hj.Inputs(*rich(9, -1.0))]).ok
    other = Model().eval()
    with torch.no_grad():
        other.linear.weight.mul_(2)
    report = hj.verify(exported, other, [hj.Inputs(*rich(9, -1.0)), hj.Inputs(*rich(9))])
    assert [check.passed for check in report.checks] == [True, False]


def test_torchs_own_loader_opens_a_program(tmp_path: Path) -> None:
    """`torch.export.load` reads the program, and the report among its extra files."""
    hj.export(Branching().eval(), X, format="pt2").save(tmp_path / "model.pt2")
    extra = {"hybridjit.json": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=extra)
    assert '"format": "pt2"' in extra["hybridjit.json"]
    torch.testing.assert_close(program.module()(-X), -X - 1)


class Branching(nn.Module):
    @hj.branch_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x * 2
        return x - 1


def test_onnxruntime_opens_the_file_alone(tmp_path: Path) -> None:
    """Names are those of arguments and fields, fixed sizes are numbers, and the report is among the metadata."""
    onnxruntime = pytest.importorskip("onnxruntime")
    batch = Dim("batch", min=2)
    model = Model().eval()
    shapes = {"x": {0: batch}, "more": {"rows": {0: Dim("rows", min=2)}}, "scale": None}
    exported = hj.export(model, hj.Inputs(*rich(3), scale=2.0), format="onnx", dynamic_shapes=shapes)
    exported.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    assert [(each.name, each.shape) for each in session.get_inputs()] == [("x", ["batch", 4]), ("more_rows", ["rows"])]
    assert [each.name for each in session.get_outputs()] == ["mixed", "ends_last"]
    assert "hybridjit.json" in session.get_modelmeta().custom_metadata_map
    x, more = rich(7, -1.0)
    got = session.run(None, {"x": x.numpy(), "more_rows": more["rows"].numpy()})
    torch.testing.assert_close(torch.from_numpy(got[0]), model(x, more).mixed)


@pytest.mark.parametrize("format", FILES)
def test_a_frozen_size_is_refused_with_its_line(format: str) -> None:
    """A check at a size that a program fixed fails, and names the line that fixed it; ONNX has the trace besides."""
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    given: dict[str, Any] = {"format": format, "check_inputs": [torch.rand(5, 4)]}
    if format == "onnx":  # by the trace, which follows the size
        exported = hj.export(Frozen().eval(), X, **given)
        torch.testing.assert_close(exported(torch.ones(7, 4)), torch.full((7, 4), 2.0))
        return
    with pytest.raises(hj.VerificationError) as caught:
        hj.export(Frozen().eval(), X, **given)
    line = Frozen.forward.__code__.co_firstlineno + 1
    (row,) = [each for each in str(caught.value).splitlines() if "check_inputs[0]" in each]
    assert "the file raises AssertionError: Guard failed: x.size()[0] == 3; frozen at " in row
    assert f"test_formats.py:{line}; write x.shape[0] as it is, without int()" in row


def test_a_fixed_size_raises_at_run_time() -> None:
    """Where nothing else was asked, the program is for the one size, says so, and raises at another."""
    for format in FILES:
        if format == "onnx":
            pytest.importorskip("onnxruntime")
        exported = hj.export(Frozen().eval(), X, format=format)
        assert "HJ305" in [each.code for each in exported.report.findings]
        torch.testing.assert_close(exported(X), X * 2)
        with pytest.raises(hj.GuardError, match=r"Guard failed|invalid dimensions"):
            exported(torch.rand(5, 4))


def test_declared_but_frozen_is_a_capture_error() -> None:
    """torch.export refuses a declared size that code fixes; the error has the line and what to write."""
    with pytest.raises(hj.CaptureError) as caught:
        hj.export(Frozen().eval(), X, format="pt2", dynamic_shapes={"x": {0: Dim("batch", min=2)}})
    line = Frozen.forward.__code__.co_firstlineno + 1
    assert f"asked at {__file__}:{line}" in str(caught.value)
    assert "without int()" in str(caught.value)


def test_an_if_on_a_tensor_is_refused_with_its_line() -> None:
    """What torch.export can't guard becomes an error with the line and the ways out."""
    with pytest.raises(hj.CaptureError) as caught:
        hj.export(Asks().eval(), X, format="pt2", check_inputs=[-X])
    line = Asks.forward.__code__.co_firstlineno + 1
    assert f"{Path(__file__).name}:{line}" in str(caught.value)
    assert "write instead: hybridjit.cond, which takes a tensor" in str(caught.value)
    assert "or, for an if on a tensor, @hybridjit.branch_if_tracing on the function with it" in str(caught.value)
    assert caught.value.report is not None and not caught.value.report.ok


def test_onnx_goes_by_the_trace_where_export_can_not() -> None:
    """The trace has the branch, from the check input; the report tells the way and why not the other."""
    pytest.importorskip("onnxruntime")
    exported = hj.export(Asks().eval(), X, format="onnx", check_inputs=[-X])
    (said,) = [each.message for each in exported.report.findings if each.code == "HJ306"]
    assert said.startswith("made by the trace; before that: torch.export and torch.onnx: Asks runs in eager mode but")
    torch.testing.assert_close(exported(-2 * X), -2 * X - 1)


@pytest.mark.parametrize("format", FILES)
def test_another_value_under_export_is_found(format: str) -> None:
    """A value that the captured code takes from elsewhere is a difference on the first input already."""
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    with pytest.raises(hj.VerificationError, match="values differ") as caught:
        hj.export(Remembers([5.0]).eval(), X, format=format)
    assert caught.value.report is not None and not caught.value.report.ok


def test_sizes_from_zero() -> None:
    """A size may be 0 or 1 in a program too, unless the model asks for that: then the file raises there alone."""
    exported = hj.export(One().eval(), X, format="pt2")
    assert exported(X[:0]).shape == (0, 4)
    torch.testing.assert_close(exported(torch.ones(2, 1)), torch.full((2, 1), 2.0))
    with pytest.raises(hj.GuardError, match=r"x\.size\(\)\[0\] != 1"):
        exported(X[:1])


def test_wrong_at_one_is_not_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself torch.export lets a size of 1 in without having asked; it is fixed, or with a check refused."""
    monkeypatch.setattr("hybridjit._torch.sizes_from_zero", contextlib.nullcontext)
    exported = hj.export(One().eval(), X, format="pt2")
    assert "x[0] = 3" in next(each.message for each in exported.report.findings if each.code == "HJ304")
    assert "wrong at x[0]=1" in next(each.message for each in exported.report.findings if each.code == "HJ306")
    with pytest.raises(hj.GuardError):
        exported(X[:1])
    with pytest.raises(hj.VerificationError, match=r'dynamic_shapes=\{"x": \{0: Dim\("x_0", min=2\)\}'):
        hj.export(One().eval(), X, format="pt2", check_inputs=[torch.rand(5, 4)])
    declared = {"x": {0: Dim("rows", min=2)}}
    exported = hj.export(One().eval(), X, format="pt2", dynamic_shapes=declared, check_inputs=[torch.rand(5, 4)])
    torch.testing.assert_close(exported(torch.ones(9, 4)), torch.full((9, 4), 2.0))


def test_sizes_of_one_do_not_fix_a_program() -> None:
    """The call with the most sizes above 1 is captured, since torch.export fixes those of 1."""
    exported = hj.export(Branching().eval(), X[:1], format="pt2", check_inputs=[X, -X])
    torch.testing.assert_close(exported(torch.ones(7, 4)), torch.full((7, 4), 2.0))


def test_buffers_change_in_a_program_as_in_the_model() -> None:
    """What calls leave in buffers is in the program, from the state that the model had, and the model keeps its own."""
    model = Counts().eval()
    exported = hj.export(model, X, format="pt2")
    assert exported(torch.ones(2, 4))[0, 0] == 1 and exported(torch.ones(2, 4))[0, 0] == 2
    assert model.count == 0


def test_state_that_a_format_has_not() -> None:
    """ONNX keeps no state, and a program's buffers keep their sizes: both are refused by name."""
    pytest.importorskip("onnxruntime")
    with pytest.raises(hj.UnsupportedError, match="keeps no state: the model changes count"):
        hj.export(Counts().eval(), X, format="onnx")
    with pytest.raises(hj.UnsupportedError, match="fixed sizes, and the model puts others in the place of seen"):
        hj.export(Grows().eval(), X, format="pt2")


def test_what_only_torchscript_does() -> None:
    """Options that a format can't honour are refused, each with what to write."""
    model = Branching().eval()
    refused: list[tuple[dict[str, Any], str]] = [
        ({"on_frozen": "error"}, "has no on_frozen='error'"),
        ({"branches": "auto"}, "rewrites a trace"),
        ({"optimize": "freeze"}, "knows no optimize"),
    ]
    for given, message in refused:
        with pytest.raises(hj.UnsupportedError, match=message) as caught:
            hj.export(model, X, format="pt2", **given)
        assert "torchscript" in str(caught.value) or "branch_if_tracing" in str(caught.value)


def test_unknown_formats() -> None:
    """The error lists the formats there are."""
    for format in ("tflite", ["torchscript", "tflite"], [], ["pt2", "pt2"], 3, ["auto", "pt2"]):
        with pytest.raises(hj.InputError, match="format takes the name of a format") as caught:
            hj.export(Branching().eval(), X, format=format)  # type: ignore[arg-type]
    with pytest.raises(hj.InputError, match="expected one of torchscript, pt2, onnx, aoti, auto, got 'tflite'"):
        hj.export(Branching().eval(), X, format="tflite")
    assert "auto" in str(caught.value)


def test_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the error says what to install."""
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(hj.UnsupportedError, match=r"pip install hybridjit\[onnx\]"):
        hj.export(Branching().eval(), X, format="onnx")


def test_several_formats_at_once(tmp_path: Path) -> None:
    """The first is returned, the others by name, with one table of verdicts."""
    exported = hj.export(Branching().eval(), X, format=["torchscript", "pt2"], check_inputs=iter([-X]))
    assert exported.format == "torchscript" and list(exported.others) == ["pt2"]
    assert [(each.format, each.result) for each in exported.report.verdicts] == [
        ("torchscript", "verified"),
        ("pt2", "verified"),
    ]
    exported.others["pt2"].save(tmp_path / "model.pt2")
    assert exported.report.verdicts[1].size == (tmp_path / "model.pt2").stat().st_size
    assert "formats\n  format       result" in str(exported.report)
    assert "<td>pt2</td><td>verified</td>" in exported.report.to_html()
    assert "| pt2 | verified |" in exported.report.to_markdown()
    assert hj.Report.from_json(exported.report.to_json()) == exported.report
    for each in (exported, *exported.others.values()):
        torch.testing.assert_close(each(-X), -X - 1)
    exported.save(tmp_path / "model.pt")
    assert zipfile.is_zipfile(tmp_path / "model.pt")


def test_one_of_several_is_refused() -> None:
    """All are tried, and the error of the first that is refused lists what came of each."""
    with pytest.raises(hj.CaptureError) as caught:
        hj.export(Asks().eval(), X, format=["pt2", "torchscript"], check_inputs=[-X])
    text = str(caught.value)
    assert "of the formats asked for:\n  pt2: refused, Asks runs in eager mode but" in text
    assert text.endswith("torchscript: verified")


def test_auto_takes_the_first_that_holds() -> None:
    """TorchScript where it does; else the next, with the reason why not."""
    exported = hj.export(Asks().eval(), X, format="auto", check_inputs=[-X])
    assert exported.format == "torchscript"
    assert [each.result for each in exported.report.verdicts] == ["verified", *["not tried"] * 3]
    exported = hj.export(ForkedInATrace().eval(), X, format="auto")
    assert exported.format == "pt2"
    first, second, *_ = exported.report.verdicts
    assert (first.result, second.result) == ("refused", "verified")
    assert "not the model" in first.reason or "something else than the model" in first.reason
    torch.testing.assert_close(exported(X), X * 2)


class ForkedInATrace(nn.Module):
    """Wrong in every trace, on purpose."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (3 if hj.is_tracing() and not torch.compiler.is_exporting() else 2)


def test_auto_with_nothing_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no format does, the error lists the reason of each."""
    several = importlib.import_module("hybridjit.export.several")
    monkeypatch.setattr(several, "FORMATS", ("torchscript", "pt2"))
    with pytest.raises(hj.HybridJitError) as caught:
        hj.export(Broken().eval(), X, format="auto")
    assert "torchscript: refused, " in str(caught.value) and "pt2: refused, " in str(caught.value)


class Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * (3 if torch.compiler.is_exporting() or hj.is_tracing() else 2)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.linear = nn.BatchNorm1d(4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(self.norm(x))
        return hj.cond(y.sum() > 0, lambda: y, lambda: -y)

    def halved(self, x: Tensor) -> Tensor:
        return self.linear(x) / 2


def test_a_frozen_file_is_verified_and_has_its_branches() -> None:
    """`optimize="freeze"` leaves no parameters, the branch and the further methods, all verified after it."""
    model = Net().eval()
    methods = {"halved": (X,)}
    exported = hj.export(model, X, optimize="freeze", check_inputs=[-5 * X], methods=methods, require_coverage=False)
    assert not list(exported.module.parameters())
    assert {check.entry for check in exported.report.checks} == {"forward", "halved"}
    assert sum(side.checks for branch in exported.report.branches for side in branch.sides) == 2
    for x in (X, -7 * X):
        torch.testing.assert_close(exported(x), model(x))


def test_optimizations_are_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that an optimization makes wrong is not handed out."""
    from hybridjit import _torch

    def wrong(module: Any, methods: Any, *, inference: bool) -> Any:
        with torch.no_grad():
            module.model.linear.weight.mul_(2)
        return module

    monkeypatch.setattr(_torch, "optimized", wrong)
    with pytest.raises(hj.VerificationError, match="values differ"):
        hj.export(Net().eval(), X, optimize="freeze")


class Convolves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.norm, self.linear = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.convolution(x)).relu()
        y = hj.cond(y.mean() > 0.3, lambda: y * 2, lambda: y)
        return self.linear(y.mean((2, 3)))


@pytest.mark.parametrize("optimize", ["freeze", "inference"])
def test_what_was_gained(optimize: str) -> None:
    """Convolutions are in a file that is optimized, and the report tells of operations and time, and of oneDNN."""
    model, x = Convolves().eval(), torch.rand(2, 3, 16, 16)
    exported = hj.export(model, x, optimize=optimize, check_inputs=[9 * x])
    torch.testing.assert_close(exported(-x), model(-x))
    (note,) = [finding.message for finding in exported.report.findings if finding.code == "HJ309"]
    assert re.match(rf"optimize='{optimize}': \d+ operations instead of \d+, [\d.]+ times as fast", note)
    assert "batch_norm" not in exported.code and "mkldnn" not in exported.code
    if optimize == "inference" and torch.backends.mkldnn.is_available():
        assert note.endswith("1 operations stay without oneDNN, whose weights no TorchScript file can hold")


def test_unknown_optimizations() -> None:
    """The error lists those there are."""
    with pytest.raises(hj.InputError, match="expected one of freeze, inference, got 'fast'"):
        hj.export(Net().eval(), X, optimize="fast")


def test_the_model_comes_back(made: tuple[str, Model, hj.Exported]) -> None:
    """Attributes, buffers and the random state are as they were, also where an export is refused."""
    format = made[0]
    model = Asks().eval()
    torch.manual_seed(3)
    before, attributes = torch.random.get_rng_state(), dict(vars(model))
    with pytest.raises(hj.HybridJitError):
        hj.export(model, X, format="pt2")
    hj.export(Model().eval(), rich(3), format=format)
    torch.manual_seed(3)
    assert torch.equal(before, torch.random.get_rng_state()) and vars(model) == attributes


def test_a_compiled_package(tmp_path: Path) -> None:
    """AOTInductor's package runs, and does not run on what it was not compiled for, which it would not notice."""
    model = Model().eval()
    exported = hj.export(model, rich(3), format="aoti", check_inputs=[rich(5, -1.0)])
    exported.save(tmp_path / "model.pt2")
    loaded = hj.load(tmp_path / "model.pt2")
    assert loaded.format == "aoti" and loaded.report == exported.report
    same(loaded(*rich(11, -1.0)), model(*rich(11, -1.0)))
    x, more = rich(4)
    for wrong, message in (
        (torch.rand(3, 5), "Guard failed: x.size()[1] == 4"),
        (x[:0], "Guard failed: x.size()[0] from 2, and is 0"),
        (x.double(), "Expected input x as float32 of 2 dimensions on cpu, got float64[4, 4]"),
        (x[0], "Expected input x as float32 of 2 dimensions on cpu, got float32[4]"),
    ):
        with pytest.raises(hj.GuardError, match=re.escape(message)):
            loaded(wrong, more)


class Convolved(nn.Module):
    """A convolution whose result a branch takes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return hj.cond(x.mean() > 0, lambda: self.second(y).sum((2, 3)), lambda: y.sum((2, 3)))


def test_a_compiled_convolution_before_a_branch() -> None:
    """It is right: AOTInductor by itself gives the branch a tensor in another layout than the branch reads."""
    model, x = Convolved().eval(), torch.rand(2, 3, 8, 9)
    exported = hj.export(model, x, format="aoti", dynamic_shapes=(None,), check_inputs=[-x])
    torch.testing.assert_close(exported(x - 0.4), model(x - 0.4))


class Placed(nn.Module):
    """Makes tensors on the device of its argument, whose name torch.export changes."""

    def forward(self, input: Tensor) -> Tensor:
        return input + torch.arange(input.shape[0], device=input.device)[:, None]


def test_a_program_is_verified_on_each_device() -> None:
    """It is moved there, with the devices in its operations; `meta` shows it everywhere."""
    exported = hj.export(Placed().eval(), X, format="pt2", devices=["cpu", "meta"])
    assert {check.device for check in exported.report.checks} == {"cpu", "meta"} and exported.report.ok


class Stuck(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.zeros(4, device="cpu")


def test_a_device_that_stays_behind_is_found() -> None:
    """A program whose result is on another device than the model's is refused."""
    with pytest.raises(hj.HybridJitError):
        hj.export(Stuck().eval(), X, format="pt2", devices=["cpu", "meta"])


SIZES: list[int] = []
"""Of the calls of `Counted`: what a model itself keeps is put back."""


class Counted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if not hj.is_exporting() and type(x) is Tensor:
            SIZES.append(x.shape[0])
        return x * 2


@pytest.mark.parametrize("format", ["torchscript", ["torchscript", "onnx"], ["pt2", "torchscript"]])
def test_the_model_runs_once_for_each_call(format: str | list[str]) -> None:
    """A call that was asked for is run in eager mode once, for the capture, the check and every format."""
    SIZES.clear()
    checks = [torch.ones(64), torch.ones(100)]
    hj.export(Counted().eval(), torch.ones(71), format=format, check_inputs=checks, devices=["cpu"])
    assert [SIZES.count(size) for size in (64, 100)] == [1, 1]
