"""What the evidence makes of findings, and the errors for values that may not be frozen and for none that was seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from torch import nn

from .._describe import place
from .._errors import CaptureError, compose
from ..control.origins import Asked
from .capture import Captured
from .findings import found
from .leaks import Leak, spell_value
from .outline import by_line, guards_of, model_name
from .report import Finding, Report
from .survey import Occurrence


def judged(captured: Captured, innocent: Mapping[Occurrence, str]) -> tuple[Finding, ...]:
    """The findings, those without a guard as notes."""
    by_line: dict[tuple[str, int, str], list[str]] = {}
    for (key, _), name in innocent.items():
        what, file, line = key
        by_line.setdefault((file, line, what), []).append(name)
    findings = []
    for finding in captured.findings:
        names = by_line.get((finding.file, finding.line, finding.message.split(":")[0]))
        if names is not None and len(names) >= finding.count:
            text = f"{finding.message}; it does not matter: with another value ({names[0]}) the graph is the same"
            finding = dataclasses.replace(finding, severity="note", message=text, fix="")
        findings.append(finding)
    return tuple(findings)


def frozen_error(model: nn.Module, leaks: Sequence[Leak], answers: Sequence[Asked] = ()) -> CaptureError:
    """The error for values, and for answers about devices, that ``on_frozen="error"`` refuses."""
    rows = {
        f"{leak.site}: {leak.kind.what}: {leak.kind.says} ({spell_value(leak.value)})": leak.kind.fix for leak in leaks
    }
    device = "hybridjit.device_dependent(x, cpu=..., default=...)"
    rows |= {f"{asked.site}: {asked.says}: the answer on this device is kept": device for asked in answers}
    error = CaptureError(
        compose(
            f"{len(rows)} value{'' if len(rows) == 1 else 's'} of tensors would be frozen into the file",
            where=type(model).__qualname__,
            differences=list(rows),
            instead="\n".join(dict.fromkeys(rows.values())),
            page="captureerror",
        )
    )
    error.report = Report(model_name(model), "torchscript", (), by_line(found(leaks)), guards=guards_of(leaks))
    return error


def unexplained(model: nn.Module, wrong: Sequence[str], captured: Captured) -> CaptureError:
    """The error of a trace that is wrong on further inputs for no reason that was seen."""
    forks = [f"{place(f.file, f.line)} {f.message}" for f in captured.findings if f.code == "HJ303"]
    return CaptureError(
        compose(
            "the trace gives something else than the model on further inputs, and nothing that was seen tells why",
            where=type(model).__qualname__,
            differences=[*(f"{name}: another result" for name in wrong), *forks],
            instead="tensors only between tensors: no numbers taken out of them by other libraries or threads, "
            "no if on torch.jit.is_tracing();\nor hybridjit.static(value, reason=...)",
            page="captureerror",
        )
    )
