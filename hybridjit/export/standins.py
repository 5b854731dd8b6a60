"""Stand-ins for `len`, `int`, `round`, `math.ceil` and the like, under which a traced number stays one."""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from .. import _torch
from ..control.structure import tensors_of
from .mathematics import FUNCTIONS, Math, Numpy, as_tensor, dims, taken, traced
from .numbers import CACHED, is_number
from .promotion import widest
from .rolling import Rolling, in_chunks, indexes
from .validation import parsed


def _integer(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return int(value)
    return widest(value) if not value.is_floating_point() else value.trunc().to(torch.int64)


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


NO_DTYPE = Truthful.__name__
"""What torch calls a stand-in where it wants a dtype, for which it takes Python's own classes alone."""


class _Int(metaclass=Truthful):
    real = int

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """``int(...)``, of a traced number the number."""
        return _integer(taken(args[0])) if len(args) == 1 and not kwargs and traced(args[0]) else int(*args, **kwargs)


class _Float(metaclass=Truthful):
    real = float

    def __new__(cls, *args: Any) -> Any:
        """``float(...)``, of a traced number the number."""
        if len(args) == 1 and traced(args[0]):
            value = taken(args[0])
            return value.to(torch.float64) if isinstance(value, Tensor) else float(value)
        return float(*args)


def _range(loops: Rolling) -> type:
    class Range(metaclass=Truthful):
        real = range

        def __new__(cls, *args: Any) -> Any:
            """``range(...)``, of a traced number one whose turns may become those of a loop, or what it indexes."""
            if any(map(traced, args)) and indexes(sys._getframe(1)):
                return torch.arange(*args)
            turns = loops.over(args)
            if turns is None and len(args) == 3 and any(map(traced, args)):
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
    if isinstance(value, Tensor) and _torch.tracing_state() is not None and dims(value):
        return value.size(0)
    return len(value)


def eager_kind(value: object) -> type | None:
    """What kind of number eager mode has for a traced size; ``None`` if it is no size."""
    if not isinstance(value, Tensor) or _torch.tracing_state() is None or not is_number(value):
        return None
    with _torch.paused_tracing(), _torch.unwatched():
        return float if value.is_floating_point() else bool if value.dtype is torch.bool else int


def is_instance(value: Any, kinds: Any) -> bool:
    """``isinstance``, of a traced size what it says of the number that eager mode has.

    A truth is a tensor besides: libraries ask for that in a trace, where they need one of Python's.
    """
    kind = eager_kind(value)
    return (kind in (None, bool) and isinstance(value, kinds)) or (kind is not None and isinstance(kind(), kinds))


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
    number = not digits and traced(value) and is_number(value)
    return value.round().to(torch.int64) if number else round(value, *digits)


def _divmod(one: Any, other: Any) -> Any:
    return (one // other, one % other) if traced(one) or traced(other) else divmod(one, other)


def _extreme(real: Callable[..., Any], of_two: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Any]:
    """``min`` or ``max``, of numbers among which are traced ones."""

    def chosen(*args: Any, **kwargs: Any) -> Any:
        values = list(args[0]) if len(args) == 1 and isinstance(args[0], (list, tuple)) else list(args)
        if kwargs or not any(map(traced, values)) or not all(traced(v) or type(v) in (int, float) for v in values):
            return real(*args, **kwargs)
        return functools.reduce(of_two, [as_tensor(value) for value in values])

    return chosen


def _uncached(cached: Any) -> Callable[..., Any]:
    """A function with an ``lru_cache``, called past the cache for traced numbers, in tuples too: none is in it."""

    @functools.wraps(cached.__wrapped__)
    def call(*args: Any, **kwargs: Any) -> Any:
        past = any(map(traced, tensors_of((args, kwargs))))
        return (cached.__wrapped__ if past else cached)(*args, **kwargs)

    return call


_Int.__name__, _Float.__name__ = "int", "float"
_TYPES: dict[type, type] = {int: _Int, float: _Float, type: Type}
_BUILTINS: dict[str, Any] = {
    "len": _len,
    "int": _Int,
    "float": _Float,
    "isinstance": is_instance,
    "type": Type,
    "round": _round,
    "divmod": _divmod,
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
    by_identity = {id(getattr(math, name)): function for name, function in FUNCTIONS.items()}
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
                    news[name] = Math()
                elif held is sys.modules.get("numpy", _ABSENT):
                    news[name] = Numpy()
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
