"""``format="pt2"``: the model through torch.export, as an ``ExportedProgram``."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import _torch
from .._describe import listed
from .._errors import CaptureError, HybridJitError, UnsupportedError, compose
from .._sites import is_users, site_of_error
from ..adapters.flatten import TracingAdapter
from ..control.record import Record, recording
from ..control.static import static_modules
from . import archive
from .devices import Runner, case_of, moved
from .packed import load_programs, moved_programs, save_programs
from .quiet import quiet
from .report import Finding, Scripted, Static
from .rewrites import add_by_twos, round_by_truncating
from .shapes import Place, Variable
from .sides import CountedProgram, points_from_json, points_to_json, take_points
from .sizes import Size, input_sizes, size_questions
from .state import SEED
from .subject import CapturedEntry, Loaded, Subject, Written
from .view import view_of

__all__ = ["append_metadata", "check", "code", "load", "pack", "places", "routes"]


def check(subject: Subject) -> None:
    """Refuses nothing: what torch.export can't hold it says itself."""


def places(home: torch.device) -> list[torch.device] | None:
    """Any device: a program is moved when it is loaded."""
    return None


class Program:
    """The one way: ``torch.export.export``, without Dynamo."""

    name = "torch.export"
    from_zero = True

    def capture(self, subject: Subject, specs: Sequence[Mapping[int, Any]]) -> tuple[Any, Written]:
        """Captures the model."""
        return capture(subject, specs)


def pack(entries: Sequence[CapturedEntry], path: Path) -> Mapping[str, Any]:
    """Saves the programs, their weights once."""
    try:
        with quiet():
            save_programs({each.name: each.made for each in entries}, path)
    except Exception as error:
        if "Failed serializing node" not in str(error):
            raise
        raise _unsaved(entries, str(error).splitlines()[0]) from error
    return {}


def _unsaved(entries: Sequence[CapturedEntry], text: str) -> CaptureError:
    nodes = [node for each in entries for node in each.made.graph.nodes if f" node {node.name} " in text]
    traces = [node.meta.get("stack_trace") or "" for node in nodes]
    lines = [place for place in re.findall(r'File "([^"]+)", line (\d+)', "".join(traces)) if is_users(place[0])]
    return CaptureError(
        compose(
            f"{type(entries[0].subject.model).__qualname__} is captured, but torch.export can't save its program",
            where=":".join(lines[-1]) if lines else "",
            differences=[text],
            instead="whole numbers of sizes: x.shape[0] * 3 // 5 for round(x.shape[0] * 0.6)",
            page="captureerror",
        )
    )


def routes(subject: Subject) -> Sequence[Program]:
    """The one way there is."""
    return [Program()]


def capture(subject: Subject, specs: Sequence[Mapping[int, Any]]) -> tuple[Any, Written]:
    """Captures the model with torch.export; the model comes back as it was.

    Args:
        subject: The model.
        specs: For each tensor what is declared of its dimensions.

    Returns:
        The ``ExportedProgram`` of flat tensors, and what was seen.

    Raises:
        CaptureError: torch.export refuses it.
    """
    if subject.from_zero:
        with _torch.sizes_from_zero():
            return _captured(subject, specs, Record(sizes=True))
    record = Record()
    try:
        return _captured(subject, specs, record)
    except (CaptureError, UnsupportedError):
        if not record.scripted:
            raise
        with contextlib.suppress(CaptureError, UnsupportedError):  # as Python, whose sizes torch.export may fix
            return _captured(subject, specs, Record(plain=True))
        raise


