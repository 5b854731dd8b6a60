"""Silence around torch's exporters, which log graphs and warn of their own insides; errors still come as errors."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences warnings, logging and stderr within the body."""
    before = logging.root.manager.disable
    # torch prints the graph so far to stderr where it refuses to go on; what it refused is in the error.
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(max(before, logging.ERROR))
        try:
            yield
        finally:
            logging.disable(before)
