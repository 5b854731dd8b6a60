"""Operations called as if from the user's own line, which is what a trace notes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from types import FrameType, FunctionType
from typing import Any

from torch import Tensor

from .. import _torch
from .structure import tensors_of


def name_values(tensors: Sequence[Tensor], values: Sequence[Any], frame: FrameType) -> None:
    """Names values after the user's variables; the tracer would look for them where the mode calls the operation."""
    for tensor, value in zip(tensors, values, strict=True):
        if value is None or not value.debugName().isdigit():
            continue
        found = (name for name, held in frame.f_locals.items() if held is tensor and name != "self")
        if name := next(found, ""):
            value.setDebugName(name)


def at_line_of(frame: FrameType) -> Callable[[Any, Any, Any], Any]:
    """Something that calls a function as if from a frame's line: the tracer notes the innermost line it sees."""
    return _caller(frame.f_code.co_filename, frame.f_lineno)


def call_at(frame: FrameType, func: Any, args: Any, kwargs: Any) -> Any:
    """Calls an operation as if from a frame: its line, and the names of its variables, go into the graph."""
    given = tensors_of((args, kwargs))
    name_values(given, [_torch.known_value(tensor) for tensor in given], frame)
    return at_line_of(frame)(func, args, kwargs)


@functools.lru_cache(maxsize=4096)
def _caller(file: str, line: int) -> Callable[[Any, Any, Any], Any]:
    call = _call
    code = call.__code__.replace(co_filename=file, co_firstlineno=line)
    return FunctionType(code, call.__globals__)


# On one line, which is then the only one that its code knows.
_call = lambda func, args, kwargs: func(*args, **kwargs)  # noqa: E731
