"""One attempt at a file: whatever happens, the model comes back as it was, and nothing is left on disk."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from .._errors import ArchiveError, CaptureError, compose
from .contents import memory_of
from .refusals import refuse
from .state import ModelState, alone


@contextlib.contextmanager
def attempt(model: nn.Module, format: str) -> Iterator[tuple[ModelState, Path]]:
    """Gives the model's state and a folder for the body, in which no other thread exports.

    Args:
        model: The model.
        format: The format, for the report of an error.

    Raises:
        CaptureError: The body's, with a report.
        ArchiveError: There is no folder for temporary files, or no room in it.
    """
    with alone():
        state = ModelState(model)
        folder = _folder(model)
        try:
            yield state, folder
        except CaptureError as error:
            refuse(error, model, format)
            raise
        finally:
            try:
                state.restore(thorough=True)
            finally:
                shutil.rmtree(folder, ignore_errors=True)  # a kept file outlives its path


_ROOM = 64 << 10
"""Bytes that a file takes beside its weights, at the least."""


def _folder(model: nn.Module) -> Path:
    """A temporary folder with room for the weights: where it runs out, torch ends the process."""
    sizes = {}
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.layout == torch.strided and tensor.device.type != "meta":
            sizes[memory_of(tensor)] = tensor.untyped_storage().nbytes()
    needed = sum(sizes.values()) + _ROOM
    try:
        folder = Path(tempfile.mkdtemp(prefix="hybridjit-"))
    except OSError as error:
        raise _no_room(f"a file can't be written before it is verified: {error.strerror or error}") from error
    free = shutil.disk_usage(folder).free
    if free < needed:
        folder.rmdir()
        raise _no_room(f"there is room for {free:,} bytes in {folder.parent}, and the file takes more than {needed:,}")
    return folder


def _no_room(text: str) -> ArchiveError:
    return ArchiveError(
        compose(text, instead="TMPDIR=/a/folder/with/room python …  # the environment's", page="archiveerror")
    )
