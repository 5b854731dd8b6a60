"""TorchScript: capture, save, load again, compare, and only then hand out."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import _torch
from .._errors import CaptureError, HybridJitError, UnsupportedError, compose
from ..adapters.inputs import Inputs, as_inputs
from ..adapters.schema import CallSchema
from ..adapters.switch import spell_flags
from . import archive
from .attempt import attempt
from .bounds import EndlessError, ending
from .branches import matching
from .build import Builder
from .capture import Captured, check_ready, unwrapped
from .checks import Expectation, File, Run, check_on, expect
from .compare import is_chaotic
from .contents import versions
from .coverage import Coverage, in_file
from .devices import default_devices, device_list, device_of, moved
from .dynamic import Declared
from .entries import FORWARD, Entries, Entry
from .exported import Exported, is_taken, metadata_of
from .flags import read_flags
from .guarded import capture_guarded
from .optimize import optimize_file
from .outline import by_line, guards_by_line, guards_of, model_name, outlined
from .plan import Planned, by_result, plan, read_methods
from .reads import share_reads
from .refusals import failed, uncovered
from .report import Check, EntryPoint, Report
from .request import Request
from .stages import stage
from .state import BufferState, ModelState, kept_random_state
from .task import Task
from .tensors import SeenTensors
from .verify import check_tolerances, named_calls
from .view import signature_of, view_of, with_buffers

_ROUNDS, _TOLD = 4, 4
"""How often a file that fails at declared sizes is captured again, and on how many of these more each time."""

_ENDS, _LONGER = 3.0, 20.0
"""After how many seconds, and times the first input's, the model is taken to have no end on one that nobody gave."""

_OPTIMIZED = 5_000
"""Up to how many operations a file is checked as torch optimises it, which takes minutes for twice as many."""


def export_torchscript(request: Request) -> Exported:
    """Exports a model to TorchScript; raises what `export` raises."""
    if _torch.tracing_state() is None and (refusal := _torch.jit_refusal()):  # within a trace, its own refusal follows
        python = ".".join(map(str, sys.version_info[:2]))
        raise UnsupportedError(
            compose(
                "format 'torchscript' needs torch.jit, which does not work here",
                differences=[refusal, f"torch {torch.__version__}, Python {python}"],
                instead='format="pt2", "onnx" or "aoti", which need none; or a torch and a Python that have it',
                page="unsupportederror",
            )
        )
    check_tolerances(request.rtol, request.atol)
    model, notes = unwrapped(request.model)
    check_ready(model)
    calls = {"input": as_inputs(request.inputs, request.kwargs), **named_calls(request.check_inputs, request.kwargs)}
    points = {FORWARD: calls, **read_methods(model, request.methods, is_taken)}
    combinations = read_flags(request.flags)
    home = device_of(model, calls)
    places = device_list(request.devices) or default_devices(home)
    with attempt(model, "torchscript") as (state, folder):
        path = folder / "module.pt"
        planned = by_result(
            plan(model, points, combinations), lambda each, name: _result(model, state, each, name, request)
        )
        declared = [_declared(model, state, each, request.dynamic_shapes) for each in planned]
        alone_in_it = len(planned) == 1 and not planned[0].flags
        for rounds_left in reversed(range(_ROUNDS)):
            made = _capture_all(model, state, planned, request)
            stage("save, and load again")
            share_reads(made.module)
            # The traces share the model's tensors, which hold again what they held before it ran.
            _save(made.module, path, model)
            if request.optimize:
                notes = [note for note in notes if note.code != "HJ309"]  # of the round before
                name, call = next(iter(planned[0].calls.items()))
                flat = next(iter(made.entries)).call.flatten(moved(call, None, name), name)
                notes = [*notes, optimize_file(path, request.optimize, made.entries, flat)]
            loaded = _torch.load_script(path)
            held = versions(loaded)
            sides = in_file(loaded, made.module, dict.fromkeys(entry.method for entry in made.entries))
            made = dataclasses.replace(made, module=loaded)
            runs = [
                Run(entry, each.calls, "" if alone_in_it else entry.title, wanted.inputs)
                for entry, each, wanted in zip(made.entries, planned, declared, strict=True)
            ]
            for run, wanted in zip(runs, declared, strict=True):
                made.known.update({(run.entry.title, name): each for name, each in wanted.expected.items()})
            _check_apart(made.entries, runs, made.module)
            coverage = Coverage(sides)
            tensors = SeenTensors()
            file = File(made.module, request.rtol, request.atol, coverage, tensors)
            operations = sum(_torch.count_operations(made.module, each.case) for each in planned)
            with _torch.unoptimized() if operations > _OPTIMIZED else contextlib.nullcontext():
                checks = [c for where in places for c in check_on(where, model, runs, file, made.known, state)]
            asked = {(title, name) for title, name in made.known if any(name in calls for calls in points.values())}
            request.eager.update((key, made.known[key]) for key in asked)
            checks = judged(model, state, runs, declared, checks)
            told = [_told(*each, checks) for each in zip(planned, runs, declared, strict=True)]
            if not rounds_left or request.on_frozen != "guard" or told == planned:
                break
            planned = told
            for each, wanted in zip(planned, declared, strict=True):
                wanted.freshen()
                run_declared(model, state, each, wanted)
        findings, statics, scripted, guards = zip(*made.seen, strict=True)
        of_sizes = [finding for each in declared for finding in each.findings()]
        report = Report(
            model_name(model),
            "torchscript",
            tuple(checks),
            (*notes, *by_line(row for each in (*findings, of_sizes) for row in each)),
            _each_once(statics),
            _each_once(scripted),
            coverage.branches(checks),
            operations,
            str(torch.__version__),
            () if alone_in_it else tuple(map(described, made.entries)),
            _scope(declared, checks, request.on_frozen, operations),
            guards_by_line(row for each in guards for row in each),
        )
        report = outlined(report, model)
        if not report.ok:
            raise failed(report)
        if request.require_coverage and report.unverified:
            raise uncovered(report)
        kinds = tensors.of(runs[0].title, checks)
        archive.append_metadata(path, metadata_of(report, made.entries, sides, kinds))
        if versions(loaded) != held:  # a call writes to weights or constants: what is returned has not been called
            made = dataclasses.replace(made, module=_torch.load_script(path))
        return Exported(made.module, "torchscript", report, made.entries, archive.KeptFile(path), sides, _kinds=kinds)


