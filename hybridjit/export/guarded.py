"""A capture in which nothing goes on with a frozen value: guards, as few as the evidence allows."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _torch
from .._errors import CaptureError, HybridJitError
from .._sites import site_of_function, user_files
from ..control.asides import Arguments
from .auto import Branches, Meeting
from .branches import BranchingError
from .capture import Captured, capture, placed
from .devices import moved
from .further import SECONDS, enough, listened, look_beside, probe
from .kinds import BOOL
from .leaks import Leak
from .members import Member, told_dtypes, ways_apart
from .memory import memory_error, recalled
from .probes import SCATTERED, SHARED, of_kind
from .report import Finding
from .state import SEED
from .survey import (
    Guarding,
    Occurrence,
    Seen,
    exonerated,
    inseparable,
    parts_by_decisions,
    proven,
    same_program,
    serves_nothing,
    unsettled,
    values_of,
)
from .task import Known, Settings, Task
from .together import Together
from .trials import Trials
from .verdicts import frozen_error, judged
from .ways import Found, find, joined

_OBSERVED = 4.0
"""How many times as long as the first capture capturing further inputs may take in all; `SECONDS` it always may."""


def capture_guarded(task: Task, branches: Sequence[str] | str, on_frozen: str) -> Captured:
    """Traces a model, and again with guards if values of tensors left the trace.

    Args:
        task: What to trace.
        branches: Paths of submodules whose ``if``s become branches; ``"auto"`` for the innermost around each
            ``if`` that would be frozen. One that can't have them (its paths return different structures, say)
            leaves it to the module around it, up to the model itself.
        on_frozen: What becomes of such a value: ``"guard"``, ``"error"`` or ``"ignore"``.

    Raises:
        CaptureError: The model can't be traced; or a value is frozen, and that is to be an error.
    """
    settings = Settings(auto=True) if branches == "auto" else Settings(branches=tuple(branches))
    return Study(task, on_frozen).capture(settings)


def _look(index: int, leak: Leak, tensor: Tensor) -> None:
    """Does nothing about a leak."""


class Study:
    """Captures of one model on several inputs, and what they tell of each other.

    Attributes:
        trials: Runs what was captured on all of the inputs.
        beside: Those of which inputs of sizes next to theirs were made.
        cost: The seconds that the last capture took, without what led to where its paths meet, as the next knows that.
        began: When it began.
        deadline: The time of this thread after which nothing is captured any more.
        meeting: Where too many paths meet again.
    """

    def __init__(self, task: Task, on_frozen: str) -> None:
        self.task = task
        self.on_frozen = on_frozen
        self.known: dict[str, Known] = {"input": Known("input", task.first, task.expected, True)}
        self.trials: Trials = Trials(task, self.known)
        self.probed: bool = False
        self.beside: set[str] = set()
        self.settings: Settings = Settings()
        self.first: Captured
        self.seconds: float = 0.0
        self.started: float = 0.0
        self.cost: float = 0.0
        self.began: float = 0.0
        self.deadline: float = math.inf
        self.meeting: Meeting = Meeting()
        self.alike: list[list[tuple[torch.dtype, ...]]] = []
        self._placed: dict[int, Captured] = {}
        self._captures: dict[tuple[Settings, str], Seen] = {}
        self._given: dict[Hashable, dict[Hashable, list[Arguments]]] = {}

    @property
    def alone(self) -> bool:
        """Whether the file is for one input alone, as far as paths go."""
        return sum(known.joins for known in self.known.values()) == 1

    def capture(self, settings: Settings) -> Captured:
        """The capture that becomes the file."""
        self.settings = settings
        self.started = time.thread_time()
        self.first = first = self._first()
        settings = self.settings
        self.seconds = time.thread_time() - self.started
        if self.on_frozen == "ignore":
            return placed(first)
        for name, inputs in self.task.others.items():
            self.known[name] = Known(name, inputs, self.task.run(inputs, name), True)
        refusal: CaptureError | None = None
        remembers = [finding.message for finding in first.findings if finding.code == "HJ002"]
        if remembers:
            probe(self, first)
            calls = {name: each.inputs for name, each in self.known.items()}
            self.trials.recalled = names = recalled(self.task.model, self.task.state, calls)
            refusal = memory_error(self.task.model, remembers, names[0]) if names else None
            if refusal and any(self.known[name].told for name in names):
                raise refusal
        try:
            found = find(self, settings)
            if not found.wrong and self.trials.unsaid & set(found.stopped):
                found = self._once_more(settings, found)
        except CaptureError:
            if refusal:
                raise refusal from None
            raise
        if not found.wrong and not first.leaks and any(self.known[name].told for name in found.stopped):
            chosen = dataclasses.replace(found.settings, looking=True)
            captured, guarded = self.made(chosen)
            found = Found(found.settings, captured, guarded, *self.trials.wrong(captured))
        if not found.wrong:
            found = joined(self, found)
        captured, guarded = found.captured, found.guarded
        answers = [asked for asked in captured.asked if asked.what == "value"]
        if self.on_frozen == "error" and (guarded or answers):
            raise frozen_error(self.task.model, guarded, answers)
        if first.module is not captured.module:
            _torch.empty(first.module, self.task.model)
        return dataclasses.replace(captured, guarded=tuple(guarded))

    def _once_more(self, settings: Settings, found: Found) -> Found:
        """The search again, if further inputs show that what a file ends on without a word is wrong on others.

        No guard stands there: what is frozen left the trace where nothing saw it.
        """
        probe(self, self.first, every=True)
        look_beside(self, "input")
        wrong, stopped = self.trials.wrong(found.captured)
        return find(self, settings) if wrong else found._replace(stopped=stopped)

    def _first(self) -> Captured:
        """The first capture; with the answers and numbers of eager mode if the model fails on those of a trace."""
        try:
            return self.traced(self.settings, "input")
        except BranchingError as error:
            paths = self.settings.branches
            if not self.meeting.earlier(error, self.task.model, paths):
                raise
            self.settings = self.meeting.among(self.settings, paths)
            return self._first()
        except CaptureError as error:
            settings, files, before = self.settings, user_files(error), frozenset[str]()
            while before != files:  # code of other files may fail on what those give that get stand-ins
                before, self.settings = files, dataclasses.replace(settings, dynamic=files)
                try:
                    return self.traced(self.settings, "input")
                except CaptureError as other:
                    files |= user_files(other)
            for plain, as_eager in ((frozenset[str](), True), (files, True), (files, False)):
                self.settings = dataclasses.replace(settings, plain=plain, as_eager=as_eager)
                with contextlib.suppress(CaptureError):
                    return self.traced(self.settings, "input")
            raise

    def made(self, settings: Settings) -> tuple[Captured, list[Leak]]:
        """The capture that becomes the file, made in one way, and what it guards."""
        self.began = time.thread_time()
        try:
            return self._made(settings)
        finally:
            self.cost = time.thread_time() - self.began

    def _made(self, settings: Settings) -> tuple[Captured, list[Leak]]:
        probe(self, self.first)
        captured: Captured | None = None
        guarded: list[Leak] = []
        refused: list[Finding] = []
        other = settings.looking or settings.observed != self.settings.observed
        looked_at = self.first.leaks or other or len(self._joining) > 1
        outright = self._outright(settings) if looked_at else None
        if outright is not None:
            seen = [Seen(settings.base, outright[0])]
        elif looked_at:
            seen = self._with_evidence(settings, self.seen(settings, settings.base))
        else:
            seen = [Seen("input", self.first)]
        groups = same_program(seen)
        if settings.trusting:
            groups = enough(self, settings, groups)
        innocent = exonerated(groups) if settings.trusting else {}
        if settings.auto:
            search = Branches(self, settings, seen[0], innocent)
            captured, guarded = search.capture()
            refused = search.refused()
        if captured is None:
            captured, guarded = outright or self.final(settings, groups, innocent)
            captured = dataclasses.replace(captured, findings=(*captured.findings, *refused))
        said = tuple(each for each in captured.findings if each.code in ("HJ002", "HJ003", "HJ004"))
        # What the first capture kept is a branch in this one.
        branched = {("HJ101", each.file, each.line) for each in captured.branches}
        every = judged(seen[0].captured, proven(groups[0], innocent))
        left = [each for each in every if (each.code, each.file, each.line) not in branched]
        findings = (*left, *(each for each in said if each not in left))
        return self._once_placed(dataclasses.replace(captured, findings=findings)), guarded

    def _outright(self, settings: Settings) -> tuple[Captured, list[Leak]] | None:
        """The capture that becomes the file, made at once, if nothing that others show could spare it a guard."""
        leaks = self.first.leaks
        if not self.alone or settings.looking or any(map(serves_nothing, leaks)):
            return None
        if settings.auto and any(leak.kind is BOOL for leak in leaks):
            return None  # there will be branches
        guarding = Guarding({}, {})
        captured = self.traced(settings, settings.base, guarding)
        return None if any(map(serves_nothing, captured.leaks)) else (captured, guarding.guarded)

    def _with_evidence(self, settings: Settings, first: Seen) -> list[Seen]:
        """A capture with those of the inputs that count, and of others as long as they may spare it a guard."""
        seen = [first]
        if not first.captured.leaks and not settings.looking and len(self._joining) < 2:
            return seen
        seen += self.observed(settings, count=True)
        others = self.observed(settings, count=False)
        while settings.trusting and unsettled(seen, self._joining) and (other := next(others, None)) is not None:
            seen.append(other)
        return seen

    @property
    def _joining(self) -> set[str]:
        """The inputs that are to have a path, the first one among them."""
        return {name for name, known in self.known.items() if known.joins}

    def _once_placed(self, captured: Captured) -> Captured:
        key = id(captured.module)
        if key not in self._placed:
            self._placed[key] = placed(captured)
        return self._placed[key]

    def final(
        self, settings: Settings, groups: Sequence[Sequence[Seen]], innocent: dict[Occurrence, str]
    ) -> tuple[Captured, list[Leak]]:
        """The capture that becomes the file: of all inputs that were given, each on its path."""
        self.alike = [told_dtypes(group, self.known) for group in groups]
        told = [groups[0], *(g for g in groups[1:] if any(self.known[seen.name].joins for seen in g))]
        for index in range(2 if len(told) > 1 else 0):
            ways = ways_apart([self._member(group, innocent) for group in told])
            if index == len(ways) or (len(ways[index]) == 1 and inseparable(told)):
                continue
            together = Together(ways[index], innocent, self.task.state, site_of_function(self.task.model.forward))
            try:
                return self.traced(settings, settings.base, together.meet, together), together.guarded
            except BranchingError:
                raise
            except CaptureError:
                pass  # guards make the file raise on the inputs that could not be joined
        innocent = proven(groups[0], innocent)
        if not settings.fixed and all(occurrence in innocent for occurrence in groups[0][0].by_occurrence()):
            same = settings.observed == self.settings.observed
            return (self.first if same else self.traced(settings, settings.base)), []
        guarding = Guarding(innocent, values_of(groups[0]))
        return self.traced(settings, settings.base, guarding), guarding.guarded

    def _member(self, group: Sequence[Seen], innocent: dict[Occurrence, str]) -> Member:
        joining = [seen for seen in group if self.known[seen.name].joins]
        inputs = [moved(self.known[seen.name].inputs, None, seen.name) for seen in joining]
        flats = [joining[0].captured.adapter.flatten(*each.args, **each.kwargs) for each in inputs]
        return Member.of([*joining, *(seen for seen in group if not self.known[seen.name].joins)], flats, innocent)

    @contextlib.contextmanager
    def until(self, seconds: float) -> Iterator[None]:
        """Lets no capture begin within the body once the study has taken so long: what there is holds without it."""
        self.deadline = self.started + seconds
        try:
            yield
        finally:
            self.deadline = math.inf

    def seen(self, settings: Settings, name: str) -> Seen:
        """A capture without guards, to look at."""
        key = settings.observed, name
        if key not in self._captures:
            self._captures[key] = Seen(name, self.traced(settings, name, beside=self.first.module))
        return self._captures[key]

    def captures(self, settings: Settings) -> list[Seen]:
        """The captures without guards that were made so far."""
        return [seen for (observed, _), seen in self._captures.items() if observed == settings.observed]

    def _others(self, settings: Settings, name: str) -> dict[Hashable, list[Arguments]]:
        """What other inputs give the submodules with branches, and what is in them."""
        found: dict[Hashable, list[Arguments]] = {}
        for each in (*settings.examples, "input") if settings.examples else ():
            key = settings.branches, settings.meets, settings.merges, each, settings.as_eager
            if key not in self._given:
                self._given[key] = listened(self.task, self.known[each], settings)
            for path, calls in self._given[key].items() if each != name else ():
                found.setdefault(path, []).extend(calls)
        return found

    def traced(
        self,
        settings: Settings,
        name: str,
        meet: Callable[..., None] = _look,
        around: Callable[..., Any] | None = None,
        beside: _torch.ScriptModule | None = None,
    ) -> Captured:
        """A capture on one of the inputs; the model comes back as it was."""
        known, task = self.known[name], self.task
        if time.thread_time() > self.deadline:
            raise CaptureError("the time for paths that nobody asked for is over")
        torch.manual_seed(SEED)
        try:
            return capture(
                task.model,
                moved(known.inputs, None, name),
                known.expected,
                task.state,
                settings.branches,
                meet,
                fixed=settings.fixed if meet is not _look else (),
                alike=self.alike,
                around=around,
                guarding=self.on_frozen != "ignore",
                dynamic=settings.dynamic,
                parts=lambda site: settings.parts is None or (site.file, site.line) in settings.parts,
                beside=beside,
                classes=settings.classes,
                plain=settings.plain,
                as_eager=settings.as_eager,
                rolls=settings.rolls,
                meets=settings.meets,
                merges=settings.merges,
                within=settings.within,
                most=settings.most,
                others=self._others(settings, name),
            )
        finally:
            task.state.restore(thorough=True)

    def observed(self, settings: Settings, count: bool) -> Iterator[Seen]:
        """Captures on the inputs that count, which were given or join, or on all others; failures are no evidence."""
        started = time.thread_time()
        for name, known in list(self.known.items())[1:]:
            if (known.told or known.joins) is not count or not self._is_evidence(settings, name):
                continue
            if not known.told and time.thread_time() - started > max(_OBSERVED * self.seconds, SECONDS):
                return
            try:
                seen = self.seen(settings, name)
            except HybridJitError:
                continue
            if (known.joins and settings.few) or not seen.captured.unrolled:  # too few turns are no other program
                yield seen

    def parts_by_decisions(self, settings: Settings, name: str) -> bool:
        """Whether decisions are all that parts an input that nobody gave from the first one."""
        if self.known[name].told or not self._is_evidence(settings, name):
            return False
        try:
            first = self.seen(settings, "input")
            return bool(first.captured.leaks) and parts_by_decisions(first, self.seen(settings, name))
        except HybridJitError:
            return False

    def _is_evidence(self, settings: Settings, name: str) -> bool:
        return not of_kind(name) and not name.startswith(SCATTERED) and name not in (SHARED, settings.base)
