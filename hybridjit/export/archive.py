"""The file: written atomically, read with its checksums, metadata as one JSON."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
import struct
import threading
import weakref
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from .. import _torch
from .._errors import ArchiveError, compose

METADATA = "hybridjit.json"
"""The extra file that holds the schemas and the report."""
VERSION = 2
READ = (1, 2)
"""Of the metadata: 1 knows a single entry."""
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
        archive.writestr(f"{root}/extra/{METADATA}", json.dumps(metadata, allow_nan=False))


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


class KeptFile:
    """The bytes of a file, as they were when this was made, whatever becomes of its path.

    A rename or removal leaves an open file as it is, so nothing is copied.

    Args:
        path: The file.

    Raises:
        OSError: It can't be read.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._descriptor)
        self._stamp = _stamp(os.fstat(self._descriptor))

    def __deepcopy__(self, memo: dict[int, Any]) -> KeptFile:
        return self

    def is_at(self, path: Path) -> bool:
        """Whether the path still leads to these bytes."""
        return _stamp(path.stat()) == self._stamp

    def copy_to(self, out: BinaryIO) -> None:
        """Copies the bytes; several threads may at once.

        Raises:
            OSError: They were overwritten in place.
        """
        at = 0
        while chunk := _read_at(self._descriptor, 1 << 20, at):
            out.write(chunk)
            at += len(chunk)
        if _stamp(os.fstat(self._descriptor)) != self._stamp:
            raise OSError(errno.ESTALE, "the file it came from was overwritten in place since it was loaded")


def _stamp(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _read_at(descriptor: int, size: int, at: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, at)
    with _SEEKING:
        os.lseek(descriptor, at, os.SEEK_SET)
        return os.read(descriptor, size)


_SEEKING = threading.Lock()


def write_atomically(source: KeptFile, target: Path) -> None:
    """Copies a file so that at every moment the target is the old file or the new one, whole.

    A link is followed, and a file that is replaced hands on its mode and its owner.

    Raises:
        ArchiveError: The folder is missing or can't be written, the disk is full, or the target is
            no plain file.
    """
    temporary: Path | None = None
    try:
        real = Path(os.path.realpath(target))
        before = _status(real)
        temporary = real.with_name(f".hybridjit-{secrets.token_hex(8)}")
        # Never readable by more than the old file was; a new one is what open() makes it.
        mode = 0o666 if before is None else stat.S_IMODE(before.st_mode)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(temporary, flags, mode & 0o666), "wb") as out:
            source.copy_to(out)
            out.flush()
            if before is not None:
                _hand_on(before, temporary)
            os.fsync(out.fileno())
        os.replace(temporary, real)
        temporary = None
        _sync_folder(real.parent)
    except OSError as error:
        raise ArchiveError(
            compose(
                f"{target.name or target} could not be written: {error.strerror or error}",
                where=str(target),
                instead="a path in a folder that exists and can be written, with room for the file",
                page="archiveerror",
            )
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _status(path: Path) -> os.stat_result | None:
    """The status of a plain file, ``None`` if there is none.

    Raises:
        OSError: There is something else (a folder, a device), or the links lead in a circle.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no plain file")
    return status


def _hand_on(before: os.stat_result, path: Path) -> None:
    """Gives a new file the mode of the old one, and its owner where the system lets us."""
    if hasattr(os, "chown"):
        with contextlib.suppress(PermissionError):
            os.chown(path, before.st_uid, before.st_gid)
    path.chmod(stat.S_IMODE(before.st_mode))


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself last; folders can't be opened on every system."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read(path: Path, device: torch.device | None) -> tuple[_torch.ScriptModule, dict[str, Any], KeptFile]:
    """Reads a file, every record against its checksum.

    Args:
        path: The file.
        device: Where its tensors go; where they were saved from if absent.

    Returns:
        The module, the metadata and the file's bytes.

    Raises:
        ArchiveError: The file is missing, truncated, altered, or not hybridjit's.
    """
    if not path.is_file():
        raise ArchiveError(
            compose(f"{path.name or path} is no file", where=str(path), instead="the path that save was given",
                    page="archiveerror")
        )  # fmt: skip
    for _ in range(_ATTEMPTS):  # or the metadata of one file would go with the module of the next
        try:
            kept = KeptFile(path)
            metadata = _check(path)
            module = _torch.load_script(path, device)
            if kept.is_at(path):
                return module, metadata, kept
        except ArchiveError:
            raise
        except (RuntimeError, ValueError, OSError) as error:
            raise _broken(path, (str(error).strip().splitlines() or [type(error).__name__])[0]) from error
    raise _broken(path, f"it was replaced while it was read, {_ATTEMPTS} times")


_ATTEMPTS = 5


def _check(path: Path) -> dict[str, Any]:
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
                        instead="torch.jit.load(path) for a plain TorchScript file,\n"
                        "or hybridjit.export(model, inputs).save(path) for one that hybridjit.load reads",
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
    if metadata.get("version") not in READ:
        found = metadata.get("version")
        raise ArchiveError(
            compose(
                f"{path.name} was written by another version of hybridjit",
                where=str(path),
                differences=[f"expected metadata version {VERSION} or lower, got {found}"],
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
