"""Results that are objects of the model's own classes, which torch's pytree takes for leaves."""

from __future__ import annotations

from collections.abc import Container
from types import FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

from .. import _torch


class Held:
    """An object taken apart: its class, and what its attributes hold.

    Args:
        cls: The class.
        contents: Its attributes.
    """

    def __init__(self, cls: type, contents: dict[str, Any]) -> None:
        self.cls = cls
        self.contents = contents


def _flatten(held: Held) -> tuple[list[Any], Any]:
    return list(held.contents.values()), (held.cls, tuple(held.contents))


def _unflatten(values: Any, context: Any) -> Held:
    cls, names = context
    return Held(cls, dict(zip(names, values, strict=True)))


_torch.register_node(Held, _flatten, _unflatten, lambda context: list(context[1]))


def taken_apart(value: Any, known: Container[int] = (), depth: int = 8) -> Any:
    """The value with objects that hold tensors as `Held`, so that the tensors are leaves.

    Args:
        value: A result.
        known: The ``id(vars(x))`` of objects that stay what they are.
        depth: How many objects inside one another are looked into.
    """

    def apart(leaf: Any) -> Any:
        if not depth or not hasattr(leaf, "__dict__") or isinstance(leaf, _KEPT) or id(vars(leaf)) in known:
            return leaf
        contents = {name: taken_apart(held, known, depth - 1) for name, held in vars(leaf).items()}
        if not any(isinstance(each, Tensor) for each in _torch.tree_leaves(contents)):
            return leaf
        return Held(type(leaf), contents)

    return _torch.tree_map(apart, value)


_KEPT = (Tensor, nn.Module, type, FunctionType, MethodType, ModuleType)


def put_together(value: Any) -> Any:
    """The value with new objects in place of each `Held`."""

    def together(leaf: Any) -> Any:
        if not isinstance(leaf, Held):
            return leaf
        made: object = object.__new__(leaf.cls)
        vars(made).update({name: put_together(held) for name, held in leaf.contents.items()})
        return made

    return _torch.tree_map(together, value, is_leaf=lambda each: isinstance(each, Held))
