"""How values, modules and places in source code are spelled in messages."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch import Tensor


def describe(value: object) -> str:
    """Spells a value's kind, never its contents: ``float32[2, 3] cuda:0``, ``int``, ``None``.

    Args:
        value: Anything.

    Returns:
        For a tensor its dtype, shape and device; for a static value its type.
    """
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        layout = "" if value.layout == torch.strided else f" {str(value.layout).removeprefix('torch.')}"
        return f"{dtype}{list(value.shape)}{layout} {value.device}"
    if value is None:
        return "None"
    return type(value).__name__


def place(file: str, line: int) -> str:
    """Spells a place in source code as ``file:line``, relative to the current folder if below it.

    Args:
        file: A path as Python gives it.
        line: The line, from 1.

    Returns:
        ``models/head.py:41``.
    """
    return f"{short_path(file)}:{line}"


def short_path(file: str) -> str:
    """Shortens a path to one relative to the current folder, where it lies below it."""
    if not os.path.isabs(file):
        return file
    relative = os.path.relpath(file)
    return file if relative.startswith("..") else relative


def qualified(fn: object) -> str:
    """Spells a function or class as ``package.module.Name``."""
    module = getattr(fn, "__module__", None)
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return f"{module}.{name}" if module else name


def listed(names: Iterable[str], most: int = 8) -> str:
    """Joins names with commas, and counts those past ``most``."""
    every = list(names)
    rest = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + rest