def _result(model: nn.Module, state: ModelState, planned: Planned, name: str, request: Request) -> Any:
    """What the model gives for a call, which is kept for when it is compared."""
    key = planned.title, name
    if key not in request.eager:
        with kept_random_state(), state.switched(planned.attributes):
            request.eager[key] = expect(model, state, planned.calls[name], name, None, planned.point)
        state.restore(thorough=True)  # a write that was not seen must not get into the file
    return request.eager[key].result


def _check_apart(entries: Entries, runs: Sequence[Run], module: _torch.ScriptModule) -> None:
    """Makes sure that an entry raises on the calls of those after it that give other results for such calls.

    Raises:
        CaptureError: It does not, so that a caller would get its result.
    """
    titles = [entry.title for entry in entries]
    if not any(entries.alike(entry) for entry in entries):
        return
    buffers = BufferState(module)  # a call may write to them
    for run in runs:
        earlier = [
            each for each in entries.alike(run.entry) if titles.index(each.title) < titles.index(run.entry.title)
        ]
        for (name, call), other in itertools.product(run.calls.items(), earlier):
            try:
                with torch.no_grad():
                    other.run(module, run.entry.call.flatten(moved(call, None, name), name))
            except (_torch.JitError, RuntimeError):
                continue
            finally:
                buffers.restore()
            raise CaptureError(
                compose(
                    "results of another structure, for inputs that no value in the model tells apart",
                    differences=[f"{name}: expected to stop {other.title}, which was captured for others"],
                    instead="a result of one structure for all inputs (an empty tensor for nothing)",
                    page="captureerror",
                )
            )


def _declared(model: nn.Module, state: ModelState, planned: Planned, dynamic_shapes: Any) -> Declared:
    """The sizes and values that are declared for an entry, and what the model gives for them."""
    if planned.method != FORWARD:
        return Declared()
    name, first = next(iter(planned.calls.items()))
    schema, _ = CallSchema.of(signature_of(model, planned.point), moved(first, None, name))
    declared = Declared.of(schema, schema.flatten(moved(first, None, name)), dynamic_shapes)
    run_declared(model, state, planned, declared)
    return declared


def run_declared(model: nn.Module, state: ModelState, planned: Planned, declared: Declared) -> None:
    """Runs the model on the inputs that are declared of an entry."""

    def run(inputs: Inputs, name: str) -> Expectation:
        return expect(model, state, inputs, name, None, planned.point)

    with kept_random_state(), state.switched(planned.attributes):
        declared.run(run)


def judged(
    model: nn.Module, state: ModelState, runs: Sequence[Run], declared: Sequence[Declared], checks: Sequence[Check]
) -> list[Check]:
    """The checks that say something of the file, in order."""
    kept = []
    for run, wanted in zip(runs, declared, strict=True):

        def chaotic(name: str, run: Run = run, wanted: Declared = wanted) -> bool:
            def again(flat: tuple[torch.Tensor, ...]) -> Any:
                inputs = run.entry.call.unflatten(flat)
                return expect(model, state, inputs, name, None, run.entry.point).result

            flat = run.entry.call.flatten(moved(wanted.inputs[name], None, name))
            with kept_random_state(), state.switched(run.entry.attributes):
                return is_chaotic(flat, wanted.expected[name].result, again)

        kept += wanted.judged([check for check in checks if check.entry == run.title], chaotic)
    return [check for check in checks if check in kept] if len(runs) > 1 else kept


def _told(planned: Planned, run: Run, declared: Declared, checks: Sequence[Check]) -> Planned:
    """An entry with declared inputs that the file fails on among its calls, a few at a time."""
    failing = declared.learnt([check for check in checks if check.entry == run.title])
    new = [name for name in failing if name in run.further and name not in run.calls]
    return dataclasses.replace(planned, calls={**planned.calls, **{name: run.further[name] for name in new[:_TOLD]}})


