"""``format="onnx"``: through torch.export, or through the trace; run by onnxruntime."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import _torch
from .._describe import describe
from .._errors import CaptureError, InputError, UnsupportedError, compose
from ..adapters.schema import ValueSchema, flat_name
from . import pt2
from .devices import Runner, case_of, moved
from .entries import FORWARD
from .looped import turns_that_raise
from .onnx_file import append_metadata, imported, write
from .onnx_merge import METHOD, WRONG, Call, Graph, merge
from .onnx_rewrites import rewrite
from .onnx_types import state_types
from .opened import Waiting
from .quiet import quiet
from .report import Finding, Guard
from .rewrites import count_for_any, sort_by_topk, whole_of_floats
from .shapes import Place, Variable
from .sizes import Size, input_sizes
from .subject import CapturedEntry, Loaded, Subject, Written
from .view import view_of

__all__ = ["append_metadata", "check", "code", "load", "pack", "places", "routes"]

_OPSET = 18


def check(subject: Subject) -> None:
    """Refuses to begin without the packages, and with tensors that onnxruntime can't take."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        imported(name)
    for name, tensor in zip(subject.call.names(), subject.flat, strict=True):
        _array(tensor, name)


def places(home: torch.device) -> list[torch.device] | None:
    """The CPU, on which onnxruntime runs here; the file itself names no device."""
    return [torch.device("cpu")]


def routes(subject: Subject) -> Sequence[Any]:
    """Through torch.export, then through the trace; only that where ``branches`` rewrites it."""
    return [Traced()] if subject.request.branches else [Translated(), Traced()]


class Translated:
    """Through torch.export: ``torch.onnx.export(program, dynamo=True)``."""

    name = "torch.export and torch.onnx"
    from_zero = True

    def capture(self, subject: Subject, specs: Sequence[Mapping[int, Any]]) -> tuple[Any, Written]:
        """Captures the model and translates it."""
        program, written = pt2.capture(subject, specs)
        names = written.call.names()
        results = result_names(written.result, [*names, *_chosen(subject)])
        if (wide := whole_of_floats(program)) is not None:
            raise CaptureError(
                compose(
                    "torch's translation to ONNX computes Python's floats with 32 bits",
                    where=_line(wide.meta.get("stack_trace") or ""),
                    differences=["a size, or whether a condition holds, is computed by way of a float"],
                    instead="whole numbers: x.shape[0] * 3 // 5 for int(x.shape[0] * 0.6)",
                    page="captureerror",
                )
            )
        sort_by_topk(program)
        count_for_any(program)
        with _silent(), _explained(subject, self.name), _torch.onnx_functions():
            made: Any = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                opset_version=_OPSET,
                input_names=names,
                output_names=results,
            )
        sizes = _spelled(written, specs, program)
        operations = sum(1 for _ in made.model.graph)

        def make() -> Any:  # its tensors are the model's own until then
            model = made.model_proto
            _name_sizes(model, sizes)
            return model

        planned = subject.planned
        graph = Graph(make, planned.method, planned.flags, names, results)
        sizes_limited = [each for each in written.variables if each.most is not None]
        limits = [_holds(f"{each.name} is at most {each.most}") for each in sizes_limited]
        findings = (*written.findings, *limits)
        return graph, dataclasses.replace(written, operations=operations, findings=findings, metadata={})


def _chosen(subject: Subject) -> list[str]:
    """What the inputs are called that choose an entry."""
    return [flag.name for flag, _ in subject.planned.flags] + ([METHOD] if subject.several else [])


def _spelled(written: Written, specs: Sequence[Mapping[int, Any]], program: Any) -> dict[str, str]:
    """What the program's symbols are called: as the user's ``Dim``, else by argument and dimension."""
    rows = input_sizes(program)
    found: dict[str, str] = {}
    for variable in written.variables:
        for place in variable.places:
            size = rows[place.tensor][place.dim]
            spec = specs[place.tensor].get(place.dim)
            name = getattr(spec, "__name__", "") if place.times == 1 and not place.plus else ""
            if isinstance(size, Size) and (name or size.symbol not in found):
                found[size.symbol] = name or flat_name(variable.name)
    return found


def _name_sizes(model: Any, names: Mapping[str, str]) -> None:
    """Gives sizes that are fixed their number, which torch writes as a name, so that no other is let in."""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param.isdigit():
                dim.dim_value = int(dim.dim_param)
            elif dim.dim_param:
                dim.dim_param = re.sub(r"\w+", lambda each: names.get(each[0], each[0]), dim.dim_param)


