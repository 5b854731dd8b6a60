"""Structures as JSON, and the flat names of tensors."""

from __future__ import annotations

import functools
import inspect
import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .._describe import describe
from .._errors import InputError, compose
from .inputs import Inputs
from .plain import is_plain, pack, static_from_json, static_to_json, unpack
from .take import take
from .tree import (
    Container,
    Node,
    NumberLeaf,
    StaticLeaf,
    TensorLeaf,
    build,
    differences,
    leaves,
    scan,
    spell,
)

_NAMES = (
    "self torch ops aten CONSTANTS Ellipsis NoneType __torch__ annotate uninitialized unchecked_cast int float bool "
    "complex range print getattr setattr hasattr isinstance fork inf nan infj nanj Any Dict List Optional "
    "Tensor Tuple"
)
_RESERVED = frozenset(_NAMES.split())
"""What the code in a TorchScript file calls: an argument of the name would be called in its place."""


def leaf_paths(node: Node) -> list[str]:
    """The path of each leaf of a structure that is a tensor on the flat side, in order."""
    return [path for path, leaf in leaves(node) if not isinstance(leaf, StaticLeaf)]


def node_to_json(node: Node) -> dict[str, Any]:
    """A structure as JSON data."""
    if isinstance(node, TensorLeaf):
        return {"kind": "tensor"}
    if isinstance(node, NumberLeaf):
        return {"kind": "number", "type": node.type}
    if isinstance(node, StaticLeaf):
        return {"kind": "static", **static_to_json(node.value)}
    return {
        "kind": node.kind,
        "type": node.type_name,
        "keys": list(node.keys),
        "names": [name if type(name) in (str, int) else pack(name) for name in node.names],
        "context": node.dumped,
        "items": [node_to_json(child) for child in node.children],
    }


def node_from_json(data: Mapping[str, Any]) -> Node:
    """The structure that `node_to_json` wrote."""
    match data["kind"]:
        case "tensor":
            return TensorLeaf()
        case "number":
            return NumberLeaf(str(data["type"]))
        case "static":
            return StaticLeaf(static_from_json(data))
    return Container(
        data["kind"],
        tuple(data["keys"]),
        tuple(unpack(name) if isinstance(name, dict) else name for name in data["names"]),
        tuple(node_from_json(item) for item in data["items"]),
        data["type"],
        data["context"],
    )


@dataclass(frozen=True)
class ValueSchema:
    """The structure of a result.

    Attributes:
        node: The structure.
    """

    node: Node

    def to_json(self) -> dict[str, Any]:
        """The schema as JSON data."""
        return node_to_json(self.node)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> ValueSchema:
        """The schema that `to_json` wrote."""
        return ValueSchema(node_from_json(data))

    def paths(self) -> list[str]:
        """The path of each tensor on the flat side, in order."""
        return leaf_paths(self.node)

    def unflatten(self, tensors: tuple[Tensor, ...]) -> Any:
        """The rich value of flat tensors.

        Raises:
            InputError: There are more tensors than that, or fewer.
        """
        if len(tensors) != self._count:
            raise _miscounted("the result", self.paths(), tensors)
        return build(self.node, iter(tensors))

    @functools.cached_property
    def _count(self) -> int:
        return len(self.paths())


