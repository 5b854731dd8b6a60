"""Refuses what is no function where one is taken, by name."""

from __future__ import annotations

from collections.abc import Mapping

from .. import _torch
from .._describe import describe
from .._errors import InputError, compose
from .._sites import user_site
from . import record


def check_functions(function: str, given: Mapping[str, object], instead: str) -> None:
    """Refuses arguments that can't be called.

    Args:
        function: What takes them, for the message.
        given: The arguments, by name.
        instead: What to write instead.

    Raises:
        InputError: One of them is no function.
    """
    wrong = {name: value for name, value in given.items() if not callable(value)}
    if not wrong:
        return
    with _torch.paused_tracing():
        rows = [f"{name}: expected a function, got {describe(value)}" for name, value in wrong.items()]
    raise InputError(
        compose(
            f"{function} takes functions",
            where=str(user_site(record.current().names)),
            differences=rows,
            instead=instead,
            page="inputerror",
        )
    )
