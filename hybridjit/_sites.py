"""Where in the user's code something happens: file, line and module path."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType, TracebackType

import torch
from torch import nn

from ._describe import place

_OWN = os.path.dirname(os.path.abspath(__file__)) + os.sep
_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
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
    here = frame or sys._getframe(1)
    library = False
    current: FrameType | None = here
    while current is not None:
        file = current.f_code.co_filename
        if file.startswith(_TORCH):
            library = True
        elif not file.startswith((_OWN, "<frozen")) and file not in _PLUMBING:
            return Site(file, current.f_lineno, _module_path(current, names or {}), library)
        current = current.f_back
    return Site("<unknown>", 0)


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
