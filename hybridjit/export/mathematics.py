"""Functions of the modules ``math`` and ``numpy`` on numbers among which are traced ones."""

from __future__ import annotations

import functools
import math
import operator
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import _torch
from .numbers import is_number


def traced(value: object) -> bool:
    """Whether a value is a number in the running trace."""
    if not isinstance(value, Tensor) or _torch.tracing_state() is None:
        return False
    with _torch.paused_tracing(), _torch.unwatched():
        return value.numel() == 1 and not value.is_complex() and value.dtype != torch.bool


def taken(value: Tensor) -> Any:
    """The number in a tensor of one element, which is one of Python's from there on."""
    return value if is_number(value) else value.item()


def dims(value: Tensor) -> int:
    """How many dimensions a tensor has, unseen by the trace."""
    with _torch.paused_tracing(), _torch.unwatched():
        return value.dim()


def as_tensor(value: Any) -> Tensor:
    """A number as a tensor of no dimensions, with as many bits as Python's."""
    if isinstance(value, Tensor):
        return value.reshape(()) if dims(value) else value
    with _torch.paused_tracing():
        return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else torch.int64)


def _function(name: str, takes: torch.dtype = torch.float64, gives: torch.dtype | None = None) -> Callable[..., Any]:
    """A function of ``math``, on numbers among which are traced ones."""
    real, of_tensors = getattr(math, name), getattr(torch, name)

    def call(*args: Any) -> Any:
        given = [taken(each) if traced(each) else each for each in args]
        if not any(isinstance(each, Tensor) for each in given) or not all(map(_is_numeral, given)):
            return real(*args)
        numbers = [as_tensor(each).to(takes) for each in given]
        if name == "log" and len(numbers) == 2:
            return torch.log(numbers[0]) / torch.log(numbers[1])
        result = of_tensors(*numbers)
        return result if gives is None else result.to(gives)

    return call


def _is_numeral(value: object) -> bool:
    return isinstance(value, Tensor) or type(value) in (int, float)


_ROUND = ["ceil", "floor", "trunc"]
_ONE = [
    "sqrt",
    "log",
    "log2",
    "log10",
    "log1p",
    "exp",
    "sin",
    "cos",
    "tan",
    "tanh",
    "atan",
    "isnan",
    "isinf",
    "isfinite",
]
_TWO = ["copysign", "fmod", "atan2", "hypot", "pow"]
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: _function(name, gives=torch.int64) for name in _ROUND},
    **{name: _function(name, takes=torch.int64) for name in ("gcd", "lcm")},
    **{name: _function(name) for name in (*_ONE, *_TWO)},
}


class Math:
    """The module ``math``, with functions that take traced numbers."""

    def __getattr__(self, name: str) -> Any:
        return FUNCTIONS[name] if name in FUNCTIONS else getattr(math, name)


def _of_numpy(name: str, of_tensors: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """A function of NumPy, on a traced size as well, of which it makes a float."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and traced(args[0]) and is_number(args[0]):
            return of_tensors(args[0].to(torch.float64))
        return getattr(sys.modules["numpy"], name)(*args, **kwargs)

    return call


def _prod(*args: Any, **kwargs: Any) -> Any:
    """``numpy.prod``, also of sizes."""
    numbers = list(args[0]) if len(args) == 1 and not kwargs and isinstance(args[0], (list, tuple)) else []
    sizes = [each for each in numbers if traced(each) and is_number(each)]
    if sizes and all(type(each) is int for each in numbers if not any(each is size for size in sizes)):
        return functools.reduce(operator.mul, numbers)
    return sys.modules["numpy"].prod(*args, **kwargs)


_NUMPY: dict[str, Callable[..., Any]] = {
    name: _of_numpy(name, getattr(torch, name))
    for name in ("ceil", "floor", "trunc", "sqrt", "log", "log2", "log10", "exp")
} | {"prod": _prod}


class Numpy:
    """The module ``numpy``, with functions that take traced sizes."""

    def __getattr__(self, name: str) -> Any:
        return _NUMPY[name] if name in _NUMPY else getattr(sys.modules["numpy"], name)
