"""ONNX files: written with their large tensors beside them where one message can't hold them, read with checksums."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
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
        model: The ``ModelProto``, of which large tensors are taken out.
        path: Where to.

    Returns:
        For the metadata: the size and checksum of the file beside it, by its name; nothing if there is none.
    """
    every = list(initializers(model.graph))
    if sum(len(tensor.raw_data) for tensor in every) <= MOST:
        path.write_bytes(model.SerializeToString())
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


def append_metadata(path: Path, metadata: Mapping[str, Any]) -> None:
    """Adds the metadata as a property of the model: bytes at the end, as protobuf has it."""
    data = path.read_bytes()
    sum_ = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
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
    onnx = imported("onnx")
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


def _digest(file: BinaryIO) -> str:
    sum_ = hashlib.sha256()
    while chunk := file.read(1 << 20):
        sum_.update(chunk)
    return sum_.hexdigest()
