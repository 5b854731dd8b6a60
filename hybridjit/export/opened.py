"""A file that was opened for what runs it; the rest waits for a reader."""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .. import _torch


class Opened:
    """A file's script module for its methods: Python's view of its submodules, a sixth of the time, waits for a reader.

    Args:
        path: The file.
        device: Where its tensors go; where they were saved from if absent.

    Raises:
        RuntimeError: It is none.
    """

    def __init__(self, path: Path, device: torch.device | None) -> None:
        self._module = _torch.open_script(path, device)

    def method(self, name: str) -> Callable[..., Any]:
        """One of its methods, as C++ calls it."""
        found: Callable[..., Any] = self._module._get_method(name)
        return found

    @functools.cached_property
    def module(self) -> _torch.ScriptModule:
        """The script module."""
        return _torch.script_view(self._module)


class Waiting:
    """A file as its format's own object, made when somebody asks for it: what runs the file has it all already.

    Args:
        path: The file, which may be gone by then.
        read: Makes the object from its bytes.
    """

    def __init__(self, path: Path, read: Callable[[bytes], Any]) -> None:
        self._read = read
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._descriptor)

    def __deepcopy__(self, memo: dict[int, Any]) -> Waiting:
        return self

    @functools.cached_property
    def module(self) -> Any:
        """The object."""
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            return self._read(file.read())
