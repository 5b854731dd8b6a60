"""Inputs of the sizes with which a model compares its sizes: they take the sides that the first input does not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from .. import _torch
from .probes import Flat, Probe, groups_of, varied, with_sizes

COMPARED = "as compared"
"""What such a probe is called."""
_MOST = 12
"""How many sizes there may be."""
_LARGE = 1 << 22
"""How many elements an input may get."""


def compared_sizes(module: Any) -> list[int]:
    """The sizes at which an ``if`` of a capture comes out otherwise than next to them: of ``x.shape[1] > 16``, 17."""
    found: dict[int, None] = {}
    for part in module.modules():
        for graph in _torch.method_graphs(part).values():
            for node in _torch.every_node(graph):
                if node.kind() == "prim::If":
                    found |= dict.fromkeys(_sizes(node.inputsAt(0).node()))
    return [size for size in found if size > 0][:_MOST]


def _sizes(asked: Any) -> list[int]:
    if asked.kind() not in _NEXT:
        return [size for each in asked.inputs() for size in _sizes(each.node())] if asked.kind() in _JOINED else []
    given = list(asked.inputs())
    numbers = [number for each in given if type(number := each.toIValue()) is int]
    of_sizes = all(_torch.kind(each.type()) == "IntType" for each in given)
    return [numbers[0] + step for step in _NEXT[asked.kind()]] if of_sizes and len(numbers) == 1 else []


_NEXT = {
    **dict.fromkeys(("aten::gt", "aten::le"), (1, 0)),
    **dict.fromkeys(("aten::lt", "aten::ge"), (0, -1)),
    **dict.fromkeys(("aten::eq", "aten::ne"), (0,)),
}
"""What to add to a number so that a size is on one side of it, and on the other."""
_JOINED = ("aten::__and__", "aten::__or__", "aten::__not__", "aten::Bool")


def at_sizes(sizes: Collection[int]) -> Callable[[Flat, Callable[[Probe], bool]], Iterator[Probe]]:
    """What makes inputs of these sizes, at each dimension, that the model accepts."""

    def made(flat: Flat, accepted: Callable[[Probe], bool]) -> Iterator[Probe]:
        groups = groups_of(flat)
        for key, places in groups.items():
            elements = max(flat[index].numel() for index, _ in places)
            for size in sizes:
                fits = size != key[0] and elements // max(key[0], 1) * size < _LARGE
                if fits and accepted(probe := with_sizes(flat, groups, COMPARED, varied, {key: size})):
                    yield probe

    return made
