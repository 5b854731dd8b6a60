"""`branches="auto"`: the modules that need branches, found by tracing."""

from __future__ import annotations

from .capture import Captured
from .guarded import Task, capture_guarded


def capture_found(task: Task, on_frozen: str) -> Captured:
    """Traces a model with branches where it needs them."""
    return capture_guarded(task, "auto", on_frozen)
