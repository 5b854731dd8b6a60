"""What `export` raises when it hands out no file, each with its report."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from .._describe import place
from .._errors import CaptureError, VerificationError, compose
from .checks import UNSTEADY
from .outline import model_name, outlined
from .report import Report


def failed(report: Report) -> VerificationError:
    """The error for a file that is not what the model is: every failing check, then the leads."""
    failing = [check for check in report.checks if not check.passed]
    rows = [f"{check.device}, {check.where} ({check.sizes}): {line}" for check in failing for line in check.differences]
    leads = [
        f"frozen at {place(f.file, f.line)}{' in ' + f.module_path if f.module_path else ''}: {f.message}"
        for f in report.findings
        if f.file and f.code.startswith("HJ1")
    ]
    leads += [f"{place(f.file, f.line)} {f.message}" for f in report.findings if f.code == "HJ303"]
    fixes = [f.fix for f in report.findings if (f.severity == "warning" or f.code == "HJ303") and f.fix]
    if any(UNSTEADY in row for row in rows):
        fixes = ["a model that gives the same for the same input and seed"]
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


def uncovered(report: Report) -> VerificationError:
    """The error for sides of branches that no check took, where ``require_coverage`` asks for all."""
    sides = report.unverified
    text = compose(
        f"{len(sides)} side{'' if len(sides) == 1 else 's'} of branches that no check took, and no file was written",
        where=report.model,
        differences=sides,
        instead="check_inputs=[...] with an input for each of these sides, or require_coverage=False",
        page="verificationerror",
    )
    return VerificationError(text, replace(report, refused=text.splitlines()[0]))


def refuse(error: CaptureError, model: nn.Module, format: str) -> None:
    """Gives the error of a model that could not be captured a report, or completes the one that it has."""
    report = error.report or Report(model_name(model), format, (), torch_version=str(torch.__version__))
    error.report = outlined(replace(report, refused=str(error)), model)
