"""`export`: capture, save, load again, compare, and only then hand out."""

from __future__ import annotations

import dataclasses
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import _torch
from .._errors import CaptureError, HybridJitError, compose
from ..adapters.inputs import Inputs, as_inputs
from ..adapters.schema import CallSchema
from ..adapters.switch import spell_flags
from . import archive
from .branches import matching
from .build import Builder
from .capture import Captured, check_ready, unwrapped
from .checks import Expectation, File, Run, check_on, expect
from .compare import is_chaotic
from .coverage import Coverage, in_file
from .devices import default_devices, device_list, device_of, moved
from .dynamic import Declared
from .entries import FORWARD, Entries, Entry
from .exported import Exported, is_taken, metadata_of
from .flags import read_flags
from .formats import read_formats
from .guarded import capture_guarded
from .optimize import check_optimize, optimize_file
from .outline import by_line, guards_by_line, guards_of, model_name, outlined
from .plan import Planned, plan, read_methods
from .refusals import failed, refuse, uncovered
from .report import Check, EntryPoint, Report
from .stages import stage
from .state import ModelState, alone, kept_random_state
from .task import Task, check_on_frozen
from .verify import check_tolerances, named_calls
from .view import signature_of, view_of, with_buffers

_ROUNDS, _TOLD = 4, 4
"""How often a file that fails at declared sizes is captured again, and on how many of these more each time."""