@dataclass(frozen=True)
class CallSchema:
    """The structure of a call's arguments.

    Attributes:
        signature: The parameters; a default that is no plain data is ``...`` after loading.
        arguments: The structure of the captured arguments, a dict by parameter name.
        keywords: The parameters that were given by keyword, which a hook can tell; not saved.
    """

    signature: inspect.Signature
    arguments: Container
    keywords: tuple[str, ...] = field(default=(), compare=False)

    def to_json(self) -> dict[str, Any]:
        """The schema as JSON data."""
        parameters = []
        for p in self.signature.parameters.values():
            row: dict[str, Any] = {"name": p.name, "kind": p.kind.name}
            if p.default is not p.empty:
                row["default"] = pack(p.default) if is_plain(p.default) else {"type": "unknown"}
            parameters.append(row)
        return {"parameters": parameters, "arguments": node_to_json(self.arguments), "names": self.names()}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> CallSchema:
        """The schema that `to_json` wrote."""
        parameters = []
        for row in data["parameters"]:
            default: Any = inspect.Parameter.empty
            if "default" in row:
                known = row["default"]["type"] != "unknown"
                default = unpack(row["default"]) if known else ...
            kind = getattr(inspect.Parameter, row["kind"])
            parameters.append(inspect.Parameter(row["name"], kind, default=default))
        arguments = node_from_json(data["arguments"])
        assert isinstance(arguments, Container)
        return CallSchema(inspect.Signature(parameters), arguments)

    @staticmethod
    def of(signature: inspect.Signature, inputs: Inputs) -> tuple[CallSchema, tuple[Tensor, ...]]:
        """The schema of a call, and its tensors."""
        bound = bind(signature, inputs)
        tensors: list[Tensor] = []
        children = tuple(scan(value, tensors, name) for name, value in bound.items())
        names = tuple(bound)
        arguments = Container("dict", names, names, children, "builtins.dict")
        return CallSchema(signature, arguments, tuple(inputs.kwargs)), tuple(tensors)

    def names(self) -> list[str]:
        """The flat side's argument names: ``image``, ``targets_boxes``, ``images_0``."""
        paths = leaf_paths(self.arguments)
        names: list[str] = []
        # Parameters that are tensors keep their names, whatever the others come to.
        taken = {path for path in paths if flat_name(path) == path}
        for path in paths:
            name = stem = flat_name(path)
            count = 1
            while name != path and name in taken:
                count += 1
                name = f"{stem}_{count}"
            taken.add(name)
            names.append(name)
        return names

    def flatten(self, inputs: Inputs, where: str = "") -> tuple[Tensor, ...]:
        """The tensors of a call of this structure.

        Args:
            inputs: The call.
            where: What the call is named in messages.

        Raises:
            InputError: The structure, or a static value, is another one; every difference is listed.
        """
        taken = self.take(inputs)
        if taken is not None:
            return taken
        tensors, wrong = self.match(inputs, where)
        if wrong:
            raise InputError(
                compose(
                    "the call has another structure than the captured one",
                    where=where,
                    differences=wrong,
                    instead="a call of the captured structure, or export the model with these inputs",
                    page="inputerror",
                )
            )
        return tensors

    def take(self, inputs: Inputs) -> tuple[Tensor, ...] | None:
        """The tensors of a call of this structure, as fast as can be.

        Returns:
            ``None`` if the call is not plainly of this structure: `match` may know it for the same all the same.
        """
        args, kwargs, places = inputs.args, inputs.kwargs, self._places
        if places is None or len(args) + len(kwargs) != len(places):
            return None
        tensors: list[Tensor] = []
        for name, place, node in places:
            if 0 <= place < len(args):
                value = args[place]
            elif name in kwargs:
                value = kwargs[name]
            else:
                return None
            if not take(node, value, tensors):
                return None
        return tuple(tensors)

    @functools.cached_property
    def _places(self) -> tuple[tuple[str, int, Node], ...] | None:
        """The captured arguments, each with its place among the positional ones, -1 for a keyword.

        ``None`` where a parameter takes any number of arguments, or none by keyword.
        """
        kinds = {name: p.kind.name for name, p in self.signature.parameters.items()}
        if not set(kinds.values()) <= {"POSITIONAL_OR_KEYWORD", "KEYWORD_ONLY"}:
            return None
        order = {name: place for place, name in enumerate(kinds) if kinds[name] != "KEYWORD_ONLY"}
        pairs = zip(self.arguments.names, self.arguments.children, strict=True)
        return tuple((name, order.get(name, -1), node) for name, node in pairs)

    def match(self, inputs: Inputs, where: str = "") -> tuple[tuple[Tensor, ...], list[str]]:
        """The tensors of a call, and where its structure differs from this one.

        Args:
            inputs: The call.
            where: What the call is named in messages.

        Raises:
            InputError: It does not fit the signature, or holds something without a flat side.
        """
        bound = bind(self.signature, inputs, where)
        for name in self.arguments.names:
            if name not in bound and self._default(name) is not inspect.Parameter.empty:
                bound[name] = self._default(name)
        for name in list(bound):
            # An argument that was left to its default may be given, if it is that default.
            if name not in self.arguments.names:
                given, default = bound[name], self._default(name)
                if given is default or (is_plain(given) and is_plain(default) and same_plain(given, default)):
                    del bound[name]
        tensors: list[Tensor] = []
        wrong = []
        for name, expected in zip(self.arguments.names, self.arguments.children, strict=True):
            if name not in bound:
                wrong.append(f"{name}: expected {spell(expected)}, got nothing")
                continue
            wrong += differences(expected, scan(bound.pop(name), tensors, name), name)
        for name in bound:
            many = self.signature.parameters[name].kind.name.startswith("VAR_")
            wrong.append(
                f"{name}: expected nothing, got {describe(bound[name])}"
                if many
                else f"{name}: was left to its default when captured, can't be given"
            )
        return tuple(tensors), wrong

    def changes(self, inputs: Inputs, tensors: Sequence[Tensor]) -> list[str]:
        """What a call has changed in the containers that it was given, as ``path: was …, is …``.

        Args:
            inputs: The call's arguments, as `unflatten` made them, after it.
            tensors: What they were made of.
        """
        try:
            held, wrong = self.match(inputs)
        except InputError:
            return ["they hold now what no call can"]
        pairs = zip(leaf_paths(self.arguments), tensors, held, strict=not wrong)
        other = [f"{path}: was a tensor, is another" for path, one, now in pairs if not wrong and one is not now]
        return [each.replace("expected ", "was ", 1).replace(", got ", ", is ", 1) for each in wrong] + other

    def unflatten(self, tensors: tuple[Tensor, ...]) -> Inputs:
        """The call's arguments again from flat tensors.

        Raises:
            InputError: There are more tensors than that, or fewer.
        """
        names = self.names()
        if len(tensors) != len(names):
            raise _miscounted("the call", names, tensors)
        values = build(self.arguments, iter(tensors))
        by_keyword = {name: values.pop(name) for name in self.keywords if name in self._named and name in values}
        bound = inspect.BoundArguments(self.signature, values)
        return Inputs(*bound.args, **bound.kwargs, **by_keyword)

    @property
    def _named(self) -> set[str]:
        """The parameters that are no ``*args`` or ``**kwargs``, whose own names say nothing of a call."""
        return {name for name, p in self.signature.parameters.items() if not p.kind.name.startswith("VAR_")}

    def _default(self, name: str) -> Any:
        return self.signature.parameters[name].default


