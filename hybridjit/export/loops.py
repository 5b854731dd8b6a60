"""Which loops over a traced range can be loops in the file: told by captures that took other numbers of turns."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

from .._errors import CaptureError
from .._sites import Line
from .survey import Seen, same_program
from .until import end_at

if TYPE_CHECKING:
    from .guarded import Study
    from .task import Settings


def rolled(study: Study, settings: Settings) -> Settings | None:
    """Settings with those loops that two captures agree on, of which each took other turns.

    Args:
        study: The captures; its probes are made.
        settings: With all loops that might be.

    Returns:
        ``None`` if there are none.
    """
    while settings.rolls:
        try:
            seen = [study.seen(settings, "input")]
            seen += itertools.chain.from_iterable(study.observed(settings, count) for count in (True, False))
        except CaptureError:
            return None
        most: frozenset[Line] = frozenset()
        for base in seen:
            if base.name != "input" and (":" not in base.name or not study.alone):
                continue  # of one turn none can be told from what is around it; one of another size has more
            (alike, *_) = same_program([base, *(each for each in seen if each is not base)], turns=True)
            turns = [
                {line: [count for at, count in each.captured.turns if at == line] for line in settings.rolls}
                for each in alike
            ]
            # A loop that ends by a tensor's truth says itself that its turns may be others.
            sure = {line for line in settings.rolls if turns[0][line] and end_at(line)}
            found = {
                line for line in settings.rolls - sure if any(each[line] != turns[0][line] for each in turns)
            } | sure
            found -= base.captured.unrolled
            if found == settings.rolls:
                own = found <= _rolled(seen[0])  # the first input need not be alike: other loops may stay unrolled
                return dataclasses.replace(settings, base="input" if own else base.name)
            most = max(most, frozenset(found), key=len)
        # A loop that is one in no capture, as over a list of one, is in the way of what captures tell of the others.
        idle = settings.rolls - {line for each in study.captures(settings) for line in _rolled(each)}
        settings = dataclasses.replace(settings, rolls=most or (settings.rolls - idle if idle else frozenset()))
    return None


def _rolled(seen: Seen) -> set[Line]:
    """The lines of the loops that could be made loops again."""
    return {line for line, _ in seen.captured.turns} - seen.captured.unrolled
