"""Export to a format other than TorchScript: capture, save, load again, compare, and only then hand out."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from .._describe import listed
from .._errors import CaptureError, HybridJitError, UnsupportedError, VerificationError
from ..adapters.inputs import as_inputs
from . import archive
from .attempt import attempt
from .capture import check_ready, unwrapped
from .checks import File, check_on
from .coverage import Coverage
from .devices import case_of, default_devices, device_list, device_of
from .entries import FORWARD, Entries
from .exported import Exported, is_taken, metadata_of
from .flags import read_flags
from .formats import format_named, unsupported
from .outline import guards_by_line, model_name, outlined
from .part import Part, said, subject_of
from .plan import Planned, plan, read_methods
from .refusals import failed, uncovered
from .report import Branch, Check, Finding, Report
from .request import Request
from .sides import CountedProgram
from .stages import stage
from .subject import Format, Route, Subject
from .torchscript import described, judged
from .verify import check_tolerances, named_calls

_ROUNDS = 4
"""How often sizes that turned out wrong are fixed, and the model captured again."""


def convert(request: Request, name: str) -> Exported:
    """Exports a model to a format other than TorchScript.

    Args:
        request: What was asked for.
        name: The format.

    Raises:
        InputError: An argument is not what is expected.
        CaptureError: The model can't be captured.
        VerificationError: The file gives something else than the model.
        UnsupportedError: The format can't do it.
    """
    _check_options(request, name)
    check_tolerances(request.rtol, request.atol)
    model, notes = unwrapped(request.model)
    check_ready(model)
    calls = {"input": as_inputs(request.inputs, request.kwargs), **named_calls(request.check_inputs, request.kwargs)}
    points = {FORWARD: calls, **read_methods(model, request.methods, is_taken)}
    home = device_of(model, calls)
    format = format_named(name)
    devices = device_list(request.devices) or format.places(home) or default_devices(home)
    planned = plan(model, points, read_flags(request.flags))
    with attempt(model, name) as (state, folder):
        before = dict(model.named_buffers(remove_duplicate=False))
        subjects: list[Subject] = []
        for each in planned:
            subject, known = subject_of(request, model, state, each, len(planned) > 1)
            if known.changed and name != "pt2":
                raise unsupported(
                    name,
                    f"keeps no state: the model changes {listed(known.changed)}",
                    'format="torchscript", which keeps state, or "pt2", which keeps buffers of fixed sizes',
                )
            grown = [name for name in known.replaced if known.changed[name].shape != before[name].shape]
            if grown:
                text = f"has buffers of fixed sizes, and the model puts others in the place of {listed(grown)}"
                raise unsupported(name, text, "buffers of the largest size, written in place with index_copy_")
            format.check(subject)
            subjects.append(subject)
        return _Work(subjects, name, format, devices, notes, folder).export()


def _check_options(request: Request, name: str) -> None:
    """Refuses what only TorchScript files can do."""
    if request.branches and name != "onnx":
        raise unsupported(
            name, "has no branches=, which rewrites a trace", "@hybridjit.branch_if_tracing on the methods with the ifs"
        )
    if request.on_frozen != "guard":
        raise unsupported(
            name,
            f"has no on_frozen={request.on_frozen!r}: what torch.export fixes, its program checks",
            'on_frozen="guard", or format="torchscript"',
        )
    if request.optimize:
        raise unsupported(name, "knows no optimize=", f'optimize={request.optimize!r} with format="torchscript"')


def _names(planned: Sequence[Planned]) -> list[str]:
    """What the programs are called in a file: ``model``, as torch's own loaders want it; then by method and flags."""
    names = ["model"]
    for each in planned[1:]:
        spelled = "-".join([each.method, *(f"{flag.name}={value}" for flag, value in each.flags)])
        name = stem = re.sub(r"[^\w.=-]", "_", spelled)
        while name in names:
            name = f"{stem}_{len(names)}"
        names.append(name)
    return names


