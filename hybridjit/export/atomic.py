"""A file written so that at every moment there is the old one or the new one, whole."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from pathlib import Path

from .._errors import ArchiveError, compose
from .archive import KeptFile

_LEFT = re.compile(r"\.hybridjit-[0-9a-f]{16}")


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
        for name, each in source.beside.items():  # before what names them, and beside no other by that name
            write_atomically(each, real.with_name(name))
        before = _status(real)
        _sweep(real.parent)
        # Never readable by more than the old file was; a new one is what open() makes it.
        mode = 0o666 if before is None else stat.S_IMODE(before.st_mode)
        temporary, descriptor = _create(real, mode & 0o666)
        with os.fdopen(descriptor, "wb") as out:
            source.copy_to(out)
            out.flush()
            if before is not None:
                _hand_on(before, temporary)
            os.fsync(out.fileno())
            if os.name == "posix":  # while it is locked; elsewhere there are no locks, nor renames of open files
                os.replace(temporary, real)
        if os.name != "posix":
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
            with contextlib.suppress(OSError):  # on a read-only disk it was never made
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


def _create(beside: Path, mode: int) -> tuple[Path, int]:
    """A new file in the folder of another one, open and locked: for as long as it is, it is its writer's."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    while True:
        path = beside.with_name(f".hybridjit-{secrets.token_hex(8)}")
        descriptor = os.open(path, flags, mode)
        if _lock(descriptor) is not False and path.exists():
            return path, descriptor
        os.close(descriptor)  # someone swept between the two lines


def _sweep(folder: Path) -> None:
    """Removes what writers that were killed have left in a folder."""
    with contextlib.suppress(OSError):  # a folder that can be written but not read
        for name in filter(_LEFT.fullmatch, os.listdir(folder)):
            with contextlib.suppress(OSError):  # another user's, or gone meanwhile
                _remove_left(folder / name)


def _remove_left(path: Path) -> None:
    """Removes a file that no writer holds."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        if _lock(descriptor):
            path.unlink()
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Locks an open file until it is closed, which the end of its process does, too, however that ends.

    Returns:
        Whether it is locked now; ``None`` where this system or file system has no locks.
    """
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
