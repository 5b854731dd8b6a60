"""Which stage a command is at, and for how long: redrawn on a terminal, lines in a log."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import threading
import time
from types import TracebackType
from typing import TextIO

from ..export.stages import listening

_EVERY = 0.1
"""Seconds between two drawings; what changes is tenths."""


class Progress:
    """Shows the stages of an export or a verification, and its own, on the standard error.

    On a terminal the running stage is one line with its time, redrawn in place; what is done stays above it. Elsewhere
    each stage is a line when it begins, after the time since the start. What the model's code prints meanwhile goes to
    the standard error too, between the lines: the standard output is for the result alone.

    Args:
        quiet: Whether nothing is shown.
        out: Where to; the standard error if absent.
    """

    def __init__(self, quiet: bool = False, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._quiet = quiet
        self._live = not quiet and self._out.isatty() and os.environ.get("TERM") != "dumb"
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._text: str | None = None
        self._drawn = False
        self._inside = False
        self._started = self._since = time.monotonic()

    def __enter__(self) -> Progress:
        self._kept = contextlib.ExitStack()
        self._kept.enter_context(listening(self.stage))
        if self._live:
            beside = _Beside(self)
            self._kept.enter_context(contextlib.redirect_stderr(beside))
            self._kept.enter_context(contextlib.redirect_stdout(beside))
            ticker = threading.Thread(target=self._tick, name="hybridjit-progress", daemon=True)
            ticker.start()
            self._kept.callback(ticker.join)
            self._kept.callback(self._over.set)
        else:
            self._kept.enter_context(contextlib.redirect_stdout(self._out))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kept.close()
        self._finish("" if kind is None else ": interrupted" if kind is KeyboardInterrupt else ": failed")

    def stage(self, text: str) -> None:
        """Begins a stage; the one before it is over."""
        with self._lock:
            self._finish()
            self._text, self._since = text, time.monotonic()
            if self._live:
                self._draw()
            elif not self._quiet:
                self._out.write(f"[{self._since - self._started:6.1f} s] {text}\n")
                self._out.flush()

    def note(self, text: str) -> None:
        """Says what came of it, once the stages are over."""
        if not self._quiet:
            total = time.monotonic() - self._started
            self._out.write(f"{total:6.1f} s  {text}\n" if self._live else f"[{total:6.1f} s] {text}\n")
            self._out.flush()

    def _finish(self, how: str = "") -> None:
        with self._lock:
            if self._text is None:
                return
            if self._live:
                self._clear()
                if self._inside:
                    self._out.write("\n")
                    self._inside = False
                self._out.write(self._line(how) + "\n")
                self._out.flush()
            elif how and not self._quiet:
                self._out.write(f"[{time.monotonic() - self._started:6.1f} s] {self._text}{how}\n")
                self._out.flush()
            self._text = None

    def _line(self, after: str) -> str:
        return f"{time.monotonic() - self._since:6.1f} s  {self._text}{after}"

    def _draw(self) -> None:
        width = shutil.get_terminal_size().columns - 1  # a line that wraps could not be drawn over
        self._out.write(f"\r\x1b[2K{self._line(' …')[:width]}")
        self._out.flush()
        self._drawn = True

    def _clear(self) -> None:
        if self._drawn:
            self._out.write("\r\x1b[2K")
            self._drawn = False

    def _tick(self) -> None:
        while not self._over.wait(_EVERY):
            with self._lock:
                if self._text is not None and not self._inside:
                    self._draw()

    def print_beside(self, text: str) -> None:
        """Writes what other code prints, out of the way of the line that is redrawn."""
        with self._lock:
            self._clear()
            self._out.write(text)
            self._out.flush()
            self._inside = not text.endswith(("\n", "\r")) if text else self._inside


class _Beside(io.TextIOBase):
    """What other code prints to while a line is redrawn."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._progress._out.fileno()

    def write(self, text: str) -> int:
        self._progress.print_beside(text)
        return len(text)
