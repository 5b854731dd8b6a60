"""Capture: what must hold before a model is traced, and the trace itself."""

from __future__ import annotations

import contextlib
import math
import re
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from .. import _torch
from .._describe import describe, listed, place
from .._errors import CaptureError, HybridJitError, InputError, UnsupportedError, compose
from .._sites import Line, Site, site_of_error
from ..adapters.flatten import TracingAdapter
from ..adapters.inputs import Inputs
from ..control.guards import guard_inputs
from ..control.origins import Asked, following
from ..control.points import TRUTH
from ..control.record import Record, recording
from ..control.recorder import active
from ..control.static import static_modules
from .aftermath import Aftermath
from .asking import checks_of_layers, checks_of_torch, kind_questions
from .branches import Others, branching, meeting
from .classnames import readable
from .devices import device_of
from .findings import collecting, found
from .forks import forks
from .functions import inlined
from .given import truths_of_attention
from .leaks import Leak
from .lost import copying, keep_counts, refuse_caught, refuse_generators
from .made import constructing, drop_copies
from .numbers import hashing, knowing
from .overrides import unnoticed
from .placement import follow_devices
from .ranks import has_scripts
from .report import Branch, Finding, Scripted, Side, Static
from .rolled import roll
from .rolling import rolling
from .scalars import numbers_as_such
from .scripts import naming_results
from .standins import standing_in
from .state import ModelState
from .unseen import seeing
from .watch import Watch

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Captured:
    """A trace, and what was seen while it was made.

    Attributes:
        module: The traced module, of flat tensors; shares the model's parameters.
        adapter: What was traced.
        findings: What the tracer warned about, and notes.
        statics: Values frozen on purpose.
        scripted: Pieces recorded with their control flow.
        branches: Where branches were recorded.
        leaks: What left the trace, in order.
        guarded: Of these, what the file checks.
        home: The device that it was made on.
        asked: What the model asked about devices.
        graph: If it was made to be looked at: what was traced, in place of the module, which is that of another.
        turns: The loops over a traced range, and how many turns they took.
        unrolled: Of their lines those that could not be made loops again.
        as_eager: Whether code that asks if it is traced was told that it is not.
        kinds_asked: Files whose code asked what kind of number a size is, and was told that it is a tensor.
    """

    module: _torch.ScriptModule
    adapter: TracingAdapter
    findings: tuple[Finding, ...]
    statics: tuple[Static, ...]
    scripted: tuple[Scripted, ...]
    branches: tuple[Branch, ...] = ()
    leaks: tuple[Leak, ...] = ()
    guarded: tuple[Leak, ...] = ()
    home: torch.device = _CPU
    asked: Sequence[Asked] = ()
    graph: _torch.Graph | None = None
    turns: tuple[tuple[Line, int], ...] = ()
    unrolled: frozenset[Line] = frozenset()
    kinds_asked: frozenset[str] = frozenset()
    as_eager: bool = False