def _captured(subject: Subject, specs: Sequence[Mapping[int, Any]], record: Record) -> tuple[Any, Written]:
    """One try, with a record of its own."""
    model, state = subject.model, subject.state
    example = moved(subject.planned.calls[subject.example], None, subject.example)
    view = view_of(model, subject.planned.point)
    adapter = TracingAdapter(view, example.args, example.kwargs)
    adapter.expect(subject.expected)
    flat = adapter.flatten(*example.args, **example.kwargs)
    names = {id(module): name for name, module in model.named_modules()} | {id(view): ""}
    record.names = names
    torch.manual_seed(SEED)
    try:
        with torch.no_grad(), recording(record), quiet():
            program = torch.export.export(adapter, flat, dynamic_shapes=tuple(map(dict, specs)), strict=False)
    except HybridJitError:
        raise
    except Exception as error:
        raise _explained(subject, names, error) from error
    finally:
        state.restore(thorough=True)
    add_by_twos(program)
    round_by_truncating(program)
    call = adapter.input_schema
    paths = list(_paths(call.names(), flat))
    lines: dict[str, tuple[str, int]] = {}
    for sizes, file, line in size_questions(program):
        if is_users(file):
            for size in sizes:
                lines.setdefault(size, (file, line))
    rows = input_sizes(program)
    points = take_points(program)
    statics = [Static(s.value, s.reason, s.site.file, s.site.line, s.site.module_path) for s in record.statics]
    modes = [
        Static(f"training={getattr(module, 'training', False)}", reason, module_path=names[id(module)])
        for module, reason in static_modules(model).items()
    ]
    scripted = [Scripted(p.name, p.site.file, p.site.line, p.site.module_path) for p in record.scripted]
    return program, Written(
        call,
        adapter.output_schema,
        _variables(call.names(), rows, flat),
        sum(node.op == "call_function" for node in program.graph.nodes),
        (_found(paths, rows), *_fixed(paths, rows, lines)),
        (*modes, *statics),
        tuple(scripted),
        lines=lines,
        metadata={"sizes": [[_spell(size) for size in row] for row in rows], "points": points_to_json(points)},
        program=program,
        points=points,
    )


def _spell(size: int | Size | None) -> Any:
    return [size.symbol, size.times, size.plus, size.least, size.most] if isinstance(size, Size) else size


def _paths(names: Sequence[str], flat: Sequence[Tensor]) -> list[list[str]]:
    """The sizes of the tensors of a call: ``x[0]``, ``x[1]``."""
    return [[f"{name}[{dim}]" for dim in range(tensor.dim())] for name, tensor in zip(names, flat, strict=True)]