class _Work:
    """The tries at one file."""

    def __init__(
        self,
        subjects: Sequence[Subject],
        name: str,
        format: Format,
        devices: Sequence[torch.device],
        notes: Sequence[Finding],
        folder: Path,
    ) -> None:
        self.subjects = subjects
        self.name = name
        self.format = format
        self.devices = devices
        self.notes = notes
        self.path = folder / f"module.{name}"
        self.alone = len(subjects) == 1 and not subjects[0].planned.flags

    def export(self) -> Exported:
        """The first file that holds."""
        refused: list[tuple[str, HybridJitError]] = []
        for route in self.format.routes(self.subjects[0]):
            try:
                return self._along(route, [f"{name}: {said(error)}" for name, error in refused])
            except (CaptureError, VerificationError, UnsupportedError) as error:
                refused.append((route.name, error))
        # What differs from the model says more than what could not be captured.
        told = sorted(refused, key=lambda each: not isinstance(each[1], VerificationError))
        (_, failure), *others = told
        if others:
            rest = "".join(f"\n  {name} does not do it either: {said(other)}" for name, other in others)
            failure.args = (f"{failure.args[0]}{rest}", *failure.args[1:])
        raise failure

    def _along(self, route: Route, before: Sequence[str]) -> Exported:
        """Tries one way, with fewer and fewer sizes that may change unless it was said which must."""
        names = _names([subject.planned for subject in self.subjects])
        pairs = zip(self.subjects, names, strict=True)
        parts = [
            Part(subject, name, "" if self.alone else subject.planned.title, route.from_zero) for subject, name in pairs
        ]
        failure: HybridJitError | None = None
        failed_whole = False  # what a try for sizes from 0 on ends in says less
        for _ in range(_ROUNDS + 2 * len(parts)):
            try:
                for part in parts:
                    if part.missing:
                        title = "" if self.alone else f" {part.title}"
                        if part.from_zero or not route.from_zero:  # what follows is the same, tried anew
                            stage(f"capture{title} for {self.name}, by {route.name}")
                        part.capture(route)
                return self._verified(route, parts, before)
            except CaptureError as refused:
                failure = failure if failed_whole else refused
                failed_whole = not any(part.from_zero for part in parts)
                again = next((part for part in parts if part.missing), parts[0]).refused(refused)
            except VerificationError as refused:
                failure = failure if failed_whole else refused
                failed_whole = not any(part.from_zero for part in parts)
                wrong = [part for part in parts if part.failing(refused.report)]
                again = all([part.failed(refused, refused.report) for part in wrong])  # a list: each notes it
            if not again:
                break
        assert failure is not None
        raise failure

    def _verified(self, route: Route, parts: Sequence[Part], before: Sequence[str]) -> Exported:
        subject, request = self.subjects[0], self.subjects[0].request
        stage("save, and load again")
        packed = self.format.pack([part.captured for part in parts], self.path)
        cases = [
            {"method": entry.method, "flags": [value for _, value in entry.flags], "program": part.name,
             **part.captured.written.metadata}
            for part in parts for entry in [part.run.entry]
        ]  # fmt: skip
        packed = {**packed, "cases": cases}
        loaded = self.format.load(self.path, packed, None)
        runs = [part.run for part in parts]
        written = [part.captured.written for part in parts]
        if not loaded.runner.counts:  # its runtime does not count, so what it was made of does
            for case, each in zip(cases, written, strict=True):
                if each.program is not None:
                    loaded.runner.counted[case_of(case)] = CountedProgram(each.program.module(), each.points)
        coverage = Coverage({})
        file = File(loaded.runner, request.rtol, request.atol, coverage)
        known = request.eager | {
            (run.entry.title, name): each
            for run, part in zip(runs, parts, strict=True)
            for name, each in part.declared.expected.items()
        }
        checks: list[Check] = []
        for device in self.devices:
            checks += check_on(device, subject.model, runs, file, known, subject.state)
        asked = {(run.entry.title, name) for run in runs for name in run.calls}
        request.eager.update((key, each) for key, each in known.items() if key in asked)
        for part in parts:
            checks = [part.located(check) for check in checks]
        checks = judged(subject.model, subject.state, runs, [part.declared for part in parts], checks)
        found = [[*part.captured.written.findings, *part.declared.findings()] for part in parts]
        findings = [*self.notes, *_together(found, parts)]
        tried = [*before, *(f"{part.title}: {text}".removeprefix(": ") for part in parts for text in part.tried)]
        if len(self.format.routes(subject)) > 1 or tried:
            text = f"made by {route.name}" + (f"; before that: {'; '.join(tried)}" if tried else "")
            findings.append(Finding("HJ306", "note", text))
        entries = Entries(tuple(run.entry for run in runs))
        report = Report(
            model_name(subject.model),
            self.name,
            tuple(checks),
            tuple(findings),
            tuple(dict.fromkeys(each for one in written for each in one.statics)),
            tuple(dict.fromkeys(each for one in written for each in one.scripted)),
            _each_line([*coverage.branches(checks), *(each for one in written for each in one.branches)]),
            sum(each.operations for each in written),
            str(torch.__version__),
            () if self.alone else tuple(map(described, entries)),
            _scope(parts, checks),
            tuple(guards_by_line(guard for each in written for guard in each.guards)),
        )
        report = outlined(report, subject.model)
        if not report.ok:
            advice = tuple(finding for part in parts for finding in part.findings(report))
            raise failed(dataclasses.replace(report, findings=(*report.findings, *advice)))
        if request.require_coverage and report.unverified:
            raise uncovered(report)
        self.format.append_metadata(self.path, {**metadata_of(report, entries, {}), **packed})
        kept = archive.KeptFile(self.path, packed.get("beside", ()))
        return Exported(loaded.raw, self.name, report, entries, kept, {}, loaded.runner)


def _together(found: Sequence[Sequence[Finding]], parts: Sequence[Part]) -> list[Finding]:
    """The findings of all entries: what is said of each of them once, else with the entry's name."""
    every = list(dict.fromkeys(finding for each in found for finding in each))
    told = []
    for finding in every:
        of = [part.title for part, each in zip(parts, found, strict=True) if finding in each]
        prefix = f"{listed(of)}: " if len(of) < len(parts) else ""
        told.append(dataclasses.replace(finding, message=f"{prefix}{finding.message}"))
    return told


def _each_line(branches: Sequence[Branch]) -> tuple[Branch, ...]:
    """The branches of several entries, those of a line as one."""
    found: dict[tuple[str, ...], Branch] = {}
    for each in branches:
        key = each.file, str(each.line), each.module_path, each.kind
        before = found.setdefault(key, each)
        if before is not each:
            checks = {side.name: side.checks for side in each.sides}
            sides = [dataclasses.replace(s, checks=s.checks + checks.pop(s.name, 0)) for s in before.sides]
            sides += [side for side in each.sides if side.name in checks]
            found[key] = dataclasses.replace(before, sides=tuple(sides), count=before.count + each.count)
    return tuple(found.values())


def _scope(parts: Sequence[Part], checks: Sequence[Check]) -> str:
    mine = [(part.declared, [check for check in checks if check.entry == part.title]) for part in parts]
    sizes = list(dict.fromkeys(text for declared, own in mine if (text := declared.scope(own))))
    calls = len({check.where for check in checks})
    return (
        f"at {' and '.join(sizes)}"
        if sizes
        else f"on {calls} call{'' if calls == 1 else 's'}, no other sizes may change"
    )
