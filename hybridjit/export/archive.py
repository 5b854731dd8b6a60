"""The file: its bytes, read with their checksums; metadata as one JSON."""

from __future__ import annotations

import errno
import json
import os
import re
import weakref
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from .._errors import ArchiveError, compose
from .formats import SUFFIXES
from .records import DamagedError, Records, read_at

METADATA = "hybridjit.json"
"""The extra file that holds the schemas and the report."""
VERSION = 2
READ = (1, 2)
"""Of the metadata: 1 knows a single entry."""


def append_metadata(path: Path, metadata: Mapping[str, Any]) -> None:
    """Adds the metadata to a TorchScript or pt2 file, whose own records stay byte for byte what they were.

    Args:
        path: A file that torch wrote.
        metadata: JSON data.
    """
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        root = archive.namelist()[0].split("/")[0]
        archive.writestr(f"{root}/extra/{METADATA}", json.dumps(metadata, allow_nan=False))


def check_suffix(path: Path, format: str) -> None:
    """Refuses a suffix that another format uses.

    Args:
        path: Where a file is to be written.
        format: Its format.

    Raises:
        ArchiveError: The suffix belongs to another format.
    """
    own = SUFFIXES[format]
    suffix = path.suffix.lower()
    other = next((name for name, known in SUFFIXES.items() if suffix in known), None)
    if other and suffix not in own:
        spelled = {"torchscript": "TorchScript"}.get(format, format)
        raise ArchiveError(
            compose(
                f"{path.name} has the suffix of another format",
                where=str(path),
                differences=[f"expected a suffix such as {own[0]} for {spelled}, got {path.suffix} ({other})"],
                instead=f'exported.save("{path.with_suffix(own[0]).name}")',
                page="archiveerror",
            )
        )


_BESIDE = re.compile(r"hybridjit-[0-9a-f]+\.data")


class KeptFile:
    """The bytes of a file, as they were when this was made, whatever becomes of its path.

    A rename or removal leaves an open file as it is, so nothing is copied.

    Args:
        path: The file.
        beside: The names of files beside it that belong to it; each is called by what is in it.

    Raises:
        OSError: It can't be read.
    """

    def __init__(self, path: Path, beside: Iterable[str] = ()) -> None:
        self.keep_beside(path, beside)
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._descriptor)
        self._stamp = _stamp(os.fstat(self._descriptor))

    def keep_beside(self, path: Path, names: Iterable[str]) -> None:
        """Keeps the files that lie beside a file, or beside what a link leads to.

        Raises:
            ValueError: One is called otherwise than hybridjit calls them: saved, it would replace a file of that name.
        """
        names = list(names)
        if strange := [name for name in names if not _BESIDE.fullmatch(name)]:
            raise ValueError(f"it names {strange[0]!r} as a file beside it")
        self.beside: dict[str, KeptFile] = {name: KeptFile(path.resolve().with_name(name)) for name in names}

    def __deepcopy__(self, memo: dict[int, Any]) -> KeptFile:
        return self

    @property
    def size(self) -> int:
        """How many they are, with those of the files beside it."""
        return self._stamp[2] + sum(each.size for each in self.beside.values())

    def records(self) -> Records:
        """The records of the zip archive that they are.

        Raises:
            DamagedError: They are none.
        """
        return Records(self._descriptor, self._stamp[2])

    def is_at(self, path: Path) -> bool:
        """Whether the path still leads to these bytes."""
        return _stamp(path.stat()) == self._stamp

    def copy_to(self, out: BinaryIO) -> None:
        """Copies the bytes; several threads may at once.

        Raises:
            OSError: They were overwritten in place.
        """
        at = 0
        while chunk := read_at(self._descriptor, 1 << 20, at):
            out.write(chunk)
            at += len(chunk)
        if _stamp(os.fstat(self._descriptor)) != self._stamp:
            raise OSError(errno.ESTALE, "the file it came from was overwritten in place since it was loaded")


def _stamp(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def read(
    path: Path, device: torch.device | None, open_as: Callable[[Path, dict[str, Any], torch.device | None], Any]
) -> tuple[Any, dict[str, Any], KeptFile]:
    """Reads a file, every record against its checksum.

    Args:
        path: The file.
        device: Where its tensors go; where they were saved from if absent.
        open_as: Opens it, told its metadata.

    Returns:
        What ``open_as`` gave, the metadata and the file's bytes.

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
            metadata = _checked(path, read_onnx(path) if path.suffix.lower() == ".onnx" else _metadata(path, kept))
            kept.keep_beside(path, metadata.get("beside", ()))
            module = open_as(path, metadata, device)
            if kept.is_at(path):
                return module, metadata, kept
        except ArchiveError:
            raise
        except (RuntimeError, ValueError, OSError) as error:
            raise broken(path, (str(error).strip().splitlines() or [type(error).__name__])[0]) from error
    raise broken(path, f"it was replaced while it was read, {_ATTEMPTS} times")


_ATTEMPTS = 5


def _metadata(path: Path, kept: KeptFile) -> Any:
    """The metadata of a zip archive, whose records are as they were written."""
    try:
        records = kept.records()
        found = [record for name, record in records.by_name.items() if name.endswith(f"/extra/{METADATA}".encode())]
        records.check(min(os.cpu_count() or 1, _THREADS) if kept.size > _LARGE else 1)
        if found:
            return json.loads(records.read(found[0]))
    except (DamagedError, ValueError, RecursionError) as error:
        raise broken(path, str(error)) from error
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


_THREADS, _LARGE = 4, 8 << 20
"""In how many threads at most a file is read against its checksums, if it has that many bytes."""


def read_onnx(path: Path) -> Any:
    """The metadata of an ONNX file."""
    from .onnx_file import read_metadata

    return read_metadata(path)


def _checked(path: Path, metadata: Any) -> dict[str, Any]:
    if not isinstance(metadata, dict):
        raise broken(path, f"its metadata is no JSON object but {type(metadata).__name__}")
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


def broken(path: Path, detail: str) -> ArchiveError:
    """The error for a file that is not as it was written."""
    kind = next((name for name, known in SUFFIXES.items() if path.suffix.lower() in known), "torchscript")
    kind = {"torchscript": "TorchScript", "onnx": "ONNX"}.get(kind, kind)
    return ArchiveError(
        compose(
            f"{path.name} is truncated, altered or no {kind} file",
            where=str(path),
            differences=[detail],
            instead="the file as save wrote it; copy or export it again",
            page="archiveerror",
        )
    )
