"""One attempt at a file: whatever happens, the model comes back as it was, and nothing is left on disk."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from torch import nn

from .._errors import CaptureError
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
    """
    with alone():
        state = ModelState(model)
        folder = Path(tempfile.mkdtemp(prefix="hybridjit-"))
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
