"""Plain Python values as JSON data and back, exactly: no type is lost, and nothing is imported."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch


def is_static(value: object) -> bool:
    """Whether a value can be a static leaf: text, a number, ``None``, a dtype or a device."""
    return value is None or isinstance(value, (bool, int, float, str, torch.dtype, torch.device))


def plain(value: Any) -> Any:
    """A static value without its subclass: of an ``IntEnum`` member the ``int``, likewise text and floats."""
    if isinstance(value, (bool, torch.dtype, torch.device)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    return str.__str__(value) if isinstance(value, str) else value


def same(a: object, b: object) -> bool:
    """Whether two static values are the same one: ``1``, ``1.0`` and ``True`` are three, NaN is NaN."""
    if a is b:
        return True
    a, b = plain(a), plain(b)
    return type(a) is type(b) and repr(a) == repr(b)


def static_to_json(value: Any) -> dict[str, Any]:
    """A static value as JSON data."""
    value = plain(value)
    if isinstance(value, (torch.dtype, torch.device)):
        return {"type": type(value).__name__, "value": str(value).removeprefix("torch.")}
    if isinstance(value, float) and not math.isfinite(value):
        return {"type": "float", "value": repr(value)}  # JSON has no nan and no inf
    return {"type": type(value).__name__, "value": value}


def static_from_json(data: Mapping[str, Any]) -> Any:
    """The value that `static_to_json` wrote.

    Raises:
        ValueError: The data names no dtype of torch's.
    """
    value = data["value"]
    match data["type"]:
        case "dtype":
            dtype = vars(torch).get(value)  # getattr would import what torch loads lazily
            if not isinstance(dtype, torch.dtype):
                raise ValueError(f"{value!r} is no dtype")
            return dtype
        case "device":
            return torch.device(value)
        case "float":
            return float(value)
    return value


def pack(value: Any) -> Any:
    """A static value, or any nesting of tuples, lists and dicts of them, as JSON data.

    Raises:
        TypeError: Something in it is none of these.
    """
    if type(value) in (tuple, list):
        return {"type": type(value).__name__, "items": [pack(item) for item in value]}
    if type(value) is dict:
        return {"type": "dict", "items": [[pack(key), pack(item)] for key, item in value.items()]}
    if not is_static(value):
        raise TypeError(f"{type(value).__name__} is no plain value")
    return static_to_json(value)


def unpack(data: Mapping[str, Any]) -> Any:
    """The value that `pack` wrote."""
    match data["type"]:
        case "tuple":
            return tuple(unpack(item) for item in data["items"])
        case "list":
            return [unpack(item) for item in data["items"]]
        case "dict":
            return {unpack(key): unpack(item) for key, item in data["items"]}
    return static_from_json(data)


def is_plain(value: object) -> bool:
    """Whether `pack` takes a value."""
    try:
        pack(value)
    except TypeError:
        return False
    return True
