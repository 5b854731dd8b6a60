"""A model of a Triton Inference Server's repository: the file, and the ``config.pbtxt`` that fits it."""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._describe import describe
from .._errors import ArchiveError, InputError, UnsupportedError, compose
from ..adapters.schema import flat_name
from .archive import KeptFile
from .atomic import write_atomically
from .entries import FORWARD, Entries, Entry
from .tensors import ANY, Kinds, TensorKind

if TYPE_CHECKING:
    from .exported import Exported

_PLATFORMS = {"torchscript": ("pytorch_libtorch", "model.pt"), "onnx": ("onnxruntime_onnx", "model.onnx")}
"""What the servers of a format are called in a configuration, and the file that they look for."""
_TYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "bfloat16": "BF16",
}
_NOT_IN_LIBTORCH = ("uint16", "uint32", "uint64", "bfloat16")
"""What the configuration has a name for, and the libtorch backend no conversion."""


@dataclass(frozen=True)
class Port:
    """One ``input`` or ``output`` of a configuration.

    Attributes:
        name: What requests call it.
        kind: Its dtype and sizes; ``None`` where they differ from call to call.
        path: What the model calls it, in messages.
    """

    name: str
    kind: TensorKind | None
    path: str


def write_model(exported: Exported, entries: Entries, kinds: Kinds | None, folder: Path, version: int) -> None:
    """Writes a model's folder.

    Args:
        exported: What to serve.
        entries: Its entries.
        kinds: The tensors of its ``forward``; only TorchScript, whose file does not tell, has them.
        folder: Where to; its name is the model's.
        version: The version.

    Raises:
        UnsupportedError: Triton can't serve it.
        ArchiveError: A configuration for other tensors is there, or the files can't be written.
        InputError: The version is none.
    """
    if type(version) is not int or version < 1:
        raise InputError(
            compose(
                "save_triton takes a version, counted from 1",
                differences=[
                    f"expected an int of 1 or more, got {version if type(version) is int else describe(version)}"
                ],
                instead='exported.save_triton("models/name", version=2)',
                page="inputerror",
            )
        )
    text = configuration(exported, entries, kinds, folder.resolve().name)
    file = folder / str(version) / _PLATFORMS[exported.format][1]
    try:
        written = folder / "config.pbtxt"
        keep = written.exists() and _agrees(written, text)
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if isinstance(error, ArchiveError):
            raise
        raise ArchiveError(
            compose(
                f"{folder.name} could not be written: {error.strerror or error}",
                where=str(folder),
                instead="a folder in a model repository that can be written",
                page="archiveerror",
            )
        ) from error
    exported.save(file)
    if not keep:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            write_atomically(KeptFile(Path(out.name)), written)


def _agrees(written: Path, text: str) -> bool:
    """Whether a configuration that is there is this one, with whatever was added to it.

    Raises:
        ArchiveError: It is another.
    """
    there = written.read_text(encoding="utf-8")
    if there.startswith(text):
        return True
    pairs = zip([*there.splitlines(), *[""] * len(text.splitlines())], text.splitlines(), strict=False)
    found, wanted = next(((one.strip(), other.strip()) for one, other in pairs if one != other), ("", ""))
    raise ArchiveError(
        compose(
            "the model's folder has a configuration for something else",
            where=str(written),
            differences=[f"expected {wanted}, got {found or 'its end'}"],
            instead="another folder; or remove the file, which is then written anew",
            page="archiveerror",
        )
    )


