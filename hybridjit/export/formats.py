"""The formats: their names and their files."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .._describe import describe
from .._errors import InputError, UnsupportedError, compose

if TYPE_CHECKING:
    from .subject import Format

FORMATS = ("torchscript", "pt2", "onnx", "aoti")
"""In the order in which ``"auto"`` tries them."""
SUFFIXES: dict[str, tuple[str, ...]] = {
    "torchscript": (".pt", ".pth", ".ts", ".jit"),
    "pt2": (".pt2",),
    "onnx": (".onnx",),
    "aoti": (".pt2",),
    "executorch": (".pte",),
    "a shared library": (".so",),
}
"""What files of each are called; the first is what messages propose."""


def read_formats(format: Any) -> tuple[str, ...]:
    """The formats that ``format`` asks for; ``("auto",)`` for the first that does.

    Raises:
        InputError: It names none, an unknown one, or one twice.
    """
    names = [format] if isinstance(format, str) else list(format) if isinstance(format, (list, tuple)) else [format]
    alone = len(names) == 1
    known: tuple[str, ...] = (*FORMATS, "auto") if alone else FORMATS
    wrong = [
        f"expected one of {', '.join(known)}, got {repr(name) if isinstance(name, str) else describe(name)}"
        for name in names
        if not isinstance(name, str) or name not in known
    ]
    wrong += [f"{name}: is there twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    if not names:
        wrong = ["expected at least one format, got an empty list"]
    if wrong:
        raise InputError(
            compose(
                "format takes the name of a format, a list of them, or 'auto'",
                differences=wrong,
                instead='format="torchscript", or format=["torchscript", "onnx"]',
                page="inputerror",
            )
        )
    return tuple(names)


def format_named(name: str) -> Format:
    """A format other than TorchScript; what it needs is imported now."""
    found: Any = importlib.import_module(f".{name}", __package__)
    format: Format = found
    return format


def unsupported(format: str, what: str, instead: str) -> UnsupportedError:
    """The error for something that a format can't do.

    Args:
        format: The format.
        what: What it can't do.
        instead: What to write instead.
    """
    return UnsupportedError(compose(f"format {format!r} {what}", instead=instead, page="unsupportederror"))
