"""ONNX files: written with their large tensors beside them where one message can't hold them, read with checksums."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from .._errors import ArchiveError, UnsupportedError, compose
from . import archive
from .onnx_merge import initializers

MOST = (1 << 31) - (1 << 20)
"""How many bytes a file may have: one protobuf message, which ends at 2 GB."""
_BESIDE = 1 << 10
"""From how many bytes on a tensor goes into the file beside it."""
_ALIGNED = 1 << 12
"""Where each begins there, so that it can be mapped into memory."""


def imported(name: str) -> Any:
    """A package of the extra ``onnx``.

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


def write(model: Any, path: Path) -> dict[str, Any]:
    """Writes a model; of one that is too large for a message the tensors go into a file beside it.

    That file is called by its checksum, so that no model ever finds another's beside it.

    Args:
        model: The ``ModelProto``, which is taken apart.
        path: Where to.

    Returns:
        For the metadata: the size and checksum of the file beside it, by its name; nothing if there is none.
    """
    every = list(initializers(model.graph))
    if sum(len(tensor.raw_data) for tensor in every) <= MOST:
        _write_whole(model, path)
        return {}
    sum_, end = hashlib.sha256(), 0
    large = [tensor for tensor in every if len(tensor.raw_data) >= _BESIDE]
    data = path.with_suffix(".data")
    with data.open("wb") as out:
        for tensor in large:
            raw = tensor.raw_data
            piece = bytes(-end % _ALIGNED) + raw
            offset, end = end + len(piece) - len(raw), end + len(piece)
            out.write(piece)
            sum_.update(piece)
            tensor.ClearField("raw_data")
            tensor.data_location = tensor.EXTERNAL
            for key, value in (("offset", offset), ("length", len(raw))):
                tensor.external_data.add(key=key, value=str(value))
    digest = sum_.hexdigest()
    name = f"hybridjit-{digest[:16]}.data"
    for tensor in large:
        tensor.external_data.add(key="location", value=name)
    data.rename(path.with_name(name))
    path.write_bytes(model.SerializeToString())
    return {"beside": {name: {"bytes": end, "sha256": digest}}}


def _write_whole(model: Any, path: Path) -> None:
    """Writes one message, of which never more than a tensor is in memory twice."""
    graph = model.graph
    tensors = list(graph.initializer)
    del graph.initializer[:]
    rest = graph.SerializeToString()
    model.ClearField("graph")
    number = imported("onnx").GraphProto.INITIALIZER_FIELD_NUMBER
    heads = [_head(number, tensor.ByteSize()) for tensor in tensors]
    sizes = [len(head) + tensor.ByteSize() for head, tensor in zip(heads, tensors, strict=True)]
    with path.open("wb") as out:
        out.write(model.SerializeToString())
        out.write(_head(type(model).GRAPH_FIELD_NUMBER, len(rest) + sum(sizes)) + rest)
        for head, tensor in zip(heads, tensors, strict=True):
            out.write(head)
            out.write(tensor.SerializeToString())


def _head(number: int, size: int) -> bytes:
    """What stands before a field of so many bytes."""
    found = bytearray()
    for value in (number << 3 | 2, size):
        while value > 127:
            found.append(value & 127 | 128)
            value >>= 7
        found.append(value)
    return bytes(found)


def append_metadata(path: Path, metadata: Mapping[str, Any]) -> None:
    """Adds the metadata as a property of the model: bytes at the end, as protobuf has it."""
    with path.open("rb") as file:
        sum_ = {"bytes": path.stat().st_size, "sha256": _digest(file)}
    text = json.dumps({**metadata, "sum": sum_}, allow_nan=False)
    extra = imported("onnx").ModelProto()
    extra.metadata_props.add(key=archive.METADATA, value=text)
    with path.open("ab") as out:
        out.write(extra.SerializeToString())


def read_metadata(path: Path) -> Any:
    """The metadata of an ONNX file.

    Raises:
        ArchiveError: It is none, not hybridjit's, or not as it was written: protobuf itself has no checksum.
    """
    with path.open("rb") as file:
        try:
            found = dict(_properties(file)).get(archive.METADATA)
        except Exception as error:  # protobuf's own error too, of whichever protobuf there is
            raise archive.broken(path, f"{type(error).__name__}: {error}") from error
        if found is not None:
            try:
                metadata = json.loads(found)
                size, wanted = int(metadata["sum"]["bytes"]), metadata["sum"]["sha256"]
            except (ValueError, LookupError, TypeError) as error:
                raise archive.broken(path, f"its metadata can't be read: {error}") from error
            file.seek(0)
            if _digest(file, size) != wanted:
                raise archive.broken(path, "the graph does not match its checksum")
            for name, wanted in metadata.get("beside", {}).items():
                _check_beside(path, name, wanted["sha256"])
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


def _check_beside(path: Path, name: str, wanted: str) -> None:
    beside = path.resolve().with_name(name)
    if not beside.is_file():
        raise archive.broken(path, f"the file {name}, which has its weights, is not beside it")
    with beside.open("rb") as file:
        if _digest(file) != wanted:
            raise archive.broken(path, f"the file {name} beside it does not match its checksum")


def _digest(file: BinaryIO, size: int | None = None) -> str:
    """The checksum of what is in a file from here on, or of so many bytes of it."""
    sum_ = hashlib.sha256()
    left = size
    while chunk := file.read(1 << 20 if left is None else min(left, 1 << 20)):
        sum_.update(chunk)
        left = None if left is None else left - len(chunk)
    return sum_.hexdigest()


def _properties(file: BinaryIO) -> Iterator[tuple[str, str]]:
    """The metadata of a model, without the rest of the message in memory, which has the weights.

    Raises:
        ValueError: It is no such message.
    """

    def number() -> int:
        value = shift = 0
        while shift < 64 and (byte := file.read(1)):
            value |= (byte[0] & 127) << shift
            if byte[0] < 128:
                return value
            shift += 7
        raise ValueError("it ends within a number")

    end = file.seek(0, io.SEEK_END)
    file.seek(0)
    while file.tell() < end:
        tag = number()
        if tag & 7 not in _WIDTHS:
            raise ValueError(f"it has a field of kind {tag & 7}")
        if (width := _WIDTHS[tag & 7]) is None:
            width = number()
        elif not width:
            number()
        if file.tell() + width > end:
            raise ValueError("it ends within a field")
        if tag >> 3 == imported("onnx").ModelProto.METADATA_PROPS_FIELD_NUMBER:
            entry = imported("onnx").StringStringEntryProto.FromString(file.read(width))
            yield entry.key, entry.value
        else:
            file.seek(width, io.SEEK_CUR)


_WIDTHS = {0: 0, 1: 8, 2: None, 5: 4}
"""How many bytes a field of protobuf's takes, by its kind: 0 if a number, and ``None`` if it is told by one."""
