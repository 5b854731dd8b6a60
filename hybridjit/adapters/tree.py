"""The structure of a value: where its tensors are, and everything else about it, as plain data."""

from __future__ import annotations

import dataclasses
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from .. import _torch
from .._describe import describe
from .._errors import InputError, compose

Kind: TypeAlias = Literal["tuple", "list", "dict", "namedtuple", "dataclass", "node"]
Path: TypeAlias = str
_NUMBERS: dict[str, type] = {"int": int, "float": float, "bool": bool}
_DICTS = (dict, OrderedDict, defaultdict)


@dataclass(frozen=True)
class TensorLeaf:
    """A tensor."""


@dataclass(frozen=True)
class NumberLeaf:
    """A Python number on the rich side, a tensor of no dimensions on the flat side.

    Attributes:
        type: ``int``, ``float`` or ``bool``.
    """

    type: str


@dataclass(frozen=True)
class StaticLeaf:
    """A value that is part of the structure: text, a number, ``None``, a dtype or a device."""

    value: Any


@dataclass(frozen=True)
class Container:
    """A container.

    Attributes:
        kind: What sort of container.
        keys: Per child, as in Python source: ``[0]``, ``['boxes']``, ``.scores``.
        names: Dict keys, or field names; empty for sequences.
        children: The structures of the children.
        type_name: ``package.module.Class``.
        dumped: A registered container's context, as JSON text.
        context: The same, live; absent after loading.
        type: The class; absent after loading, where `find_type` looks for it.
    """

    kind: Kind
    keys: tuple[str, ...]
    names: tuple[Any, ...]
    children: tuple[Node, ...]
    type_name: str
    dumped: str | None = None
    context: Any = field(default=None, compare=False, repr=False)
    type: Any = field(default=None, compare=False, repr=False)


Node: TypeAlias = "TensorLeaf | NumberLeaf | StaticLeaf | Container"


def scan(value: Any, tensors: list[Tensor], path: Path = "", numbers_of: Node | None = None) -> Node:
    """Finds a value's structure, and appends its tensors in order.

    Args:
        value: Any nesting of what torch's pytree knows, dataclasses included.
        tensors: Receives the tensors.
        path: Where the value is, for errors.
        numbers_of: The same value's structure in eager mode: where that has a number and this a
            tensor, the number was computed in the trace and stays one on the rich side.

    Returns:
        The structure.

    Raises:
        InputError: Something in it is no tensor, no container and no static value.
    """
    if isinstance(value, Tensor):
        tensors.append(value)
        if isinstance(numbers_of, NumberLeaf):
            return numbers_of
        if isinstance(numbers_of, StaticLeaf) and type(numbers_of.value) in _NUMBERS.values():
            return NumberLeaf(type(numbers_of.value).__name__)
        return TensorLeaf()
    if isinstance(numbers_of, NumberLeaf) and isinstance(value, _NUMBERS[numbers_of.type]):
        tensors.append(torch.tensor(value, dtype=torch.float64 if numbers_of.type == "float" else None))
        return numbers_of
    if value is None or isinstance(value, (bool, int, float, str, torch.dtype, torch.device)):
        return StaticLeaf(value)
    opened = _open(value)
    if opened is None:
        raise InputError(
            compose(
                "a value is neither a tensor, nor a container of them, nor a static value",
                where=path or "the value",
                differences=[
                    "expected a tensor, None, bool, int, float, str, dtype, device, list, tuple, dict, "
                    f"NamedTuple, dataclass or registered container, got {describe(value)}"
                ],
                instead=_suggest(value),
                page="inputerror",
            )
        )
    shell, parts = opened
    old: tuple[Node | None, ...] = (None,) * len(parts)
    if isinstance(numbers_of, Container) and numbers_of.keys == shell.keys:
        old = numbers_of.children
    children = tuple(
        scan(part, tensors, path + key, before)
        for part, key, before in zip(parts, shell.keys, old, strict=True)
    )
    return dataclasses.replace(shell, children=children)


def _suggest(value: Any) -> str:
    if type(value).__module__ == "numpy":
        return "torch.from_numpy(array)"
    name = type(value).__name__
    return f"torch.utils._pytree.register_pytree_node({name}, flatten, unflatten), or make {name} a dataclass"


def _open(value: Any) -> tuple[Container, list[Any]] | None:
    """A container without the structures of its children, and its children."""
    type_ = type(value)
    name = f"{type_.__module__}.{type_.__qualname__}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = tuple(f.name for f in dataclasses.fields(value))
        parts = [getattr(value, f) for f in fields]
        return _shell("dataclass", tuple(f".{f}" for f in fields), fields, name, type_), parts
    if isinstance(value, tuple) and hasattr(type_, "_fields"):
        fields = tuple(type_._fields)
        return _shell("namedtuple", tuple(f".{f}" for f in fields), fields, name, type_), list(value)
    if type_ in (tuple, list, torch.Size):
        keys = tuple(f"[{index}]" for index in range(len(value)))
        return _shell("list" if type_ is list else "tuple", keys, (), name, type_), list(value)
    if type_ in _DICTS and all(isinstance(key, (str, int)) for key in value):
        keys = tuple(f"[{key!r}]" for key in value)
        return _shell("dict", keys, tuple(value), name, type_), list(value.values())
    node = _torch.open_node(value)
    if node is None:
        return None
    shell = Container("node", node.keys, (), (), name, node.dumped, node.context, type_)
    return shell, list(node.children)