def export(
    model: nn.Module,
    inputs: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    format: str | Sequence[str] = "torchscript",
    branches: Sequence[str] | str | None = None,
    flags: Mapping[str, Sequence[bool | int | str]] | Sequence[Mapping[str, bool | int | str]] | None = None,
    methods: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    check_inputs: Iterable[Any] = (),
    devices: Sequence[torch.device | str] | None = None,
    on_frozen: str = "guard",
    rtol: float | None = None,
    atol: float | None = None,
    require_coverage: bool = False,
    optimize: str | None = None,
) -> Exported:
    """Exports a model, and compares the saved bytes with it before anyone gets them.

    The equivalent Python, without the comparison, the schema and the care::

        traced = torch.jit.trace(TracingAdapter(model, inputs, kwargs), flat_inputs)
        torch.jit.save(traced, path)
        return torch.jit.load(path)

    The model comes back as it was: mode, parameters, buffers, gradients, attributes, hooks, and
    the state of the random generators.

    Args:
        model: The model, in eval mode.
        inputs: The call to trace: a tuple of positional arguments, one argument, or `Inputs`.
        kwargs: Its keyword arguments; they also serve the check inputs that are no `Inputs`.
        format: ``"torchscript"``, ``"pt2"`` (torch.export), ``"onnx"`` or ``"aoti"`` (AOTInductor); a list of these,
            see `Exported.others`; or ``"auto"`` for the first of them, in this order, that is captured and verified.
        branches: Submodules, by name or pattern (``"layers.*.attn"``), whose ``if``s on tensors become
            branches as with `branch_if_tracing`; ``"auto"`` finds the innermost ones that need it.
        flags: What the caller of the file can switch: keywords of ``forward``, or attributes of the model by path
            (``"roi_heads.mask_on"``), with their values, of which every combination is exported; or a list of
            the combinations wanted.
        methods: Further methods of the model, each with its call, or a list of calls.
        dynamic_shapes: At which further sizes of ``inputs`` to verify the file, in torch.export's vocabulary: for each
            argument, by name or by position, and nested as it is, ``{dim: size}`` or one for each dimension, of
            ``Dim("batch", min=1)``, ``2 * batch``, ``Dim.DYNAMIC``, ``Dim.AUTO`` (may turn out to be fixed),
            ``Dim.STATIC``, an int or ``None``. Sizes and values that the model itself refuses are in the report.
        check_inputs: Further calls to compare on; other sizes and other values than the first. Those of another
            structure are exported beside it.
        devices: Where to compare; by default on the model's device and every accelerator present.
        on_frozen: What becomes of a value that Python code takes out of a traced tensor: ``"guard"`` writes a
            check into the file, which raises where the value is another one; ``"error"`` refuses;
            ``"ignore"`` keeps it, as a plain trace does.
        rtol: Relative tolerance; torch's by dtype unless given together with ``atol``.
        atol: Absolute tolerance.
        require_coverage: Whether a side of a branch that no check takes, or a loop of which no check runs a round,
            refuses the export. A side that only raises (the model's own validation) is none.
        optimize: What torch does to a TorchScript file before it is verified: ``"freeze"``, which makes constants of
            the weights, or ``"inference"``, which then fuses for this machine.

    Returns:
        The exported model; ``.report`` tells what was found and verified, ``.save`` writes the file.

    Raises:
        InputError: An argument is not what is expected; the model is in training mode.
        CaptureError: The model can't be traced, or raises on an input.
        VerificationError: The file gives something else than the model on some input or device; or a branch is not
            verified, and ``require_coverage`` is set. This error and `CaptureError` have a ``report``.
        UnsupportedError: This format or environment can't do it.

    Example:
        >>> import torch, hybridjit as hj
        >>> model = torch.nn.Linear(2, 1).eval()
        >>> exported = hj.export(model, torch.zeros(3, 2), check_inputs=[torch.ones(1, 2)])
        >>> exported.report.ok
        True
    """
    check_on_frozen(on_frozen)
    check_optimize(optimize)
    formats = read_formats(format)
    if formats != ("torchscript",):
        from .several import Request, export_as

        given = inputs, kwargs, branches, flags, methods, dynamic_shapes, check_inputs, devices, on_frozen
        return export_as(Request(model, *given, rtol, atol, require_coverage, optimize), formats)
    check_tolerances(rtol, atol)
    model, notes = unwrapped(model)
    check_ready(model)
    calls = {"input": as_inputs(inputs, kwargs), **named_calls(check_inputs, kwargs)}
    points = {FORWARD: calls, **read_methods(model, methods, is_taken)}
    combinations = read_flags(flags)
    home = device_of(model, calls)
    places = device_list(devices) or default_devices(home)
    with alone():
        state = ModelState(model)
        folder = Path(tempfile.mkdtemp(prefix="hybridjit-"))
        try:
            path = folder / "module.pt"
            planned = plan(model, points, combinations)
            declared = [_declared(model, state, each, dynamic_shapes) for each in planned]
            alone_in_it = len(planned) == 1 and not planned[0].flags
            for rounds_left in reversed(range(_ROUNDS)):
                made = _capture_all(model, state, planned, branches, on_frozen)
                stage("save, and load again")
                # The traces share the model's tensors, which hold again what they held before it ran.
                _save(made.module, path, model)
                if optimize:
                    optimize_file(path, optimize, list(dict.fromkeys(entry.method for entry in made.entries)))
                loaded = _torch.load_script(path)
                sides = in_file(loaded, made.module, dict.fromkeys(entry.method for entry in made.entries))
                made = dataclasses.replace(made, module=loaded)
                runs = [
                    Run(entry, each.calls, "" if alone_in_it else entry.title, wanted.inputs)
                    for entry, each, wanted in zip(made.entries, planned, declared, strict=True)
                ]
                for run, wanted in zip(runs, declared, strict=True):
                    made.known.update({(run.entry.title, name): each for name, each in wanted.expected.items()})
                coverage = Coverage(sides)
                file = File(made.module, rtol, atol, coverage)
                checks = [c for where in places for c in check_on(where, model, runs, file, made.known, state)]
                checks = judged(model, state, runs, declared, checks)
                told = [_told(*each, checks) for each in zip(planned, runs, declared, strict=True)]
                if not rounds_left or on_frozen != "guard" or told == planned:
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
                sum(_torch.count_operations(made.module, each.case) for each in planned),
                str(torch.__version__),
                () if alone_in_it else tuple(map(_described, made.entries)),
                _scope(declared, checks, on_frozen),
                guards_by_line(row for each in guards for row in each),
            )
            report = outlined(report, model)
            if not report.ok:
                raise failed(report)
            if require_coverage and report.unverified:
                raise uncovered(report)
            archive.append_metadata(path, metadata_of(report, made.entries, sides))
            return Exported(made.module, "torchscript", report, made.entries, archive.KeptFile(path), sides)
        except CaptureError as error:
            refuse(error, model, "torchscript")
            raise
        finally:
            try:
                state.restore(thorough=True)
            finally:
                shutil.rmtree(folder, ignore_errors=True)  # a kept file outlives its path


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


