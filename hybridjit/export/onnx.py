"""``format="onnx"``: through torch.export, or through the trace; run by onnxruntime."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import _torch
from .._describe import describe
from .._errors import ArchiveError, CaptureError, InputError, UnsupportedError, compose
from ..adapters.schema import ValueSchema, flat_name
from . import archive, pt2
from .devices import Runner, moved
from .quiet import quiet
from .report import Finding, Guard
from .shapes import Place, Variable
from .sizes import Size, input_sizes
from .subject import Loaded, Subject, Written

__all__ = ["append_metadata", "check", "code", "load", "places", "routes"]

_OPSET = 18
_MOST = (1 << 31) - (1 << 20)
"""How many bytes a file may have: one protobuf message, which ends at 2 GB."""


def _imported(name: str) -> Any:
    """A package of the extra.

    Raises:
        UnsupportedError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UnsupportedError(
            compose(
                f"format 'onnx' needs the package {error.name or name}, which is not installed",
                instead="pip install hybridjit[onnx]",
                page="unsupportederror",
            )
        ) from error


def check(subject: Subject) -> None:
    """Refuses to begin without the packages, and with tensors that onnxruntime can't take."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        _imported(name)
    size = sum(tensor.nbytes for tensor in [*subject.model.parameters(), *subject.model.buffers()])
    if size > _MOST:
        raise UnsupportedError(
            compose(
                "format 'onnx' writes one file, which can't have more than 2 GB",
                differences=[f"the model's tensors have {size:,} bytes"],
                instead='format="pt2", or the model in half precision',
                page="unsupportederror",
            )
        )
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

    def write(self, subject: Subject, specs: Sequence[Mapping[int, Any]], path: Path) -> Written:
        """Captures the model and writes the file."""
        program, written = pt2.capture(subject, specs)
        with quiet(), contextlib.redirect_stdout(io.StringIO()), _explained(subject, self.name):
            made: Any = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                opset_version=_OPSET,
                input_names=written.call.names(),
                output_names=result_names(written.result, written.call.names()),
            )
            model = made.model_proto
            _name_sizes(model, _spelled(written, specs, program))
        path.write_bytes(model.SerializeToString())
        found = {"onnx_inputs": written.call.names()}
        return dataclasses.replace(written, operations=len(model.graph.node), metadata=found)


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

    def write(self, subject: Subject, specs: Sequence[Mapping[int, Any]], path: Path) -> Written:
        """Captures the model and writes the file."""
        from .export import export

        request = subject.request
        (first, *others) = subject.calls.values()
        traced = export(
            subject.model,
            moved(first, None, "input"),
            branches=request.branches,
            dynamic_shapes=request.dynamic_shapes,
            check_inputs=others,
            rtol=request.rtol,
            atol=request.atol,
        )
        (entry,) = traced._entries
        names = entry.call.names()
        axes = {name: {dim: f"{name}_{dim}" for dim in row} for name, row in zip(names, specs, strict=True) if row}
        with quiet(), contextlib.redirect_stdout(io.StringIO()), _explained(subject, self.name):
            _torch.export_onnx(
                traced.module,
                subject.flat,
                path,
                opset_version=_OPSET,
                input_names=names,
                output_names=result_names(entry.result, names),
                dynamic_axes=axes,
            )
        report = traced.report
        return Written(
            entry.call,
            entry.result,
            _variables(subject, names, specs),
            len(_imported("onnx").load(path).graph.node),
            (*report.findings, *map(_precondition, report.guards)),
            report.statics,
            report.scripted,
            metadata={"onnx_inputs": names},
        )


def _precondition(guard: Guard) -> Finding:
    text = f"must hold, since ONNX can't raise: {guard.what} is {guard.value}"
    return Finding("HJ307", "warning", text, guard.file, guard.line, guard.module_path, count=guard.count)


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
def _explained(subject: Subject, route: str) -> Iterator[None]:
    try:
        with torch.no_grad():
            yield
    except Exception as error:
        rows = [row.strip() for row in str(error).splitlines() if row.strip()]
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
        data: The file's bytes.
        inputs: What its inputs are called in the order of the call; one that the graph does not use may be missing.
    """

    def __init__(self, data: bytes, inputs: Sequence[str]) -> None:
        super().__init__()
        runtime = _imported("onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # what fails is an error here
        self.session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self.taken = {each.name for each in self.session.get_inputs()}
        self.inputs = list(inputs)

    def forward(self, *flat: Tensor) -> tuple[Tensor, ...]:
        """Runs it on flat tensors."""
        pairs = zip(self.inputs, flat, strict=True)
        feed = {name: _array(tensor.cpu(), name) for name, tensor in pairs if name in self.taken}
        try:
            results = self.session.run(None, feed)
        except Exception as error:  # onnxruntime's own kinds differ by release
            if type(error).__module__.split(".")[0] != "onnxruntime":
                raise
            text = str(error).strip().splitlines()
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
    data = path.read_bytes()
    raw = _imported("onnx").load_from_string(data)
    names = metadata.get("onnx_inputs") or [each.name for each in raw.graph.input]
    return Loaded(raw, Session(data, names))


def append_metadata(path: Path, metadata: Mapping[str, Any]) -> None:
    """Adds the metadata as a property of the model: bytes at the end, as protobuf has it."""
    data = path.read_bytes()
    sum_ = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    text = json.dumps({**metadata, "sum": sum_}, allow_nan=False)
    extra = _imported("onnx").ModelProto()
    extra.metadata_props.add(key=archive.METADATA, value=text)
    with path.open("ab") as out:
        out.write(extra.SerializeToString())


def read_metadata(path: Path) -> Any:
    """The metadata of an ONNX file.

    Raises:
        ArchiveError: It is none, not hybridjit's, or not as it was written: protobuf itself has no checksum.
    """
    onnx = _imported("onnx")
    data = path.read_bytes()
    try:
        model = onnx.load_from_string(data)
    except Exception as error:  # protobuf's own error, of whichever protobuf there is
        raise archive.broken(path, f"{type(error).__name__}: {error}") from error
    for each in model.metadata_props:
        if each.key == archive.METADATA:
            try:
                metadata = json.loads(each.value)
                size, wanted = metadata["sum"]["bytes"], metadata["sum"]["sha256"]
            except (ValueError, LookupError, TypeError) as error:
                raise archive.broken(path, f"its metadata can't be read: {error}") from error
            if hashlib.sha256(data[:size]).hexdigest() != wanted:
                raise archive.broken(path, "the graph does not match its checksum")
            return metadata
    raise ArchiveError(
        compose(
            f"{path.name} was not written by hybridjit",
            where=str(path),
            differences=[f"expected the model property {archive.METADATA}, got none"],
            instead="onnxruntime.InferenceSession(path) for a plain ONNX file",
            page="archiveerror",
        )
    )


def code(raw: Any) -> str:
    """The graph in ONNX's own notation, without the metadata."""
    onnx = _imported("onnx")
    plain = onnx.ModelProto()
    plain.CopyFrom(raw)
    del plain.metadata_props[:]
    return str(onnx.printer.to_text(plain))
