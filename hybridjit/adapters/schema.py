"""Structures as JSON, and the flat names of tensors."""

from __future__ import annotations

import inspect
import keyword
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError, compose
from .inputs import Inputs
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


def node_to_json(node: Node) -> dict[str, Any]:
    """A structure as JSON data."""
    if isinstance(node, TensorLeaf):
        return {"kind": "tensor"}
    if isinstance(node, NumberLeaf):
        return {"kind": "number", "type": node.type}
    if isinstance(node, StaticLeaf):
        return {"kind": "static", **_static_to_json(node.value)}
    return {
        "kind": node.kind,
        "type": node.type_name,
        "keys": list(node.keys),
        "names": list(node.names),
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
            return StaticLeaf(_static_from_json(data))
    return Container(
        data["kind"],
        tuple(data["keys"]),
        tuple(data["names"]),
        tuple(node_from_json(item) for item in data["items"]),
        data["type"],
        data["context"],
    )


def _static_to_json(value: Any) -> dict[str, Any]:
    if isinstance(value, (torch.dtype, torch.device)):
        return {"type": type(value).__name__, "value": str(value).removeprefix("torch.")}
    if isinstance(value, float) and not math.isfinite(value):
        return {"type": "float", "value": repr(value)}  # JSON has no nan and no inf
    return {"type": type(value).__name__, "value": value}


def _static_from_json(data: Mapping[str, Any]) -> Any:
    match data["type"]:
        case "dtype":
            return getattr(torch, data["value"])
        case "device":
            return torch.device(data["value"])
        case "float":
            return float(data["value"])
    return data["value"]


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
        return [path for path, leaf in leaves(self.node) if not isinstance(leaf, StaticLeaf)]

    def unflatten(self, tensors: tuple[Tensor, ...]) -> Any:
        """The rich value of flat tensors."""
        return build(self.node, iter(tensors))


@dataclass(frozen=True)
class CallSchema:
    """The structure of a call's arguments.

    Attributes:
        signature: The parameters; a default that is no static value is left out.
        arguments: The structure of the captured arguments, a dict by parameter name.
    """

    signature: inspect.Signature
    arguments: Container

    def to_json(self) -> dict[str, Any]:
        """The schema as JSON data."""
        parameters = []
        for p in self.signature.parameters.values():
            row: dict[str, Any] = {"name": p.name, "kind": p.kind.name}
            if p.default is not p.empty:
                row["default"] = (
                    _static_to_json(p.default) if _is_static(p.default) else {"type": "unknown"}
                )
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
                default = _static_from_json(row["default"]) if known else ...
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
        return CallSchema(signature, arguments), tuple(tensors)

    def names(self) -> list[str]:
        """The flat side's argument names: ``image``, ``targets_boxes``, ``images_0``."""
        taken: dict[str, int] = {}
        names = []
        for path, leaf in leaves(self.arguments):
            if isinstance(leaf, StaticLeaf):
                continue
            name = re.sub(r"\W+", "_", path).strip("_") or "value"
            if keyword.iskeyword(name) or name == "self" or name[0].isdigit():
                name = f"_{name}"
            taken[name] = taken.get(name, 0) + 1
            names.append(name if taken[name] == 1 else f"{name}_{taken[name]}")
        return names

    def flatten(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """The tensors of a call of this structure.

        Raises:
            InputError: The structure, or a static value, is another one; every difference is listed.
        """
        bound = bind(self.signature, inputs)
        for name in self.arguments.names:
            if name not in bound and self._default(name) is not inspect.Parameter.empty:
                bound[name] = self._default(name)
        for name in list(bound):
            # An argument that was left to its default may be given, if it is that default.
            if name not in self.arguments.names and _is_static(bound[name]):
                if bound[name] == self._default(name) and type(bound[name]) is type(self._default(name)):
                    del bound[name]
        tensors: list[Tensor] = []
        wrong = []
        for name, expected in zip(self.arguments.names, self.arguments.children, strict=True):
            if name not in bound:
                wrong.append(f"{name}: expected {spell(expected)}, got nothing")
                continue
            wrong += differences(expected, scan(bound.pop(name), tensors, name), name)
        wrong += [f"{name}: was left to its default when captured, can't be given" for name in bound]
        if wrong:
            raise InputError(
                compose(
                    "the call has another structure than the captured one",
                    differences=wrong,
                    instead="a call of the captured structure, or export the model with these inputs",
                    page="inputerror",
                )
            )
        return tuple(tensors)

    def unflatten(self, tensors: tuple[Tensor, ...]) -> Inputs:
        """The call's arguments again from flat tensors."""
        values = build(self.arguments, iter(tensors))
        bound = inspect.BoundArguments(self.signature, values)
        return Inputs(*bound.args, **bound.kwargs)

    def _default(self, name: str) -> Any:
        return self.signature.parameters[name].default


def _is_static(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, torch.dtype, torch.device))


def bind(signature: inspect.Signature, inputs: Inputs) -> dict[str, Any]:
    """The arguments of a call by parameter name, in the order of the parameters.

    Raises:
        InputError: The call does not fit the signature.
    """
    try:
        return dict(signature.bind(*inputs.args, **inputs.kwargs).arguments)
    except TypeError as error:
        raise InputError(
            compose(
                "the arguments don't fit the model's forward",
                where=f"forward{signature}",
                differences=[str(error), f"got {inputs!r}"],
                instead="a tuple of the positional arguments, or hybridjit.Inputs(*args, **kwargs)",
                page="inputerror",
            )
        ) from None
