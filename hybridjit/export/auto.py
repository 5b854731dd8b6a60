"""`branches="auto"`: the submodules that need branches, found by capturing."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import nn

from .._errors import CaptureError
from .._sites import Line, Site
from ..control.merges import mergeable
from ..control.paths import PATH_LIMIT, PathsDifferError, TooManyPathsError
from .branches import BranchingError, begins, helpers_at, parent, with_lines
from .capture import Captured
from .further import SECONDS
from .kinds import BOOL
from .leaks import Leak
from .report import Finding
from .survey import Guarding, Occurrence, Seen, exonerated, inseparable, is_test, proven, same_program
from .validation import only_validates

if TYPE_CHECKING:
    from .guarded import Study
    from .task import Settings

_ROUNDS = 8
"""How many captures the search for branches may take."""
_FURTHER = 4 * PATH_LIMIT
"""With how many paths a module may leave its branches to the module around it, which has more."""
_EACH = 32
"""How many paths there may be for each module that has them, before they meet again as early as they can."""
_WITNESSES = 3
"""How many further inputs, at most, show what is no part of them."""


@dataclasses.dataclass
class Meeting:
    """Where too many paths meet again, as found so far.

    Attributes:
        meets: Lines of ``if``s whose paths meet where the function around them ends.
        apart: Those of them whose paths can't.
        merges: Lines of ``if``s whose paths meet where they end themselves.
        unmerged: Those whose paths can't.
        limited: Whether more of them is to be had.
    """

    meets: set[Line] = dataclasses.field(default_factory=set)
    apart: set[Line] = dataclasses.field(default_factory=set)
    merges: set[Line] = dataclasses.field(default_factory=set)
    unmerged: set[Line] = dataclasses.field(default_factory=set)
    limited: bool = True

    def among(self, settings: Settings, branches: Collection[str]) -> Settings:
        """How a capture is made with these branches, and paths that meet so."""
        return dataclasses.replace(
            settings,
            branches=tuple(branches),
            meets=frozenset(self.meets - self.apart),
            merges=frozenset(self.merges),
            most=max(PATH_LIMIT, _EACH * len(branches)) if self.limited else math.inf,
        )

    def earlier(self, error: BranchingError, model: nn.Module, branches: Collection[str]) -> bool:
        """Has too many paths meet as early as they can, those that can't later; says whether that changes anything.

        Args:
            error: What a capture with them ended in.
            model: The model.
            branches: The submodules that have branches.
        """
        if isinstance(error.error, TooManyPathsError):
            lines = {(site.file, site.line) for site in error.error.sites} - self.meets - self.merges
            own = {type(model.get_submodule(path)).forward for path in (*branches, error.path)}
            ends, new = set[Line](), set[Line]()
            for helper, numbers in with_lines(lines):
                file, can = helper.__code__.co_filename, mergeable(helper, numbers)
                ends |= {(file, number) for number in can} - self.unmerged
                new |= {(file, number) for number in numbers} - ends if helper not in own else set()
            self.merges |= ends
            self.meets |= new
            more = bool(ends or new or self.limited)
            self.limited = bool(ends or new)
            return more
        if error.helper is None:
            return False
        if error.helper in self.merges:
            self.merges.remove(error.helper)
            self.unmerged.add(error.helper)
        else:
            self.apart |= {line for line, helper in helpers_at(self.meets).items() if begins(helper) == error.helper}
        return True


class Branches:
    """Finds the submodules that need branches, by capturing with more of them or others.

    Args:
        study: The captures.
        settings: How they are made.
        first: The one without.
        innocent: The leaks of that which need no guard.
    """

    def __init__(self, study: Study, settings: Settings, first: Seen, innocent: Mapping[Occurrence, str]) -> None:
        self.study = study
        self.settings = settings
        leaks = first.by_occurrence()
        guilty = {occurrence[0] for occurrence in leaks if occurrence not in innocent}
        # What serves but a test does so on every path.
        self.tests: dict[tuple[str, str, int], str] = {
            occurrence[0]: name for occurrence, name in innocent.items() if is_test(leaks.get(occurrence))
        }
        # The inputs that show that a value has no part in what is captured: with branches there is more of that.
        shown = Counter(name for each, name in innocent.items() if each[0] not in self.tests)
        self.witnesses: list[str] = [name for name, _ in shown.most_common(_WITNESSES)]
        self.chosen: dict[str, Site] = {}
        self.parts: set[Line] = set()
        self.plain: dict[str, tuple[Site, str]] = {}
        self.meeting: Meeting = study.meeting
        self.differing: dict[Line, str] = {}
        self.dropped: dict[Line, str] = {}
        self.guilty: list[Leak] = [leak for leak in leaks.values() if leak.key in guilty]
        self._add(self.guilty)

    def _add(self, leaks: Iterable[Leak]) -> bool:
        """Chooses the innermost modules around leaks that are branches; says whether there were new ones."""
        new = False
        for leak in leaks:
            around, at = self._around(leak), (leak.site.file, leak.site.line)
            if around is None:
                continue
            if around not in self.chosen or at not in self.parts:
                new = True
                self.chosen.setdefault(around, leak.site)
                self.parts.add(at)
        return new

    def _around(self, leak: Leak) -> str | None:
        """The innermost module around a leak that may have branches; ``None`` if there is none, or it is no branch."""
        if (leak.site.file, leak.site.line) in self.dropped:
            return None
        around: str | None = leak.site.module_path
        while around in self.plain:
            around = parent(around)
        return around if leak.kind is BOOL and not only_validates(leak.site, leak.value) else None

    def _missed(self, guarded: Sequence[Leak]) -> bool:
        """Goes on to the modules around those that have branches, and guards all the same: other methods are called."""
        new = False
        for leak in guarded:
            within = around = self._around(leak)
            while around and around in self.chosen:
                around = parent(around)
            if around is None or around in self.chosen:
                continue
            while within != around and within is not None:
                self.plain[within] = self.chosen.pop(within), "its forward is not what runs this if"
                within = parent(within)
            self.chosen[around] = leak.site
            new = True
        return new

    def capture(self) -> tuple[Captured | None, list[Leak]]:
        """The capture with branches that becomes the file; ``None`` if there are none to be had."""
        captured, guarded = self._searched()
        if captured is None and self.differing:
            self._drop_lines(self.differing)
            captured, guarded = self._searched()
        return captured, guarded

    def _searched(self) -> tuple[Captured | None, list[Leak]]:
        captured: Captured | None = None
        guarded: list[Leak] = []
        rounds = _ROUNDS
        while rounds and self.chosen:
            rounds -= 1
            settings = dataclasses.replace(self.meeting.among(self.settings, self.chosen), parts=frozenset(self.parts))
            try:
                if self.study.alone:
                    guarding = Guarding(self._proven(settings), {}, self.tests)
                    captured, guarded = self.study.traced(settings, settings.base, guarding), guarding.guarded
                else:
                    seen = [self.study.seen(settings, name) for name, each in self.study.known.items() if each.joins]
                    groups = same_program(seen)
                    if len(groups) > 1 and inseparable(groups):
                        self._drop(seen)
                        continue
                    groups = same_program([*seen, *self._witnessed(settings)])
                    innocent = exonerated(groups) if settings.trusting else {}
                    every = [each for one in seen for each in one.by_occurrence()]
                    innocent |= {each: self.tests[each[0]] for each in every if each[0] in self.tests}
                    captured, guarded = self.study.final(settings, groups, innocent)
            except BranchingError as error:
                if self.meeting.earlier(error, self.study.task.model, self.chosen):
                    rounds += 1
                    self.study.began = time.thread_time()
                else:
                    self._give_up(error)
                continue
            except CaptureError:
                if settings.within:  # another way of capturing may have branches everywhere
                    raise
                return None, []
            if not self._add(guarded) and not self._missed(guarded):
                break
            captured = None
        if captured is None:
            return None, []
        return dataclasses.replace(captured, findings=(*captured.findings, *self._said())), guarded

    def _proven(self, settings: Settings) -> dict[Occurrence, str]:
        """The leaks that need no guard with these branches; without evidence none, at no cost."""
        if not self.witnesses:
            return {}
        groups = same_program([self.study.seen(settings, settings.base), *self._witnessed(settings)])
        return proven(groups[0], exonerated(groups))

    def _witnessed(self, settings: Settings) -> Iterator[Seen]:
        started = time.thread_time()
        for index, name in enumerate(self.witnesses):
            if index and time.thread_time() - started > SECONDS:
                return
            if name != settings.base and not self.study.known[name].joins:
                try:
                    yield self.study.seen(settings, name)
                except CaptureError:  # no evidence
                    continue

    def _give_up(self, error: BranchingError) -> None:
        says, *rows = str(error.error).splitlines()
        differs = next((row.removeprefix("  - ") for row in rows if row.startswith("  - ")), "")
        reason = f"{says}: {differs}" if differs else says
        if isinstance(error.error, TooManyPathsError):
            # The module around it has more of them.
            ((line, _),) = Counter((site.file, site.line) for site in error.error.sites).most_common(1)
            if line in self.parts:
                self._drop_lines({line: reason})
                return
        if isinstance(error.error, PathsDifferError):
            line = error.error.site.file, error.error.site.line
            self.differing[line] = reason
            if error.spent > _FURTHER and line in self.parts:
                self._drop_lines({line: reason})
                return
        site = self.chosen.pop(error.path)
        self.plain[error.path] = site, reason
        around = parent(error.path)
        if around is not None and around not in self.plain:
            self.chosen[around] = site

    def _drop_lines(self, lines: Mapping[Line, str]) -> None:
        """Does without branches at lines of which the sides can't be those of one, and begins again."""
        self.dropped.update(lines)
        self.differing, self.chosen, self.plain = {}, {}, {}
        self.parts.clear()
        self._add(self.guilty)

    def _drop(self, seen: Sequence[Seen]) -> None:
        """Does without branches of which a side was recorded as a raise that some input takes."""
        raising = {branch.module_path for each in seen for branch in each.captured.branches if branch.raises}
        for path in raising & set(self.chosen) or set(self.chosen):
            self.plain[path] = self.chosen.pop(path), "a side of it raises on the first input"

    def _said(self) -> list[Finding]:
        said = []
        for path, site in self.chosen.items():
            text = f"branches='auto': the ifs of {path or 'the model'} stay ifs in the file"
            said.append(Finding("HJ003", "note", text, site.file, site.line, path))
        return said + self.refused()

    def refused(self) -> list[Finding]:
        """The modules that can't have branches, without those that have a module around them that has."""
        said = []
        for (file, line), reason in self.dropped.items():
            text = f"branches='auto': an if can't be a branch: {reason}"
            said.append(Finding("HJ004", "warning", text, file, line, "", "hj.cond around this if"))
        for path, (site, reason) in self.plain.items():
            if any(path == each or path.startswith(f"{each}.") or not each for each in self.chosen):
                continue  # the module around it has branches instead
            text = f"branches='auto': {path or 'the model'} can't have branches: {reason}"
            said.append(Finding("HJ004", "warning", text, site.file, site.line, path, "hj.cond around this if"))
        return said