class Traced:
    """Through the verified TorchScript file: ``torch.onnx.export(module, dynamo=False)``."""

    name = "the trace"
    from_zero = False

    def capture(self, subject: Subject, specs: Sequence[Mapping[int, Any]]) -> tuple[Any, Written]:
        """Captures the model and translates it."""
        from .export import export

        request, planned = subject.request, subject.planned
        (first, *others) = planned.calls.values()
        traced = export(
            view_of(subject.model, planned.point),
            moved(first, None, "input"),
            branches=request.branches,
            dynamic_shapes=request.dynamic_shapes if planned.method == FORWARD else None,
            check_inputs=others,
            rtol=request.rtol,
            atol=request.atol,
        )
        (entry,) = traced._entries
        names = entry.call.names()
        results = result_names(entry.result, [*names, *_chosen(subject)])
        axes = {name: {dim: f"{name}_{dim}" for dim in row} for name, row in zip(names, specs, strict=True) if row}
        turns = turns_that_raise(traced.module)
        rewrite(traced.module)
        state_types(traced.module, (entry.call.flatten(moved(each, None, "input")) for each in planned.calls.values()))
        with tempfile.TemporaryDirectory(prefix="hybridjit-") as folder:
            path = Path(folder) / "module.onnx"
            with _silent(), _explained(subject, self.name):
                _torch.export_onnx(
                    traced.module,
                    subject.flat,
                    path,
                    opset_version=_OPSET,
                    input_names=names,
                    output_names=results,
                    dynamic_axes=axes,
                )
            model = imported("onnx").load(path)
        report = traced.report
        written = Written(
            entry.call,
            entry.result,
            _variables(subject, names, specs),
            len(model.graph.node),
            (*report.findings, *map(_precondition, report.guards), *map(_holds, turns)),
            report.statics,
            report.scripted,
            branches=report.branches,
        )
        return Graph(lambda: model, planned.method, planned.flags, names, results), written


def pack(entries: Sequence[CapturedEntry], path: Path) -> Mapping[str, Any]:
    """Writes the graphs as one model: flags and methods are inputs, weights are there once."""
    graphs = [each.made for each in entries]
    if len(graphs) == 1 and not graphs[0].flags:
        calls: list[Call] = [(graphs[0].inputs, graphs[0].outputs, {})]
        model = graphs[0].make()
    else:
        model, calls = merge(imported("onnx"), graphs)
    return {**write(model, path), "onnx": [list(each) for each in calls]}


def _precondition(guard: Guard) -> Finding:
    found = _holds(f"{guard.what} is {guard.value}")
    return dataclasses.replace(
        found, file=guard.file, line=guard.line, module_path=guard.module_path, count=guard.count
    )


def _holds(what: str) -> Finding:
    return Finding("HJ307", "warning", f"must hold, since ONNX can't raise: {what}")


def _variables(subject: Subject, names: Sequence[str], specs: Sequence[Mapping[int, Any]]) -> tuple[Variable, ...]:
    """The sizes to verify at where nothing was declared: equal ones at the same dimension change together."""
    found: dict[tuple[int, int], Variable] = {}
    for index, row in enumerate(specs):
        for dim in row:
            size = subject.flat[index].shape[dim]
            before = found.get((size, dim))
            places = (*(before.places if before else ()), Place(index, dim))
            name = before.name if before else f"{names[index]}[{dim}]"
            found[size, dim] = Variable(name, size, 0, None, False, places)
    return tuple(found.values())


def result_names(result: ValueSchema, taken: Sequence[str]) -> list[str]:
    """What the tensors of a result are called in the graph: by its fields, none as an argument is.

    Args:
        result: The structure of the result.
        taken: What the arguments are called.
    """
    names: list[str] = []
    for path in result.paths():
        name = stem = flat_name(re.sub(r"^\W+", "", path)) if path else "result"
        count = 1
        while name in (*taken, *names):
            count += 1
            name = f"{stem}_{count}"
        names.append(name)
    return names


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    with quiet(), contextlib.redirect_stdout(io.StringIO()):
        yield


