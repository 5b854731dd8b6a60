"""What an export or a verification is doing at the moment, told to whoever shows it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

_LISTENER: ContextVar[Callable[[str], None] | None] = ContextVar("hybridjit_stages", default=None)
"""Of this thread alone: exports in others have their own."""


def stage(text: str) -> None:
    """Says that a stage begins, and the one before it is over.

    Args:
        text: What is done in it: ``capture forward``.
    """
    listener = _LISTENER.get()
    if listener is not None:
        listener(text)


@contextlib.contextmanager
def listening(listener: Callable[[str], None]) -> Iterator[None]:
    """Hands every stage that begins within to a function.

    Args:
        listener: Takes what `stage` was told.

    Example:
        >>> import torch, hybridjit as hj
        >>> seen = []
        >>> with listening(seen.append):
        ...     exported = hj.export(torch.nn.Linear(2, 1).eval(), torch.zeros(3, 2), devices=["cpu"])
        >>> seen
        ['capture forward', 'save, and load again', 'check on cpu (1 call)']
    """
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)
