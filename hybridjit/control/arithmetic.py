"""TorchScript's operators on numbers, text and lists, for code that runs on sizes and on numbers that are in tensors.

A ``float`` or ``bool`` that comes out of a tensor stays one, of no dimensions: torch.export knows little of such
numbers, and all of tensors. An ``int`` is Python's or a size of the graph, since operations take it as a size.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .results import truth

DTYPES = {"BoolType": torch.bool, "IntType": torch.int64, "FloatType": torch.float64}
"""What a number's type is as a tensor."""

_CODES = "uint8 int8 int16 int32 int64 float16 float32 float64 complex32 complex64 complex128 bool".split()  # noqa: SIM905
ENUMERATIONS: dict[str, Sequence[Any]] = {
    "dtype": [*(getattr(torch, name) for name in _CODES), None, None, None, torch.bfloat16],
    "layout": [torch.strided],
    "memory_format": [torch.contiguous_format, torch.preserve_format, torch.channels_last, torch.channels_last_3d],
}
"""What TorchScript has as integers."""

_torchs: Any = torch  # whose functions of sizes have no types
_SYMBOLIC = (torch.SymBool, torch.SymInt, torch.SymFloat)


def as_number(tensor: Tensor, kind: str) -> Any:
    """The number in a tensor of one element: a float or bool as a tensor, an int as a size of the graph."""
    number = tensor.detach().reshape(())
    floats = number.dtype.is_floating_point or number.dtype.is_complex
    whole = not floats and number.dtype != torch.bool
    number = number.to(DTYPES.get(kind, torch.int64 if whole else number.dtype))
    return number.item() if number.dtype == torch.int64 else number


def as_tensor(number: Any, like: Sequence[Any] = ()) -> Tensor:
    """A number as a tensor of no dimensions and of its own type, where the first tensor of ``like`` is."""
    if isinstance(number, Tensor):
        return number
    dtype = torch.float64
    if isinstance(number, (bool, torch.SymBool)):
        dtype = torch.bool
    elif isinstance(number, (int, torch.SymInt)):
        dtype = torch.int64
    device = next((each.device for each in like if isinstance(each, Tensor)), None)
    return torch.full((), number, dtype=dtype, device=device)


def as_scalar(number: Any) -> Any:
    """A number as operations take it; one in a tensor becomes one of the graph."""
    return number.item() if isinstance(number, Tensor) else number


def new_tensor(data: Any, dtype: Any, device: Any, requires_grad: Any = False) -> Tensor:
    """``torch.tensor``, of numbers that may be in tensors."""
    dtype = ENUMERATIONS["dtype"][dtype] if isinstance(dtype, int) else dtype
    if isinstance(data, (list, tuple)):
        if not data:
            return torch.empty(0, dtype=dtype, device=device)
        return torch.stack([new_tensor(each, dtype, device) for each in data])
    if isinstance(data, Tensor):
        own = torch.get_default_dtype() if data.dtype.is_floating_point else data.dtype
        return data.detach().to(device=device, dtype=dtype or own).clone()
    made = as_tensor(data)
    own = torch.get_default_dtype() if made.dtype.is_floating_point else made.dtype
    return torch.full((), data, dtype=dtype or own, device=device)


def moved(tensor: Tensor, *rest: Any) -> Tensor:
    """``to`` of a device and a dtype, either of which may be absent."""
    dtype = next((each for each in rest[:2] if isinstance(each, torch.dtype)), None)
    if dtype is None and (code := next((e for e in rest[:2] if type(e) is int), None)) is not None:
        dtype = ENUMERATIONS["dtype"][code]
    device = next((each for each in rest[:2] if isinstance(each, torch.device)), None)
    return tensor.to(device=device, dtype=dtype)


def _both(python: Callable[..., Any], tensor: Callable[..., Any], floats: bool = False) -> Callable[..., Any]:
    """An operator on numbers, any of which may be in a tensor."""

    def run(*values: Any) -> Any:
        if not any(isinstance(value, Tensor) for value in values):
            return python(*values)
        taken = [as_tensor(value, values) for value in values]
        return tensor(*(each.double() for each in taken) if floats else taken)

    return run