def _scope(declared: Sequence[Declared], checks: Sequence[Check], on_frozen: str) -> str:
    """What was verified, in one line."""
    said = list(dict.fromkeys(text for each in declared if (text := each.scope(checks))))
    calls = len({check.where for check in checks})
    rest = "is guarded" if on_frozen != "ignore" else "is as in a plain trace"
    what = (
        f"at {' and '.join(said)}" if said else f"on {calls} call{'' if calls == 1 else 's'}, no other sizes declared"
    )
    return f"{what}; what is frozen for others {rest}"


def _each_once(rows: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(row for each in rows for row in each))


def _described(entry: Entry) -> EntryPoint:
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
    branches: Sequence[str] | str | None,
    on_frozen: str,
) -> _Made:
    builder = Builder(model, planned)
    entries: list[Entry] = []
    seen: list[tuple[tuple[Any, ...], ...]] = []
    known: dict[tuple[str, str], Expectation] = {}
    for each in planned:
        stage(f"capture {each.title}")
        with state.switched(each.attributes):
            captured, expected = _capture(model, state, each, branches, on_frozen)
        result = builder.add(each, captured, expected.replaced)
        entry = Entry(each.point, each.method, captured.adapter.input_schema, result, each.flags)
        known[entry.title, next(iter(each.calls))] = expected
        entries.append(entry)
        # Not the trace itself, whose operations are in the module now: those of all entries would add up.
        seen.append((captured.findings, captured.statics, captured.scripted, guards_of(captured.guarded)))
    module, finished = builder.finish(entries, planned)
    return _Made(module, Entries(tuple(finished)), seen, known)


def _capture(
    model: nn.Module, state: ModelState, planned: Planned, branches: Sequence[str] | str | None, on_frozen: str
) -> tuple[Captured, Expectation]:
    """Runs the model in eager mode, then traces it; puts it back after each."""
    with kept_random_state():
        (name, first), *others = planned.calls.items()

        def run(inputs: Inputs, name: str) -> Any:
            return seen(expect(model, state, inputs, name, None, planned.point))

        def seen(expected: Expectation) -> Any:
            buffers = dict(model.named_buffers(remove_duplicate=False))
            changed = {id(buffers[name]): tensor for name, tensor in expected.changed.items() if name in buffers}
            buffers = {name: changed.get(id(tensor), tensor) for name, tensor in buffers.items()} | expected.changed
            return with_buffers(expected.result, buffers, known.replaced) if known.replaced else expected.result

        try:
            known = expect(model, state, first, name, None, planned.point)
            view = view_of(model, planned.point, known.replaced)
            task = Task(view, first, seen(known), state, dict(others), run)
            chosen = "auto" if branches == "auto" else matching(model, branches) if branches else ()
            return capture_guarded(task, chosen, on_frozen), known
        except HybridJitError as error:
            if planned.flags:  # which of the combinations it was is not in the model's code
                text, _, rest = str(error).partition("\n")
                text = f"{text}\n  for {planned.title}\n{rest}"
                error.args = (text.rstrip(), *error.args[1:])
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
