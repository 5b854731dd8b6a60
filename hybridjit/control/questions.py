"""`is_tracing` and `is_exporting`: one question each, for all formats."""

from __future__ import annotations

import torch

from .. import _torch
from . import record


def is_tracing() -> bool:
    """Whether this code runs to be recorded, by whichever means.

    The equivalent Python::

        return torch.jit.is_tracing() or torch.compiler.is_compiling()

    Code that asks takes another path when it is recorded than in eager mode; what differs should be
    speed, never the result.

    Returns:
        True under `torch.jit.trace`, `torch.export`, `torch.compile` and `hybridjit.export`; False in
        eager mode, and in code that TorchScript compiled.

    Example:
        >>> import hybridjit as hj
        >>> hj.is_tracing()
        False
    """
    if _torch.is_scripting():
        return False
    return _torch.tracing_state() is not None or torch.compiler.is_compiling()


def is_exporting() -> bool:
    """Whether this code runs to be exported, or is exported.

    Returns:
        True under `hybridjit.export` and `torch.export`, and in code that TorchScript compiled; False
        in eager mode, and under `torch.compile` or a `torch.jit.trace` of one's own.

    Example:
        >>> import hybridjit as hj
        >>> hj.is_exporting()
        False
    """
    if _torch.is_scripting():
        return True
    if _torch.dynamo_traces():  # which does not know what a record is kept in
        return _dynamo_exports()
    return record.is_recording() or torch.compiler.is_exporting()


def _dynamo_exports() -> bool:
    from . import notes  # which imports Dynamo

    return notes.is_exporting()
