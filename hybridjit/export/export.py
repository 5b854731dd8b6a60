"""`export`: capture, save, load again, compare, and only then hand out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import _torch
from .._describe import describe, place, qualified
from .._errors import InputError, UnsupportedError, VerificationError, compose
from ..adapters.inputs import Inputs, as_inputs
from . import archive
from .capture import Captured, capture, check_ready, unwrapped
from .exported import Exported, metadata_of, own_folder, remove_folder
from .report import Report
from .state import ModelState, kept_random_state
from .verify import Expectation, File, check_on, device_list, device_of, expect, moved

FORMATS = ("torchscript",)


def export(
    model: nn.Module,
    inputs: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    format: str = "torchscript",
    check_inputs: Iterable[Any] = (),
    devices: Sequence[torch.device | str] | None = None,
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
        check_inputs: Further calls to compare on; other sizes and other values than the first.
        devices: Where to compare; by default on the model's device and every accelerator present.
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
    _check_options(format, rtol, atol)
    model, notes = unwrapped(model)
    check_ready(model)
    first = as_inputs(inputs, kwargs)
    calls = {"input": first}
    if isinstance(check_inputs, (Tensor, Inputs, str, Mapping)):
        raise InputError(
            compose(
                "check_inputs takes a list of calls",
                differences=[f"expected a list, got {describe(check_inputs)}"],
                instead="check_inputs=[(image,), (other_image,)]",
                page="inputerror",
            )
        )
    calls |= {f"check_inputs[{i}]": as_inputs(each, kwargs) for i, each in enumerate(check_inputs)}
    home = device_of(model, calls.values())
    places = device_list(devices) or _default_devices(home)
    folder = Path(tempfile.mkdtemp(prefix="hybridjit-"))
    state = ModelState(model)
    try:
        path = folder / "module.pt"
        captured, known = _capture(model, state, first)
        # The trace shares the model's tensors, which hold again what they held before it ran.
        _torch.save_script(captured.module, path, {})
        call, result = captured.adapter.input_schema, captured.adapter.output_schema
        module = _torch.load_script(path)
        file = File(module, call, result, rtol, atol)
        checks = []
        for where in places:
            checks += check_on(where, model, calls, file, {"input": known}, state)
        report = Report(
            qualified(type(model)),
            format,
            tuple(checks),
            (*notes, *captured.findings),
            captured.statics,
            captured.scripted,
            str(torch.__version__),
        )
        if not report.ok:
            raise _failed(report)
        archive.append_metadata(path, metadata_of(report, call, result))
    except BaseException:
        remove_folder(str(folder))
        raise
    finally:
        state.restore(thorough=True)
    exported = Exported(module, format, report, call, result, path)
    own_folder(exported, folder)
    return exported


def _check_options(format: str, rtol: float | None, atol: float | None) -> None:
    if format not in FORMATS:
        raise UnsupportedError(
            compose(
                f"export does not write the format {format!r}",
                differences=[f"expected one of {', '.join(FORMATS)}, got {format!r}"],
                instead='format="torchscript"',
                page="unsupportederror",
            )
        )
    if (rtol is None) != (atol is None):
        raise InputError(
            compose(
                "rtol and atol are given together, or neither",
                differences=[f"rtol: {rtol}", f"atol: {atol}"],
                instead="rtol=1e-4, atol=1e-5",
                page="inputerror",
            )
        )


def _default_devices(home: torch.device) -> list[torch.device]:
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if accelerator is None or accelerator.type == home.type:
        return [home]
    return [home, torch.device(accelerator.type, 0)]


def _capture(model: nn.Module, state: ModelState, first: Inputs) -> tuple[Captured, Expectation]:
    """Runs the model in eager mode, then traces it; puts it back after each."""
    with kept_random_state():
        known = expect(model, state, first, "input", None)
        torch.manual_seed(0)
        try:
            return capture(model, moved(first, None), known.result, state), known
        finally:
            state.restore()


def _failed(report: Report) -> VerificationError:
    """The error for a file that is not what the model is: every failing check, then the leads."""
    failing = [check for check in report.checks if not check.passed]
    rows = [f"{check.device}, {check.input} ({check.sizes}): {line}" for check in failing for line in check.differences]
    leads = [
        f"frozen at {place(f.file, f.line)}{' in ' + f.module_path if f.module_path else ''}: {f.message}"
        for f in report.findings
        if f.file
    ]
    fixes = [f.fix for f in report.findings if f.severity == "warning" and f.fix]
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
