"""One entry of a file on its way: captured with fewer and fewer sizes that may change, until the file holds."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.export import Dim

from .._describe import listed, place
from .._errors import HybridJitError
from ..adapters.schema import CallSchema
from .checks import RAISES, Expectation, Run, expect
from .devices import moved
from .dynamic import Declared, sized
from .entries import FORWARD, Entry
from .plan import Planned
from .pt2 import FIX_SIZE
from .report import Check, Finding, Report
from .request import Request
from .shapes import read_specs
from .state import ModelState, kept_random_state
from .subject import CapturedEntry, Route, Subject, Written
from .torchscript import run_declared
from .view import signature_of

Specs = list[dict[int, Any]]


def subject_of(
    request: Request, model: nn.Module, state: ModelState, planned: Planned, several: bool
) -> tuple[Subject, Expectation]:
    """An entry as a format captures it, and what the model gives for it."""
    name, first = next(iter(planned.calls.items()))
    schema, _ = CallSchema.of(signature_of(model, planned.point), moved(first, None, name))
    flats = {name: schema.flatten(moved(each, None, name), name) for name, each in planned.calls.items()}
    # Where sizes were declared, it is of the first call.
    example = name if _given(request, planned) is not None else max(flats, key=lambda n: _above_one(flats[n]))
    key = planned.title, example
    if key not in request.eager:
        with kept_random_state(), state.switched(planned.attributes):
            request.eager[key] = expect(model, state, planned.calls[example], example, None, planned.point)
    known = request.eager[key]
    subject = Subject(request, model, state, planned, example, schema, flats[example], known.result, several)
    return subject, known


def _given(request: Request, planned: Planned) -> Any:
    """What was declared of the sizes of an entry: of the first structure of ``forward`` alone."""
    return request.dynamic_shapes if planned.method == FORWARD else None


def _above_one(flat: Sequence[Tensor]) -> int:
    return sum(size > 1 for tensor in flat for size in tensor.shape)


class Part:
    """An entry, and the tries at it.

    Args:
        subject: The entry.
        name: What its program is called in the file.
        title: What it is called in the report; empty where the file has but one.
        from_zero: Whether it is captured for sizes from 0 on at first.

    Attributes:
        tried: What came of the tries that did not hold.
        from_zero: Whether it is yet to be tried for sizes from 2 on.
    """

    def __init__(self, subject: Subject, name: str, title: str, from_zero: bool) -> None:
        self.subject: Subject = subject
        self.name: str = name
        self.title: str = title
        self.from_zero: bool = from_zero
        self.given: Any = _given(subject.request, subject.planned)
        self.tried: list[str] = []
        self._specs = _specs(subject, self.given)
        self._captured: CapturedEntry | None = None
        self.declared: Declared = Declared()

    @property
    def missing(self) -> bool:
        """Whether it is yet to be captured."""
        return self._captured is None

    @property
    def captured(self) -> CapturedEntry:
        """What it was captured to."""
        assert self._captured is not None
        return self._captured

    @property
    def run(self) -> Run:
        """What the file is compared on."""
        planned, written = self.subject.planned, self.captured.written
        entry = Entry(planned.point, planned.method, written.call, written.result, planned.flags)
        return Run(entry, planned.calls, self.title, self.declared.inputs)

    def capture(self, route: Route) -> None:
        """Captures it, and runs the model at the sizes to verify at: those declared, or else those found."""
        subject = dataclasses.replace(self.subject, from_zero=self.from_zero)
        try:
            with subject.state.switched(subject.planned.attributes):
                made, written = route.capture(subject, self._specs)
        except HybridJitError as error:
            subject.planned.tell(error)
            raise
        if self.given is not None:
            declared = Declared.of(subject.call, subject.flat, self.given)
        else:
            declared = Declared(subject.call, subject.flat, written.variables)
            declared.add(list(sized(subject.flat, written.variables)))
        run_declared(subject.model, subject.state, subject.planned, declared)
        self.declared, self._captured = declared, CapturedEntry(self.name, subject, made, written)

    def refused(self, error: HybridJitError) -> bool:
        """Notes that it could not be captured; whether it may be tried again, with all sizes fixed."""
        if self.from_zero:
            return self._from_two()
        self.tried.append(said(error))
        return self._again([{} for _ in self._specs]) if any(self._specs) else False

    def failed(self, error: HybridJitError, report: Report | None) -> bool:
        """Notes that the file is wrong on it; whether it may be tried again, with sizes fixed."""
        if self.from_zero:
            return self._from_two()
        wrong = self.wrong(report)
        self.tried.append(f"wrong at {listed(wrong)}" if wrong else said(error))
        if wrong:
            return self._again(_fixed(self._specs, self.declared, wrong))
        return self._again([{} for _ in self._specs]) if any(self._specs) else False

    def _from_two(self) -> bool:
        self.from_zero, self._captured = False, None
        return True

    def _again(self, specs: Specs) -> bool:
        if self.given is None:
            self._specs, self._captured = specs, None
        return self.given is None

    def failing(self, report: Report | None) -> bool:
        """Whether the file is wrong on it."""
        return any(not check.passed and check.entry == self.title for check in (report.checks if report else ()))

    def wrong(self, report: Report | None) -> list[str]:
        """The inputs of found sizes on which a file is wrong, if it is right on all others."""
        checks = report.checks if report else ()
        wrong = [check.input for check in checks if check.entry == self.title and not check.passed]
        return list(dict.fromkeys(wrong)) if all(name in self.declared.inputs for name in wrong) else []

    def located(self, check: Check) -> Check:
        """A check whose file raises for a size, with the line that fixed that size."""
        return _located(check, self.captured.written) if check.entry == self.title else check

    def findings(self, report: Report) -> list[Finding]:
        """What is to be known where it is wrong at sizes that were found."""
        if self.given is not None or not self.wrong(report):
            return []
        return _advised(report, self.title, self.declared, self.subject.call.names())


def _specs(subject: Subject, given: Any) -> Specs:
    """What torch.export is told of the sizes: what was declared, else that all above 1, or that differ, may change."""
    if given is not None:
        Declared.of(subject.call, subject.flat, given)  # refuses what does not fit
        return read_specs(subject.call, subject.flat, given)
    every = [subject.call.flatten(moved(each, None, name), name) for name, each in subject.planned.calls.items()]
    return [
        {
            dim: Dim.AUTO
            for dim, size in enumerate(each.shape)
            if size > 1 or any(flat[index].dim() > dim and flat[index].shape[dim] != size for flat in every)
        }
        for index, each in enumerate(subject.flat)
    ]


def _fixed(specs: Specs, declared: Declared, wrong: Sequence[str]) -> Specs:
    """The same, with the sizes fixed at which a file was wrong: those that alone did it, else all of them."""
    alone = {variable.name for variable in declared.variables for name in wrong if name.startswith(f"{variable.name}=")}
    alone = {name for name in alone if any("," not in each for each in wrong if each.startswith(f"{name}="))}
    chosen = [v for v in declared.variables if not alone or v.name in alone]
    places = {(each.tensor, each.dim) for variable in chosen for each in variable.places}
    return [{dim: spec for dim, spec in row.items() if (index, dim) not in places} for index, row in enumerate(specs)]


def _advised(report: Report, title: str, declared: Declared, names: Sequence[str]) -> list[Finding]:
    """Says, where a file is wrong at 0 or 1 alone, how to leave them out."""
    small = {
        variable.name: variable
        for check in report.checks
        for variable in declared.variables
        if check.entry == title and not check.passed and re.fullmatch(rf"{re.escape(variable.name)}=[01]", check.input)
    }
    fixes = []
    for variable in small.values():
        name, dim = names[variable.places[0].tensor], variable.places[0].dim
        text = f"torch.export took {variable.name} for 2 or more, and the model does something else at 0 or 1"
        fix = f'dynamic_shapes={{"{name}": {{{dim}: Dim("{name}_{dim}", min=2)}}, ...}} if it is never 0 or 1'
        fixes.append(Finding("HJ305", "warning", text, fix=fix))
    return fixes


_SIZE = re.compile(r"\b\w+\.size\(\)\[\d+\]")


def _located(check: Check, written: Written) -> Check:
    """A check whose file raises for a size, with the line that fixed that size."""
    if not check.differences or not check.differences[0].startswith(RAISES):
        return check
    text = check.differences[0]
    lines = [written.lines[size] for size in _SIZE.findall(text) if size in written.lines]
    if lines:
        text += f"; frozen at {place(*lines[0])}; write {FIX_SIZE}"
    return dataclasses.replace(check, differences=(text, *check.differences[1:]))


def said(error: HybridJitError) -> str:
    """What an error says, on one line: what failed, and the first difference."""
    rows = [row.strip() for row in str(error).splitlines()]
    detail = next((row.removeprefix("- ") for row in rows if row.startswith("- ")), "")
    where = next((row.removeprefix("at ") for row in rows[1:] if row.startswith("at ")), "")
    return ", ".join(each for each in (rows[0], where, detail) if each)
