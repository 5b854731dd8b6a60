"""The errors hybridjit raises: one root, one class per stage at which things go wrong.

Every message says, in this order: what failed and where; the differences, by path; expected and
got; what to write instead. ``docs/errors.md`` has a section for each class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .export.report import Report

_CAP = 12
"""How many differences a message lists before it counts the rest; a page that scrolls is not read."""


class HybridJitError(Exception):
    """The root of every error that hybridjit raises on purpose."""


class InputError(HybridJitError, TypeError):
    """An argument is not what the function, or the exported file, takes."""


class CaptureError(HybridJitError, RuntimeError):
    """The model could not be captured: tracing failed, or a scripted piece does not compile.

    Attributes:
        report: What `export` knew of the model until then, to be looked at; ``None`` from elsewhere.
    """

    report: Report | None = None


class GuardError(HybridJitError, RuntimeError):
    """An exported file met, at run time, a value other than the one it was captured with."""


class VerificationError(HybridJitError, AssertionError):
    """The re-loaded file gives something else than the model; nothing was written.

    Attributes:
        report: The full report, with the failing checks, or ``None``.
    """

    def __init__(self, message: str, report: Report | None = None) -> None:
        super().__init__(message)
        self.report = report


class ArchiveError(HybridJitError, OSError):
    """A file can't be read or written: truncated, altered, of another kind, or not hybridjit's."""


class UnsupportedError(HybridJitError, NotImplementedError):
    """The request is well formed, but this format or this environment can't do it."""


def compose(what: str, *, where: str = "", differences: Sequence[str] = (), instead: str = "", page: str = "") -> str:
    """Builds a message in the house order; every part but the first may be absent.

    Args:
        what: What failed, one sentence.
        where: Qualified name, ``file:line``, module path or device.
        differences: One line each; capped, with a count of the rest.
        instead: What to write instead, ready to paste.
        page: The anchor in ``docs/errors.md``.

    Returns:
        The message, without a trailing newline.
    """
    lines = [what]
    if where:
        lines.append(f"  at {where}")
    lines += [f"  - {line}" for line in differences[:_CAP]]
    if len(differences) > _CAP:
        lines.append(f"  - … and {len(differences) - _CAP} more")
    if instead:
        first, *rest = instead.splitlines()
        lines.append(f"  write instead: {first}")
        lines += [f"    {line}" for line in rest]
    if page:
        lines.append(f"  see docs/errors.md#{page}")
    return "\n".join(lines)
