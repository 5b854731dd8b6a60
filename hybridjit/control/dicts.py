"""Dicts as what they hold, whatever their own class makes of it.

transformers' ``ACT2FN["gelu"]`` is a new activation each time, its ``copy()`` has such in place of the classes, and its
``ModelOutput`` takes no ``update``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any


def contents(of: dict[Any, Any]) -> dict[Any, Any]:
    """A plain copy of a dict."""
    return dict(_class(of).items(of))


def fill(container: dict[Any, Any], items: Mapping[Any, Any]) -> None:
    """Has a dict hold these items and no others."""
    plain = _class(container)
    plain.clear(container)
    for key, value in items.items():
        plain.__setitem__(container, key, value)


def _class(of: dict[Any, Any]) -> Any:
    return OrderedDict if isinstance(of, OrderedDict) else dict  # which keeps its order besides