def configuration(exported: Exported, entries: Entries, kinds: Kinds | None, name: str) -> str:
    """The text of ``config.pbtxt``.

    Args:
        exported: What to serve.
        entries: Its entries.
        kinds: As for `write_model`.
        name: What the model is called.

    Raises:
        UnsupportedError: Triton can't serve it.
    """
    if exported.format not in _PLATFORMS:
        raise _refused(
            f"Triton serves no file of format {exported.format!r} as it is",
            [],
            'export(..., format="torchscript") or format="onnx"',
        )
    entry = entries.of(FORWARD)[0]
    if entry.flags:
        flags = ", ".join(name for name in entry.combination)
        raise _refused(
            "Triton passes tensors alone, and forward takes flags",
            [f"its flags are {flags}"],
            f"a model for each combination: export(model, Inputs(..., {next(iter(entry.combination))}=...))",
        )
    inputs, outputs = _onnx_ports(exported.module) if exported.format == "onnx" else _script_ports(entry, kinds)
    wrong = [line for port in (*inputs, *outputs) for line in _wrong(port, exported.format)]
    if wrong:
        raise _refused(
            "Triton can't serve these tensors",
            wrong,
            "x.reshape(1) for a scalar, x.float() for another dtype, in a module around the model",
        )
    platform, _ = _PLATFORMS[exported.format]
    head = [
        "# Written by hybridjit. What is added below stays when the model is saved here again.",
        f"name: {json.dumps(name)}",
        f'platform: "{platform}"',
        "max_batch_size: 0",
    ]
    return "\n".join([*head, *_block("input", inputs), *_block("output", outputs)]) + "\n"


def _script_ports(entry: Entry, kinds: Kinds | None) -> tuple[list[Port], list[Port]]:
    """Inputs by the names of ``forward``'s arguments, outputs as ``name__place``: what the libtorch backend knows."""
    if kinds is None:
        raise _refused(
            "the file does not tell what its tensors are: it was written by an earlier version",
            [],
            "export the model again",
        )
    names = entry.call.names()
    inputs = [Port(name, kind, name) for name, kind in zip(names, kinds.taken, strict=True)]
    outputs = []
    for index, (path, key, kind) in enumerate(zip(entry.result.paths(), entry.keys, kinds.returned, strict=True)):
        # The backend reads the place after the first two underscores.
        stem = "_".join(part for part in (flat_name(path.lstrip(".")) if path else "result").split("_") if part)
        outputs.append(Port(f"{stem}__{index}", kind, key))
    return inputs, outputs


def _onnx_ports(model: Any) -> tuple[list[Port], list[Port]]:
    """Names, dtypes and sizes as the graph itself has them: the server compares."""
    helper: Any = importlib.import_module("onnx").helper

    def ports(values: Iterable[Any]) -> list[Port]:
        found = []
        for value in values:
            kind = value.type.tensor_type
            sizes = tuple(each.dim_value if each.HasField("dim_value") else ANY for each in kind.shape.dim)
            told = TensorKind(helper.tensor_dtype_to_np_dtype(kind.elem_type).name, sizes)
            # Of several methods or structures a result may have any number of dimensions.
            found.append(Port(value.name, told if kind.HasField("shape") else None, value.name))
        return found

    stored = {each.name for each in model.graph.initializer}
    return ports(each for each in model.graph.input if each.name not in stored), ports(model.graph.output)


def _wrong(port: Port, format: str) -> list[str]:
    """Why Triton can't serve a tensor."""
    if port.kind is None:
        return [f"{port.path}: its dtype or number of dimensions differs from call to call"]
    unknown = port.kind.dtype not in _TYPES or (format == "torchscript" and port.kind.dtype in _NOT_IN_LIBTORCH)
    rows = [f"{port.path}: has no type for {port.kind.dtype}"] if unknown else []
    return rows + ([] if port.kind.sizes else [f"{port.path}: is a scalar"])


def _block(what: str, ports: Sequence[Port]) -> list[str]:
    rows = []
    for port in ports:
        assert port.kind is not None
        sizes = ", ".join(str(size or ANY) for size in port.kind.sizes)  # a size of 0 is none that it takes
        fields = [f"name: {json.dumps(port.name)}", f"data_type: TYPE_{_TYPES[port.kind.dtype]}", f"dims: [ {sizes} ]"]
        rows.append("\n    ".join(["  {", *fields]) + "\n  }")
    return [f"{what} [", ",\n".join(rows), "]"]


def _refused(what: str, differences: Sequence[str], instead: str) -> UnsupportedError:
    return UnsupportedError(compose(what, differences=differences, instead=instead, page="unsupportederror"))
