"""What people stumble over when they script a function, and what to write instead."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Pitfall:
    """One way in which ordinary Python is not TorchScript.

    Attributes:
        name: What it is called in ``docs/errors.md``.
        pattern: Searched in torch's error text.
        instead: The text to write.
        line: If given, searched in the offending source line as well.
    """

    name: str
    pattern: str
    instead: str
    line: str = ""


PITFALLS: list[Pitfall] = []


def find_pitfall(text: str, line: str) -> Pitfall | None:
    """Finds the pitfall behind an error text of torch, by the first entry that matches."""
    for pitfall in PITFALLS:
        if re.search(pitfall.pattern, text) and re.search(pitfall.line, line):
            return pitfall
    return None
