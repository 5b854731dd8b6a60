"""The tensors of a call whose structure is known: what a call of an exported model costs, before the file runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .._errors import InputError
from .classes import field_names
from .tree import Container, Node, StaticLeaf, TensorLeaf, differences, scan

_EXACT = (str, int, bool)
"""Types of which two equal values are the same static value."""


def take(node: Node, value: Any, tensors: list[Tensor]) -> bool:
    """Appends the tensors of a value of a known structure.

    Args:
        node: The structure.
        value: The value.
        tensors: Receives the tensors; where the structure is another one, some of them.

    Returns:
        Whether it has that structure.
    """
    if isinstance(node, TensorLeaf):
        if type(value) is Tensor and not value.is_nested:
            tensors.append(value)
            return True
    elif isinstance(node, StaticLeaf):
        own = node.value
        if value is own or (type(value) in _EXACT and type(value) is type(own) and value == own):
            return True
    elif isinstance(node, Container):
        parts = _parts(node, value)
        if parts is not None:
            return all(map(take, node.children, parts, [tensors] * len(parts)))
    return _take_any(node, value, tensors)


def _parts(node: Container, value: Any) -> Sequence[Any] | None:
    """The parts of a container of the kinds that calls mostly hold, ``None`` if it is not plainly the one expected."""
    type_, kind = type(value), node.kind
    if kind == "list" or (kind == "tuple" and node.type_name == "builtins.tuple"):
        alike = type_ is (list if kind == "list" else tuple) and len(value) == len(node.children)
        return value if alike else None
    if kind == "dict":
        alike = type_ is dict and node.type_name == "builtins.dict" and len(value) == len(node.children)
        return list(value.values()) if alike and all(map(_same_key, value, node.names)) else None
    if node.type_name != f"{type_.__module__}.{type_.__qualname__}":
        return None
    if kind == "namedtuple":
        return value if type_._fields == node.names else None
    if kind == "dataclass":
        alike = field_names(value.__class__) == node.names and all(map(hasattr, [value] * len(node.names), node.names))
        return [getattr(value, name) for name in node.names] if alike else None
    if kind == "object":
        held = vars(value)
        return [held[name] for name in node.names] if held.keys() == set(node.names) else None
    return None


def _same_key(key: object, name: object) -> bool:
    return key is name or (type(key) is str and key == name)


def _take_any(node: Node, value: Any, tensors: list[Tensor]) -> bool:
    """Likewise for any value, by way of its own structure."""
    found: list[Tensor] = []
    try:
        if differences(node, scan(value, found)):
            return False
    except InputError:  # it holds what no call can, which whoever describes the call will say
        return False
    tensors += found
    return True
