"""The promise that everything is as it was: after a success, a refusal, an exception and Ctrl-C at each stage."""

from __future__ import annotations

import random
import tempfile
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import CodeType

import pytest
import torch
from torch import Tensor

import hybridjit as hj
from hybridjit.export import capture
from hybridjit.export.state import ModelState

from .promise import LONGER, PACKAGE, X, changed, everything, export, made, raising_at

STAGES = (
    "plan.py:read_methods",
    "state.py:ModelState.__init__",
    "contents.py:Contents.__init__",
    "plan.py:plan",
    "tree.py:scan",
    "schema.py:bind",
    "devices.py:moved",
    "state.py:kept_random_state",
    "state.py:ModelState.switched",
    "checks.py:expect",
    "state.py:ModelState.restore",
    "guarded.py:capture_guarded",
    "capture.py:capture",
    "flatten.py:TracingAdapter.flatten",
    "branches.py:branching",
    "standins.py:standing_in",
    "made.py:constructing",
    "numbers.py:hashing",
    "numbers.py:hashing.<locals>.hash_of",
    "origins.py:following",
    "_torch.py:trace",
    "_torch.py:_traceable",
    "_torch.py:paused_tracing",
    "watch.py:Watch.leak",
    "origins.py:DeviceOrigins.__torch_function__",
    "findings.py:found",
    "further.py:probe",
    "memory.py:recalled",
    "standins.py:_uncached.<locals>.call",
    "auto.py:Branches.capture",
    "recorder.py:Recorder.block",
    "_torch.py:recording_into",
    "_torch.py:close_blocks",
    "effects.py:Effects.put",
    "placement.py:follow_devices",
    "ways.py:find",
    "trials.py:Trials.wrong",
    "_torch.py:unoptimized",
    "build.py:Builder.add",
    "_torch.py:define",
    "_torch.py:save_script",
    "_torch.py:load_script",
    "checks.py:check_one",
    "report.py:Report.ok",
    "archive.py:append_metadata",
    "archive.py:KeptFile.__init__",
)
"""What an export does, as ``file:function``, in order of the first call."""


class Trouble(Exception):
    """What nobody expects."""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary files are those of the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def named(stage: str) -> Callable[[CodeType], bool]:
    """Whether code is that of a stage."""
    file, _, name = stage.partition(":")
    path, last = str(next(Path(PACKAGE).rglob(file))), name.rpartition(".")[2]
    return lambda code: code.co_name == last and code.co_filename == path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("error", [Trouble, KeyboardInterrupt])
@pytest.mark.parametrize("stage", STAGES)
def test_at_each_stage(stage: str, error: type[BaseException]) -> None:
    """An exception and Ctrl-C in each part of the export leave everything as it was, and no file."""
    model = made()
    before = everything(model)
    with raising_at(named(stage), error) as calls, pytest.raises(error) if error is KeyboardInterrupt else _either():
        export(model)
    assert calls == [1] or error is Trouble, "the export does not come there"
    assert not changed(before, everything(model))


class _either:
    """Lets an exception pass or not: what a model raises on an input of the export's own is no error."""

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        return isinstance(error, (Trouble, hj.HybridJitError))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("error", [Trouble, KeyboardInterrupt])
def test_inside_the_model(error: type[BaseException]) -> None:
    """The same when it comes from the model, at its n-th call, for each n; of exceptions, which probes survive, each
    fifth."""
    model = made()
    before = everything(model)
    chosen = named_in(type(model).forward.__code__)
    step = 5 if error is Trouble else 1
    calls, at = [1 - step], 1 - step
    while calls[0] == at:
        at += step
        with raising_at(chosen, error, at) as calls, _either() if error is Trouble else _interrupted():
            export(model)
        assert not changed(before, everything(model)), f"at the call number {at}"
    assert at > 10


def named_in(code: CodeType) -> Callable[[CodeType], bool]:
    """Whether code is what a model calls halfway: `Part.forward`, after it has written to what it has."""
    return lambda other: other.co_filename == code.co_filename and other.co_name == "forward" and other is not code


class _interrupted(_either):
    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        return isinstance(error, KeyboardInterrupt)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("on_frozen", ["guard", "ignore", "error"])
