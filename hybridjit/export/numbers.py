"""Traced tensors that stand for Python numbers, and what asks for their hash: dictionaries, sets, ``lru_cache``."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Iterator
from types import CodeType
from typing import Any

from torch import Tensor

from .. import _torch
from .._sites import user_code
from .kinds import CACHE, KEY, Kind


def is_number(tensor: Tensor, known: Collection[int] = ()) -> bool:
    """Whether a traced tensor is what eager mode has as a Python number: a size, or arithmetic on sizes.

    Args:
        tensor: The tensor.
        known: Values of the graph, by number, that are numbers for another reason.
    """
    with _torch.paused_tracing(), _torch.unwatched():
        if tensor.dim() or tensor.is_complex():
            return False
    value = _torch.known_value(tensor)
    left, seen, found = [value], set[int](), False
    while left:
        value = left.pop()
        if value is None:
            return False
        if value.unique() in seen:
            continue
        seen.add(value.unique())
        if value.unique() in known or value.node().kind() == "prim::NumToTensor":
            found = True
            continue
        given = [each for each in value.node().inputs() if _torch.kind(each.type()) == "TensorType"]
        left += [each for each in given if each.node().kind() != "prim::Constant"]
        if not given:
            return False
    return found


@functools.lru_cache(maxsize=256)
def _stores(code: CodeType) -> bool:
    """Whether code puts something into a container by a key: if a key is not there, it is made."""
    import dis  # by whoever asks, not by everyone who imports this

    return any(step.opname == "STORE_SUBSCR" or step.argval == "setdefault" for step in dis.get_instructions(code))


@contextlib.contextmanager
def hashing(known: Collection[int], leak: Callable[[Kind, Tensor, Any], None]) -> Iterator[None]:
    """Gives traced numbers the hash that the Python number has, within the body: a size finds its key.

    Args:
        known: As for `is_number`.
        leak: Is told of each number that a hash was asked of, with its value.
    """
    identity: Any = Tensor.__hash__

    def hash_of(self: Tensor) -> int:
        if _torch.tracing_state() is None or not is_number(self, known):
            made: int = identity(self)
            return made
        with _torch.paused_tracing(), _torch.unwatched():
            number = self.item()
        code = user_code()
        leak(CACHE if code is not None and _stores(code) else KEY, self, number)
        return hash(number)

    type.__setattr__(Tensor, "__hash__", hash_of)
    try:
        yield
    finally:
        type.__setattr__(Tensor, "__hash__", identity)
