"""The file: written atomically, read with its checksums, metadata as one JSON."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .. import _torch
from .._errors import ArchiveError, compose

METADATA = "hybridjit.json"
"""The extra file that holds the schemas and the report."""
VERSION = 1
_OTHER_FORMATS = {".pt2": "pt2", ".onnx": "onnx", ".so": "aoti", ".pte": "executorch"}

_UNREADABLE: tuple[type[Exception], ...] = (
    zipfile.BadZipFile, zlib.error, struct.error, ValueError, LookupError, EOFError, RuntimeError, OSError,
)  # fmt: skip
"""What zipfile and json raise on damaged bytes."""


def append_metadata(path: Path, metadata: Mapping[str, Any]) -> None:
    """Adds the metadata to a TorchScript file, whose own records stay byte for byte what they were.

    Args:
        path: A file that ``torch.jit.save`` wrote.
        metadata: JSON data.
    """
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        root = archive.namelist()[0].split("/")[0]
        archive.writestr(f"{root}/extra/{METADATA}", json.dumps(metadata))


def check_suffix(path: Path) -> None:
    """Refuses a suffix that another format uses.

    Raises:
        ArchiveError: The suffix belongs to another format.
    """
    other = _OTHER_FORMATS.get(path.suffix.lower())
    if other:
        raise ArchiveError(
            compose(
                f"{path.name} has the suffix of another format",
                where=str(path),
                differences=[f"expected a suffix such as .pt for TorchScript, got {path.suffix} ({other})"],
                instead=f'exported.save("{path.with_suffix(".pt").name}")',
                page="archiveerror",
            )
        )


def write_atomically(source: Path, target: Path) -> None:
    """Copies a file so that at every moment the target is the old file or the new one, whole.

    Raises:
        ArchiveError: The folder is missing or can't be written, or the disk is full.
    """
    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=".hybridjit-")
        with os.fdopen(descriptor, "wb") as out, source.open("rb") as whole:
            shutil.copyfileobj(whole, out, 1 << 20)
            out.flush()
            os.fsync(out.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)  # mkstemp is stricter than open()
        Path(temporary).replace(target)
        temporary = None
        _sync_folder(target.parent)
    except OSError as error:
        raise ArchiveError(
            compose(
                f"{target.name} could not be written: {error.strerror or error}",
                where=str(target),
                instead="a path in a folder that exists and can be written, with room for the file",
                page="archiveerror",
            )
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                Path(temporary).unlink()


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself last; folders can't be opened on every system."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read(path: Path, device: torch.device | None) -> tuple[_torch.ScriptModule, dict[str, Any]]:
    """Reads a file, every record against its checksum.

    Args:
        path: The file.
        device: Where its tensors go; where they were saved from if absent.

    Returns:
        The module and the metadata.

    Raises:
        ArchiveError: The file is missing, truncated, altered, or not hybridjit's.
    """
    metadata = _check(path)
    try:
        module = _torch.load_script(path, device)
    except (RuntimeError, ValueError, OSError) as error:
        raise _broken(path, str(error).strip().splitlines()[0]) from error
    return module, metadata


def _check(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ArchiveError(
            compose(f"{path.name} is no file", where=str(path), instead="the path that save was given",
                    page="archiveerror")
        )  # fmt: skip
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            if damaged:
                raise _broken(path, f"the record {damaged} does not match its checksum")
            records = [name for name in archive.namelist() if name.endswith(f"/extra/{METADATA}")]
            if not records:
                raise ArchiveError(
                    compose(
                        f"{path.name} was not written by hybridjit",
                        where=str(path),
                        differences=[f"expected the record extra/{METADATA}, got none"],
                        instead="torch.jit.load(path) for a plain TorchScript file",
                        page="archiveerror",
                    )
                )
            metadata: Any = json.loads(archive.read(records[0]))
    except _UNREADABLE as error:
        if isinstance(error, ArchiveError):
            raise
        raise _broken(path, str(error)) from error
    if not isinstance(metadata, dict):
        raise _broken(path, f"its metadata is no JSON object but {type(metadata).__name__}")
    if metadata.get("version") != VERSION:
        found = metadata.get("version")
        raise ArchiveError(
            compose(
                f"{path.name} was written by another version of hybridjit",
                where=str(path),
                differences=[f"expected metadata version {VERSION}, got {found}"],
                instead="export the model again with this version",
                page="archiveerror",
            )
        )
    return metadata


def _broken(path: Path, detail: str) -> ArchiveError:
    return ArchiveError(
        compose(
            f"{path.name} is truncated, altered or no TorchScript file",
            where=str(path),
            differences=[detail],
            instead="the file as save wrote it; copy or export it again",
            page="archiveerror",
        )
    )
