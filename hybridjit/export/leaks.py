"""Leaks: what Python code takes out of a traced tensor, seen where it happens."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .. import _torch
from .._sites import Site, user_site
from ..control.recorder import call_at, tensors_of
from .kinds import ARRAY, BOOL, CONTAINS, FLOAT, INDEX, INT, ITEM, LAYOUT, LEN, LIST, MADE, TEXT, Kind
from .validation import only_says


@dataclass(frozen=True)
class Leak:
    """One value that left a trace.

    Attributes:
        kind: How.
        site: Where.
        value: What it was: a bool, a number, or a tensor's values.
    """

    kind: Kind
    site: Site
    value: Any

    @property
    def key(self) -> tuple[str, str, int]:
        """What the same leak has in another capture."""
        return self.kind.what, self.site.file, self.site.line

    def same_value(self, other: Leak) -> bool:
        """Whether the value is that of the same leak in another capture."""
        return same_value(self.value, other.value)


def same_value(one: Any, other: Any) -> bool:
    """Whether two values that left a trace are the same one."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and bool(torch.equal(one, other))
    return type(one) is type(other) and repr(one) == repr(other)


def spell_value(value: Any) -> str:
    """A value that left a trace, for messages."""
    if isinstance(value, Tensor):
        return f"{value.numel()} value{'' if value.numel() == 1 else 's'}"
    return repr(value)


class Watch(TorchFunctionMode):
    """Sees every value that leaves the running trace.

    Args:
        names: ``id(module)`` to module path.
        meet: Is given each leak and the traced tensor that holds its value.
        exact: Whether arithmetic on sizes goes on in double precision, as that of Python's numbers does.
    """

    def __init__(self, names: Mapping[int, str], meet: Callable[[Leak, Tensor], None], exact: bool = False) -> None:
        super().__init__()
        self._numbers: dict[int, weakref.ref[Tensor]] | None = {} if exact else None
        self._names = names
        self._meet = meet
        self._varying: dict[int, bool] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        see = _SEEN.get(func)
        if _torch.tracing_state() is None:
            return func(*args, **kwargs)
        if see is not None:
            result = see(self, func, args, kwargs)
        elif self._numbers is not None:
            result = self._exactly(func, args, kwargs, sys._getframe(1))
        else:
            return call_at(sys._getframe(1), func, args, kwargs)
        if self._numbers is not None and func in _COUNT:
            for tensor in tensors_of(result):
                self._numbers[id(tensor)] = weakref.ref(tensor)
        return result

    def _exactly(self, func: Any, args: Any, kwargs: Any, caller: FrameType) -> Any:
        """Runs an operation; one on sizes alone with as many digits as Python has."""
        result = call_at(caller, func, args, kwargs)
        numbers = self._numbers
        assert numbers is not None
        if not isinstance(result, Tensor) or not numbers:
            return result
        given = tensors_of((args, kwargs))
        if not given or not all(id(each) in numbers and numbers[id(each)]() is each for each in given):
            return result
        with _torch.paused_tracing():
            if result.dim():
                return result
            single = result.dtype == torch.float32 and kwargs.get("dtype") is None and torch.float32 not in args
        if single:
            result = func(*(_double(each) for each in args), **{key: _double(each) for key, each in kwargs.items()})
        numbers[id(result)] = weakref.ref(result)
        return result

    @property
    def exact(self) -> bool:
        """Whether numbers stay traced numbers where Python lets them."""
        return self._numbers is not None

    def varies(self, tensor: Tensor) -> bool:
        """Whether a tensor can hold something else when the file runs."""
        value = _torch.known_value(tensor)
        return value is not None and _torch.varies(value, self._varying)

    def leak(self, kind: Kind, tensor: Tensor, value: Any) -> None:
        """Tells of a leak, unless it is text for people."""
        site = user_site(self._names)
        if kind is not TEXT or not only_says(site):
            self._meet(Leak(kind, site, value), tensor)


def _double(value: Any) -> Any:
    return value.to(torch.float64) if isinstance(value, Tensor) else value


_COUNT = (Tensor.shape.__get__, Tensor.size, Tensor.numel, Tensor.nelement, Tensor.stride, torch.numel)  # type: ignore[attr-defined]
"""What gives Python numbers in eager mode and tensors in a trace."""


