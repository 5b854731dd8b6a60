"""What a capture writes down about the pieces that were scripted."""

from __future__ import annotations

import inspect
from pathlib import Path

import torch
from torch import Tensor

import hybridjit as hj
from hybridjit.control import record


@hj.script_if_tracing
def flip(x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


def model(x: Tensor) -> Tensor:
    return flip(flip(x))


def test_pieces_are_recorded_in_call_order() -> None:
    """Every call within the recording is there, by name and line; an eager call is not."""
    seen = record.Record()
    with record.recording(seen):
        model(torch.ones(2))
        assert seen.scripted == []
        torch.jit.trace(model, torch.ones(2), check_trace=False)
    line = inspect.getsourcelines(model)[1] + 1
    assert [(p.name, Path(p.site.file).name, p.site.line) for p in seen.scripted] == [
        (f"{__name__}.flip", "test_record.py", line)
    ] * 2


def test_nothing_is_kept_outside() -> None:
    """Outside a recording nothing is kept, and an inner recording does not write to the outer one."""
    torch.jit.trace(model, torch.ones(2), check_trace=False)
    assert record.current().scripted == []
    outer, inner = record.Record(), record.Record()
    with record.recording(outer), record.recording(inner):
        assert record.current() is inner
        torch.jit.trace(model, torch.ones(2), check_trace=False)
    assert (len(outer.scripted), len(inner.scripted)) == (0, 2)