def test_success_and_refusal(on_frozen: str) -> None:
    """A file, a refusal and a failed verification leave everything as it was."""
    model = made()
    before = everything(model)
    with pytest.raises(hj.CaptureError) if on_frozen == "error" else nullcontext():
        # Of zeros no probe takes the other side, which would then be a path of its own.
        hj.export(model, X * 0 if on_frozen == "error" else X, on_frozen=on_frozen)
    assert not changed(before, everything(model))
    with pytest.raises(hj.VerificationError):
        hj.export(model, X, check_inputs=[LONGER], on_frozen="ignore")
    assert not changed(before, everything(model))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "stage", ["checks.py:check_on", "checks.py:check_one", "checks.py:expect", "compare.py:compare"]
)
@pytest.mark.parametrize("error", [Trouble, KeyboardInterrupt])
def test_verify(stage: str, error: type[BaseException]) -> None:
    """A later verification that ends halfway leaves model and file as they were."""
    model = made()
    exported = export(model)
    before, held = everything(model), [tensor.clone() for tensor in exported.module.buffers()]
    with raising_at(named(stage), error), pytest.raises((error, hj.HybridJitError)):
        hj.verify(exported, model, [X])
    assert not changed(before, everything(model))
    assert all(map(torch.equal, held, exported.module.buffers()))


@pytest.mark.parametrize(
    "stage", ["atomic.py:write_atomically", "archive.py:KeptFile.copy_to", "atomic.py:_sync_folder"]
)
def test_save(stage: str, tmp_path: Path) -> None:
    """Ctrl-C while a file is written leaves the old file or the new one, and no other."""
    exported = hj.export(torch.nn.Linear(3, 1).eval(), X)
    target = tmp_path / "model.pt"
    target.write_bytes(b"old")
    with raising_at(named(stage), KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        exported.save(target)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
    assert (target.read_bytes() == b"old") is (stage != "atomic.py:_sync_folder")


# --- that these tests can fail ------------------------------------------------------------------


def test_an_export_that_breaks_the_promise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what puts the model back, and with a stand-in that stays, the changes are found by name."""
    model = made()
    before = everything(model)
    with monkeypatch.context() as patch:
        patch.setattr(ModelState, "restore", lambda self, thorough=False: None)
        with pytest.raises(hj.HybridJitError):
            hj.export(model, X)
    assert {"the model.history", "the model._buffers"} & set(changed(before, everything(model)))

    model = made()
    before = everything(model)
    with monkeypatch.context() as patch:
        patch.setattr(capture, "hashing", lambda leak: _leaving_hash())
        hj.export(model, X)
        assert "a tensor's methods" in changed(before, everything(model))
        type.__setattr__(Tensor, "__hash__", before_hash)


before_hash = Tensor.__hash__


class _leaving_hash:
    def __enter__(self) -> None:
        type.__setattr__(Tensor, "__hash__", lambda self: id(self))

    def __exit__(self, *args: object) -> None:
        return


CHANGES: dict[str, Callable[[], object]] = {
    "torch's generator": lambda: torch.rand(1),
    "Python's generator": random.random,
    "default dtype": lambda: torch.set_default_dtype(torch.float64),
    "default device": lambda: torch.set_default_device("meta"),
    "grad mode": lambda: torch.set_grad_enabled(False),
    "warnings": lambda: warnings.simplefilter("ignore", ImportWarning),
    "autocast": lambda: torch.set_autocast_cache_enabled(False),
    "files": lambda: tempfile.mkdtemp(prefix="hybridjit-"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_found(name: str) -> None:
    """Each thing of the process that is promised is looked at."""
    model = made()
    before = everything(model)
    try:
        with warnings.catch_warnings():
            CHANGES[name]()
            found = changed(before, everything(model))
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        torch.set_grad_enabled(True)
        torch.set_autocast_cache_enabled(True)
    assert name in found and len(found) <= 2  # the default dtype is one of torch's names too


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("part.linear.training", lambda model: model.part.linear.train()),
        ("part.linear._parameters", lambda model: model.part.linear.weight.data.add_(1)),
        ("part.linear._parameters", lambda model: model.part.linear.weight.grad.add_(1)),
        ("part.linear._parameters", lambda model: model.requires_grad_(False)),
        ("the model._buffers", lambda model: model.steps.add_(1)),
        ("the model.history", lambda model: model.history.append(1)),
        ("the model.latest", lambda model: setattr(model, "latest", X)),
        ("part._forward_hooks", lambda model: model.part._forward_hooks.clear()),
    ],
)
def test_changes_of_the_model_are_found(name: str, change: Callable[[torch.nn.Module], object]) -> None:
    """Each thing of the model that is promised is looked at."""
    model = made()
    before = everything(model)
    change(model)
    assert changed(before, everything(model)) == [name]
