"""A TorchScript file that was opened for its methods."""

from __future__ import annotations

import functools
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