def _variables(
    names: Sequence[str], rows: Sequence[Sequence[int | Size | None]], flat: Sequence[Tensor]
) -> tuple[Variable, ...]:
    """The sizes that may change, each under the name of the first dimension that has it."""
    places: dict[str, list[Place]] = {}
    sizes: dict[str, Size] = {}
    for index, row in enumerate(rows):
        for dim, size in enumerate(row):
            if isinstance(size, Size):
                sizes[size.symbol] = size
                places.setdefault(size.symbol, []).append(Place(index, dim, size.times, size.plus))
    found = []
    for symbol, size in sizes.items():
        first = places[symbol][0]
        now = (flat[first.tensor].shape[first.dim] - first.plus) // first.times
        # torch.export takes 0 and 1 to be like any larger size, and lets them in.
        least = 0 if size.least <= 2 else size.least
        least = max([least, *(-(place.plus // place.times) for place in places[symbol] if place.plus < 0)])
        name = f"{names[first.tensor]}[{first.dim}]"
        found.append(Variable(name, now, least, size.most, False, tuple(places[symbol])))
    return tuple(found)


def _found(paths: Sequence[Sequence[str]], rows: Sequence[Sequence[int | Size | None]]) -> Finding:
    together: dict[object, list[str]] = {}
    fixed = []
    for names, row in zip(paths, rows, strict=True):
        for name, size in zip(names, row, strict=True):
            if isinstance(size, int):
                fixed.append(f"{name} = {size}")
            else:
                together.setdefault(size.symbol if size else name, []).append(name)
    said = listed(" with ".join(names) for names in together.values()) or "none"
    text = f"sizes that may change: {said}" + (f"; fixed: {listed(fixed)}" if fixed else "")
    return Finding("HJ304", "note", text)


def _fixed(
    paths: Sequence[Sequence[str]],
    rows: Sequence[Sequence[int | Size | None]],
    lines: Mapping[str, tuple[str, int]],
) -> list[Finding]:
    """The sizes that a line of the user's fixed."""
    found = []
    for names, row in zip(paths, rows, strict=True):
        for name, size in zip(names, row, strict=True):
            key = re.sub(r"\[(\d+)\]$", r".size()[\1]", name)
            if isinstance(size, int) and key in lines:
                file, line = lines[key]
                text = f"fixed at size {size}: {name}"
                found.append(Finding("HJ305", "note", text, file, line, fix=FIX_SIZE))
    return found


FIX_SIZE = "x.shape[0] as it is, without int(), len() or a comparison with a number"
_BRANCH = (
    "hybridjit.cond, which takes a tensor or a comparison of sizes;\n"
    "or, for an if on a tensor, @hybridjit.branch_if_tracing on the function with it"
)
_ANY = 'the operations at this line on tensors, hybridjit.cond or a loop function;\nor format="torchscript"'
# What torch.export refuses, by its own words.
_FIXES = {
    r"data-dependent expression|data-dependent control flow|GuardOnDataDependent": _BRANCH,
    r"[Cc]onstraints violated|specialized it to be a constant|marked .* as dynamic": "Dim.AUTO or Dim.STATIC for this "
    f"size in dynamic_shapes;\nor {FIX_SIZE}",
    r"must be registered as buffers?|was assigned during export": "self.register_buffer(...) in __init__, and an "
    "in-place write (copy_) of the same sizes in forward;\nor format='torchscript', which has buffers that grow",
    r"unsupported operator|doesn't exist in FakeTensor|not implemented": "an operation that torch.export knows; or "
    'format="torchscript"',
    r"torch\.jit|ScriptModule|ScriptFunction": "the module as it was before torch.jit.script",
}


def _explained(subject: Subject, names: dict[int, str], error: Exception) -> CaptureError:
    text = str(error).strip()
    rows = [row.strip(" -") for row in text.splitlines() if row.strip()]
    first = rows[0] if rows else ""
    told = [row for row in rows[1:] if row.startswith(("You marked", "Not all values"))]
    site = site_of_error(names, error)
    differences = [f"{type(error).__name__}: {first}", *told]
    instead = next((fix for pattern, fix in _FIXES.items() if re.search(pattern, text)), "")
    if re.search(r"[Cc]onstraints violated", text):  # raised at the end, at no line of the user's
        differences += [f"{size}: asked at {user}" for size, user in _asked(subject)]
    return CaptureError(
        compose(
            f"{type(subject.model).__qualname__} runs in eager mode but torch.export refuses it",
            where=str(site) if site.line else type(subject.model).__qualname__,
            differences=differences,
            instead=instead or _ANY,
            page="captureerror",
        )
    )


def _asked(subject: Subject) -> list[tuple[str, str]]:
    """Which lines fixed which sizes, found by a capture in which every size may turn out to be fixed."""
    free = [dict.fromkeys(range(tensor.dim()), torch.export.Dim.AUTO) for tensor in subject.flat]
    try:
        _, written = _captured(subject, free, Record())
    except CaptureError:
        return []
    fixed = [finding for finding in written.findings if finding.code == "HJ305"]
    return [(f.message.removeprefix("fixed at "), f"{f.file}:{f.line}") for f in fixed]


class ProgramRunner(Runner):
    """Runs the programs of a file.

    Args:
        programs: Each ``ExportedProgram`` by its name.
        cases: What is called by what name.
    """

    counts = True

    def __init__(self, programs: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]) -> None:
        runs = {name: program.module() for name, program in programs.items()}
        super().__init__({case_of(each): runs[each["program"]] for each in cases})
        for each in cases:
            self.counted[case_of(each)] = CountedProgram(runs[each["program"]], points_from_json(each["points"]))
        self._of = dict(programs), list(cases)
        first: Any = next(iter(runs.values()))  # each has all the buffers, in one memory
        if hasattr(first, "model"):
            self.model: Any = first.model

    def moved(self, device: torch.device) -> Runner:
        """The same on a device."""
        return ProgramRunner(moved_programs(self._of[0], device), self._of[1])


def load(path: Path, metadata: Mapping[str, Any], device: torch.device | None) -> Loaded:
    """Reads the programs."""
    programs = load_programs(path)
    if device is not None:
        programs = moved_programs(programs, device)
    raw = programs["model"] if len(programs) == 1 else programs
    return Loaded(raw, ProgramRunner(programs, metadata["cases"]))


def append_metadata(path: Path, metadata: Mapping[str, Any]) -> None:
    """Adds the metadata as one of the program's extra files."""
    archive.append_metadata(path, metadata)


def code(raw: Any) -> str:
    """The programs' Python code."""
    return "\n".join(f"{name}: {each}" for name, each in raw.items()) if isinstance(raw, dict) else str(raw)