def same_plain(a: Any, b: Any) -> bool:
    """Whether two plain values are the same, types and all."""
    return repr(pack(a)) == repr(pack(b))


def flat_name(path: str) -> str:
    """A path as a name that an argument can have in a TorchScript file."""
    name = re.sub(r"\W+", "_", re.sub(r"\W+$", "", path), flags=re.ASCII)
    name = name if name.strip("_") else "value"
    if keyword.iskeyword(name) or name in _RESERVED or name[0].isdigit():
        name = f"_{name}"
    return name


def _miscounted(what: str, names: Sequence[str], tensors: Sequence[Tensor]) -> InputError:
    return InputError(
        compose(
            f"{what} has {len(names)} tensors on the flat side, got {len(tensors)}",
            differences=[f"expected {', '.join(names) or 'none'}"],
            instead="adapter.flatten(...) for the call's tensors, and what forward returned for the result's",
            page="inputerror",
        )
    )


def bind(signature: inspect.Signature, inputs: Inputs, where: str = "") -> dict[str, Any]:
    """The arguments of a call by parameter name, in the order of the parameters.

    Args:
        signature: The signature.
        inputs: The call.
        where: What the call is named in messages.

    Raises:
        InputError: The call does not fit the signature.
    """
    try:
        return dict(signature.bind(*inputs.args, **inputs.kwargs).arguments)
    except TypeError as error:
        raise InputError(
            compose(
                "the arguments don't fit the model's forward",
                where=f"{where}, forward{signature}" if where else f"forward{signature}",
                differences=[str(error), f"got {inputs!r}"],
                instead="a tuple of the positional arguments, or hybridjit.Inputs(*args, **kwargs)",
                page="inputerror",
            )
        ) from None
