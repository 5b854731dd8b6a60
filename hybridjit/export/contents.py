"""Copies of tensors that are put back: small ones in memory, large ones in a temporary file."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from typing import IO, Any

import torch
from torch import Tensor

from .. import _torch
from .values import identical

_LARGE = 1 << 20
"""Bytes from which a copy goes into the file: a model's weights a second time may not fit into memory."""
_CHUNK = 1 << 20
"""Bytes that are read, compared or written at once."""


class Contents:
    """Copies of tensors, to tell what was written and to write it back.

    Args:
        tensors: The tensors; those that share an object are kept once.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        shelf = _Shelf()
        self._kept = {id(tensor): _KeptTensor(tensor, shelf) for tensor in tensors}

    def restore(self, *, thorough: bool = False, moved: bool = True) -> None:
        """Writes back what was written.

        Args:
            moved: Also those that are in another place in memory since, as by ``tensor.data = other``.
            thorough: Also find writes that torch's version counter does not see (``.data``), by
                comparing everything. A tensor found so is compared from then on.
        """
        with torch.no_grad():
            for kept in self._kept.values():
                if moved or not kept.moved():
                    kept.restore(thorough)

    def moved(self, tensor: Tensor) -> bool:
        """Whether this is one of the tensors, and in another place in memory."""
        kept = self._kept.get(id(tensor))
        return kept is not None and kept.moved()

    def holds(self, tensor: Tensor) -> bool:
        """Whether this is one of the tensors, in its own memory, with the values that it had."""
        kept = self._kept.get(id(tensor))
        return kept is not None and kept.tensor is tensor and kept.unchanged()

    def memory(self) -> set[int]:
        """The addresses of the memory that the tensors are in."""
        return {address for kept in self._kept.values() if (address := memory_of(kept.tensor))}


class _KeptTensor:
    """A tensor, where its values are, and a copy of them."""

    def __init__(self, tensor: Tensor, shelf: _Shelf) -> None:
        self.tensor = tensor
        self._place = tensor.detach()  # the same memory, though the tensor be pointed to another
        self._copy = shelf.put(self._place)
        self._requires_grad = tensor.requires_grad
        self._version = _version(tensor)
        self._uncounted = False

    def moved(self) -> bool:
        return whereabouts(self.tensor) != whereabouts(self._place)

    def unchanged(self) -> bool:
        return not self.moved() and self._copy.same(self.tensor)

    def restore(self, thorough: bool) -> None:
        tensor = self.tensor
        if tensor.requires_grad != self._requires_grad and tensor.is_leaf:
            tensor.requires_grad_(self._requires_grad)
        if moved := self.moved():
            tensor.data = self._place
        counted = self._version is None or moved or _version(tensor) != self._version
        if not counted and not ((thorough or self._uncounted) and not self._copy.same(tensor)):
            return
        self._copy.write_to(tensor)
        self._uncounted |= not counted
        self._version = _version(tensor)


class _InMemory:
    """A copy of any tensor."""

    def __init__(self, tensor: Tensor) -> None:
        self._values = tensor.clone()

    def same(self, tensor: Tensor) -> bool:
        return identical(tensor, self._values)

    def write_to(self, tensor: Tensor) -> None:
        if tensor.layout == torch.strided:
            tensor.data.copy_(self._values)
        else:  # its number of values may have changed
            tensor.data = self._values.clone()


class _OnDisk:
    """A copy of a dense tensor, byte for byte."""

    def __init__(self, tensor: Tensor, shelf: _Shelf) -> None:
        self._shelf = shelf
        self._start = shelf.file.seek(0, 2)
        for chunk in _chunks(tensor):
            _write(shelf.file, _bytes_of(chunk))

    def same(self, tensor: Tensor) -> bool:
        self._shelf.file.seek(self._start)
        # In one thread: where other programs run as well, torch.equal waits for its threads longer than it compares.
        return all(_read(self._shelf.file, chunk.nbytes) == _bytes_of(chunk) for chunk in _chunks(tensor))

    def write_to(self, tensor: Tensor) -> None:
        self._shelf.file.seek(self._start)
        for chunk in _chunks(tensor):
            chunk.copy_(torch.frombuffer(bytearray(_read(self._shelf.file, chunk.nbytes)), dtype=chunk.dtype))


class _Shelf:
    """Makes the copies; the file is there from the first large one on, and goes with the last."""

    @functools.cached_property
    def file(self) -> IO[bytes]:
        file: IO[bytes] = tempfile.TemporaryFile(prefix="hybridjit-", buffering=0)  # noqa: SIM115
        weakref.finalize(self, file.close)
        return file

    def put(self, tensor: Tensor) -> _InMemory | _OnDisk:
        if not _is_large(tensor):
            return _InMemory(tensor)
        with contextlib.suppress(OSError):  # no room on the disk: there may be some in memory
            return _OnDisk(tensor, self)
        return _InMemory(tensor)


def _is_large(tensor: Tensor) -> bool:
    """Whether a tensor's copy goes into the file: large, and dense in memory that can be read as bytes."""
    if tensor.layout != torch.strided or type(tensor) is not Tensor or tensor.device.type not in ("cpu", "cuda"):
        return False
    if tensor.numel() * tensor.element_size() < _LARGE or tensor.is_quantized or tensor.is_conj() or tensor.is_neg():
        return False
    packed = 1  # each dimension steps over all of the smaller ones, in whatever order
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != packed:
            return False
        packed *= size
    return True


def _chunks(tensor: Tensor) -> Iterator[Tensor]:
    """A dense tensor's values in the order of memory, as views of a few megabytes."""
    flat = tensor.detach().as_strided((tensor.numel(),), (1,))
    return iter(torch.split(flat, _CHUNK // tensor.element_size()))


def _bytes_of(tensor: Tensor) -> bytes:
    """The bytes of a contiguous tensor of any dtype."""
    here = tensor.cpu()
    return ctypes.string_at(here.data_ptr(), here.nbytes)


def _write(file: IO[bytes], data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _read(file: IO[bytes], count: int) -> bytes:
    data = file.read(count)
    while len(data) < count:
        more = file.read(count - len(data))
        if not more:
            raise EOFError("the copy of a tensor is gone from the temporary file")
        data += more
    return data


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def versions(module: _torch.ScriptModule) -> list[int | None]:
    """How often each parameter and each constant of a script module was written to."""
    found = [_version(parameter) for parameter in module.parameters()]
    for part in module.modules():
        for graph in _torch.method_graphs(part).values() if isinstance(part, _torch.ScriptModule) else ():
            found += [_version(node.t("value")) for node in tensor_constants(graph)]
    return found


def tensor_constants(graph: _torch.Graph) -> Iterator[Any]:
    """The operations of a graph that hold a tensor."""
    for node in graph.findAllNodes("prim::Constant"):
        if _torch.kind(node.output().type()) == "TensorType" and node.hasAttribute("value"):
            yield node


def whereabouts(tensor: Tensor) -> tuple[object, ...]:
    """What ``tensor.data = other`` changes, apart from the values."""
    kind = tensor.dtype, tensor.device, tensor.layout, tensor.shape
    if tensor.layout != torch.strided:
        return kind
    return *kind, tensor.stride(), tensor.storage_offset(), tensor.untyped_storage().data_ptr()


def memory_of(tensor: Tensor) -> int:
    """The address of the memory that a tensor is in; 0 if it has none that can be named."""
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else 0