@contextlib.contextmanager
def _explained(subject: Subject, route: str) -> Iterator[None]:
    try:
        with torch.no_grad():
            yield
    except Exception as error:
        first: BaseException = error
        while first.__cause__ is not None:
            first = first.__cause__
        rows = [row.strip() for row in f"{first}\n{error}".splitlines() if row.strip()]
        cause = [row for row in rows if re.search(r"[Nn]o ONNX function|not supported|[Uu]nsupported|Error:", row)]
        raise CaptureError(
            compose(
                f"{type(subject.model).__qualname__} can't be written as ONNX by way of {route}",
                where=_line(str(error)),
                differences=[f"{type(error).__name__}: {(cause or rows or [''])[0]}"],
                instead='operations that ONNX has; or format="torchscript"',
                page="captureerror",
            )
        ) from error


def _line(text: str) -> str:
    """The user's line that an exporter's message names, if it does."""
    from .._sites import is_users

    found = re.findall(r'File "([^"]+)", line (\d+)|(/\S+\.py)[:(](\d+)', text)
    for one, line, other, number in reversed(found):
        if is_users(one or other):
            return f"{one or other}:{line or number}"
    return ""


def _array(tensor: Tensor, name: str) -> Any:
    try:
        return tensor.detach().contiguous().resolve_conj().resolve_neg().numpy()
    except (TypeError, RuntimeError) as error:
        raise UnsupportedError(
            compose(
                "format 'onnx' can't take such a tensor",
                differences=[f"{name}: {describe(tensor)}", str(error).splitlines()[0]],
                instead=f"{name}.float(), or format='torchscript'",
                page="unsupportederror",
            )
        ) from error


class Session(Runner):
    """Runs an ONNX file with onnxruntime, on the CPU.

    Args:
        path: The file.
        metadata: What was written into it.
    """

    def __init__(self, path: str, metadata: Mapping[str, Any]) -> None:
        rows = zip(metadata["cases"], metadata["onnx"], strict=True)
        super().__init__({case_of(case): partial(self._call, *call) for case, call in rows})
        runtime = imported("onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # what fails is an error here
        try:
            self.session: Any = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own kinds differ by release
            if type(error).__module__.split(".")[0] != "onnxruntime":
                raise
            text = str(error).strip().splitlines()
            raise CaptureError(
                compose(
                    "onnxruntime takes no such graph",
                    differences=[text[0] if text else type(error).__name__],
                    instead='another release of onnxruntime, or format="torchscript"',
                    page="captureerror",
                )
            ) from error
        taken = (*self.session.get_inputs(), *self.session.get_overridable_initializers())
        self.taken: set[str] = {each.name for each in taken}

    def _call(self, inputs: Sequence[str], outputs: Sequence[str], chosen: Mapping[str, Any], *flat: Tensor) -> Any:
        import numpy  # which onnxruntime needs, and torch does not

        pairs = zip(inputs, flat, strict=True)
        feed = {name: _array(tensor.cpu(), name) for name, tensor in pairs if name in self.taken}
        for name, value in chosen.items():
            feed[name] = numpy.array(value, dtype=object if isinstance(value, str) else None)
        try:
            results = self.session.run(outputs, feed)
        except Exception as error:  # onnxruntime's own kinds differ by release
            if type(error).__module__.split(".")[0] != "onnxruntime":
                raise
            text = str(error).strip().splitlines()
            failed = re.search(rf"{WRONG}(.*?)' Status", str(error))
            if failed:
                raise RuntimeError(f"Guard failed: {failed[1]}") from error
            raise RuntimeError(f"onnxruntime: {text[0] if text else type(error).__name__}") from error
        return tuple(torch.from_numpy(each) for each in results)


def load(path: Path, metadata: Mapping[str, Any], device: torch.device | None) -> Loaded:
    """Reads an ONNX file.

    Raises:
        InputError: Another device than the CPU is asked for.
    """
    if device is not None and device.type != "cpu":
        raise InputError(
            compose(
                "an ONNX file runs on the CPU here",
                differences=[f"expected cpu, got {device}"],
                instead=f'load("{path.name}"), or onnxruntime with the provider of that device',
                page="inputerror",
            )
        )
    return Loaded(Waiting(path, imported("onnx").load_from_string), Session(os.path.realpath(path), metadata))


def code(raw: Any) -> str:
    """The graph in ONNX's own notation, without the metadata."""
    onnx = imported("onnx")
    plain = onnx.ModelProto()
    plain.CopyFrom(raw)
    del plain.metadata_props[:]
    return str(onnx.printer.to_text(plain))
