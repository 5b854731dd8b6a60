"""The ways of capturing a model, tried until one is right: the most general first, the safest last."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .._errors import CaptureError, InputError
from .._sites import Line, file_of, is_users, user_files
from ..control.merges import mergeable
from .branches import with_lines
from .capture import Captured
from .counts import Asked, asked_at
from .further import SECONDS, look_beside, probe, scatter
from .kinds import BOOL, FLOAT, INDEX, INT, ITEM, LEN, REPEATED, ROWS, TURNS
from .leaks import Leak
from .loops import rolled
from .probes import BESIDE, guarded_by
from .rolling import has_ranges
from .standins import NO_DTYPE
from .trials import is_special
from .until import end_at, ends_around
from .verdicts import unexplained

if TYPE_CHECKING:
    from .guarded import Study
    from .task import Known, Settings

_LOOPED = (INDEX, REPEATED, ROWS, TURNS)
"""How values leave where a loop may be."""
_NUMBERS = (FLOAT, INT, ITEM, LEN)
_EXAMPLES = 4
"""How many inputs may record sides of branches at once."""
_JOINED, _PATHS = 2, 4
"""How many probes may get paths of their own, at once and in all."""
_LATE = 5 * SECONDS
"""How long capturing may take with them, as far as that can be told before."""
_OVER = 4 * _LATE
"""After how long it ends, where that could not be told."""
_MORE = 2
"""How many times as long as the last capture one with sides or paths of more inputs may take."""


class Found(NamedTuple):
    """What a way of capturing gave, and the inputs that it is wrong on, and raises on."""

    settings: Settings
    captured: Captured
    guarded: list[Leak]
    wrong: list[str]
    stopped: list[str]


def find(study: Study, settings: Settings) -> Found:
    """Finds the most general capture that is right on the check inputs.

    They are evidence at first, as probes are. Only those that are lost then, and all of them if that is not enough,
    get paths of their own, on which much of what they do may be frozen.

    Raises:
        CaptureError: There is none that is right, or is wrong on check inputs alone: the verification tells that.
    """
    told = [known for name, known in study.known.items() if known.told and name != "input"]
    joining: list[Known] = []
    spare: tuple[Found, list[Known]] | None = None
    while True:
        _join(told, joining)
        lost = told
        try:
            found = _searched(study, settings)
        except CaptureError:
            if len(joining) == len(told) and spare is None:
                raise
        else:
            lost = [known for known in told if known.name in {*found.wrong, *found.stopped}]
            if not lost:
                return found
            if spare is None or (not found.wrong and len(found.stopped) <= len(spare[0].stopped)):
                spare = found, joining
        if len(joining) == len(told):
            assert spare is not None
            found, joining = spare
            _join(told, joining)
            return found
        joining = told if joining else lost


def _join(told: Sequence[Known], joining: Sequence[Known]) -> None:
    for known in told:
        known.joins = known in joining


def _searched(study: Study, settings: Settings) -> Found:
    """The first of the ways of capturing that gives nothing wrong, and raises on no input that is to have a path.

    Raises:
        CaptureError: None can be captured, or all are wrong on inputs that nobody gave.
    """
    spare: Found | None = None  # what gives nothing wrong, and raises on an input that is to have a path
    found: Found | None = None
    refused: CaptureError | None = None
    for chosen in _tries(study, settings):
        try:
            found = _tried(study, chosen)
        except CaptureError as error:
            if chosen == settings and spare is None:
                raise
            refused = error  # by stand-ins, maybe
            continue
        if not found.wrong and not any(study.known[name].joins for name in found.stopped):
            return found
        if not found.wrong and spare is None:
            spare = found
    if found is None:
        assert refused is not None
        raise refused
    if spare is None and not any(study.known[name].told for name in found.wrong):
        raise unexplained(study.task.model, found.wrong, found.captured)
    return spare or found


def _tries(study: Study, settings: Settings) -> Iterator[Settings]:
    """The ways of capturing, the most general first, the safest last."""
    first = study.first
    files = frozenset(leak.site.file for leak in first.leaks) | first.kinds_asked
    lines = _loops(first.leaks)
    probe(study, first)
    own = frozenset(filter(is_users, map(file_of, study.task.model.modules())))
    asking = frozenset(finding.file for finding in first.findings if finding.code == "HJ303" and finding.file)
    if asking and not settings.as_eager:
        scatter(study)
    lines |= _loops_of_numbers(study, dataclasses.replace(settings, dynamic=files))
    yield from _rolling(study, dataclasses.replace(settings, dynamic=files, rolls=lines))
    yield dataclasses.replace(settings, dynamic=files) if files else settings
    if asking and not settings.as_eager:
        # What the model does in eager mode is not in the first capture, and so none of its leaks.
        eager = dataclasses.replace(settings, dynamic=files | own | asking, as_eager=True)
        with contextlib.suppress(CaptureError):
            lines = _loops(study.seen(eager, "input").captured.leaks)
            yield from _rolling(study, dataclasses.replace(eager, rolls=lines))
        yield eager
    # Without stand-ins, code that asks what kind of number a size is is told right if it is a plain number.
    settings = dataclasses.replace(settings, plain=settings.plain | first.kinds_asked)
    if files:
        yield settings
    if not files >= own:  # code that asks what kind of number a size is, say
        yield dataclasses.replace(settings, dynamic=files | own)
    if settings.auto:  # a tensor may leave a path by a way that only shows when the file runs
        yield dataclasses.replace(settings, auto=False)
    yield dataclasses.replace(settings, trusting=False)
    yield dataclasses.replace(settings, trusting=False, fixed=frozenset(("kinds", "sizes")))


def _rolling(study: Study, settings: Settings) -> Iterator[Settings]:
    """Ways with loops; at first those in whose turns there are branches, too, if there are ``if``s."""
    asked: set[Line] = set()
    with contextlib.suppress(CaptureError):
        leaks = study.seen(settings, "input").captured.leaks if settings.auto and settings.rolls else ()
        asked = {(leak.site.file, leak.site.line) for leak in leaks if leak.kind is BOOL and leak.turning}
    within = {
        (helper.__code__.co_filename, line) for helper, own in with_lines(asked) for line in mergeable(helper, own)
    }
    for each in (within, ()) if within else ((),):
        rolls = rolled(study, dataclasses.replace(settings, within=frozenset(each)))
        if rolls is not None:
            yield rolls


def _loops(leaks: Sequence[Leak]) -> frozenset[Line]:
    """The lines of loops that may be loops in the file."""
    lines = [(leak.kind, (leak.site.file, leak.site.line)) for leak in leaks]
    looped = {line for kind, line in lines if kind in _LOOPED}
    looped |= {loop[0] for kind, line in lines if kind is BOOL and (loop := end_at(line))}
    # What is a number at first may be a tensor yet, whose truth the loop ends by.
    looped |= {loop for kind, line in lines if kind in _NUMBERS for loop in ends_around(line)}
    return frozenset(line for line in looped if asked_at(line) < Asked.HOW_MANY)


def _loops_of_numbers(study: Study, settings: Settings) -> frozenset[Line]:
    """The lines of loops over what stand-ins keep a number of the graph: ``for i in range(len(x))``."""
    numbers = {leak.site.file for leak in study.first.leaks if leak.kind in _NUMBERS}
    if not any(map(has_ranges, numbers & settings.dynamic)):
        return frozenset()
    with contextlib.suppress(CaptureError):
        return _loops(study.seen(settings, "input").captured.leaks)
    return frozenset()


def _tried(study: Study, settings: Settings) -> Found:
    """What one way of capturing gives."""
    chosen, captured, guarded = _widened(study, settings)
    wrong, stopped = study.trials.wrong(captured)
    if wrong and all(map(is_special, wrong)):
        chosen = dataclasses.replace(chosen, fixed=frozenset(map(guarded_by, wrong)))
        captured, guarded = study.made(chosen)
        wrong, stopped = study.trials.wrong(captured)
    if chosen.rolls and not wrong and any(study.known[name].joins for name in stopped):
        captured, guarded = study.made(dataclasses.replace(chosen, few=True))
        wrong, stopped = study.trials.wrong(captured)
    return _sided(study, Found(chosen, captured, guarded, wrong, stopped))


def _sided(study: Study, found: Found) -> Found:
    """The same with sides of branches, that raise as the first input contradicts them, recorded by inputs that stop."""
    told = any(study.known[name].told for name in found.stopped)
    if found.wrong or (_late(study) and not told) or not any(branch.raises for branch in found.captured.branches):
        return found
    had = found.settings.examples
    for name in (*had[-_EXAMPLES:], "input"):
        look_beside(study, name, found.captured)
    wrong, stopped = study.trials.wrong(found.captured)
    found = found._replace(wrong=wrong, stopped=stopped)
    names = [name for name in found.stopped if not is_special(name) and name not in had]
    names = sorted(names, key=lambda name: not study.known[name].told)[:_EXAMPLES]
    if found.wrong or not names:
        return found
    settings = dataclasses.replace(found.settings, examples=(*had, *names))
    try:
        with study.until(math.inf if told else _OVER):
            captured, guarded = study.made(settings)
        wrong, stopped = study.trials.wrong(captured)
    except (CaptureError, InputError):  # of another example, or the branches that it leads to
        return found
    if wrong or not set(stopped) < set(found.stopped):
        return found
    return _sided(study, Found(settings, captured, guarded, wrong, stopped))


def _late(study: Study) -> bool:
    """Whether another capture, of which the sides of more inputs make more, is more than what is left of the time."""
    return time.thread_time() - study.started + _MORE * study.cost > _LATE


def _widened(study: Study, settings: Settings) -> tuple[Settings, Captured, list[Leak]]:
    """A capture with stand-ins in the files, too, that were handed a number they keep traced, and refused it.

    And without one for ``int``, in files that give torch that for a dtype.
    """
    try:
        return settings, *study.made(settings)
    except CaptureError as error:
        if NO_DTYPE in str(error) and not settings.classes:
            return _widened(study, dataclasses.replace(settings, classes=True))
        wider = settings.dynamic | user_files(error)
        if not settings.dynamic or wider == settings.dynamic:
            raise
        return _widened(study, dataclasses.replace(settings, dynamic=wider))


def joined(study: Study, found: Found) -> Found:
    """The same with paths for probes on which it raises, where decisions are all that parts them from the first.

    Numbers that part them would only be a choice among those of the probes.
    """
    before, settings = set(study.known), found.settings
    had = sum(known.joins and not known.told for known in study.known.values())
    decides = bool(found.captured.branches) or any(leak.kind is BOOL for leak in found.guarded)
    if had >= _PATHS or not decides or _late(study):
        return found
    names = (name for name in found.stopped if not name.startswith(BESIDE))
    parting = (study.known[name] for name in names if study.parts_by_decisions(settings, name))
    with study.until(_LATE):
        joining = list(itertools.islice(parting, _JOINED))
    if not joining or _late(study):  # to tell that takes captures of its own
        return found
    for known in joining:
        known.joins = True
    try:
        with study.until(_OVER):
            captured, guarded = study.made(settings)
        wrong, left = study.trials.wrong(captured)
        if not wrong and before & set(left) < set(found.stopped):
            # What has paths of its own since was tried at other sizes, too, some of which it may raise on.
            return joined(study, Found(settings, captured, guarded, wrong, sorted(set(left) - before)))
    except (CaptureError, InputError):  # of another path, or a result of another structure, or out of time
        pass  # what there is holds for the first input
    for known in joining:
        known.joins = False
    return found
