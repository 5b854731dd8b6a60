"""A capture in which nothing goes on with a frozen value: guards, as few as the evidence allows."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .._errors import CaptureError, HybridJitError, InputError, compose
from ..adapters.inputs import Inputs
from .capture import Captured, capture
from .devices import moved
from .leaks import Leak, spell_value
from .probes import Probe, probes
from .report import Finding
from .state import ModelState
from .together import Member, Together
from .survey import Guarding, Occurrence, Seen, exonerated, same_program, values_of

ON_FROZEN = ("guard", "error", "ignore")
_PROBED = 3.0
"""How many times as long as the first capture the probes may take, in all."""


def check_on_frozen(on_frozen: str) -> None:
    """Refuses another word than those that ``on_frozen`` takes.

    Raises:
        InputError: It is another one.
    """
    if on_frozen not in ON_FROZEN:
        raise InputError(
            compose(
                "on_frozen takes one of three words",
                differences=[f"expected one of {', '.join(ON_FROZEN)}, got {on_frozen!r}"],
                instead='on_frozen="guard"',
                page="inputerror",
            )
        )


@dataclass(frozen=True)
class Task:
    """What is to be captured.

    Attributes:
        model: The model, ready.
        first: The call to trace.
        expected: What the model gives for it in eager mode.
        state: The model's state.
        others: Further calls of the same structure, by name.
        run: Runs the model in eager mode on a call; raises what it raises.
    """

    model: nn.Module
    first: Inputs
    expected: Any
    state: ModelState
    others: Mapping[str, Inputs]
    run: Callable[[Inputs, str], Any]


def capture_guarded(task: Task, branches: Sequence[str], on_frozen: str) -> Captured:
    """Traces a model, and again with guards if values of tensors left the trace.

    Args:
        task: What to trace.
        branches: Paths of submodules whose ``if``s become branches.
        on_frozen: What becomes of such a value: ``"guard"``, ``"error"`` or ``"ignore"``.

    Raises:
        CaptureError: The model can't be traced; or a value is frozen, and that is to be an error.
    """
    started = time.perf_counter()
    first = _capture(task, task.first, task.expected, branches)
    if on_frozen == "ignore" or not first.leaks:
        return first
    task.state.restore(thorough=True)
    seen = [Seen.of("input", first)]
    seen += _observed(task, branches, time.perf_counter() - started)
    groups = same_program(seen)
    innocent = exonerated(groups)
    captured, guarded = _final(task, branches, groups, innocent)
    if on_frozen == "error" and guarded:
        raise _frozen(task.model, guarded)
    captured = dataclasses.replace(captured, findings=first.findings, leaks=first.leaks)
    return dataclasses.replace(captured, findings=_findings(captured, innocent), guarded=tuple(guarded))


def _final(
    task: Task, branches: Sequence[str], groups: Sequence[Sequence[Seen]], innocent: dict[Occurrence, str]
) -> tuple[Captured, list[Leak]]:
    """The capture that becomes the file: of all inputs that were given, each on its path."""
    told = [groups[0], *(group for group in groups[1:] if any(seen.name in task.others for seen in group))]
    if len(told) > 1:
        together = Together([_member(task, group) for group in told], innocent, task.state)
        return _capture(task, task.first, task.expected, branches, together.meet, together), together.guarded
    guarding = Guarding(innocent, values_of(groups[0]))
    return _capture(task, task.first, task.expected, branches, guarding), guarding.guarded


def _member(task: Task, group: Sequence[Seen]) -> Member:
    seen = next((seen for seen in group if seen.name == "input" or seen.name in task.others), group[0])
    inputs = moved(task.others.get(seen.name, task.first), None, seen.name)
    ordered = [seen, *(each for each in group if each is not seen)]
    return Member.of(ordered, seen.captured.adapter.flatten(*inputs.args, **inputs.kwargs))


def _capture(
    task: Task,
    inputs: Inputs,
    expected: Any,
    branches: Sequence[str],
    meet: Callable[..., None] = lambda index, leak, tensor: None,
    around: Callable[..., Any] | None = None,
) -> Captured:
    torch.manual_seed(0)
    own = moved(inputs, None, "input")
    return capture(task.model, own, expected, task.state, branches, meet, around=around)


def _observed(task: Task, branches: Sequence[str], seconds: float) -> Iterator[Seen]:
    """Captures on the other inputs, and on probes as far as the time goes."""
    for name, inputs in task.others.items():
        yield from _observe(task, name, inputs, branches)
    schema, flat = _flat(task)
    given = time.perf_counter()

    def accepted(probe: Probe) -> bool:
        if time.perf_counter() - given > _PROBED * seconds:
            return False
        try:
            results[probe.says] = task.run(schema.unflatten(probe.flat), probe.says)
        except CaptureError:  # the model itself refuses it, so it tells nothing
            return False
        return True

    results: dict[str, Any] = {}
    for probe in probes(flat, accepted):
        yield from _observe(task, probe.says, schema.unflatten(probe.flat), branches, results[probe.says])


def _flat(task: Task) -> tuple[Any, tuple[torch.Tensor, ...]]:
    from ..adapters.flatten import TracingAdapter

    adapter = TracingAdapter(task.model, task.first.args, task.first.kwargs)
    return adapter.input_schema, adapter.flatten(*task.first.args, **task.first.kwargs)


def _observe(task: Task, name: str, inputs: Inputs, branches: Sequence[str], result: Any = None) -> Iterator[Seen]:
    try:
        expected = task.run(inputs, name) if result is None else result
        yield Seen.of(name, _capture(task, inputs, expected, branches))
    except HybridJitError:
        return  # a path that can't be captured is no evidence
    finally:
        task.state.restore(thorough=True)


def _findings(captured: Captured, innocent: Mapping[Occurrence, str]) -> tuple[Finding, ...]:
    """The findings, those without a guard as notes."""
    by_line: dict[tuple[str, int, str], list[str]] = {}
    for (key, _), name in innocent.items():
        what, file, line = key
        by_line.setdefault((file, line, what), []).append(name)
    findings = []
    for finding in captured.findings:
        names = by_line.get((finding.file, finding.line, finding.message.split(":")[0]))
        if names is not None and len(names) >= finding.count:
            text = f"{finding.message}; it does not matter: with another value ({names[0]}) the graph is the same"
            finding = dataclasses.replace(finding, severity="note", message=text, fix="")
        findings.append(finding)
    return tuple(findings)


def _frozen(model: nn.Module, leaks: Sequence[Leak]) -> CaptureError:
    rows = {f"{leak.site}: {leak.kind.what}: {leak.kind.says} ({spell_value(leak.value)})": leak.kind.fix for leak in leaks}
    return CaptureError(
        compose(
            f"{len(rows)} value{'' if len(rows) == 1 else 's'} of tensors would be frozen into the file",
            where=type(model).__qualname__,
            differences=list(rows),
            instead="\n".join(dict.fromkeys(rows.values())),
            page="captureerror",
        )
    )
