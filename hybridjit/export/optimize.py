"""`optimize=`: what torch can do to a TorchScript file, done before it is verified."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .. import _torch
from .._errors import CaptureError, InputError, compose

OPTIMIZE = ("freeze", "inference")


def check_optimize(optimize: str | None) -> None:
    """Refuses another word than those that ``optimize`` takes.

    Raises:
        InputError: It is another one.
    """
    if optimize is not None and optimize not in OPTIMIZE:
        raise InputError(
            compose(
                "optimize takes one of two words, or None",
                differences=[f"expected one of {', '.join(OPTIMIZE)}, got {optimize!r}"],
                instead='optimize="freeze"',
                page="inputerror",
            )
        )


def optimize_file(path: Path, optimize: str, methods: Sequence[str]) -> None:
    """Replaces a TorchScript file by one that torch has optimized.

    Args:
        path: The file.
        optimize: ``"freeze"``, or ``"inference"``, which freezes first.
        methods: The methods that the file is to have.

    Raises:
        CaptureError: Torch can't, or can't save what comes of it.
    """
    try:
        module = _torch.optimized(_torch.load_script(path), methods, inference=optimize == "inference")
        _torch.save_script(module, path, {})
        _torch.load_script(path)  # fused operations may have weights that torch writes and can't read
    except RuntimeError as error:
        rows = [row.strip() for row in str(error).splitlines() if row.strip()]
        raise CaptureError(
            compose(
                f"the file can't be optimized by optimize={optimize!r}",
                differences=[f"{type(error).__name__}: {rows[-1] if rows else ''}"],
                instead='optimize="freeze"' if optimize == "inference" else "optimize=None",
                page="captureerror",
            )
        ) from error
