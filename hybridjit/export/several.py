"""`export` to one other format, to several at once, or to the first of them that does."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence

from .._errors import CaptureError, HybridJitError, UnsupportedError, VerificationError
from .exported import Exported
from .formats import FORMATS
from .outcome import Verdict
from .request import Request

_REFUSED = (CaptureError, VerificationError, UnsupportedError)
"""What says that a format is not for this model; anything else is a mistake in the call."""


def export_as(request: Request, formats: Sequence[str]) -> Exported:
    """Exports a model to the formats asked for.

    Args:
        request: What was asked for.
        formats: The formats; ``("auto",)`` for the first that is captured and verified.

    Returns:
        The first, with the others in ``others``.

    Raises:
        HybridJitError: One of them was refused; with ``"auto"``, all.
    """
    if isinstance(request.check_inputs, Iterator):  # read once for each format
        request = dataclasses.replace(request, check_inputs=list(request.check_inputs))
    if len(formats) == 1 and formats != ("auto",):
        return _export(request, formats[0])
    auto = formats == ("auto",)
    made: dict[str, Exported] = {}
    verdicts: list[Verdict] = []
    errors: list[HybridJitError] = []
    for name in FORMATS if auto else formats:
        if auto and made:
            verdicts.append(Verdict(name, "not tried"))
            continue
        started = time.perf_counter()
        try:
            made[name] = _export(request, name)
        except _REFUSED as error:
            errors.append(error)
            reason = _reason(error)
            verdicts.append(Verdict(name, "refused", time.perf_counter() - started, reason=reason))
        else:
            verdicts.append(_verified(made[name], time.perf_counter() - started))
    if not made or (errors and not auto):
        first = errors[0]
        rest = [f"\n  {v.format}: {v.result}{', ' if v.reason else ''}{v.reason}" for v in verdicts]
        first.args = (f"{first.args[0]}\n  of the formats asked for:{''.join(rest)}", *first.args[1:])
        raise first
    name, exported = next(iter(made.items()))
    report = dataclasses.replace(exported.report, verdicts=tuple(verdicts))
    others = {other: each for other, each in made.items() if other != name}
    return dataclasses.replace(exported, report=report, others=others)


def _export(request: Request, name: str) -> Exported:
    if name == "torchscript":
        from .torchscript import export_torchscript

        return export_torchscript(request)
    from .convert import convert

    return convert(request, name)


def _verified(exported: Exported, seconds: float) -> Verdict:
    errors = [check.max_abs_error for check in exported.report.checks if check.max_abs_error is not None]
    return Verdict(exported.format, "verified", seconds, exported._file.size, max(errors, default=None))


def _reason(error: HybridJitError) -> str:
    from .part import said

    return said(error)
