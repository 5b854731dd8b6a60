"""Stand-ins for `len`, `int`, `round`, `math.ceil` and the like, under which a traced number stays one."""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import math
import operator
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from .. import _torch
from ..control.structure import tensors_of
from .numbers import CACHED, is_number
from .promotion import widest
from .rolling import Rolling, in_chunks, indexes
from .validation import parsed


def _traced(value: object) -> bool:
    """Whether a value is a number in the running trace."""
    if not isinstance(value, Tensor) or _torch.tracing_state() is None:
        return False
    with _torch.paused_tracing(), _torch.unwatched():
        return value.numel() == 1 and not value.is_complex() and value.dtype != torch.bool


def _taken(value: Tensor) -> Any:
    """The number in a tensor of one element, which is one of Python's from there on."""
    return value if is_number(value) else value.item()


def _integer(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return int(value)
    return widest(value) if not value.is_floating_point() else value.trunc().to(torch.int64)


def _dims(value: Tensor) -> int:
    with _torch.paused_tracing(), _torch.unwatched():
        return value.dim()


class Truthful(type):
    """``isinstance`` and ``issubclass`` as for the class stood in for."""

    real: type

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.real)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass.real if isinstance(subclass, Truthful) else subclass, cls.real)

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is cls.real

    def __hash__(cls) -> int:
        return hash(cls.real)


NO_DTYPE = f"must be torch.dtype, not {Truthful.__name__}"
"""What torch says of a stand-in where it wants a dtype, for which it takes Python's own classes alone."""


class _Int(metaclass=Truthful):
    real = int

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """``int(...)``, of a traced number the number."""
        return _integer(_taken(args[0])) if len(args) == 1 and not kwargs and _traced(args[0]) else int(*args, **kwargs)


class _Float(metaclass=Truthful):
    real = float

    def __new__(cls, *args: Any) -> Any:
        """``float(...)``, of a traced number the number."""
        if len(args) == 1 and _traced(args[0]):
            value = _taken(args[0])
            return value.to(torch.float64) if isinstance(value, Tensor) else float(value)
        return float(*args)


def _range(loops: Rolling) -> type:
    class Range(metaclass=Truthful):
        real = range

        def __new__(cls, *args: Any) -> Any:
            """``range(...)``, of a traced number one whose turns may become those of a loop, or what it indexes."""
            if any(map(_traced, args)) and indexes(sys._getframe(1)):
                return torch.arange(*args)
            turns = loops.over(args)
            if turns is None and len(args) == 3 and any(map(_traced, args)):
                return in_chunks(*args)
            return range(*args) if turns is None else turns

    return Range


class _Zipped:
    """Rows of several tensors, in the turns of a loop."""

    def __init__(self, turns: Iterator[tuple[Tensor, ...]]) -> None:
        self.turns = turns

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return self

    def __next__(self) -> tuple[Tensor, ...]:
        return next(self.turns)[1:]


def _over_rows(loops: Rolling) -> dict[str, type]:
    """``enumerate`` and ``zip``, of traced tensors ones whose turns may become those of a loop."""

    class Enumerate(metaclass=Truthful):
        real = enumerate

        def __new__(cls, rows: Any, start: int = 0) -> Any:
            if isinstance(rows, _Zipped):
                return ((turn + start, tuple(each)) for turn, *each in rows.turns)
            found = loops.rows(sys._getframe(1), (rows,))
            return enumerate(rows, start) if found is None else ((turn + start, row) for turn, row in found)

    class Zip(metaclass=Truthful):
        real = zip

        def __new__(cls, *rows: Any, **kwargs: Any) -> Any:
            found = loops.rows(sys._getframe(1), rows) if rows and not any(kwargs.values()) else None
            if found is None:
                return zip(*rows, **kwargs)  # noqa: B905 - strict where the model says so
            return _Zipped(found)

    return {"enumerate": Enumerate, "zip": Zip}


def _len(value: Any) -> Any:
    """``len``, of a traced tensor its traced size."""
    if isinstance(value, Tensor) and _torch.tracing_state() is not None and _dims(value):
        return value.size(0)
    return len(value)


