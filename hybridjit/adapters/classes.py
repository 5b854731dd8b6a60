"""The classes of a loaded structure: those imported already, or ones that look like them."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections import OrderedDict, defaultdict, namedtuple
from enum import Enum
from types import ModuleType
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from .. import _torch
from .._errors import InputError, compose

if TYPE_CHECKING:
    from .tree import Container

_standins: dict[tuple[str, str, tuple[Any, ...]], type] = {}


def find_type(node: Container) -> type:
    """Finds the class of a loaded container, or makes one that looks like it.

    Nothing is imported: a class counts only if its module is imported already and it has the same
    fields (or is registered with torch's pytree), so a file can't make Python import what it names.

    Args:
        node: A container of kind ``namedtuple``, ``dataclass``, ``object`` or ``node``.

    Returns:
        The class, or a NamedTuple or dataclass with the same name and fields.
    """
    module, _, qualname = _split(node.type_name)
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        # Not by getattr: a module's own __getattr__ may import.
        found = vars(found).get(part) if isinstance(found, (type, ModuleType)) else None
    if isinstance(found, type):
        is_tuple = node.kind == "namedtuple" and issubclass(found, tuple)
        if is_tuple and getattr(found, "_fields", None) == node.names:
            return found
        is_dataclass = node.kind == "dataclass" and dataclasses.is_dataclass(found)
        if is_dataclass and field_names(found) == node.names:
            return found
        if node.kind == "object" and is_open(found) and not hasattr(found, "__del__"):
            return found
    if node.kind == "node":
        registered = _torch.registered_type(node.type_name)
        if registered is not None and registered not in (dict, OrderedDict, defaultdict):
            if node.dumped is not None:
                return registered
            raise InputError(
                compose(
                    f"a result holds a {node.type_name}, whose context is no plain data",
                    instead=f"torch.utils._pytree.register_pytree_node({qualname}, flatten, unflatten, "
                    f'serialized_type_name="{node.type_name}",\n'
                    "    to_dumpable_context=..., from_dumpable_context=...), then export again",
                    page="inputerror",
                )
            )
        raise InputError(
            compose(
                f"a result holds a {node.type_name}, which is not registered in this process",
                instead=f"import {module}  # before the call, where the class is registered",
                page="inputerror",
            )
        )
    key = (node.kind, node.type_name, node.names)
    if key not in _standins:
        name = qualname.rpartition(".")[2]
        _standins[key] = (
            _namedtuple(name, node.names)
            if node.kind == "namedtuple"
            else dataclasses.make_dataclass(name, node.names, frozen=True)
        )
    return _standins[key]


@functools.lru_cache(256)  # every call of an exported model asks
def is_open(cls: type) -> bool:
    """Whether what an instance has is in its attributes, and one is made of them without code of the class.

    Those are the classes that ``copy.copy`` needs to know nothing about, besides such as have nothing to take apart.
    """
    own = any(getattr(cls, name, None) is not getattr(object, name, None) for name in _COPIED)
    slots = any(vars(each).get("__slots__") for each in cls.__mro__)
    return not (own or slots or issubclass(cls, _CLOSED)) and cls.__flags__ & _HEAP_TYPE != 0


_COPIED = ("__new__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__copy__", "__deepcopy__")
_CLOSED = (Tensor, nn.Module, type, Enum, BaseException, property)
_HEAP_TYPE = 1 << 9
"""What CPython sets for a class of a ``class`` statement: one of C has more than its attributes."""


@functools.lru_cache(256)  # every call of a loaded file asks
def field_names(type_: Any) -> tuple[str, ...]:
    """The fields of a dataclass."""
    return tuple(each.name for each in dataclasses.fields(type_))


def _namedtuple(name: str, fields: tuple[Any, ...]) -> type:
    return namedtuple(name, fields)


def _split(type_name: str) -> tuple[str, str, str]:
    """``a.b.Outer.Inner`` as module and qualified name, by the longest module that is imported."""
    parts = type_name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        if ".".join(parts[:cut]) in sys.modules:
            return ".".join(parts[:cut]), ".", ".".join(parts[cut:])
    return type_name.rpartition(".")