def _number(kind: Kind) -> Callable[[Watch, Any, Any, Any], Any]:
    """Sees a tensor of one element become a Python number."""

    def see(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
        with _torch.paused_tracing():
            value = func(*args, **kwargs)
        if watch.varies(args[0]):
            held = value
            if not isinstance(value, (bool, int, float)):  # complex
                with _torch.paused_tracing():
                    held = args[0].detach().clone()
            watch.leak(kind, args[0], held)
        return value

    return see


def _see_item(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    with _torch.paused_tracing():
        number = args[0].numel() == 1 and not args[0].is_complex()
    if watch.exact and number and watch.varies(args[0]):
        return args[0].reshape(())
    return _number(ITEM)(watch, func, args, kwargs)


def _see_list(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    with _torch.paused_tracing():
        few = 0 < args[0].dim() <= 2 and 0 < args[0].numel() <= _LISTED and not args[0].is_complex()
    if watch.exact and few and watch.varies(args[0]):
        return _parts(args[0])
    return _values(LIST)(watch, func, args, kwargs)


_LISTED = 64
"""How many numbers a list of traced ones may have."""


def _parts(tensor: Tensor) -> list[Any]:
    with _torch.paused_tracing():
        last = tensor.dim() == 1
    return list(tensor.unbind()) if last else [_parts(row) for row in tensor.unbind()]


def _values(kind: Kind) -> Callable[[Watch, Any, Any, Any], Any]:
    """Sees the values of a whole tensor leave."""

    def see(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
        tensor = args[0]
        with _torch.paused_tracing():
            value = func(*args, **kwargs)
        if watch.varies(tensor):
            with _torch.paused_tracing():
                held = tensor.detach().clone()
                one = held.item() if held.dim() == 0 and not held.is_complex() else held
            watch.leak(kind, tensor, one)
        return value

    return see


def _see_len(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    with _torch.paused_tracing():
        value = func(*args, **kwargs)
    size = torch.Tensor.size(args[0], 0)  # a tensor, in a trace
    if isinstance(size, Tensor) and watch.varies(size):
        watch.leak(LEN, size, value)
    return value


def _see_contains(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    with _torch.paused_tracing():
        value = func(*args, **kwargs)
    found = (args[0] == args[1]).any()
    if watch.varies(found):
        watch.leak(CONTAINS, found, value)
    return value


def _see_strides(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    """Gives strides as traced numbers, as sizes are."""
    with _torch.paused_tracing():
        value = func(*args, **kwargs)
    if not watch.varies(args[0]):
        return value
    graph = _torch.current_graph()
    strides = _torch.insert(graph, "aten::stride", [_torch.value_of(args[0])], _torch.list_of("IntType"))

    def traced(dim: int, stride: int) -> Tensor:
        place = _torch.insert_constant(graph, dim)
        return _traced(
            stride, _torch.insert(graph, "aten::__getitem__", [strides, place], _torch.type_named("IntType"))
        )

    if isinstance(value, int):
        return traced(args[1] if len(args) > 1 else kwargs["dim"], value)
    return tuple(traced(dim, stride) for dim, stride in enumerate(value))


_FORMATS = (torch.contiguous_format, torch.preserve_format, torch.channels_last, torch.channels_last_3d)
"""By the numbers that they are in TorchScript."""


def _see_contiguous(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    with _torch.paused_tracing():
        value = func(*args, **kwargs)
    if watch.varies(args[0]):
        graph, truth = _torch.current_graph(), _torch.type_named("BoolType")
        given = [_torch.value_of(args[0])]
        if kwargs:
            given.append(_torch.insert_constant(graph, _FORMATS.index(kwargs["memory_format"])))
        watch.leak(LAYOUT, _traced(value, _torch.insert(graph, "aten::is_contiguous", given, truth)), value)
    return value


def _see_offset(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    """Gives the offset in memory as a traced number, as sizes are."""
    with _torch.paused_tracing():
        value = func(*args, **kwargs)
    if not watch.varies(args[0]):
        return value
    graph = _torch.current_graph()
    given = [_torch.value_of(args[0])]
    return _traced(value, _torch.insert(graph, "aten::storage_offset", given, _torch.type_named("IntType")))


def _see_compared(operator: str, *defaults: tuple[str, Any]) -> Callable[[Watch, Any, Any, Any], Any]:
    """Gives what compares two tensors as a traced truth: the tracer records nothing of it."""

    def see(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
        with _torch.paused_tracing():
            value = func(*args, **kwargs)
        tensors = [*args[:2], *(kwargs[name] for name in ("input", "other") if name in kwargs)]
        settings = [
            args[place] if len(args) > place else kwargs.get(name, default)
            for place, (name, default) in enumerate(defaults, 2)
        ]
        if not any(map(watch.varies, tensors)) or any(isinstance(each, Tensor) for each in settings):
            return value
        graph, truth = _torch.current_graph(), _torch.type_named("BoolType")
        given = [_torch.value_of(each) for each in tensors]
        given += [_torch.insert_constant(graph, each) for each in settings]
        return _traced(value, _torch.insert(graph, operator, given, truth))

    return see


def _traced(number: bool | int, value: _torch.Value) -> Tensor:
    """A tensor of no dimensions that the trace takes for a number of its own."""
    with _torch.paused_tracing():
        made = torch.tensor(number)
    graph = _torch.current_graph()
    _torch.bind_value(made, _torch.insert(graph, "prim::NumToTensor", [value], _torch.type_named("TensorType")))
    return made


def equal(tensor: Tensor, value: Tensor) -> Tensor:
    """``torch.equal`` as a traced tensor: shapes may differ."""
    graph = _torch.current_graph()
    with _torch.paused_tracing():
        holds, held = torch.equal(tensor, value), _torch.insert_constant(graph, value.detach().clone())
    asked = _torch.insert(graph, "aten::equal", [_torch.value_of(tensor), held], _torch.type_named("BoolType"))
    return _traced(holds, asked)


def _see_made(position: int) -> Callable[[Watch, Any, Any, Any], Any]:
    """Sees ``torch.tensor([h, w])`` of traced values, and records a stack of them instead of a constant."""

    def see(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
        data = args[position] if len(args) > position else kwargs.get("data")
        traced = _inside(data)
        copies = isinstance(data, Tensor) and func is not torch.tensor
        if copies or not any(map(watch.varies, traced)):
            return func(*args, **kwargs)
        with _torch.paused_tracing():
            like = func(*args, **kwargs)
        try:
            made = _stacked(data, like.dtype).to(like.device)
        except (RuntimeError, TypeError, ValueError):
            made = None  # tensors of several elements where numbers are meant
        if made is not None and _shape(made) == _shape(like):
            return made
        for each in traced:
            if watch.varies(each):
                with _torch.paused_tracing():
                    held = each.item() if each.numel() == 1 and not each.is_complex() else each.detach().clone()
                watch.leak(MADE, each, held)
        return like

    return see


def _shape(tensor: Tensor) -> tuple[int, ...]:
    with _torch.paused_tracing():
        return tuple(tensor.shape)


def _inside(data: Any) -> list[Tensor]:
    if isinstance(data, Tensor):
        return [data]
    return [tensor for item in data for tensor in _inside(item)] if isinstance(data, (list, tuple)) else []


def _stacked(data: Any, dtype: torch.dtype) -> Tensor:
    if isinstance(data, Tensor):
        # A copy, as torch.tensor makes one: what is written to it later must not reach its source.
        return data.detach().to(dtype, copy=True)
    if isinstance(data, (list, tuple)):
        if not _inside(data):
            with _torch.paused_tracing():
                return torch.tensor(data, dtype=dtype)
        return torch.stack([_stacked(item, dtype) for item in data])
    with _torch.paused_tracing():
        return torch.tensor(data, dtype=dtype)


_SEEN: dict[Any, Callable[[Watch, Any, Any, Any], Any]] = {
    **dict.fromkeys((Tensor.__bool__, Tensor.is_nonzero, torch.is_nonzero), _number(BOOL)),
    Tensor.__int__: _number(INT),
    Tensor.__float__: _number(FLOAT),
    Tensor.__complex__: _number(FLOAT),
    Tensor.__index__: _number(INDEX),
    Tensor.item: _see_item,
    Tensor.tolist: _see_list,
    Tensor.numpy: _values(ARRAY),
    Tensor.__array__: _values(ARRAY),
    Tensor.__format__: _values(TEXT),
    Tensor.__repr__: _values(TEXT),
    Tensor.__len__: _see_len,
    Tensor.__contains__: _see_contains,
    Tensor.stride: _see_strides,
    Tensor.is_contiguous: _see_contiguous,
    Tensor.storage_offset: _see_offset,
    **dict.fromkeys((Tensor.equal, torch.equal), _see_compared("aten::equal")),
    **dict.fromkeys((Tensor.is_same_size, torch.is_same_size), _see_compared("aten::is_same_size")),
    **dict.fromkeys(
        (Tensor.allclose, torch.allclose),
        _see_compared("aten::allclose", ("rtol", 1e-5), ("atol", 1e-8), ("equal_nan", False)),
    ),
    torch.tensor: _see_made(0),
    torch.as_tensor: _see_made(0),
    Tensor.new_tensor: _see_made(1),
}