def _and(one: Any, other: Any) -> Any:
    if isinstance(one, bool):
        return other if one else False
    if isinstance(other, bool):
        return one if other else False
    return one & other


def _or(one: Any, other: Any) -> Any:
    if isinstance(one, bool):
        return True if one else other
    if isinstance(other, bool):
        return True if other else one
    return one | other


def _not(value: Any) -> Any:
    return _torchs.sym_not(value) if isinstance(value, torch.SymBool) else not value


def _least(python: Callable[..., Any], sizes: Callable[..., Any], tensor: Callable[..., Any]) -> Callable[..., Any]:
    """``min`` and ``max``: of two numbers, or of a list."""

    def take(one: Any, other: Any) -> Any:
        if any(isinstance(value, _SYMBOLIC) for value in (one, other)):
            return sizes(one, other)
        return python(one, other)

    pair = _both(take, lambda one, other: tensor(*_alike(one, other)))

    def run(*values: Any) -> Any:
        items = list(values[0]) if isinstance(values[0], (list, tuple)) else list(values)
        found = items[0]
        for item in items[1:]:
            found = pair(found, item)
        return found

    return run


def _alike(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(one.dtype, other.dtype)
    return one.to(dtype), other.to(dtype)


def _whole(python: Callable[[Any], Any], tensor: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """A rounding to an int."""
    return _both(lambda value, *rest: python(value), lambda value, *rest: tensor(value.double()).to(torch.int64))


def _int(value: Any, *base: Any) -> Any:
    if isinstance(value, Tensor):
        return as_number(value, "IntType")
    if isinstance(value, torch.SymBool):
        return as_tensor(value).to(torch.int64).item()
    return _torchs.sym_int(value) if isinstance(value, _SYMBOLIC) else int(value, *base)


def _float(value: Any) -> Any:
    if isinstance(value, Tensor):
        return as_number(value, "FloatType")
    return _torchs.sym_float(value) if isinstance(value, _SYMBOLIC) else float(value)


def _bool(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().reshape(()) != 0 if value.dtype != torch.bool else value.detach().reshape(())
    if isinstance(value, _SYMBOLIC):
        return value if isinstance(value, torch.SymBool) else value != 0
    return bool(value)


def _divide(one: Any, other: Any) -> Any:
    return one / other


def _derive(index: Any, start: Any, step: Any) -> Any:
    return start + index * step


def _range_length(start: Any, stop: Any, step: Any) -> Any:
    if not any(isinstance(value, _SYMBOLIC) for value in (start, stop, step)):
        return len(range(start, stop, step))
    ahead = (
        (stop - start + step - 1) // step if isinstance(step, int) and step > 0 else (start - stop - step - 1) // -step
    )
    return _torchs.sym_max(ahead, 0)


def _set_item(values: Any, key: Any, item: Any) -> Any:
    values[key] = item
    return values


def _delete(values: Any, key: Any) -> None:
    del values[key]


def _changed(change: Callable[..., Any]) -> Callable[..., Any]:
    """A method that changes a list, and gives it."""

    def run(values: Any, *args: Any) -> Any:
        change(values, *args)
        return values

    return run


def _slice(values: Any, start: Any = None, stop: Any = None, step: Any = 1) -> Any:
    return values[start:stop:step]


def _math(name: str) -> Callable[..., Any]:
    return _both(getattr(math, name), getattr(torch, name), floats=True)


def _sqrt(value: Any) -> Any:
    return _torchs.sym_sqrt(value) if isinstance(value, _SYMBOLIC) else math.sqrt(value)


def compared(compare: Callable[[Any, Any], Any], one: Any, other: Any) -> Any:
    """Compares two numbers; to torch.export a size of an argument is never 0, so there it looks when the file runs."""
    given = compare(one, other)
    for size, value in ((one, other), (other, one)):
        if isinstance(size, torch.SymInt) and type(value) is int and (known := truth(given)) is not None:
            at_none = compare(0, value) if size is one else compare(value, 0)
            if at_none != known and size.node.shape_env.bound_sympy(size.node.expr).lower <= 0:
                held = as_tensor(size)
                return compare(held, value) if size is one else compare(value, held)
    return given


def _comparison(name: str) -> Callable[..., Any]:
    return _both(functools.partial(compared, getattr(operator, name)), getattr(torch, name))


COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
OPERATORS: dict[str, Callable[..., Any]] = {
    **{f"aten::{name}": _comparison(name) for name in COMPARISONS},
    "aten::add": _both(operator.add, torch.add),
    "aten::sub": _both(operator.sub, torch.sub),
    "aten::mul": _both(operator.mul, torch.mul),
    "aten::mul.left_t": operator.mul,
    "aten::div": _both(_divide, torch.div, floats=True),
    "aten::floordiv": _both(operator.floordiv, torch.floor_divide),
    "aten::remainder": _both(operator.mod, torch.remainder),
    "aten::pow": _both(operator.pow, torch.pow),
    "aten::neg": _both(operator.neg, torch.neg),
    "prim::abs": _both(abs, torch.abs),
    "prim::min": _least(min, _torchs.sym_min, torch.minimum),
    "prim::max": _least(max, _torchs.sym_max, torch.maximum),
    "aten::__and__": _both(_and, torch.bitwise_and),
    "aten::__or__": _both(_or, torch.bitwise_or),
    "aten::__xor__": _both(operator.xor, torch.bitwise_xor),
    "aten::__not__": _both(_not, torch.logical_not),
    "aten::__is__": operator.is_,
    "aten::__isnot__": operator.is_not,
    "aten::ceil": _whole(math.ceil, torch.ceil),
    "aten::floor": _whole(math.floor, torch.floor),
    "aten::round": _both(round, torch.round, floats=True),
    "aten::sqrt": _both(_sqrt, torch.sqrt, floats=True),
    **{f"aten::{name}": _math(name) for name in ("exp", "log", "sin", "cos", "tan", "tanh", "atan2", "log2", "log10")},
    "aten::Int": _int,
    "aten::IntImplicit": _int,
    "aten::Float": _float,
    "aten::FloatImplicit": _float,
    "aten::Bool": _bool,
    "aten::item": lambda tensor: as_number(tensor, ""),
    "aten::ScalarImplicit": lambda tensor: as_number(tensor, ""),
    "aten::__range_length": _range_length,
    "aten::__derive_index": _derive,
    "aten::len": len,
    "aten::__getitem__": operator.getitem,
    "aten::__contains__": operator.contains,
    "aten::_set_item": _set_item,
    "aten::Delete": _delete,
    "aten::append": _changed(list.append),
    "aten::extend": _changed(list.extend),
    "aten::insert": _changed(list.insert),
    "aten::clear": lambda values: values.clear(),
    "aten::reverse": _changed(list.reverse),
    "aten::pop": lambda values, *key: values.pop(*key),
    "aten::index": lambda values, item: values.index(item),
    "aten::count": lambda values, item: values.count(item),
    "aten::copy": lambda values: values.copy(),
    "aten::list": list,
    "aten::slice": _slice,
    "aten::keys": lambda values: list(values.keys()),
    "aten::values": lambda values: list(values.values()),
    "aten::items": lambda values: list(values.items()),
    "aten::get": lambda values, *key: values.get(*key),
    "aten::sum": sum,
    "aten::format": lambda text, *values: text.format(*values),
    "aten::str": str,
}
"""What each does, by the kind of its node, where none of its arguments is a tensor to TorchScript."""

WRITERS = frozenset(
    f"aten::{name}"
    for name in ("append", "extend", "insert", "pop", "clear", "_set_item", "Delete", "reverse", "sort", "remove")
)
"""What changes a list or dict: always the first argument."""
