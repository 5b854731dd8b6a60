"""Export to a format other than TorchScript: capture, save, load again, compare, and only then hand out."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim

from .._describe import listed, place
from .._errors import CaptureError, HybridJitError, UnsupportedError, VerificationError
from ..adapters.inputs import as_inputs
from ..adapters.schema import CallSchema
from . import archive
from .attempt import attempt
from .capture import check_ready, unwrapped
from .checks import RAISES, File, Run, check_on, expect
from .devices import default_devices, device_list, device_of, moved
from .dynamic import Declared, sized
from .entries import FORWARD, Entries, Entry
from .exported import Exported, metadata_of
from .flags import read_flags
from .formats import format_named, unsupported
from .outline import model_name, outlined
from .plan import Planned, plan
from .pt2 import FIX_SIZE
from .refusals import failed
from .report import Check, Finding, Report
from .request import Request
from .shapes import read_specs
from .stages import stage
from .state import kept_random_state
from .subject import Format, Route, Subject, Written
from .torchscript import judged, run_declared
from .verify import check_tolerances, named_calls
from .view import signature_of

_ROUNDS = 4
"""How often sizes that turned out wrong are fixed, and the model captured again, before all are."""
Specs = list[dict[int, Any]]


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
    home = device_of(model, calls)
    format = format_named(name)
    devices = device_list(request.devices) or format.places(home) or default_devices(home)
    planned = _the_only(plan(model, {FORWARD: calls}, read_flags(None)), name)
    with attempt(model, name) as (state, folder):
        schema, _ = CallSchema.of(signature_of(model, FORWARD), moved(calls["input"], None, "input"))
        flats = {name: schema.flatten(moved(each, None, name), name) for name, each in calls.items()}
        # Where sizes were declared, it is of the first call.
        example = "input" if request.dynamic_shapes is not None else max(flats, key=lambda n: _above_one(flats[n]))
        before = dict(model.named_buffers(remove_duplicate=False))
        with kept_random_state():
            key = planned.title, example
            known = request.eager[key] = request.eager.get(key) or expect(model, state, calls[example], example, None)
        subject = Subject(request, model, state, calls, example, schema, flats[example], known.result)
        if known.changed and name != "pt2":
            raise unsupported(
                name,
                f"keeps no state: the model changes {listed(known.changed)}",
                'format="torchscript", which keeps state',
            )
        grown = [name for name in known.replaced if known.changed[name].shape != before[name].shape]
        if grown:
            text = f"has buffers of fixed sizes, and the model puts others in the place of {listed(grown)}"
            raise unsupported(name, text, "buffers of the largest size, written in place with index_copy_")
        format.check(subject)
        work = _Work(subject, planned, name, format, devices, notes, folder)
        return work.export()


def _above_one(flat: Sequence[Tensor]) -> int:
    return sum(size > 1 for tensor in flat for size in tensor.shape)


def _check_options(request: Request, name: str) -> None:
    """Refuses what only TorchScript files can do."""
    if request.flags or request.methods:
        what = "flags" if request.flags else "methods"
        raise unsupported(name, f"holds one program, and {what} asks for several", f'{what} with format="torchscript"')
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
    if request.require_coverage:
        raise unsupported(
            name, "does not count which sides of branches its checks take", 'require_coverage with format="torchscript"'
        )
    if request.optimize:
        raise unsupported(name, "knows no optimize=", f'optimize={request.optimize!r} with format="torchscript"')


def _the_only(planned: Sequence[Planned], name: str) -> Planned:
    if len(planned) > 1:
        other = next(iter(planned[1].calls))
        text = f"takes calls of one structure, and that of {other} is another"
        raise unsupported(name, text, 'format="torchscript", which takes both')
    return planned[0]


class _Work:
    """The tries at one file."""

    def __init__(
        self,
        subject: Subject,
        planned: Planned,
        name: str,
        format: Format,
        devices: Sequence[torch.device],
        notes: Sequence[Finding],
        folder: Path,
    ) -> None:
        self.subject = subject
        self.planned = planned
        self.name = name
        self.format = format
        self.devices = devices
        self.notes = notes
        self.path = folder / f"module.{name}"
        self.given = subject.request.dynamic_shapes

    def export(self) -> Exported:
        """The first file that holds."""
        refused: list[tuple[str, HybridJitError]] = []
        for route in self.format.routes(self.subject):
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
        subject = self.subject
        specs = _specs(subject, self.given)
        tried: list[str] = []
        failure: HybridJitError | None = None
        for _ in range(_ROUNDS):
            declared = Declared()
            try:
                stage(f"capture for {self.name}, by {route.name}")
                written = route.write(subject, specs, self.path)
                declared = self._declared(written)
                exported = self._verified(route, written, declared, [*before, *tried])
            except CaptureError as refused:
                failure = failure or refused
                tried.append(said(refused))
            except VerificationError as refused:
                failure = failure or refused
                tried.append(said(refused))
                wrong = _wrong(refused.report, declared)
                if wrong:
                    tried[-1] = f"wrong at {listed(wrong)}"
                if wrong and self.given is None:
                    specs = _fixed(specs, declared, wrong)
                    continue
            else:
                return exported
            if self.given is not None or not any(specs):
                break
            specs = [{} for _ in specs]
        assert failure is not None
        raise failure

    def _declared(self, written: Written) -> Declared:
        """The sizes to verify at: those declared, or else those found."""
        subject = self.subject
        if self.given is not None:
            declared = Declared.of(subject.call, subject.flat, self.given)
        else:
            declared = Declared(subject.call, subject.flat, written.variables)
            declared.add(list(sized(subject.flat, written.variables)))
        run_declared(subject.model, subject.state, self.planned, declared)
        return declared

    def _verified(self, route: Route, written: Written, declared: Declared, before: Sequence[str]) -> Exported:
        subject, request = self.subject, self.subject.request
        stage("load what was saved")
        loaded = self.format.load(self.path, written.metadata, None)
        entry = Entry(FORWARD, FORWARD, written.call, written.result)
        run = Run(entry, subject.calls, "", declared.inputs)
        file = File(loaded.runner, request.rtol, request.atol)
        known = {**request.eager, **{(entry.title, name): each for name, each in declared.expected.items()}}
        checks: list[Check] = []
        for device in self.devices:
            checks += check_on(device, subject.model, [run], file, known, subject.state)
        request.eager.update((key, each) for key, each in known.items() if key[1] in subject.calls)
        checks = [_located(check, written) for check in checks]
        checks = judged(subject.model, subject.state, [run], [declared], checks)
        findings = [*self.notes, *written.findings, *declared.findings()]
        if len(self.format.routes(subject)) > 1 or before:
            text = f"made by {route.name}" + (f"; before that: {'; '.join(before)}" if before else "")
            findings.append(Finding("HJ306", "note", text))
        report = Report(
            model_name(subject.model),
            self.name,
            tuple(checks),
            tuple(findings),
            written.statics,
            written.scripted,
            (),
            written.operations,
            str(torch.__version__),
            (),
            _scope(declared, checks),
            written.guards,
        )
        report = outlined(report, subject.model)
        if not report.ok and self.given is None and _wrong(report, declared):
            report = _advised(report, declared, subject.call.names())
        if not report.ok:
            raise failed(report)
        entries = Entries((entry,))
        metadata = {**metadata_of(report, entries, {}), **written.metadata}
        self.format.append_metadata(self.path, metadata)
        return Exported(loaded.raw, self.name, report, entries, archive.KeptFile(self.path), {}, loaded.runner)


def _specs(subject: Subject, given: Any) -> Specs:
    """What torch.export is told of the sizes: what was declared, else that all above 1, or that differ, may change."""
    if given is not None:
        Declared.of(subject.call, subject.flat, given)  # refuses what does not fit
        return read_specs(subject.call, subject.flat, given)
    every = [subject.call.flatten(moved(each, None, name), name) for name, each in subject.calls.items()]
    return [
        {
            dim: Dim.AUTO
            for dim, size in enumerate(each.shape)
            if size > 1 or any(flat[index].dim() > dim and flat[index].shape[dim] != size for flat in every)
        }
        for index, each in enumerate(subject.flat)
    ]


def _wrong(report: Report | None, declared: Declared) -> list[str]:
    """The inputs of found sizes on which a file is wrong, if it is right on all others."""
    wrong = [check.input for check in (report.checks if report else ()) if not check.passed]
    return list(dict.fromkeys(wrong)) if all(name in declared.inputs for name in wrong) else []


def _fixed(specs: Specs, declared: Declared, wrong: Sequence[str]) -> Specs:
    """The same, with the sizes fixed at which a file was wrong: those that alone did it, else all of them."""
    alone = {variable.name for variable in declared.variables for name in wrong if name.startswith(f"{variable.name}=")}
    alone = {name for name in alone if any("," not in each for each in wrong if each.startswith(f"{name}="))}
    chosen = [v for v in declared.variables if not alone or v.name in alone]
    places = {(each.tensor, each.dim) for variable in chosen for each in variable.places}
    return [{dim: spec for dim, spec in row.items() if (index, dim) not in places} for index, row in enumerate(specs)]


def _advised(report: Report, declared: Declared, names: Sequence[str]) -> Report:
    """A report that says, where a file is wrong at 0 or 1 alone, how to leave them out."""
    small = {
        variable.name: variable
        for check in report.checks
        for variable in declared.variables
        if not check.passed and re.fullmatch(rf"{re.escape(variable.name)}=[01]", check.input)
    }
    fixes = []
    for variable in small.values():
        name, dim = names[variable.places[0].tensor], variable.places[0].dim
        text = f"torch.export took {variable.name} for 2 or more, and the model does something else at 0 or 1"
        fix = f'dynamic_shapes={{"{name}": {{{dim}: Dim("{name}_{dim}", min=2)}}, ...}} if it is never 0 or 1'
        fixes.append(Finding("HJ305", "warning", text, fix=fix))
    return dataclasses.replace(report, findings=(*report.findings, *fixes))


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


def _scope(declared: Declared, checks: Sequence[Check]) -> str:
    sizes = declared.scope(checks)
    calls = len({check.where for check in checks})
    return f"at {sizes}" if sizes else f"on {calls} call{'' if calls == 1 else 's'}, no other sizes may change"


def said(error: HybridJitError) -> str:
    """What an error says, on one line: what failed, and the first difference."""
    rows = [row.strip() for row in str(error).splitlines()]
    detail = next((row.removeprefix("- ") for row in rows if row.startswith("- ")), "")
    where = next((row.removeprefix("at ") for row in rows[1:] if row.startswith("at ")), "")
    return ", ".join(each for each in (rows[0], where, detail) if each)