def unwrapped(model: nn.Module, what: str = "export") -> tuple[nn.Module, list[Finding]]:
    """Takes ``DataParallel``, ``DistributedDataParallel`` and ``torch.compile`` off a model, with a note.

    Args:
        model: The model.
        what: The function that was called, for the message.

    Raises:
        InputError: ``model`` is no module.
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            compose(
                f"{what} takes an nn.Module",
                differences=[f"model: expected an nn.Module, got {describe(model)}"],
                instead="class Model(nn.Module):\n    def forward(self, x): return function(x)",
                page="inputerror",
            )
        )
    notes: list[Finding] = []
    while True:
        inner = _torch.uncompiled(model)
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        if inner is None:
            return model, notes
        name = type(model).__name__
        notes.append(Finding("HJ001", "note", f"{name} taken off, the module in it used"))
        model = inner


def check_ready(model: nn.Module, what: str = "export") -> None:
    """Refuses a model that is not ready, and a call within a trace.

    Args:
        model: The model.
        what: The function that was called, for the messages.

    Raises:
        InputError: A module is in training mode, and no `static` says that it is meant.
        UnsupportedError: A trace is under way.
    """
    tensors: list[tuple[str, Any]] = [*model.named_parameters(), *model.named_buffers()]
    lazy = [name for name, tensor in tensors if isinstance(tensor, (nn.UninitializedParameter, nn.UninitializedBuffer))]
    if lazy:
        raise InputError(
            compose(
                "the model has lazy parameters or buffers that no call has made yet",
                where=type(model).__qualname__,
                differences=[f"lazy: {listed(lazy)}"],
                instead=f"model(*inputs), once, before {what}",
                page="inputerror",
            )
        )
    if _torch.tracing_state() is not None:
        raise UnsupportedError(
            compose(f"{what} was called while a trace is under way", instead=f"{what} outside of forward",
                    page="unsupportederror")
        )  # fmt: skip
    meant = {id(inner) for module in static_modules(model) for inner in module.modules()}
    training = [
        name or "(the model)"
        for name, module in model.named_modules()
        if getattr(module, "training", False) and id(module) not in meant  # a frozen script module has no mode
    ]
    if training:
        raise InputError(
            compose(
                f"the model is in training mode ({len(training)} of {len(list(model.modules()))} modules)",
                where=type(model).__qualname__,
                differences=[f"training: {listed(training)}"],
                instead='model.eval()\nor hybridjit.static(module, reason="...") around a module that is to stay so',
                page="inputerror",
            )
        )


def capture(
    model: nn.Module,
    inputs: Inputs,
    expected: Any,
    state: ModelState,
    branches: Sequence[str] = (),
    meet: Callable[[int, Leak, Tensor], None] = lambda index, leak, tensor: None,
    fixed: Collection[str] = (),
    alike: Sequence[Collection[tuple[torch.dtype, ...]]] = (),
    around: Callable[[Callable[..., Any], Sequence[Tensor]], Any] | None = None,
    dynamic: Collection[str] = (),
    parts: Callable[[Site], bool] = lambda site: True,
    guarding: bool = True,
    beside: _torch.ScriptModule | None = None,
    classes: bool = False,
    plain: Collection[str] = (),
    as_eager: bool = False,
    rolls: Collection[Line] = (),
    meets: Collection[Line] = (),
    merges: Collection[Line] = (),
    within: Collection[Line] = (),
    most: float = math.inf,
    others: Others = MappingProxyType({}),
) -> Captured:
    """Traces a model under ``no_grad``; its state must have been taken before.

    Args:
        model: The model, ready.
        inputs: The call to trace, on tensors of its own.
        expected: What the model gives for it in eager mode.
        state: Its state; the caller puts the model back.
        branches: Paths of submodules whose ``if``s become branches.
        meet: Is given what leaves the trace: the how-many-eth it is, what it is, and the tensor.
        fixed: What of the inputs the file checks, see `guard_inputs`.
        alike: The dtypes of inputs that the user gave, of those together that compute the same.
        around: Runs the flat model in the trace, given it and its tensors; may run it again on others.
        dynamic: Source files whose code gets stand-ins for ``len``, ``int`` and the like.
        guarding: Whether the file checks what Python code was told of devices.
        parts: Whether an ``if`` at a line of these submodules becomes a branch.
        beside: A trace of the model, if this one is only to be looked at.
        classes: Whether code that gives torch ``int`` for a dtype gets no stand-in for it.
        plain: Source files whose code is given sizes as Python's numbers.
        as_eager: Whether code that asks if it is traced is told that it is not.
        rolls: Lines of loops over a traced range that become loops.
        meets: Lines of ``if``s whose paths meet again where the function around them ends.
        merges: Lines of ``if``s whose paths meet again where they end.
        within: Lines of ``if``s that have paths of their own, wherever they are.
        most: How many paths there may be in all.
        others: What other inputs give the submodules in ``branches``, for sides that this one contradicts.

    Raises:
        CaptureError: The model can't be traced.
        InputError: Arguments or result hold something without a flat side.
    """
    adapter = TracingAdapter(model, inputs.args, inputs.kwargs)
    adapter.expect(expected)
    flat = adapter.flatten(*inputs.args, **inputs.kwargs)
    if not flat:
        raise InputError(
            compose(
                "the inputs hold no tensor",
                where=repr(inputs),
                instead="at least one tensor among the inputs",
                page="inputerror",
            )
        )
    if not adapter.output_schema.paths():
        raise InputError(
            compose(
                "the result holds no tensor",
                where=type(model).__qualname__,
                instead="a forward that returns at least one tensor",
                page="inputerror",
            )
        )
    names = {id(module): name for name, module in model.named_modules()}
    record = Record(names)
    aftermath = Aftermath(state)
    leaks: list[Leak] = []

    def seen(leak: Leak, tensor: Tensor) -> None:
        if (recorder := active()) is not None and recorder.repeating:
            return  # of what is in the graph already, for another example
        leaks.append(leak)
        meet(len(leaks) - 1, leak, tensor)

    def enter(tensors: Sequence[Tensor]) -> None:
        guard_inputs(list(zip(adapter.input_schema.names(), tensors, strict=True)), fixed, alike)

    adapter.enter, adapter.leave = enter, keep_counts
    adapter.around = around
    watch = Watch(names, seen, bool(dynamic), plain, state.reshaped, has_scripts(model))
    watch.kept = record.numbers
    with contextlib.ExitStack() as stack:  # Python has a limit for blocks in one another
        stack.enter_context(torch.no_grad())
        findings = stack.enter_context(collecting(names))
        stack.enter_context(recording(record))
        stack.enter_context(branching(model, branches, parts, others))
        stack.enter_context(meeting(meets, merges, parts, others, most, within))
        loops = stack.enter_context(rolling(rolls))
        stack.enter_context(standing_in(dynamic, loops, classes))
        kinds_asked = stack.enter_context(kind_questions(model, dynamic))
        asked = (
            seeing(),
            checks_of_torch(),
            checks_of_layers(names),
            truths_of_attention(model),
            constructing(),
            hashing(watch.leak),
            knowing(watch.kept),
        )
        for each in (*asked, copying(), unnoticed()):
            stack.enter_context(each)
        stack.enter_context(naming_results())
        stack.enter_context(watch)
        try:
            with following(guarding) as origins, forks(names, as_eager) as forked, inlined(names) as functions:
                graph = _torch.observe(adapter, flat, beside) if beside else None
                with readable(model):
                    traced = beside or _torch.trace(adapter, flat)
            unrolled = roll(graph or traced, loops) if rolls else set()
            if unrolled and not beside:
                raise CaptureError(compose(f"a loop can't stay one: {listed([place(*each) for each in unrolled])}"))
            if guarding:
                refuse_caught(watch.raised)
            if not beside:
                refuse_generators(traced)
                drop_copies(traced)
        except HybridJitError:
            raise
        except Exception as error:
            raise _explain(model, names, error) from error
    reasons = static_modules(model)
    modes = [
        Static(f"training={getattr(module, 'training', False)}", reason, module_path=names[id(module)])
        for module, reason in reasons.items()
    ]
    statics = [Static(s.value, s.reason, s.site.file, s.site.line, s.site.module_path) for s in record.statics]
    scripted = [Scripted(p.name, p.site.file, p.site.line, p.site.module_path) for p in record.scripted]
    every = (*found(leaks), *findings, *forked, *functions, *aftermath.notes(adapter, record))
    home = device_of(model, {"input": inputs})
    return Captured(
        traced,
        adapter,
        every,
        (*modes, *statics),
        tuple(scripted),
        _branches(record),
        tuple(leaks),
        (),
        home,
        origins.asked,
        graph,
        tuple(loops.loops),
        frozenset(unrolled),
        frozenset(kinds_asked),
        as_eager,
    )


def placed(captured: Captured) -> Captured:
    """Makes a capture that has not run yet independent of the device it was made on, and its sizes plain numbers."""
    on_devices = follow_devices(captured.module, captured.home, captured.asked)
    numbers_as_such(captured.module)
    return replace(captured, findings=(*captured.findings, *on_devices))


def _branches(record: Record) -> tuple[Branch, ...]:
    """The branch points, each once, with the sides that raise anywhere: a module that runs twice has its own twice."""
    points: dict[Site, list[tuple[bool, ...]]] = {}
    for point in record.branches:
        points.setdefault(point.site, []).append(point.raises)
    found = []
    for site, raises in points.items():
        sides = tuple(Side(name, 0, any(each)) for name, each in zip(TRUTH, zip(*raises, strict=True), strict=True))
        found.append(Branch(site.file, site.line, site.module_path, "if", sides, len(raises)))
    return tuple(found)


_FIX = "the piece at this line as a function with @hybridjit.script_if_tracing, if it depends on the values of tensors"
# What the tracer refuses, by its own words, whatever the tensors hold.
_FIXES = {
    r"cannot set value trace": "the module as it was before torch.jit.script, with @hybridjit.script_if_tracing on the "
    "functions in which it branches,\nor a scripted forward that returns tensors only",
    r"dynamo-optimized": "the submodule as it was before torch.compile",
    r"observable data dependence": "operations on the inputs that return a new tensor: reshape instead of resize_",
    r"NoTracerDispatchMode": "torch.tensor([...], dtype=torch.float32), or torch.stack",
    r"Unsupported value kind: Tensor": "register_buffer in __init__ for a sparse tensor that forward uses",
}


def _explain(model: nn.Module, names: dict[int, str], error: Exception) -> CaptureError:
    text = str(error).strip().splitlines()
    if "NoTracerDispatchMode" in str(error):  # an assertion of torch's, on its own source
        text = ["a constructor of one dtype, such as torch.FloatTensor or torch.LongTensor, was given traced values"]
    if "observable data dependence" in str(error):  # torch prints the whole result there
        text = ["what was traced does not lead from the inputs to the result"]
    instead = next((fix for pattern, fix in _FIXES.items() if re.search(pattern, str(error))), _FIX)
    if any("_functorch" in frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)):
        text = [
            "a transform of functions (torch.vmap, torch.func.grad), of which flex_attention makes use, is not traced"
        ]
        instead = "operations on the whole batch; F.scaled_dot_product_attention for flex_attention"
    return CaptureError(
        compose(
            f"{type(model).__qualname__} runs in eager mode but can't be traced",
            where=str(site_of_error(names, error)),
            differences=[f"{type(error).__name__}: {text[0] if text else ''}"],
            instead=instead,
            page="captureerror",
        )
    )
