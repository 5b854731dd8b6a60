"""Traced tensors that stand for Python numbers, and what asks for their hash: dictionaries, sets, ``lru_cache``."""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
from collections.abc import Callable, Collection, Iterator
from contextvars import ContextVar
from types import FrameType
from typing import Any

from torch import Tensor

from .. import _torch
from .._sites import user_frame
from ..control.runs import Generation
from ..control.values import stands_for_none
from .counts import functions_in
from .kinds import CACHE, KEY, Kind

_kept: ContextVar[Collection[int]] = ContextVar("hybridjit_kept", default=())


@contextlib.contextmanager
def knowing(kept: Collection[int]) -> Iterator[None]:
    """Within the body these values of the graph are numbers too: those that the model took out of tensors."""
    token = _kept.set(kept)
    try:
        yield
    finally:
        _kept.reset(token)


def is_number(tensor: Tensor, known: Collection[int] | None = None) -> bool:
    """Whether a traced tensor is what eager mode has as a Python number: a size, a number taken out, or arithmetic.

    Args:
        tensor: The tensor.
        known: Values of the graph, by number, that are numbers taken out; none for sizes alone.
    """
    known = _kept.get() if known is None else known
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
        given = _made_of(value)
        left += [each for each in given if each.node().kind() != "prim::Constant"]
        if not given:
            return False
    return found


_IN_PLACE = ("add", "sub", "mul", "div", "floor_divide", "remainder", "pow")
IN_PLACE: dict[Any, Any] = {getattr(Tensor, f"{name}_"): getattr(Tensor, name) for name in _IN_PLACE}
"""Of operations in place, which are all that ``n += 1`` can be, those that give something new."""


def _made_of(value: _torch.Value) -> list[_torch.Value]:
    """The tensors that a value of the graph is computed from, or that the sides of a branch give for it."""
    node = value.node()
    place = [each.unique() for each in node.outputs()].index(value.unique())
    if node.kind() == "prim::If":
        given = [list(block.outputs())[place] for block in node.blocks()]
        return [each for each in given if not stands_for_none(each.node())] or given
    if node.kind() == "prim::TupleUnpack" and (packed := next(node.inputs()).node()).kind() == "prim::TupleConstruct":
        return [list(packed.inputs())[place]]
    return [each for each in node.inputs() if _torch.kind(each.type()) == "TensorType"]


def spelled(tensor: Tensor, text: str) -> str:
    """What ``repr`` gives for a tensor whose text is given: for a number, as eager mode has it, that of the number."""
    if not is_number(tensor):
        return text
    with _torch.paused_tracing(), _torch.unwatched():
        return repr(tensor.item())


def _fills(frame: FrameType) -> bool:
    """Whether a line looks by a key into what its function puts things into by one: what is not there is made."""
    file, line = frame.f_code.co_filename, frame.f_lineno
    around = [each for each in functions_in(file) if each.lineno <= line <= (each.end_lineno or each.lineno)]
    if not around:
        return False
    filled: set[str] = set()
    asked: set[str] = set()
    for node in ast.walk(max(around, key=lambda each: each.lineno)):
        here = isinstance(node, ast.expr) and node.lineno <= line <= (node.end_lineno or node.lineno)
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            filled.add(ast.unparse(node.value))
        elif isinstance(node, ast.Subscript) and here:
            parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            if not any(isinstance(each, (ast.Constant, ast.Slice)) for each in parts):
                asked.add(ast.unparse(node.value))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            holder = ast.unparse(node.func.value)
            filled |= {holder} if node.func.attr == "setdefault" else set()
            asked |= {holder} if here and node.func.attr in ("setdefault", "get", "pop") else set()
        elif isinstance(node, ast.Compare) and here and isinstance(node.ops[0], (ast.In, ast.NotIn)):
            asked.add(ast.unparse(node.comparators[0]))
    return asked <= filled and bool(filled)


CACHED: type = type(functools.lru_cache(len))


def _calls_cached(frame: FrameType) -> bool:
    """Whether the code of a frame calls a function that has an ``lru_cache``, by a name or as a method."""
    held = [*frame.f_locals.values(), *(frame.f_globals.get(name) for name in frame.f_code.co_names)]
    if any(isinstance(each, CACHED) for each in held):
        return True
    owners = {each if isinstance(each, type) else type(each) for each in held}
    return any(
        isinstance(inspect.getattr_static(owner, name, None), CACHED)
        for owner in owners
        for name in frame.f_code.co_names
    )


@contextlib.contextmanager
def hashing(leak: Callable[[Kind, Tensor, Any], None]) -> Iterator[None]:
    """Gives traced numbers the hash that the Python number has, within the body: a size finds its key.

    Args:
        leak: Is told of each number that a hash was asked of, with its value.
    """
    identity: Any = Tensor.__hash__

    def hash_of(self: Tensor) -> int:
        if _torch.tracing_state() is None or not is_number(self):
            made: int = identity(self)
            return made
        frame = user_frame()
        if frame is not None and _calls_cached(frame):
            # Finds nothing, and computes what is right for any number; in each run of a path again.
            made = identity(self)
            return made ^ Generation.count
        with _torch.paused_tracing(), _torch.unwatched():
            number = self.item()
        # What is kept for a number out of the data is not made for that number: how often it came, say.
        cache = frame is not None and is_number(self, ()) and _fills(frame)
        leak(CACHE if cache else KEY, self, number)
        return hash(number)

    type.__setattr__(Tensor, "__hash__", hash_of)
    try:
        yield
    finally:
        type.__setattr__(Tensor, "__hash__", identity)
