"""One model and one column in a process of its own: one thread, a limit on time, what it found kept line by line."""

import json
import multiprocessing
import os
import resource
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from . import libraries
from .cases import load_cases
from .columns import measure
from .judge import CRASHED, LATE, first_line

MEMORY = 12 << 30
"""Bytes of address space; past that an allocation fails, and is loud."""


def limited(target: Callable[..., None], args: tuple[Any, ...], seconds: int, patience: float = 6) -> str:
    """Runs a function in a process of its own; says how it ended, if not by returning.

    The limit is on the processor's seconds, so that it is the same limit on a busy machine; a process that
    does nothing is ended after ``patience`` times as many by the clock.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"{__package__}.preload"])
    process = context.Process(target=_within, args=(seconds, target, args), daemon=True)
    process.start()
    process.join(seconds * patience)
    if process.is_alive():
        process.kill()
        process.join()
        return LATE
    if process.exitcode == -signal.SIGXCPU:
        return LATE
    return "" if process.exitcode == 0 else f"{CRASHED} ({process.exitcode})"


def _within(seconds: int, target: Callable[..., None], args: tuple[Any, ...]) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    target(*args)


def work(name: str, column: str, path: str) -> None:
    """Measures, and writes a line for each thing it learns."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(quiet, stream)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    libraries.ready()
    with Path(path).open("a") as lines, torch.no_grad():
        try:
            for found in measure(column, load_cases()[name]):
                lines.write(json.dumps(found) + "\n")
                lines.flush()
        except Exception as error:  # the library is missing, or is another release
            lines.write(json.dumps({"seconds": 0.0, "error": f"not built: {first_line(error)}"}) + "\n")
