"""`export`: capture, save, load again, compare, and only then hand out."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import _torch
from .._describe import place, qualified
from .._errors import CaptureError, UnsupportedError, VerificationError, compose
from ..adapters.inputs import Inputs, as_inputs
from . import archive
from .auto import capture_found
from .branches import matching
from .capture import Captured, check_ready, unwrapped
from .devices import default_devices, device_list, device_of
from .exported import Exported, metadata_of
from .guarded import Task, capture_guarded, check_on_frozen
from .report import Report
from .state import ModelState, alone, kept_random_state
from .verify import Expectation, File, check_on, check_tolerances, expect, named_calls

FORMATS = ("torchscript",)


def export(
    model: nn.Module,
    inputs: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    format: str = "torchscript",
    branches: Sequence[str] | str | None = None,
    check_inputs: Iterable[Any] = (),
    devices: Sequence[torch.device | str] | None = None,
    on_frozen: str = "guard",
    rtol: float | None = None,
    atol: float | None = None,
) -> Exported:
    """Exports a model, and compares the saved bytes with it before anyone gets them.

    The equivalent Python, without the comparison, the schema and the care::

        traced = torch.jit.trace(TracingAdapter(model, inputs, kwargs), flat_inputs)
        torch.jit.save(traced, path)
        return torch.jit.load(path)

    The model comes back as it was: mode, parameters, buffers, gradients, attributes, hooks, and
    the state of the random generators.

    Args:
        model: The model, in eval mode.
        inputs: The call to trace: a tuple of positional arguments, one argument, or `Inputs`.
        kwargs: Its keyword arguments; they also serve the check inputs that are no `Inputs`.
        format: ``"torchscript"``.
        branches: Submodules, by name or pattern (``"layers.*.attn"``), whose ``if``s on tensors become
            branches as with `branch_if_tracing`; ``"auto"`` finds the innermost ones that need it.
        check_inputs: Further calls to compare on; other sizes and other values than the first.
        devices: Where to compare; by default on the model's device and every accelerator present.
        on_frozen: What becomes of a value that Python code takes out of a traced tensor: ``"guard"`` writes a
            check into the file, which raises where the value is another one; ``"error"`` refuses;
            ``"ignore"`` keeps it, as a plain trace does.
        rtol: Relative tolerance; torch's by dtype unless given together with ``atol``.
        atol: Absolute tolerance.

    Returns:
        The exported model; ``.report`` tells what was found and verified, ``.save`` writes the file.

    Raises:
        InputError: An argument is not what is expected; the model is in training mode.
        CaptureError: The model can't be traced, or raises on an input.
        VerificationError: The file gives something else than the model on some input or device.
        UnsupportedError: This format or environment can't do it.

    Example:
        >>> import torch, hybridjit as hj
        >>> model = torch.nn.Linear(2, 1).eval()
        >>> exported = hj.export(model, torch.zeros(3, 2), check_inputs=[torch.ones(1, 2)])
        >>> exported.report.ok
        True
    """
    _check_format(format)
    check_on_frozen(on_frozen)
    check_tolerances(rtol, atol)
    model, notes = unwrapped(model)
    check_ready(model)
    first = as_inputs(inputs, kwargs)
    calls = {"input": first, **named_calls(check_inputs, kwargs)}
    home = device_of(model, calls)
    places = device_list(devices) or default_devices(home)
    with alone():
        state = ModelState(model)
        folder = Path(tempfile.mkdtemp(prefix="hybridjit-"))
        try:
            path = folder / "module.pt"
            captured, known = _capture(model, state, calls, branches, on_frozen)
            # The trace shares the model's tensors, which hold again what they held before it ran.
            _save(captured.module, path, model)
            call, result = captured.adapter.input_schema, captured.adapter.output_schema
            module = _torch.load_script(path)
            file = File(module, call, result, rtol, atol)
            checks = []
            for where in places:
                checks += check_on(where, model, calls, file, {"input": known}, state)
            report = Report(
                _name(model),
                format,
                tuple(checks),
                (*notes, *captured.findings),
                captured.statics,
                captured.scripted,
                captured.branches,
                _torch.count_operations(module),
                str(torch.__version__),
            )
            if not report.ok:
                raise _failed(report)
            archive.append_metadata(path, metadata_of(report, call, result))
            return Exported(module, format, report, call, result, archive.KeptFile(path))
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # a kept file outlives its path
            state.restore(thorough=True)


def _check_format(format: str) -> None:
    if format not in FORMATS:
        raise UnsupportedError(
            compose(
                f"export does not write the format {format!r}",
                differences=[f"expected one of {', '.join(FORMATS)}, got {format!r}"],
                instead='format="torchscript"',
                page="unsupportederror",
            )
        )


def _capture(
    model: nn.Module,
    state: ModelState,
    calls: Mapping[str, Inputs],
    branches: Sequence[str] | str | None,
    on_frozen: str,
) -> tuple[Captured, Expectation]:
    """Runs the model in eager mode, then traces it; puts it back after each."""
    with kept_random_state():
        (name, first), *others = calls.items()
        known = expect(model, state, first, name, None)

        def run(inputs: Inputs, name: str) -> Any:
            return expect(model, state, inputs, name, None).result

        try:
            task = Task(model, first, known.result, state, dict(others), run)
            if branches == "auto":
                return capture_found(task, on_frozen), known
            chosen = matching(model, branches) if branches else ()
            return capture_guarded(task, chosen, on_frozen), known
        finally:
            state.restore(thorough=True)  # a write that was not seen must not get into the file


def _save(module: _torch.ScriptModule, path: Path, model: nn.Module) -> None:
    try:
        _torch.save_script(module, path, {})
    except RuntimeError as error:
        called = re.search(r"Could not export Python function call '(.+?)'", str(error))
        if called is None:
            raise
        raise CaptureError(
            compose(
                f"the trace calls {called[1]}, a torch.autograd.Function, which no file can hold",
                where=_name(model),
                instead="its operations while tracing, since the file computes no gradient by it:\n"
                f"if hybridjit.is_tracing(): ...  # what {called[1]}.forward computes, without ctx\n"
                f"else: {called[1]}.apply(...)",
                page="captureerror",
            )
        ) from error


def _name(model: nn.Module) -> str:
    """The qualified name of a model's class; a script module tells that of the class it was made from."""
    return str(model.original_name) if isinstance(model, _torch.ScriptModule) else qualified(type(model))


def _failed(report: Report) -> VerificationError:
    """The error for a file that is not what the model is: every failing check, then the leads."""
    failing = [check for check in report.checks if not check.passed]
    rows = [f"{check.device}, {check.input} ({check.sizes}): {line}" for check in failing for line in check.differences]
    leads = [
        f"frozen at {place(f.file, f.line)}{' in ' + f.module_path if f.module_path else ''}: {f.message}"
        for f in report.findings
        if f.file and f.code.startswith("HJ1")
    ]
    fixes = [f.fix for f in report.findings if f.severity == "warning" and f.fix]
    if any("(raised at" in row for row in rows):
        fixes.append(
            "the input that the file raises on as the first one, so that its side of the branch is recorded on it"
        )
    return VerificationError(
        compose(
            f"the exported file is not the model: {len(failing)} of {len(report.checks)} checks failed, "
            "and no file was written",
            where=report.model,
            differences=rows + leads,
            instead="\n".join(dict.fromkeys(fixes))
            or "the part that depends on the input as a function with @hybridjit.script_if_tracing",
            page="verificationerror",
        ),
        report,
    )
