"""The records of a zip archive where torch's reader looks for them, each against its checksum.

Python's zipfile reads them one after the other at half the speed of `torch.jit.load`, which checks nothing.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_END, _END64, _LOCATOR, _ENTRY, _LOCAL = (b"PK" + tail for tail in (b"\5\6", b"\6\6", b"\6\7", b"\1\2", b"\3\4"))
_STORED, _DEFLATED = 0, 8
_UNKNOWN = 0xFFFFFFFF
"""What a 32-bit field holds whose value is in the entry's 64-bit ones."""
_CHUNK = 1 << 18
_MANY = 1 << 30
_RATIO = 100
"""A file that holds more than both, the bytes and this many times its own, is not one that torch wrote."""


class DamagedError(Exception):
    """The archive is not as it was written."""


@dataclass(frozen=True)
class Record:
    """A record as the directory has it.

    Attributes:
        name: Its name.
        method: How it is packed.
        crc: The checksum of its bytes.
        packed: How many bytes it takes in the file.
        size: How many bytes it is.
        header: Where in the file its own header is.
    """

    name: bytes
    method: int
    crc: int
    packed: int
    size: int
    header: int


class Records:
    """The records of an open archive.

    Args:
        descriptor: The open file.
        size: How many bytes it is.

    Raises:
        DamagedError: It has no directory that can be read, or one of more than it can hold.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size
        try:
            every = list(self._directory())
        except struct.error as error:
            raise DamagedError(f"its directory can't be read: {error}") from error
        self.by_name: dict[bytes, Record] = {record.name: record for record in every}
        if len(self.by_name) != len(every):
            raise DamagedError("two records have one name")
        held = sum(record.size for record in every)
        if held > max(_MANY, _RATIO * size):
            raise DamagedError(f"a file of {size} bytes says that it holds {held}")

    def _read(self, at: int, count: int) -> bytes:
        if not 0 <= at <= at + count <= self._size:
            raise DamagedError(f"bytes {at} to {at + count} of a file of {self._size}")
        data = read_at(self._descriptor, count, at)
        if len(data) != count:
            raise DamagedError(f"it ends at byte {at + len(data)}")
        return data

    def _directory(self) -> Iterator[Record]:
        tail = self._read(max(0, self._size - 0x10000 - 22), min(self._size, 0x10000 + 22))
        end = tail.rfind(_END)
        if end < 0:
            raise DamagedError("there is no end of a zip archive in it")
        count, length, start = struct.unpack_from("<HLL", tail, end + 10)
        if _UNKNOWN in (length, start) or count == 0xFFFF:
            if end < 20 or tail[end - 20 : end - 16] != _LOCATOR:
                raise DamagedError("there is no 64-bit end of a zip archive in it")
            data = self._read(struct.unpack_from("<Q", tail, end - 12)[0], 56)
            if data[:4] != _END64:
                raise DamagedError("its 64-bit end of a zip archive is none")
            count, length, start = struct.unpack_from("<QQQ", data, 32)
        data = self._read(start, length)
        at = 0
        for _ in range(count):
            if data[at : at + 4] != _ENTRY:
                raise DamagedError(f"entry {at} of its directory is none")
            flags, method = struct.unpack_from("<HH", data, at + 8)
            crc, packed, size, named, extra, comment = struct.unpack_from("<LLLHHH", data, at + 16)
            (header,) = struct.unpack_from("<L", data, at + 42)
            name = data[at + 46 : at + 46 + named]
            if _UNKNOWN in (size, packed, header):
                wide = data[at + 46 + named : at + 46 + named + extra]
                size, packed, header = _wide(wide, [size, packed, header])
            if flags & 1 or method not in (_STORED, _DEFLATED) or (method == _STORED and packed != size):
                raise DamagedError(f"the record {_spelled(name)} is packed in no way that torch packs")
            yield Record(name, method, crc, packed, size, header)
            at += 46 + named + extra + comment

    def check(self, threads: int) -> None:
        """Reads every record.

        Args:
            threads: In how many threads.

        Raises:
            DamagedError: One does not match its checksum.
        """
        rest = iter(sorted(self.by_name.values(), key=lambda record: record.header))
        wrong: list[BaseException] = []

        def work() -> None:
            buffer = memoryview(bytearray(_CHUNK))
            try:
                for record in _shared(rest, lock):
                    if wrong:
                        return
                    self._check(record, buffer)
            except BaseException as error:
                wrong.append(error)

        lock = threading.Lock()
        others = [threading.Thread(target=work) for _ in range(threads - 1)]
        for each in others:
            each.start()
        work()
        for each in others:
            each.join()
        if wrong:
            raise wrong[0]

    def _check(self, record: Record, buffer: memoryview) -> None:
        at, crc = self._start(record), 0
        if record.method == _DEFLATED:
            crc = zlib.crc32(self.read(record))
        else:
            end = at + record.packed
            while at < end:
                part = buffer[: min(_CHUNK, end - at)]
                count = _read_into(self._descriptor, part, at)
                if not count:
                    raise DamagedError(f"it ends at byte {at}")
                crc = zlib.crc32(part[:count], crc)
                at += count
        if crc != record.crc:
            raise DamagedError(f"the record {_spelled(record.name)} does not match its checksum")

    def _start(self, record: Record) -> int:
        """Where the bytes of a record begin, as its own header has it, which is what torch reads."""
        head = self._read(record.header, 30 + len(record.name))
        named, extra = struct.unpack_from("<HH", head, 26)
        if head[:4] != _LOCAL or head[30:] != record.name or named != len(record.name):
            raise DamagedError(f"the record {_spelled(record.name)} is not where the directory has it")
        start: int = record.header + 30 + named + extra
        if start + record.packed > self._size:
            raise DamagedError(f"the record {_spelled(record.name)} goes beyond the file")
        return start

    def read(self, record: Record) -> bytes:
        """The bytes of a record.

        Raises:
            DamagedError: They are not as the directory has it.
        """
        data = self._read(self._start(record), record.packed)
        if record.method == _STORED:
            return data
        try:
            # One byte more than it should be tells of a record that unpacks to more, without unpacking it.
            data = zlib.decompressobj(-15).decompress(data, record.size + 1)
        except zlib.error as error:
            raise DamagedError(f"the record {_spelled(record.name)} can't be unpacked: {error}") from error
        if len(data) != record.size:
            raise DamagedError(f"the record {_spelled(record.name)} has another size than the directory says")
        return data


def _wide(extra: bytes, fields: list[int]) -> list[int]:
    """Sizes and place of an entry, those that do not fit from its 64-bit field."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            places = [index for index, field in enumerate(fields) if field == _UNKNOWN]
            for number, index in enumerate(places):
                (fields[index],) = struct.unpack_from("<Q", extra, at + 4 + 8 * number)
            return fields
        at += 4 + length
    raise DamagedError("an entry of its directory has no 64-bit sizes")


def _shared(rest: Iterable[Record], lock: threading.Lock) -> Iterator[Record]:
    """Gives each thread that asks the next record."""
    source = iter(rest)
    while True:
        with lock:
            record = next(source, None)
        if record is None:
            return
        yield record


def _spelled(name: bytes) -> str:
    return ascii(name.decode("utf-8", "replace"))[1:-1]


def _read_into(descriptor: int, part: memoryview, at: int) -> int:
    if hasattr(os, "preadv"):
        count: int = os.preadv(descriptor, [part], at)
        return count
    data = read_at(descriptor, len(part), at)
    part[: len(data)] = data
    return len(data)


def read_at(descriptor: int, size: int, at: int) -> bytes:
    """Some bytes of an open file, however many threads ask."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, at)
    with _SEEKING:
        os.lseek(descriptor, at, os.SEEK_SET)
        return os.read(descriptor, size)


_SEEKING = threading.Lock()
