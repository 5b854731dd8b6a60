"""What operators do with devices: which argument names one, which operands may be on the CPU.

The graph's side of what `control.origins._device_argument` finds in calls.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from .. import _torch


@dataclass(frozen=True)
class Operator:
    """An operator, as far as devices go.

    Attributes:
        device: Position of the argument that names the device.
        pinned: Position of the argument ``pin_memory``.
        mixes: Whether its operands may be on any devices; else they are on one.
        decides: Position of the operand whose device the result has, if that is not the common one.
        on_cpu: Positions of operands that must be on the CPU.
        cpu_outputs: Positions of results that are on the CPU.
        indexing: Whether its second operand may be on the CPU if its first is not.
        in_place: Whether it writes to its first operand.
        pointwise: Whether CPU tensors of no dimensions may be among its operands.
    """

    device: int | None = None
    pinned: int | None = None
    mixes: bool = False
    decides: int | None = None
    on_cpu: tuple[int, ...] = ()
    cpu_outputs: tuple[int, ...] = ()
    indexing: bool = False
    in_place: bool = False
    pointwise: bool = False


_INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index")


def operator_of(node: Any) -> Operator:
    """The operator of a node."""
    return _operator(node.kind(), node.schema())


@functools.lru_cache(maxsize=1024)
def _operator(kind: str, schema: str) -> Operator:
    space, _, name = kind.partition("::")
    if space != "aten":
        return Operator()
    names = arguments(schema)
    device = names.index("device") if "device" in names else None
    pinned = names.index("pin_memory") if "pin_memory" in names else None
    in_place = name.endswith("_") and not name.startswith("__")
    if name in ("copy_", "set_") or name.startswith("new_") or name.endswith("_like"):
        return Operator(device, pinned, mixes=True, decides=0, in_place=in_place)
    if name == "to":
        return Operator(device, pinned, mixes=True, decides=1 if "other" in names else 0)
    if name == "type_as":
        return Operator(mixes=True, decides=1)
    if name == "cpu":
        return Operator(mixes=True, cpu_outputs=(0,))
    if name == "_pack_padded_sequence":
        return Operator(decides=0, on_cpu=(1,), cpu_outputs=(1,))
    if name == "_pad_packed_sequence":
        return Operator(decides=0, on_cpu=(1,), cpu_outputs=(1,))
    if "tensor_indices_or_sections" in names or names[1:2] == ["batch_sizes"]:  # of packed sequences
        return Operator(decides=0, on_cpu=(1,))
    return Operator(
        device, pinned, indexing=name in _INDEXING, in_place=in_place, pointwise=name in _FILLING or _is_pointwise(name)
    )


_FILLING = ("fill", "fill_", "masked_fill", "masked_fill_", "index_put", "index_put_", "where", "index_fill_")
"""Besides pointwise operators these take CPU tensors of no dimensions, as values."""


_STRICT = ("clamp", "lerp", "addcmul", "addcdiv")
"""Pointwise operators that take no tensor of no dimensions from the CPU."""


def _is_pointwise(name: str) -> bool:
    if name.removesuffix("_") in _STRICT:
        return False
    packet = getattr(torch.ops.aten, name, None)
    if packet is None:
        return False
    return any(torch.Tag.pointwise in getattr(packet, overload).tags for overload in packet.overloads())


def arguments(schema: str) -> list[str]:
    """The names of a schema's arguments: ``aten::zeros(SymInt[] size, *, Device? device=None) -> Tensor``."""
    inside = re.search(r"\((.*)\) ->", schema)
    if inside is None:
        return []
    found = re.split(r", (?![^\[]*\])", inside[1])
    return [part.split("=")[0].split()[-1] for part in found if part and part != "*"]


def every_node(block: Any) -> Iterator[Any]:
    """Every node of a block, those inside of branches and loops too."""
    for node in list(block.nodes()):
        yield node
        if node.kind() in ("prim::If", "prim::Loop"):
            for inner in node.blocks():
                yield from every_node(inner)


def is_tensor(value: _torch.Value) -> bool:
    """Whether a value is a tensor."""
    return _torch.kind(value.type()) == "TensorType"


def holds_tensors(value: _torch.Value) -> bool:
    """Whether a value is a tensor, or a container of them."""
    return "Tensor" in str(value.type()) or is_tensor(value)
