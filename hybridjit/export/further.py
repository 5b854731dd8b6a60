"""Further inputs of a study, made of those that were given; and captures of them where a path has none of its own."""

from __future__ import annotations

import collections
import contextlib
import time
import warnings
from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING, TypeAlias

import torch

from .._errors import HybridJitError
from ..control.asides import Arguments
from .bounds import bounded
from .branches import listening
from .capture import Captured
from .compared import at_sizes, compared_sizes
from .devices import moved
from .forks import pretending
from .probes import MORE, SHARED, Flat, Probe, kind_probes, neighbours, of_kind, probes, scattered, shared_probe, sized
from .state import SEED
from .survey import Seen, same_program
from .task import Known, Settings, Task

if TYPE_CHECKING:
    from .guarded import Study

Making: TypeAlias = Callable[[Flat, Callable[[Probe], bool]], Iterator[Probe]]
"""What makes further inputs of one, as `sized` does."""
_PROBED = 3.0
"""How many times as long as the first capture running the model on probes may take in all."""
SECONDS = 4.0
"""How long that may always take, of this thread's time: what is found does not hang on how busy a machine is."""


def probe(study: Study, captured: Captured, every: bool = False) -> None:
    """Makes further inputs, once, as far as the time goes.

    Args:
        study: What they are for.
        captured: The first capture.
        every: Whether to make also those that it left out, as nothing left that capture's trace.
    """
    if study.probed and not every:
        return
    study.probed = True
    started = time.thread_time()
    inputs = moved(study.task.first, None, "input")
    results: dict[str, Known] = {}
    # Not without need: of indices one more may lie outside, and some kernels write there.
    forked = any(finding.code == "HJ303" for finding in captured.findings)

    def accepted(probe: Probe) -> bool:
        if probe.says in study.known:
            return False
        # Whether dtypes, ranks and shared arguments matter must not depend on the clock: without a probe, no guard.
        must = of_kind(probe.says) or probe.says == SHARED
        if probe.says.startswith(MORE) and not forked:
            return False
        if not must and time.thread_time() - started > max(_PROBED * study.seconds, SECONDS):
            return False
        if not (captured.leaks or every) and ":" in probe.says and any(":" in known for known in results):
            return False  # one of another size tells whether nothing leaked, which is all there is to tell
        return _known(study, results, probe.says, probe)

    flat = captured.adapter.flatten(*inputs.args, **inputs.kwargs)
    for probe in probes(flat, accepted):
        study.known[probe.says] = results[probe.says]
    for probe in kind_probes(flat, accepted):
        study.known[probe.says] = results[probe.says]
    shared = shared_probe(flat)
    if shared is not None and accepted(shared):
        study.known[shared.says] = results[shared.says]


def look_beside(study: Study, name: str, captured: Captured | None = None) -> None:
    """Makes inputs of sizes next to those of one, as far as the time goes: some take rarer sides of branches.

    Args:
        study: What they are for.
        name: The input.
        captured: A capture with branches; the sizes that they go by are tried, too.
    """
    sizes = compared_sizes(captured.module) if captured is not None and name == "input" else []
    if sizes and (key := f"{name} {sizes}") not in study.beside:
        study.beside.add(key)
        collections.deque(_looked(study, name, at_sizes(sizes)), 0)
    if name not in study.beside:
        study.beside.add(name)
        making = _looked(study, name, neighbours) if name == "input" else _looked(study, name, sized, f"{name}, ")
        collections.deque(making, 0)


def _looked(study: Study, name: str, made: Making, prefix: str = "") -> Iterator[str]:
    """Inputs made of another that the model accepts, as far as the time goes, by name."""
    started = time.thread_time()

    def accepted(probe: Probe) -> bool:
        says = prefix + probe.says
        if time.thread_time() - started > max(_PROBED * study.seconds, SECONDS):
            return False
        return says in study.known or _known(study, study.known, says, probe)

    for probe in made(study.first.adapter.input_schema.flatten(moved(study.known[name].inputs, None, name)), accepted):
        yield prefix + probe.says


def scatter(study: Study) -> None:
    """Makes inputs of several more sizes, as far as the time goes: what it does in a trace may be right at some."""
    for _ in _looked(study, "input", scattered):
        pass


def _known(study: Study, known: dict[str, Known], says: str, probe: Probe) -> bool:
    """Keeps a probe with what the model gives for it; one that the model itself refuses tells nothing."""
    made = study.first.adapter.input_schema.unflatten(probe.flat)
    with warnings.catch_warnings(), bounded():
        warnings.simplefilter("ignore")  # of inputs that nobody gave
        try:
            known[says] = Known(says, made, study.task.run(made, says), False)
        except HybridJitError:
            return False
    return True


def enough(study: Study, settings: Settings, groups: list[list[Seen]]) -> list[list[Seen]]:
    """The same with captures at other sizes for inputs that have a path of their own, and no such capture yet."""
    more: list[Seen] = []
    for group in groups[1:]:
        joining = next((seen.name for seen in group if study.known[seen.name].joins), None)
        if joining is not None and len(group) == 1 and group[0].captured.leaks:
            more += _resized(study, settings, joining)
    return same_program([*(seen for group in groups for seen in group), *more]) if more else groups


def _resized(study: Study, settings: Settings, name: str) -> list[Seen]:
    """Captures of an input at other sizes, as far as the time goes."""
    found: list[Seen] = []
    for says in _looked(study, name, sized, f"{name}, "):
        try:
            found.append(study.seen(settings, says))
        except HybridJitError:
            continue
    return found


def listened(task: Task, known: Known, settings: Settings) -> dict[Hashable, list[Arguments]]:
    """What an input gives some submodules: as in a trace, if the model does not refuse that."""
    for around in (contextlib.nullcontext,) if settings.as_eager else (pretending, contextlib.nullcontext):
        inputs = moved(known.inputs, None, known.name)
        torch.manual_seed(SEED)
        listens = listening(task.model, settings.branches, settings.meets, settings.merges)
        try:
            with torch.no_grad(), around(), listens as found:
                task.model(*inputs.args, **inputs.kwargs)
            break
        except Exception:
            if around is contextlib.nullcontext:
                raise
        finally:
            task.state.restore(thorough=True)
    return found
