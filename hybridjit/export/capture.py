"""Capture: what must hold before a model is traced, and the trace itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .. import _torch
from .._describe import describe, listed
from .._errors import CaptureError, HybridJitError, InputError, UnsupportedError, compose
from .._sites import user_site
from ..adapters.flatten import TracingAdapter
from ..adapters.inputs import Inputs
from ..control.record import Record, recording
from ..control.static import static_modules
from .findings import collecting
from .report import Finding, Scripted, Static
from .state import ModelState


@dataclass(frozen=True)
class Captured:
    """A trace, and what was seen while it was made.

    Attributes:
        module: The traced module, of flat tensors; shares the model's parameters.
        adapter: What was traced.
        findings: What the tracer warned about, and notes.
        statics: Values frozen on purpose.
        scripted: Pieces recorded with their control flow.
    """

    module: _torch.ScriptModule
    adapter: TracingAdapter
    findings: tuple[Finding, ...]
    statics: tuple[Static, ...]
    scripted: tuple[Scripted, ...]


def unwrapped(model: nn.Module) -> tuple[nn.Module, list[Finding]]:
    """Takes ``DataParallel`` and ``DistributedDataParallel`` off a model, with a note.

    Raises:
        InputError: ``model`` is no module.
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            compose(
                "export takes an nn.Module",
                differences=[f"model: expected an nn.Module, got {describe(model)}"],
                instead="class Model(nn.Module):\n    def forward(self, x): return function(x)",
                page="inputerror",
            )
        )
    notes = []
    while isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        name = type(model).__name__
        notes.append(Finding("HJ001", "note", f"{name} taken off: its module is exported"))
        model = model.module
    return model, notes


def check_ready(model: nn.Module) -> None:
    """Refuses a model in training mode, and an environment in which nothing can be traced.

    Raises:
        InputError: A module is in training mode, and no `static` says that it is meant.
        UnsupportedError: ``PYTORCH_JIT=0`` is set, or a trace is under way.
    """
    if not _torch.jit_enabled():
        raise UnsupportedError(
            compose(
                "torch.jit is switched off by PYTORCH_JIT=0, so nothing can be traced",
                instead="unset PYTORCH_JIT and start Python again (eager mode runs without)",
                page="unsupportederror",
            )
        )
    parameters: list[tuple[str, Any]] = list(model.named_parameters())
    lazy = [name for name, tensor in parameters if isinstance(tensor, nn.UninitializedParameter)]
    if lazy:
        raise InputError(
            compose(
                "the model has lazy parameters that no call has made yet",
                where=type(model).__qualname__,
                differences=[f"lazy: {listed(lazy)}"],
                instead="model(*inputs), once, before export",
                page="inputerror",
            )
        )
    if _torch.tracing_state() is not None:
        raise UnsupportedError(
            compose("export was called while a trace is under way", instead="export outside of forward",
                    page="unsupportederror")
        )  # fmt: skip
    meant = {id(inner) for module in static_modules(model) for inner in module.modules()}
    training = [
        name or "(the model)" for name, module in model.named_modules() if module.training and id(module) not in meant
    ]
    if training:
        raise InputError(
            compose(
                f"the model is in training mode ({len(training)} of {len(list(model.modules()))} modules)",
                where=type(model).__qualname__,
                differences=[f"training: {listed(training)}"],
                instead='model.eval()\nor hybridjit.static(module, reason="...") around a module that is to stay so',
                page="inputerror",
            )
        )


def capture(model: nn.Module, inputs: Inputs, expected: Any, state: ModelState) -> Captured:
    """Traces a model under ``no_grad``; its state must have been taken before.

    Args:
        model: The model, ready.
        inputs: The call to trace, on tensors of its own.
        expected: What the model gives for it in eager mode.
        state: Its state; the caller puts the model back.

    Raises:
        CaptureError: The model can't be traced.
        InputError: Arguments or result hold something without a flat side.
    """
    adapter = TracingAdapter(model, inputs.args, inputs.kwargs)
    adapter.expect(expected)
    flat = adapter.flatten(*inputs.args, **inputs.kwargs)
    if not flat:
        raise InputError(
            compose(
                "the inputs hold no tensor",
                where=repr(inputs),
                instead="at least one tensor among the inputs",
                page="inputerror",
            )
        )
    if not adapter.output_schema.paths():
        raise InputError(
            compose(
                "the result holds no tensor",
                where=type(model).__qualname__,
                instead="a forward that returns at least one tensor",
                page="inputerror",
            )
        )
    names = {id(module): name for name, module in model.named_modules()}
    record = Record(names)
    with torch.no_grad(), collecting(names) as findings, recording(record):
        try:
            traced = _torch.trace(adapter, flat)
        except HybridJitError:
            raise
        except Exception as error:
            raise _explain(model, names, error) from error
    notes = [
        Finding(
            "HJ002",
            "note",
            f"forward sets the attribute {name}; the file does not",
            fix="register_buffer for state that calls share",
        )
        for name in state.changed_attributes()
    ]
    reasons = static_modules(model)
    modes = [
        Static(f"training={module.training}", reason, module_path=names[id(module)])
        for module, reason in reasons.items()
    ]
    statics = [Static(s.value, s.reason, s.site.file, s.site.line, s.site.module_path) for s in record.statics]
    scripted = [Scripted(p.name, p.site.file, p.site.line, p.site.module_path) for p in record.scripted]
    return Captured(traced, adapter, (*findings, *notes), (*modes, *statics), tuple(scripted))


def _explain(model: nn.Module, names: dict[int, str], error: Exception) -> CaptureError:
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    site = user_site(names, last.tb_frame if last else None)
    text = str(error).strip().splitlines()
    return CaptureError(
        compose(
            f"{type(model).__qualname__} runs in eager mode but can't be traced",
            where=str(site),
            differences=[f"{type(error).__name__}: {text[0] if text else ''}"],
            instead="the piece at this line as a function with @hybridjit.script_if_tracing, "
            "if it depends on the values of tensors",
            page="captureerror",
        )
    )
