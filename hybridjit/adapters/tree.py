"""The structure of a value: where its tensors are, and everything else about it, as plain data."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import json
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from .. import _torch
from .._describe import describe
from .._errors import InputError, compose
from .classes import find_type, is_open
from .plain import is_plain, is_static, pack, plain, same, unpack

Kind: TypeAlias = Literal["tuple", "list", "dict", "namedtuple", "dataclass", "object", "node"]
Path: TypeAlias = str
_NUMBERS: dict[str, type] = {"int": int, "float": float, "bool": bool}
_DTYPES = {"int": torch.int64, "float": torch.float64, "bool": torch.bool}
_DICTS = (dict, OrderedDict, defaultdict)
_FACTORIES: tuple[type, ...] = (list, dict, set, tuple, int, float, str, bool, OrderedDict)
"""What a loaded defaultdict may make its values with; another factory would be any code a file names."""
_PACKED = '{"hybridjit": '


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
        names: Dict keys, or the names of fields or attributes; empty for sequences.
        children: The structures of the children.
        type_name: ``package.module.Class``.
        dumped: A registered container's context, or a defaultdict's factory, as JSON text.
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
        value: Any nesting of what torch's pytree knows, dataclasses and objects with attributes included.
        tensors: Receives the tensors.
        path: Where the value is, for errors.
        numbers_of: The same value's structure in eager mode: where that has a number and this a
            tensor, the number was computed in the trace and stays one on the rich side.

    Returns:
        The structure.

    Raises:
        InputError: Something in it is no tensor, no container and no static value.
    """
    try:
        return _scan(value, tensors, path, numbers_of)
    except RecursionError:
        raise InputError(
            compose(
                "a value contains itself, or is nested too deep",
                where=path or "the value",
                instead="a value without a cycle",
                page="inputerror",
            )
        ) from None


