"""What came of each format, where several were asked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """What came of one of several formats.

    Attributes:
        format: The format.
        result: ``"verified"``, ``"refused"``, or ``"not tried"`` where an earlier one did.
        seconds: How long it took, in seconds.
        size: How many bytes its file has; 0 without one.
        max_abs_error: The largest absolute difference from the model in all checks; ``None`` without a file.
        reason: Why it was refused.
    """

    format: str
    result: str
    seconds: float = 0.0
    size: int = 0
    max_abs_error: float | None = None
    reason: str = ""
