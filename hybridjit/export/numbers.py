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

import torch
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


_NAMES = ["add", "sub", "mul", "div", "multiply", "subtract", "divide", "true_divide", "pow"]
_DUNDER = ["add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "pow"]
_ARITHMETIC = {
    *(getattr(owner, name) for owner in (Tensor, torch) for name in _NAMES),
    *(getattr(Tensor, f"__{name}__") for name in _DUNDER),
}


_WITH_TRUTHS = {
    *(getattr(Tensor, f"__{side}{name}__") for side in ("", "r", "i") for name in ["xor", "and", "or", "mul", "add"]),
    *(getattr(owner, name) for owner in (Tensor, torch) for name in ["mul", "add", "multiply", "where"]),
    *(getattr(owner, f"bitwise_{name}") for owner in (Tensor, torch) for name in ["xor", "and", "or"]),
}
_FILLS = ["fill_", "masked_fill", "index_fill", "scatter", "full", "full_like", "new_full", "fill_diagonal_"]
_COMPARES = [*("eq", "ne", "lt", "le", "gt", "ge"), *("clamp", "clamp_min", "clamp_max", "pow", "remainder")]
_OF_ONE = {
    getattr(owner, spelled)
    for owner in (Tensor, torch)
    for name in [*_FILLS, *_COMPARES]
    for spelled in (name, f"{name}_", f"__{name}__")
    if hasattr(owner, spelled)
}
"""Operations for which a truth is as good as the number 0 or 1: none of their parameters in place is a flag."""
_VALUES = frozenset(("value", "fill_value", "other", "exponent", "min", "max"))
_COUNTING = {
    *(getattr(Tensor, f"__{name}__") for name in ("add", "radd", "mul", "rmul")),
    *(getattr(owner, name) for owner in (Tensor, torch) for name in ("add", "mul", "multiply")),
}


def promoted(func: Any, args: Any, kwargs: Any, call: Callable[[Any, Any, Any], Any]) -> tuple[Any, Any]:
    """The arguments of an operation on a tensor and one of Python's numbers as the tracer keeps them right.

    Integers with a Python float become floats of the default dtype, as in eager mode: the tracer has the float as a
    tensor of double precision, and would make the result one too; with a tensor of one element that is no number of
    Python's, it has that one's dtype for the same reason. A Python truth, on which the tracer ends, becomes a
    tensor or a number. Truths with a Python integer become integers: TorchScript takes ``mask + 0`` for ``mask``.

    Args:
        func: The operation.
        args: What it is given.
        kwargs: Likewise, by name.
        call: Calls another one in its place.
    """
    if func in _OF_ONE and bool in map(type, (*args, *kwargs.values())):
        if func is torch.full and type(kwargs.get("fill_value", args[-1])) is bool and kwargs.get("dtype") is None:
            kwargs = {**kwargs, "dtype": torch.bool}
        args = tuple(int(each) if type(each) is bool else each for each in args)
        return args, {key: int(v) if type(v) is bool and key in _VALUES else v for key, v in kwargs.items()}
    if func in _WITH_TRUTHS and bool in map(type, args):
        return tuple(_as_tensor(each, call) if type(each) is bool else each for each in args), kwargs
    if func not in _ARITHMETIC or len(args) != 2:
        return args, kwargs
    floats = [_is_float(each) for each in args]
    if sum(floats) == 1 and _is_single(single := args[1 - floats.index(True)]):
        with _torch.paused_tracing(), _torch.unwatched():
            inexact = single.is_floating_point() or single.is_complex()
        like = single if inexact else call(Tensor.to, (single, torch.get_default_dtype()), {})
        return tuple(like if each is single else _as_type(each, like, call) for each in args), kwargs
    wanted = torch.get_default_dtype() if any(floats) else torch.int64
    if wanted is torch.int64 and (int not in map(type, args) or func not in _COUNTING):
        return args, kwargs

    def widened(each: Any) -> Any:
        if not isinstance(each, Tensor):
            return each
        with _torch.paused_tracing(), _torch.unwatched():
            integers = each.dim() > 0 and not each.is_floating_point() and not each.is_complex()
            narrow = each.dtype is torch.bool if wanted is torch.int64 else integers
        return call(Tensor.to, (each, wanted), {}) if narrow else each

    return tuple(map(widened, args)), kwargs


def widest(number: Tensor) -> Tensor:
    """An integer taken out of a tensor, with as many bits as there are: Python's are not those of the tensor."""
    with _torch.paused_tracing(), _torch.unwatched():
        narrow = not number.is_floating_point() and number.dtype not in (torch.int64, torch.bool)
    return number.to(torch.int64) if narrow else number


def _is_single(value: Any) -> bool:
    """Whether a value is a tensor of no dimensions that is not one of Python's numbers."""
    if not isinstance(value, Tensor):
        return False
    with _torch.paused_tracing(), _torch.unwatched():
        single = value.dim() == 0
    return single and not is_number(value)


def _as_type(number: Any, like: Tensor, call: Callable[[Any, Any, Any], Any]) -> Any:
    if not isinstance(number, Tensor):
        return number
    # Where it has that type already, what it gives is itself: all that follows would have the type of this operand.
    return call(Tensor.type_as, (call(Tensor.detach, (number,), {}), like), {})


def _is_float(value: Any) -> bool:
    """Whether eager mode has one of Python's floats there."""
    if not isinstance(value, Tensor):
        return type(value) is float
    with _torch.paused_tracing(), _torch.unwatched():
        single = value.dim() == 0 and value.is_floating_point()
    return single and is_number(value)


def _as_tensor(truth: bool, call: Callable[[Any, Any, Any], Any]) -> Tensor:
    """A truth in the graph, by way of a number: the tracer can't record a tensor that is made of a truth either."""
    made: Tensor = call(Tensor.to, (call(torch.full, ((), int(truth)), {"dtype": torch.int64}), torch.bool), {})
    return made


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
