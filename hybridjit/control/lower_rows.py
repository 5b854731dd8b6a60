"""Loops over slices under torch.export and AOT: `scan` and `map` as torch's own operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _torch
from .lower_loops import Carrier, plan, read, unknown
from .points import ROUNDS, pointed
from .results import dtype_of, same
from .scout import Scout, Swap, active, imitate, own_memory, scouting
from .structure import Flat, flatten

_operators: Any = torch.ops.higher_order


def scan(combine_fn: Callable[..., Any], init: Any, xs: Any, dim: int, reverse: bool) -> tuple[Any, Any]:
    """Records a loop over slices that carries a value and stacks what each step gives."""
    rows = flatten(xs)
    tensors = [from_dim(tensor, dim, reverse) for tensor in rows.leaves]
    carry, ys = _over_rows(combine_fn, flatten(init), rows, tensors, combine_fn)
    return carry, each(ys, lambda y: to_dim(y, dim, reverse))


def map_rows(fn: Callable[..., Any], xs: Any) -> Any:
    """Records a function of each slice, stacked."""
    rows = flatten(xs)
    _, ys = _over_rows(lambda _, row: ((), fn(row)), flatten(()), rows, rows.leaves, fn)
    return ys


def each(value: Any, fn: Callable[[Tensor], Tensor]) -> Any:
    """Does something to every tensor of a pytree."""
    flat = flatten(value)
    return flat.rebuild([fn(leaf) if isinstance(leaf, Tensor) else leaf for leaf in flat.leaves])


def from_dim(tensor: Tensor, dim: int, reverse: bool) -> Tensor:
    """Brings a dimension to the front, and its end to its beginning."""
    tensor = tensor.movedim(dim, 0) if dim else tensor
    return tensor.flip([0]) if reverse else tensor


def to_dim(tensor: Tensor, dim: int, reverse: bool) -> Tensor:
    """Undoes `from_dim` on what was stacked."""
    tensor = tensor.flip([0]) if reverse else tensor
    return tensor.movedim(0, dim) if dim and dim < tensor.dim() else tensor


def _over_rows(fn: Any, init: Flat, rows: Flat, tensors: list[Any], spelled: Any) -> tuple[Any, Any]:
    """Runs `scan`, or `map` where nothing is carried, over the first dimension."""
    nested = active() is not None

    def step(leaves: Sequence[Any]) -> tuple[Flat, Flat]:
        carry, row = leaves[: len(init.leaves)], leaves[len(init.leaves) :]
        after, y = fn(init.rebuild(carry), rows.rebuild(row))
        return flatten(after), flatten(y)

    ys: list[Flat] = []
    with scouting() as scout:
        if nested:
            read(scout, init)
            read(scout, rows)
        row = [imitate(tensor, row=True) for tensor in tensors]

        def watched(leaves: Sequence[Any]) -> Flat:
            after, y = step([*leaves, *scout.make(row)])
            ys[:] = [y]
            return after

        carriers, given = plan(scout, spelled, init, watched, sizes=False)
        layers = _layers(scout, ys[0], (*given, *row))
        if nested:
            with scout.at_work():
                made = scout.make([layer.of_length(tensors[0].shape[0]) for layer in layers])
            return unknown(scout, init, carriers), ys[0].rebuild(made)
        sizes = scout.sizes
    length = tensors[0].shape[0]
    if same(length, 0):
        return init.rebuild(init.leaves), ys[0].rebuild([layer.of_length(0) for layer in layers])
    held = [carrier for carrier in carriers if not carrier.static]
    packs = bool(held) and _has_gradients([*scout.captured, *init.leaves, *tensors])
    kept = [*held, *(layer for layer in layers if not layer.static)]
    padded = isinstance(length, torch.SymInt)
    if padded:
        tensors = [torch.cat([tensor, one_more(tensor)]) for tensor in tensors]
        if held:
            tensors.append(torch.arange(length + 1, device=tensors[0].device) < length)

    def flat(*args: Any) -> tuple[Any, ...]:
        count = len(held) + len(tensors)
        with Swap(scout, args[count:]) as swapped:
            old = [_unpacked(each, arg, packs) for each, arg in zip(held, args[: len(held)], strict=True)]
            values = iter(old)
            whole = [each.start if each.static else next(values) for each in carriers]
            after, y = step([*whole, *args[len(held) :][: len(rows.leaves)]])
            leaves = [swapped.inside(leaf) for leaf in after.leaves]
            new = [each.settle(leaf) for each, leaf in zip(carriers, leaves, strict=True) if not each.static]
            if padded and held:
                new = [torch.where(args[count - 1], *pair) for pair in zip(new, old, strict=True)]
            pairs = zip(layers, [swapped.inside(leaf) for leaf in y.leaves], strict=True)
            given = (*new, *(layer.settle(leaf) for layer, leaf in pairs if not layer.static))
            return tuple(pack(each) for each in given) if packs else given

    captured = (*own_memory(scout.captured), *sizes)
    tensors = own_memory(tensors, scout.captured)
    if held:
        begin = [pack(carrier.begin()) if packs else carrier.begin() for carrier in held]
        begin = own_memory(begin, (*scout.captured, *tensors))
        with pointed("scan", None, ROUNDS, more=int(padded)):
            found = _operators.scan(flat, begin, tensors, captured)
    else:
        with pointed("scan", None, ROUNDS, more=int(padded)):
            found = _operators.map_impl(flat, tensors, captured)
    results = iter([_unpacked(each, result, packs) for each, result in zip(kept, found, strict=True)])
    carry = [carrier.start if carrier.static else next(results) for carrier in carriers]
    stacked = [layer.start if layer.static else next(results) for layer in layers]
    if padded:
        stacked = [y[:length] if isinstance(y, Tensor) else y for y in stacked]
    return init.rebuild(carry), ys[0].rebuild(stacked)


def _has_gradients(values: Sequence[Any]) -> bool:
    return torch.is_grad_enabled() and any(isinstance(value, Tensor) and value.requires_grad for value in values)


def pack(value: Tensor) -> Tensor:
    """The bits of an integer tensor as floats: torch's `scan` with gradients takes and gives nothing else."""
    return value if is_plain(value.dtype) else value.to(torch.int64).view(torch.float64)