def _scan(value: Any, tensors: list[Tensor], path: Path, numbers_of: Node | None) -> Node:
    if isinstance(value, Tensor) and value.is_nested:
        raise InputError(
            compose(
                "a nested tensor can't be traced",
                where=path or "the value",
                instead="nested.to_padded_tensor(0.0), or a list of tensors",
                page="inputerror",
            )
        )
    if isinstance(value, Tensor):
        number = number_type(numbers_of) if value.dim() == 0 else None
        tensors.append(value.to(_DTYPES[number]) if number else value)
        return NumberLeaf(number) if number else TensorLeaf()
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):  # a size that torch.export records
        number = number_type(numbers_of)
        symbol: Any = value
        tensors.append(torch.full((), symbol, dtype=_DTYPES[number] if number else None))
        return NumberLeaf(number) if number else TensorLeaf()
    if isinstance(numbers_of, NumberLeaf) and type(value) is _NUMBERS[numbers_of.type]:
        tensors.append(torch.tensor(value, dtype=_DTYPES[numbers_of.type]))
        return numbers_of
    if is_static(value):
        return StaticLeaf(value)
    opened = _open(value)
    if opened is None:
        raise InputError(
            compose(
                "a value is neither a tensor, nor a container of them, nor a static value",
                where=path or "the value",
                differences=[
                    "expected a tensor, None, bool, int, float, str, dtype, device, list, tuple, dict, "
                    f"NamedTuple, dataclass, registered container or object with attributes, got {describe(value)}"
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
        _scan(part, tensors, path + key, before) for part, key, before in zip(parts, shell.keys, old, strict=True)
    )
    return dataclasses.replace(shell, children=children)


def number_type(node: Node | None) -> str | None:
    """The name of a number's type, whether a tensor carries it or not; ``None`` for anything else."""
    if isinstance(node, StaticLeaf):
        name = type(plain(node.value)).__name__
        return name if name in _NUMBERS else None
    return node.type if isinstance(node, NumberLeaf) else None


def _suggest(value: Any) -> str:
    name = type(value).__name__
    if type(value).__module__ == "numpy":
        return "torch.from_numpy(array)" if name == "ndarray" else "number.item()"
    if isinstance(value, (set, frozenset)):
        return "a list, or a tuple: a set has no order"
    if isinstance(value, Enum):
        return "member.value, or an IntEnum"
    if type(value).__module__ == "builtins" and name != "object":
        return "a tensor, or text, a number, or a tuple of them"
    return f"torch.utils._pytree.register_pytree_node({name}, flatten, unflatten), or make {name} a dataclass"


def _open(value: Any) -> tuple[Container, list[Any]] | None:
    """A container without the structures of its children, and its children."""
    type_: Any = type(value)
    name = f"{type_.__module__}.{type_.__qualname__}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = tuple(f.name for f in dataclasses.fields(value) if hasattr(value, f.name))
        parts = [getattr(value, f) for f in fields]
        if all(_is_known(part) for part in parts) or _torch.open_node(value) is None:
            return _shell("dataclass", tuple(f".{f}" for f in fields), fields, name, type_), parts
    if isinstance(value, tuple) and hasattr(type_, "_fields"):
        fields = tuple(type_._fields)
        return _shell("namedtuple", tuple(f".{f}" for f in fields), fields, name, type_), list(value)
    if type_ in (tuple, list, torch.Size):
        keys = tuple(f"[{index}]" for index in range(len(value)))
        return _shell("list" if type_ is list else "tuple", keys, (), name, type_), list(value)
    if type_ in _DICTS and all(is_plain(key) for key in value):
        keys = tuple(f"[{key!r}]" for key in value)
        shell = _shell("dict", keys, tuple(value), name, type_)
        if type_ is defaultdict:
            factory = value.default_factory
            known = factory.__name__ if factory in _FACTORIES else None
            shell = dataclasses.replace(shell, dumped=json.dumps(known), context=factory)
        return shell, list(value.values())
    node = _torch.open_node(value)
    if type_ in _DICTS:  # torch's own way with a defaultdict imports what a file names
        return None
    if node is None:
        if not is_open(type_):
            return None
        fields = tuple(sorted(vars(value)))  # set in whatever order
        return _shell("object", tuple(f".{f}" for f in fields), fields, name, type_), [vars(value)[f] for f in fields]
    dumped = _dump(node.context, node.dumped)
    return Container("node", node.keys, (), (), name, dumped, node.context, type_), list(node.children)


def _is_known(value: Any) -> bool:
    """Whether a value is a leaf or a container, whatever that holds."""
    if isinstance(value, (Tensor, tuple, list, dict)) or is_static(value) or dataclasses.is_dataclass(value):
        return True
    type_: Any = type(value)
    return _torch.open_node(value) is not None or is_open(type_)


def _dump(context: Any, dumped: str | None) -> str | None:
    """A registered container's context as text, our own way where plain JSON would lose a type."""
    try:
        exact = dumped is not None and (dumped != json.dumps(context) or pack(json.loads(dumped)) == pack(context))
    except (TypeError, ValueError):  # a context that only its own serializer knows
        exact = True
    return dumped if exact or not is_plain(context) else f"{_PACKED}{json.dumps(pack(context))}}}"


def _shell(kind: Kind, keys: tuple[str, ...], names: tuple[Any, ...], name: str, type_: type) -> Container:
    return Container(kind, keys, names, (), name, type=type_)


def build(node: Node, tensors: Iterator[Any]) -> Any:
    """Makes the rich value again from its structure and its tensors, in order."""
    if isinstance(node, StaticLeaf):
        return node.value
    if isinstance(node, TensorLeaf):
        return next(tensors)
    if isinstance(node, NumberLeaf):
        number = next(tensors)
        return _NUMBERS[node.type](number.item() if isinstance(number, Tensor) else number)
    parts = [build(child, tensors) for child in node.children]
    if node.kind == "list":
        return parts
    if node.kind == "tuple":
        size = node.type_name == "torch.Size" and all(type(part) is int for part in parts)
        return torch.Size(parts) if size else tuple(parts)
    if node.kind == "dict":
        return _build_dict(node, dict(zip(node.names, parts, strict=True)))
    type_ = node.type or find_type(node)
    if node.kind == "node":
        packed = node.context is None and node.dumped is not None and node.dumped.startswith(_PACKED)
        context = unpack(json.loads(node.dumped or "")["hybridjit"]) if packed else node.context
        return _torch.close_node(type_, parts, context, node.dumped)
    if node.kind == "namedtuple":
        return tuple.__new__(type_, parts)  # not through a __new__ of its own, which may take others
    if node.kind == "object":
        made: object = object.__new__(type_)
        vars(made).update(zip(node.names, parts, strict=True))
        return made
    return _build_dataclass(type_, dict(zip(node.names, parts, strict=True)))


def _build_dict(node: Container, pairs: dict[Any, Any]) -> Any:
    if node.type_name == "collections.OrderedDict":
        return OrderedDict(pairs)
    if node.type_name != "collections.defaultdict":
        return pairs
    known = {factory.__name__: factory for factory in _FACTORIES}
    return defaultdict(node.context or known.get(json.loads(node.dumped or "null")), pairs)


def _build_dataclass(type_: type, values: dict[str, Any]) -> Any:
    taken = _taken_by_init(type_, tuple(values))
    made: Any = None
    if taken is not None:
        # A __post_init__ that raises for these values does not keep the result from its caller.
        with contextlib.suppress(TypeError):
            made = type_(**{name: values[name] for name in taken})
    if made is None:
        made = object.__new__(type_)
    for name, value in values.items():
        # Fields that __init__ does not take, and those that __post_init__ would change a second time;
        # frozen dataclasses have no other way.
        object.__setattr__(made, name, value)
    return made


@functools.lru_cache(256)  # every call of an exported model asks
def _taken_by_init(type_: Any, names: tuple[str, ...]) -> tuple[str, ...] | None:
    """Which of the fields the class is made with, ``None`` if it has an ``__init__`` of its own, or an InitVar."""
    taken = tuple(f.name for f in dataclasses.fields(type_) if f.init and f.name in names)
    try:
        inspect.signature(type_).bind(**dict.fromkeys(taken))
    except TypeError:
        return None
    return taken


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
        alike = (expected.kind, expected.type_name) == (got.kind, got.type_name)
        if alike and expected.keys == got.keys:
            pairs = zip(expected.keys, expected.children, got.children, strict=True)
            below = [line for key, a, b in pairs for line in differences(a, b, path + key)]
            if expected.kind == "node" and not _same_context(expected, got):
                both = [node.context if node.context is not None else node.dumped for node in (expected, got)]
                below.insert(0, f"{path or 'the value'}: expected the context {both[0]!r}, got {both[1]!r}")
            return below
    elif isinstance(expected, StaticLeaf) and isinstance(got, StaticLeaf):
        if same(expected.value, got.value):
            return []
    elif _spell_number(expected, got) == _spell_number(got, expected):
        return []
    wanted, had = spell(expected), spell(got)
    if wanted == had and isinstance(expected, Container) and isinstance(got, Container):
        wanted, had = (f"{node.type_name}({', '.join(node.keys)})" for node in (expected, got))
    return [f"{path or 'the value'}: expected {wanted}, got {had}"]


def _same_context(a: Container, b: Container) -> bool:
    if a.dumped is not None or b.dumped is not None:
        return a.dumped == b.dumped
    return bool(a.context is b.context or a.context == b.context)


def _spell_number(node: Node, beside: Node) -> str:
    """Like `spell`, but a static number beside a carried one is spelled by its type as well."""
    if isinstance(node, StaticLeaf) and isinstance(beside, NumberLeaf):
        return type(plain(node.value)).__name__
    return spell(node)


def spell(node: Node) -> str:
    """One structure on one line: ``dict('boxes', 'scores')``, ``tensor``, ``2``."""
    if isinstance(node, TensorLeaf):
        return "tensor"
    if isinstance(node, NumberLeaf):
        return node.type
    if isinstance(node, StaticLeaf):
        return repr(plain(node.value))
    name = node.type_name.removeprefix("builtins.")
    if node.kind in ("tuple", "list", "node"):
        return f"{name} of {len(node.children)}"
    return f"{name}({', '.join(map(repr if node.kind == 'dict' else str, node.names))})"


def show(node: Node, path: Path = "") -> list[str]:
    """A structure on several lines, one per leaf or empty container, for messages."""
    if not isinstance(node, Container) or not node.children:
        return [f"{path or 'the value'}: {spell(node)}"]
    pairs = zip(node.keys, node.children, strict=True)
    return [row for key, child in pairs for row in show(child, path + key)]
