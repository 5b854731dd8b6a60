"""Where in the user's code something happens: file, line and module path."""

from __future__ import annotations

import contextlib
import dis
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import FrameType, TracebackType
from typing import Any, TypeAlias

import torch
from torch import nn

from ._describe import place

_OWN = os.path.dirname(os.path.abspath(__file__)) + os.sep
_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
_NUMPY = os.path.join(os.path.dirname(os.path.dirname(_TORCH)), "numpy") + os.sep
Line: TypeAlias = tuple[str, int]
"""A source file, and a line in it."""
_PLUMBING = (contextlib.__file__, warnings.__file__)
"""Standard modules whose frames stand between the user's line and what happened there."""


@dataclass(frozen=True)
class Site:
    """A place in the user's code.

    Attributes:
        file: Path of the source file.
        line: Line, from 1.
        module_path: Path of the module whose method is running (``head.nms``); empty for the root
            or where it is not known.
        library: Whether torch's own code stands between this place and what happened.
    """

    file: str
    line: int
    module_path: str = ""
    library: bool = False

    def __str__(self) -> str:
        return place(self.file, self.line) + (f" in {self.module_path}" if self.module_path else "")


def user_site(names: Mapping[int, str] | None = None, frame: FrameType | None = None) -> Site:
    """Finds the innermost frame that belongs neither to torch nor to hybridjit.

    Args:
        names: ``id(module)`` to module path, to tell the module path.
        frame: Where to begin; the caller's frame if absent.

    Returns:
        The place; ``Site("<unknown>", 0)`` if every frame belongs to a library.
    """
    current, library = _user_frame(frame or sys._getframe(1))
    if current is None:
        return Site("<unknown>", 0, library=library)
    return Site(current.f_code.co_filename, current.f_lineno, _module_path(current, names or {}), library)


def user_frame() -> FrameType | None:
    """The innermost frame that belongs neither to torch nor to hybridjit."""
    return _user_frame(sys._getframe(1))[0]


def asking_frame() -> FrameType | None:
    """The frame of the user's code that is at what is asked; ``None`` if it is torch's own code that asks."""
    found, library = _asking(sys._getframe(1))
    return None if library else found


def site_of_function(fn: Callable[..., Any]) -> Site:
    """Where a function is defined, without its decorators."""
    code = getattr(inspect.unwrap(fn), "__code__", None)
    return Site(code.co_filename, code.co_firstlineno) if code else Site("<unknown>", 0)


def writes_text() -> bool:
    """Whether what the user's code is at is the writing of an f-string."""
    found, _ = _asking(sys._getframe(1))
    return found is not None and dis.opname[found.f_code.co_code[found.f_lasti]].startswith("FORMAT_")


def _asking(current: FrameType | None) -> tuple[FrameType | None, bool]:
    """As `_user_frame`; what is called for the user has his file and line, but globals of ours."""
    found, library = _user_frame(current)
    while found is not None and _is_ours(found) and found.f_back is not None:
        found, library = _user_frame(found.f_back)
    return found, library


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] == __name__.partition(".")[0]


def _user_frame(current: FrameType | None) -> tuple[FrameType | None, bool]:
    """The innermost frame of the user's at or above one, and whether torch's code stands between."""
    library = False
    while current is not None:
        file = current.f_code.co_filename
        if file.startswith(_TORCH):
            library = True
        elif is_users(file):
            return current, library
        current = current.f_back
    return None, library


def is_users(file: str) -> bool:
    """Whether code in a file is neither torch's nor hybridjit's; nor NumPy's, which stands beside torch."""
    return not file.startswith((_OWN, _TORCH, _NUMPY, "<frozen")) and file not in _PLUMBING


def is_own(file: str) -> bool:
    """Whether code in a file is hybridjit's."""
    return file.startswith(_OWN)


def file_of(thing: object) -> str:
    """The source file of a thing's class; of one that has none, a name that is nobody's."""
    return str(getattr(sys.modules.get(type(thing).__module__), "__file__", None) or "<frozen>")


def site_of_error(names: Mapping[int, str], error: BaseException) -> Site:
    """The innermost line of the user's that an error passed.

    Args:
        names: ``id(module)`` to module path.
        error: The error, which was raised.
    """
    found = Site("<unknown>", 0)
    path, trace = "", error.__traceback__
    while trace is not None:
        file, owner = trace.tb_frame.f_code.co_filename, trace.tb_frame.f_locals.get("self")
        if isinstance(owner, nn.Module):
            path = names.get(id(owner), path)
        if is_users(file):
            found = Site(file, trace.tb_lineno, path)
        elif file.startswith(_TORCH) and found.line:
            found = replace(found, library=True)
        trace = trace.tb_next
    return found


def user_files(error: BaseException) -> frozenset[str]:
    """The user's source files that an error, or what it came from, passed."""
    files: set[str] = set()
    current: BaseException | None = error
    while current is not None:
        trace = current.__traceback__
        while trace is not None:
            files.add(trace.tb_frame.f_code.co_filename)
            trace = trace.tb_next
        current = current.__cause__
    return frozenset(filter(is_users, files))


def is_raise(error: BaseException) -> bool:
    """Whether an exception comes of a ``raise``, and not of what an operation found."""
    last = innermost(error)
    return last is not None and dis.opname[last.tb_frame.f_code.co_code[last.tb_lasti]] in ("RAISE_VARARGS", "RERAISE")


def innermost(error: BaseException) -> TracebackType | None:
    """The end of an error's traceback: where it was raised; ``None`` if it was not."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace


def _module_path(frame: FrameType, names: Mapping[int, str]) -> str:
    current: FrameType | None = frame
    while current is not None and names:
        owner = current.f_locals.get("self")
        if isinstance(owner, nn.Module) and id(owner) in names:
            return names[id(owner)]
        current = current.f_back
    return ""