def unpack(value: Tensor, dtype: torch.dtype) -> Tensor:
    """What `pack` was given."""
    return value if is_plain(dtype) else value.view(torch.int64).to(dtype)


def is_plain(dtype: torch.dtype) -> bool:
    """Whether a dtype has gradients."""
    return dtype.is_floating_point or dtype.is_complex


def _unpacked(carrier: Carrier, value: Tensor, packs: bool) -> Tensor:
    if not packs:
        return value
    return unpack(value, carrier.start.dtype if carrier.kind == "tensor" else carrier.kind)


def one_more(tensor: Tensor) -> Tensor:
    """One more row, for a length that may be 0: the operators take no slice of nothing.

    It is the first row again, where there is one, so that no gradient comes from a made-up value.
    """
    return torch.cat([tensor, tensor.new_zeros((1, *tensor.shape[1:]))])[:1]


class Layer(Carrier):
    """One leaf of what every step gives."""

    def of_length(self, length: int) -> Any:
        """A stack of so many."""
        if self.static:
            return self.start
        shape, dtype = (self.start.shape, self.start.dtype) if self.kind == "tensor" else ((), self.kind)
        device = self.start.device if self.kind == "tensor" else self.device
        return torch.zeros((length, *shape), dtype=dtype, device=device)


def _layers(scout: Scout, y: Flat, given: Sequence[Any]) -> list[Layer]:
    outside = [_torch.storage_key(tensor) for tensor in (*scout.stand_ins(), *given) if isinstance(tensor, Tensor)]
    layers = []
    for leaf in (scout.inside(leaf) for leaf in y.leaves):
        layer = Layer(leaf, "tensor" if isinstance(leaf, Tensor) else dtype_of(leaf) or "static")
        if isinstance(leaf, Tensor):
            layer.copy = _torch.storage_key(leaf) in outside
            outside.append(_torch.storage_key(leaf))
        layers.append(layer)
    return layers