def eager_kind(value: object) -> type | None:
    """What kind of number eager mode has for a traced size; ``None`` if it is no size."""
    if not isinstance(value, Tensor) or not _traced(value) or not is_number(value):
        return None
    with _torch.paused_tracing(), _torch.unwatched():
        return float if value.is_floating_point() else int


def _isinstance(value: Any, kinds: Any) -> bool:
    """``isinstance``, of a traced size what it says of the number that eager mode has."""
    kind = eager_kind(value)
    return isinstance(value if kind is None else kind(), kinds)


class Type(metaclass=Truthful):
    """Stands in for ``type``."""

    real = type

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """``type(...)``, of a number what stands in for its type, which the same code compares it with."""
        if len(args) != 1:
            return type(*args, **kwargs)
        kind = eager_kind(args[0]) or type(args[0])
        return _TYPES.get(kind, kind)

    def __class_getitem__(cls, item: Any) -> Any:
        return type[item]


def _is_integer(value: Tensor) -> Tensor:
    """``float.is_integer``, of a traced number."""
    return value == value.trunc()


def _round(value: Any, *digits: Any) -> Any:
    number = not digits and _traced(value) and is_number(value)
    return value.round().to(torch.int64) if number else round(value, *digits)


def _extreme(real: Callable[..., Any], of_two: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Any]:
    """``min`` or ``max``, of numbers among which are traced ones."""

    def chosen(*args: Any, **kwargs: Any) -> Any:
        values = list(args[0]) if len(args) == 1 and isinstance(args[0], (list, tuple)) else list(args)
        if kwargs or not any(map(_traced, values)) or not all(_traced(v) or type(v) in (int, float) for v in values):
            return real(*args, **kwargs)
        return functools.reduce(of_two, [_as_tensor(value) for value in values])

    return chosen


def _as_tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.reshape(()) if _dims(value) else value
    with _torch.paused_tracing():
        return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else torch.int64)


def _function(name: str, takes: torch.dtype = torch.float64, gives: torch.dtype | None = None) -> Callable[..., Any]:
    """A function of ``math``, on numbers among which are traced ones."""
    real, of_tensors = getattr(math, name), getattr(torch, name)

    def call(*args: Any) -> Any:
        taken = [_taken(each) if _traced(each) else each for each in args]
        if not any(isinstance(each, Tensor) for each in taken) or not all(map(_is_numeral, taken)):
            return real(*args)
        numbers = [_as_tensor(each).to(takes) for each in taken]
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
_MATH: dict[str, Callable[..., Any]] = {
    **{name: _function(name, gives=torch.int64) for name in _ROUND},
    **{name: _function(name, takes=torch.int64) for name in ("gcd", "lcm")},
    **{name: _function(name) for name in (*_ONE, *_TWO)},
}


class _Math:
    """The module ``math``, with functions that take traced numbers."""

    def __getattr__(self, name: str) -> Any:
        return _MATH[name] if name in _MATH else getattr(math, name)


