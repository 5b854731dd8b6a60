"""The guards of a capture: what they check, what they say, and which are superfluous."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from torch import Tensor

from .._errors import CaptureError, compose
from ..control.guards import insert_guard, insert_refusal
from ..control.recorder import Frame, active, decision
from .kinds import BOOL, UNGUARDED
from .leaks import Leak, spell_value
from .rolling import turns_under_way
from .validation import own_words


class Guards:
    """The guards of one trace; those that an earlier one makes superfluous are left out."""

    def __init__(self) -> None:
        self._known: dict[object, list[tuple[object, ...]]] = {}

    def check(self, value: Tensor, captured: Sequence[Any], leak: Leak) -> None:
        """Guards a value where recording goes on, unless a guard that has run by then says the same.

        Args:
            value: The traced tensor that holds it.
            captured: What it may be.
            leak: How it left the trace.

        Raises:
            CaptureError: No guard can check such a leak.
        """
        if leak.kind in UNGUARDED:
            _refuse(leak)
        recorder = active()
        root, *inner = recorder.frames if recorder else [Frame("the trace")]
        # What was erased since guards no more.
        blocks: tuple[object, ...] = (root.erased, *((each, each.erased) for each in inner))
        spelled = tuple("" if isinstance(each, Tensor) else repr(each) for each in captured)
        key = decision(value), type(captured[0]).__name__, spelled, turns_under_way()
        if any(blocks[: len(earlier)] == earlier for earlier in self._known.get(key, ())):
            return
        self._known.setdefault(key, []).append(blocks)
        guard(value, captured, leak)


def _refuse(leak: Leak) -> NoReturn:
    raise CaptureError(
        compose(
            f"{leak.kind.what}: {leak.kind.says}",
            where=str(leak.site),
            instead=leak.kind.fix,
            page=leak.kind.code.lower(),
        )
    )


def guard(value: Tensor, captured: Sequence[Any], leak: Leak) -> None:
    """Inserts a guard: ``value frozen at head.py:41: captured 3, got 5; write …``; or what the model raises there."""
    words = own_words(leak.site, captured[0]) if leak.kind is BOOL and len(captured) == 1 else None
    if words is not None:
        insert_refusal(value, captured[0], f"{leak.site}: {words}")
        return
    values = " or ".join(dict.fromkeys(spell_value(each) for each in captured))
    message = f"value frozen at {leak.site}: {leak.kind.what}, captured {values}"
    insert_guard(value, captured, message, f"write {leak.kind.fix}")
