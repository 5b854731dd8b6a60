"""Arithmetic of tensors with Python's numbers, which the tracer has as tensors: the dtypes that eager mode gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _torch
from .numbers import is_number

_NAMES = ["add", "sub", "mul", "div", "multiply", "subtract", "divide", "true_divide", "pow"]
_DUNDER = ["add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "pow"]
_ARITHMETIC = {
    *(getattr(owner, name) for owner in (Tensor, torch) for name in _NAMES),
    *(getattr(Tensor, f"__{name}__") for name in _DUNDER),
}

_COMPARES = [*("eq", "ne", "lt", "le", "gt", "ge"), *("clamp", "clamp_min", "clamp_max", "pow", "remainder")]
_WITH_NUMBERS = _ARITHMETIC | {
    getattr(owner, spelled)
    for owner in (Tensor, torch)
    for name in [*_COMPARES, "floor_divide", "fmod", "lerp", "floordiv", "rfloordiv", "mod", "rmod"]
    for spelled in (name, f"__{name}__")
    if hasattr(owner, spelled)
}
"""Operations that go by the dtype of a tensor, whatever number it is given."""
_WITH_TRUTHS = {
    *(getattr(Tensor, f"__{side}{name}__") for side in ("", "r", "i") for name in ["xor", "and", "or", "mul", "add"]),
    *(getattr(owner, name) for owner in (Tensor, torch) for name in ["mul", "add", "multiply", "where"]),
    *(getattr(owner, f"bitwise_{name}") for owner in (Tensor, torch) for name in ["xor", "and", "or"]),
}
_FILLS = ["fill_", "masked_fill", "index_fill", "scatter", "full", "full_like", "new_full", "fill_diagonal_"]
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

_OF_TRUTHS = {
    *(getattr(Tensor, name) for name in ["add", "sub", "mul", "div", "remainder", "pow", "neg", "positive"]),
    *(getattr(Tensor, f"__{name}__") for name in [*_DUNDER, "floordiv", "rfloordiv", "mod", "rmod", "rpow"]),
    *(getattr(Tensor, f"__{name}__") for name in ["neg", "pos", "invert", "lshift", "rshift"]),
}
"""Arithmetic, for which Python's truths are the integers 0 and 1, and those of torch no numbers or others."""


def promoted(func: Any, args: Any, kwargs: Any, call: Callable[[Any, Any, Any], Any]) -> tuple[Any, Any]:
    """The arguments of an operation on a tensor and one of Python's numbers as the tracer keeps them right.

    Integers with a Python float become floats of the default dtype, as in eager mode: the tracer has the float as a
    tensor of double precision, and would make the result one too; with a tensor of one element that is no number of
    Python's, it has that one's dtype for the same reason. A Python truth, on which the tracer ends, becomes a
    tensor or a number, and Python's truths among themselves are integers. Truths with a Python integer become integers:
    TorchScript takes ``mask + 0`` for ``mask``.

    Args:
        func: The operation.
        args: What it is given.
        kwargs: Likewise, by name.
        call: Calls another one in its place.
    """
    if func in _OF_TRUTHS and all(map(_is_truth, args)):
        integers = tuple(
            call(Tensor.to, (each, torch.int64), {}) if isinstance(each, Tensor) else each for each in args
        )
        return integers, kwargs
    if func in _OF_ONE and bool in map(type, (*args, *kwargs.values())):
        if func is torch.full and type(kwargs.get("fill_value", args[-1])) is bool and kwargs.get("dtype") is None:
            kwargs = {**kwargs, "dtype": torch.bool}
        args = tuple(int(each) if type(each) is bool else each for each in args)
        return args, {key: int(v) if type(v) is bool and key in _VALUES else v for key, v in kwargs.items()}
    if func in _WITH_TRUTHS and bool in map(type, args):
        return tuple(_as_tensor(each, call) if type(each) is bool else each for each in args), kwargs
    if func is torch.where and len(args) == 3:
        return (args[0], *_chosen(args[1:], call)), kwargs
    if func in _WITH_NUMBERS and (alike := _alike([*args, *kwargs.values()], call)):
        return tuple(alike.get(id(each), each) for each in args), {k: alike.get(id(v), v) for k, v in kwargs.items()}
    if func not in _ARITHMETIC or len(args) != 2:
        return args, kwargs
    wanted = torch.get_default_dtype() if any(map(_is_float, args)) else torch.int64
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


def _chosen(either: Sequence[Any], call: Callable[[Any, Any, Any], Any]) -> Sequence[Any]:
    """What `torch.where` chooses from: of numbers alone, a float among them, eager mode makes the default dtype."""
    numbers = all(not isinstance(each, Tensor) or is_number(each) for each in either)
    if numbers and any(isinstance(each, Tensor) for each in either) and any(map(_is_float, either)):
        dtype = torch.get_default_dtype()
        return [call(Tensor.to, (each, dtype), {}) if isinstance(each, Tensor) else each for each in either]
    alike = _alike(either, call)
    return [alike.get(id(each), each) for each in either]


def _alike(given: Sequence[Any], call: Callable[[Any, Any, Any], Any]) -> dict[int, Tensor]:
    """Numbers with the dtype of the tensors of no dimensions that they meet, by ``id``: eager mode goes by that."""
    tensors = [each for each in given if isinstance(each, Tensor)]
    with _torch.paused_tracing(), _torch.unwatched():
        if any(each.dim() for each in tensors):
            return {}
    numbers = [each for each in tensors if is_number(each)]
    others = [each for each in tensors if not any(each is number for number in numbers)]
    if not numbers or not others:
        return {}
    with _torch.paused_tracing(), _torch.unwatched():
        inexact = [each for each in others if each.is_floating_point() or each.is_complex()]
        to_float = not inexact and any(each.is_floating_point() for each in numbers)
        truths = not to_float and all(each.dtype is torch.bool for each in others)
    if truths:  # become integers, as the number is
        return {}
    made: dict[int, Tensor] = {}
    if to_float:
        made = {id(each): call(Tensor.to, (each, torch.get_default_dtype()), {}) for each in others}
    like = made[id(others[0])] if to_float else (inexact or others)[0]
    for each in numbers:
        # Where it has that type already, what it gives is itself: all that follows would have the type of this operand.
        made[id(each)] = call(Tensor.type_as, (call(Tensor.detach, (each,), {}), like), {})
    return made


def _is_float(value: Any) -> bool:
    """Whether eager mode has one of Python's floats there."""
    if not isinstance(value, Tensor):
        return type(value) is float
    with _torch.paused_tracing(), _torch.unwatched():
        single = value.dim() == 0 and value.is_floating_point()
    return single and is_number(value)


def _is_truth(value: Any) -> bool:
    """Whether eager mode has one of Python's truths there."""
    if not isinstance(value, Tensor):
        return type(value) is bool
    with _torch.paused_tracing(), _torch.unwatched():
        single = value.dim() == 0 and value.dtype is torch.bool
    return single and is_number(value)


def _as_tensor(truth: bool, call: Callable[[Any, Any, Any], Any]) -> Tensor:
    """A truth in the graph, by way of a number: the tracer can't record a tensor that is made of a truth either."""
    made: Tensor = call(Tensor.to, (call(torch.full, ((), int(truth)), {"dtype": torch.int64}), torch.bool), {})
    return made