def _scope(declared: Sequence[Declared], checks: Sequence[Check], on_frozen: str, operations: int) -> str:
    """What was verified, in one line."""
    said = list(dict.fromkeys(text for each in declared if (text := each.scope(checks))))
    calls = len({check.where for check in checks})
    rest = "is guarded" if on_frozen != "ignore" else "is as in a plain trace"
    what = (
        f"at {' and '.join(said)}" if said else f"on {calls} call{'' if calls == 1 else 's'}, no other sizes declared"
    )
    plainly = f", without torch's optimiser for its {operations:,} operations" if operations > _OPTIMIZED else ""
    return f"{what}{plainly}; what is frozen for others {rest}"


def _each_once(rows: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(row for each in rows for row in each))


def described(entry: Entry) -> EntryPoint:
    """An entry for the report."""
    flags = spell_flags(entry.combination)
    return EntryPoint(entry.method, flags, tuple(entry.call.names()), entry.keys)


@dataclass(frozen=True)
class _Made:
    """What the captures came to.

    Attributes:
        module: All of them as one module.
        entries: The entries.
        seen: What was seen at each: findings, statics, scripted pieces, guards.
        known: What the model gave for the first call of each, by the titles of entry and call.
    """

    module: _torch.ScriptModule
    entries: Entries
    seen: list[tuple[tuple[Any, ...], ...]]
    known: dict[tuple[str, str], Expectation]


def _capture_all(
    model: nn.Module,
    state: ModelState,
    planned: Sequence[Planned],
    request: Request,
) -> _Made:
    builder = Builder(model, planned)
    entries: list[Entry] = []
    seen: list[tuple[tuple[Any, ...], ...]] = []
    known = dict(request.eager)
    for each in planned:
        stage(f"capture {each.title}")
        with state.switched(each.attributes):
            captured, expected = _capture(model, state, each, request, known)
        result = builder.add(each, captured, expected.replaced)
        entry = Entry(each.point, each.method, captured.adapter.input_schema, result, each.flags)
        entries.append(entry)
        # Not the trace itself, whose operations are in the module now: those of all entries would add up.
        seen.append((captured.findings, captured.statics, captured.scripted, guards_of(captured.guarded)))
    module, finished = builder.finish(entries, planned)
    return _Made(module, Entries(tuple(finished)), seen, known)


def _capture(
    model: nn.Module, state: ModelState, planned: Planned, request: Request, known: dict[tuple[str, str], Expectation]
) -> tuple[Captured, Expectation]:
    """Runs the model in eager mode, if it did not yet, then traces it; puts it back after each."""
    with kept_random_state():
        (name, first), *others = planned.calls.items()

        def given(inputs: Inputs, name: str) -> Expectation:
            if name not in planned.calls:
                try:
                    return expect(model, state, inputs, name, None, planned.point, within=ending(limit))
                except EndlessError as error:
                    raise CaptureError(compose(f"the model does not end on {name}")) from error
            key = planned.title, name
            if key not in known:
                known[key] = expect(model, state, inputs, name, None, planned.point)
            return known[key]

        def run(inputs: Inputs, name: str) -> Any:
            return seen(given(inputs, name))

        def seen(expected: Expectation) -> Any:
            buffers = dict(model.named_buffers(remove_duplicate=False))
            changed = {id(buffers[name]): tensor for name, tensor in expected.changed.items() if name in buffers}
            buffers = {name: changed.get(id(tensor), tensor) for name, tensor in buffers.items()} | expected.changed
            replaced = traced.replaced
            return with_buffers(expected.result, buffers, replaced) if replaced else expected.result

        try:
            started = time.perf_counter()
            traced = given(first, name)
            limit = max(_ENDS, _LONGER * (time.perf_counter() - started))
            view = view_of(model, planned.point, traced.replaced)
            task = Task(view, first, seen(traced), state, dict(others), run)
            branches = request.branches
            chosen = "auto" if branches == "auto" else matching(model, branches) if branches else ()
            return capture_guarded(task, chosen, request.on_frozen), traced
        except HybridJitError as error:
            planned.tell(error)
            raise
        finally:
            state.restore(thorough=True)  # a write that was not seen must not get into the file


def _save(module: _torch.ScriptModule, path: Path, model: nn.Module) -> None:
    try:
        _torch.save_script(module, path, {})
    except RuntimeError as error:
        called = re.search(r"Could not export Python function call '(.+?)'", str(error))
        if called is None:
            raise
        raise CaptureError(
            compose(
                f"the trace calls {called[1]}, a torch.autograd.Function, which no file can hold",
                where=model_name(model),
                instead="its operations while tracing, since the file computes no gradient by it:\n"
                f"if hybridjit.is_tracing(): ...  # what {called[1]}.forward computes, without ctx\n"
                f"else: {called[1]}.apply(...)",
                page="captureerror",
            )
        ) from error