def _shell(kind: Kind, keys: tuple[str, ...], names: tuple[Any, ...], name: str, type_: type) -> Container:
    return Container(kind, keys, names, (), name, type=type_)


def build(node: Node, tensors: Iterator[Any]) -> Any:
    """Makes the rich value again from its structure and its tensors, in order."""
    if isinstance(node, StaticLeaf):
        return node.value
    if isinstance(node, TensorLeaf):
        return next(tensors)
    if isinstance(node, NumberLeaf):
        return _NUMBERS[node.type](next(tensors).item())
    parts = [build(child, tensors) for child in node.children]
    if node.kind == "list":
        return parts
    if node.kind == "tuple":
        return tuple(parts)
    if node.kind == "dict":
        pairs = dict(zip(node.names, parts, strict=True))
        return OrderedDict(pairs) if node.type_name == "collections.OrderedDict" else pairs
    type_ = node.type or find_type(node)
    if node.kind == "node":
        return _torch.close_node(type_, parts, node.context, node.dumped)
    if node.kind == "namedtuple":
        return type_(*parts)
    return _build_dataclass(type_, dict(zip(node.names, parts, strict=True)))


def _build_dataclass(type_: type, values: dict[str, Any]) -> Any:
    late = {f.name for f in dataclasses.fields(type_) if not f.init}
    made = type_(**{name: value for name, value in values.items() if name not in late})
    for name in late:
        object.__setattr__(made, name, values[name])  # frozen dataclasses have no other way
    return made


_standins: dict[tuple[str, tuple[Any, ...]], type] = {}


def find_type(node: Container) -> type:
    """Finds the class of a loaded container, or makes one that looks like it.

    Nothing is imported: a class counts only if its module is imported already and it has the same
    fields (or is registered with torch's pytree), so a file can't make Python import what it names.

    Args:
        node: A container of kind ``namedtuple``, ``dataclass`` or ``node``.

    Returns:
        The class, or a NamedTuple or dataclass with the same name and fields.
    """
    module, _, qualname = _split(node.type_name)
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if isinstance(found, type):
        if node.kind == "namedtuple" and getattr(found, "_fields", None) == node.names:
            return found
        if node.kind == "dataclass" and dataclasses.is_dataclass(found):
            if tuple(f.name for f in dataclasses.fields(found)) == node.names:
                return found
    if node.kind == "node":
        registered = _torch.registered_type(node.type_name)
        if registered is not None and node.dumped is not None:
            return registered
        raise InputError(
            compose(
                f"a result holds a {node.type_name}, which is not registered in this process",
                instead=f"import {module}  # before the call, where the class is registered",
                page="inputerror",
            )
        )
    key = (node.type_name, node.names)
    if key not in _standins:
        name = qualname.rpartition(".")[2]
        _standins[key] = (
            _namedtuple(name, node.names)
            if node.kind == "namedtuple"
            else dataclasses.make_dataclass(name, node.names, frozen=True)
        )
    return _standins[key]


def _namedtuple(name: str, fields: tuple[Any, ...]) -> type:
    from collections import namedtuple

    return namedtuple(name, fields)


def _split(type_name: str) -> tuple[str, str, str]:
    """``a.b.Outer.Inner`` as module and qualified name, by the longest module that is imported."""
    parts = type_name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        if ".".join(parts[:cut]) in sys.modules:
            return ".".join(parts[:cut]), ".", ".".join(parts[cut:])
    return type_name.rpartition(".")


def leaves(node: Node, path: Path = "") -> Iterator[tuple[Path, TensorLeaf | NumberLeaf | StaticLeaf]]:
    """Every leaf with its path, in order."""
    if isinstance(node, Container):
        for key, child in zip(node.keys, node.children, strict=True):
            yield from leaves(child, path + key)
    else:
        yield path, node


def differences(expected: Node, got: Node, path: Path = "") -> list[str]:
    """Lists where two structures differ, by path, as ``path: expected …, got …``.

    A number that one structure has as a static value and the other carries in a tensor is no
    difference: only a trace can tell which of the two it is.
    """
    if isinstance(expected, Container) and isinstance(got, Container):
        same = (expected.kind, expected.type_name) == (got.kind, got.type_name)
        if same and expected.keys == got.keys:
            pairs = zip(expected.keys, expected.children, got.children, strict=True)
            return [line for key, a, b in pairs for line in differences(a, b, path + key)]
    elif _spell_number(expected, got) == _spell_number(got, expected):
        return []
    return [f"{path or 'the value'}: expected {spell(expected)}, got {spell(got)}"]


def _spell_number(node: Node, beside: Node) -> str:
    """Like `spell`, but a static number beside a carried one is spelled by its type as well."""
    if isinstance(node, StaticLeaf) and isinstance(beside, NumberLeaf):
        return type(node.value).__name__
    return spell(node)


def spell(node: Node) -> str:
    """One structure on one line: ``dict('boxes', 'scores')``, ``tensor``, ``2``."""
    if isinstance(node, TensorLeaf):
        return "tensor"
    if isinstance(node, NumberLeaf):
        return node.type
    if isinstance(node, StaticLeaf):
        return repr(node.value)
    name = node.type_name.removeprefix("builtins.")
    if node.kind in ("tuple", "list", "node"):
        return f"{name} of {len(node.children)}"
    return f"{name}({', '.join(map(str, node.names))})"


def show(node: Node) -> str:
    """A structure on several lines, one per leaf, for messages."""
    rows = [f"{path or 'the value'}: {spell(leaf)}" for path, leaf in leaves(node)]
    return "\n".join(rows) or f"the value: {spell(node)}"