def _of_numpy(name: str, traced: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """A function of NumPy, on a traced size as well, of which it makes a float."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and _traced(args[0]) and is_number(args[0]):
            return traced(args[0].to(torch.float64))
        return getattr(sys.modules["numpy"], name)(*args, **kwargs)

    return call


def _prod(*args: Any, **kwargs: Any) -> Any:
    """``numpy.prod``, also of sizes."""
    numbers = list(args[0]) if len(args) == 1 and not kwargs and isinstance(args[0], (list, tuple)) else []
    sizes = [each for each in numbers if _traced(each) and is_number(each)]
    if sizes and all(type(each) is int for each in numbers if not any(each is size for size in sizes)):
        return functools.reduce(operator.mul, numbers)
    return sys.modules["numpy"].prod(*args, **kwargs)


_NUMPY: dict[str, Callable[..., Any]] = {
    name: _of_numpy(name, getattr(torch, name))
    for name in ("ceil", "floor", "trunc", "sqrt", "log", "log2", "log10", "exp")
} | {"prod": _prod}


class _Numpy:
    """The module ``numpy``, with functions that take traced sizes."""

    def __getattr__(self, name: str) -> Any:
        return _NUMPY[name] if name in _NUMPY else getattr(sys.modules["numpy"], name)


def _uncached(cached: Any) -> Callable[..., Any]:
    """A function with an ``lru_cache``, called past the cache for traced numbers, in tuples too: none is in it."""

    @functools.wraps(cached.__wrapped__)
    def call(*args: Any, **kwargs: Any) -> Any:
        traced = any(map(_traced, tensors_of((args, kwargs))))
        return (cached.__wrapped__ if traced else cached)(*args, **kwargs)

    return call


_Int.__name__, _Float.__name__ = "int", "float"
_TYPES: dict[type, type] = {int: _Int, float: _Float, type: Type}
_BUILTINS: dict[str, Any] = {
    "len": _len,
    "int": _Int,
    "float": _Float,
    "isinstance": _isinstance,
    "type": Type,
    "round": _round,
    "min": _extreme(min, torch.minimum),
    "max": _extreme(max, torch.maximum),
}
_ABSENT = object()


@functools.lru_cache(maxsize=64)
def _as_dtypes(file: str) -> set[str]:
    """The names that code gives torch as dtypes, as in ``dtype=int``, of which it takes Python's own classes alone."""
    found: set[str] = set()
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Call):
            given = [each.value for each in node.keywords if each.arg == "dtype"]
            if isinstance(node.func, ast.Attribute) and node.func.attr in ("to", "type", "view", "astype"):
                given += node.args
            found.update(each.id for each in given if isinstance(each, ast.Name))
    return found


@contextlib.contextmanager
def standing_in(files: Iterable[str], loops: Rolling, classes: bool = False) -> Iterator[None]:
    """Lets the stand-ins be called by the code of some files, within the body.

    Args:
        files: The source files of imported modules.
        loops: The loops in them that may be rolled.
        classes: Whether code that gives torch ``int`` for a dtype keeps that.
    """
    wanted = set(files)
    builtin = {**_BUILTINS, "range": _range(loops), **(_over_rows(loops) if loops.lines else {})}
    changed: list[tuple[Any, str, Any]] = []
    modules = [module for module in list(sys.modules.values()) if vars_of(module).get("__file__") in wanted]
    typed = vars_of(sys.modules.get("__main__"))  # in a notebook or at a prompt, where each cell is a file
    if "__file__" not in typed and wanted - {vars_of(module)["__file__"] for module in modules}:
        modules.append(sys.modules["__main__"])
    by_identity = {id(getattr(math, name)): function for name, function in _MATH.items()}
    try:
        if wanted and not hasattr(Tensor, "is_integer"):  # a method of Python's numbers that tensors lack
            type.__setattr__(Tensor, "is_integer", _is_integer)
            changed.append((Tensor, "is_integer", _ABSENT))
        for module in modules:
            space = vars_of(module)
            news = {
                name: made
                for name, made in builtin.items()
                if space.get(name, _ABSENT) in (_ABSENT, getattr(builtins, name))
                and not (classes and name in _as_dtypes(space["__file__"]))
            }
            for name, held in list(space.items()):
                if held is math:
                    news[name] = _Math()
                elif held is sys.modules.get("numpy", _ABSENT):
                    news[name] = _Numpy()
                elif id(held) in by_identity:
                    news[name] = by_identity[id(held)]
                elif isinstance(held, CACHED):
                    news[name] = _uncached(held)
                elif isinstance(held, type) and held.__module__ == space.get("__name__"):
                    for key, own in list(vars(held).items()):
                        if isinstance(own, CACHED):
                            changed.append((held, key, own))
                            setattr(held, key, _uncached(own))
            for name, made in news.items():
                changed.append((space, name, space.get(name, _ABSENT)))
                space[name] = made
        yield
    finally:
        for space, name, before in reversed(changed):
            if isinstance(space, type) and before is _ABSENT:
                type.__delattr__(space, name)
            elif isinstance(space, type):
                setattr(space, name, before)
            elif before is _ABSENT:
                space.pop(name, None)
            else:
                space[name] = before


def vars_of(module: object) -> dict[str, Any]:
    """A module's names, without asking a module's own ``__getattr__``, which may import."""
    found = getattr(module, "__dict__", None)
    return found if isinstance(found, dict) else {}
