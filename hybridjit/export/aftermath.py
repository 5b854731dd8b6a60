"""What a call of a model leaves behind besides its result, which the file does not: notes of it."""

from __future__ import annotations

from collections.abc import Iterator

from ..adapters.flatten import TracingAdapter
from ..control.record import Record
from .report import Finding
from .state import ModelState, plain_generators


class Aftermath:
    """What a capture leaves behind.

    Args:
        state: The model as it was before.
    """

    def __init__(self, state: ModelState) -> None:
        self._state = state
        self._generators = plain_generators()

    def notes(self, adapter: TracingAdapter, record: Record) -> Iterator[Finding]:
        """What there is to say of it.

        Args:
            adapter: What was captured.
            record: What was noted on the way.
        """
        for name in sorted({*self._state.changed_attributes(), *record.written}):
            text = f"forward sets the attribute {name}; the file does not"
            yield Finding("HJ002", "note", text, fix="register_buffer for state that calls share")
        if adapter.changed:
            more = f", and {len(adapter.changed) - 1} more" if len(adapter.changed) > 1 else ""
            text = f"forward changes what it is given; the file leaves that as it was: {adapter.changed[0]}{more}"
            yield Finding("HJ006", "note", text, fix="a copy that forward makes, and returns")
        if plain_generators() != self._generators:
            text = "forward draws random numbers of Python or NumPy; the file keeps what those of the export led to"
            yield Finding("HJ005", "warning", text, fix="torch.rand, of which a file draws anew")
