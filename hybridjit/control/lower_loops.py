"""Loops under torch.export and AOT: `while_loop`, `scan` and `map` as torch's own operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import _torch
from .._describe import describe
from .._errors import CaptureError, UnsupportedError, compose
from .._sites import Site, user_site
from . import record
from .points import ROUNDS, pointed
from .results import as_condition, dtype_of, same, truth
from .scout import Scout, Swap, active, imitate, own_memory, scouting
from .structure import Flat, check_same, flatten, spell_function

_operators: Any = torch.ops.higher_order


@dataclass
class Carrier:
    """One leaf of what a loop carries, or gives at every step.

    Attributes:
        start: Its first value.
        kind: ``"tensor"``; ``"int"``; ``"static"`` where the body leaves a value alone; or the dtype
            of the tensor that a number becomes.
        device: Where such a tensor is.
        dense: Whether its memory is laid out anew at every step, because the body changes that.
        copy: Whether the body gives a tensor from outside, or one it gives twice.
    """

    start: Any
    kind: Any
    device: Any = "cpu"
    dense: bool = False
    copy: bool = False

    @property
    def static(self) -> bool:
        """Whether it needs no place in the graph."""
        return bool(self.kind == "static")

    def stand_in(self) -> Any:
        """Any value of its kind."""
        if self.kind == "tensor":
            return imitate(self.start)
        if self.kind == "int":
            return _torch.fresh_integer(self.start)
        return self.start if self.static else torch.empty((), dtype=self.kind, device=self.device)

    def settle(self, leaf: Any) -> Any:
        """Makes a value what the graph carries: always a tensor, since loops of ints have no gradients."""
        if not isinstance(leaf, Tensor):
            return torch.full((), leaf, dtype=torch.int64 if self.kind == "int" else self.kind, device=self.device)
        if self.dense:
            return leaf.clone(memory_format=torch.contiguous_format)
        return leaf.clone() if self.copy else leaf

    def enter(self, carried: Tensor) -> Any:
        """Makes what the graph carries what the body takes."""
        return carried.item() if self.kind == "int" else carried

    def begin(self) -> Any:
        """Its first value, as the graph carries it."""
        if self.dense and isinstance(self.start, Tensor):
            return self.start.contiguous()
        return self.start if isinstance(self.start, Tensor) else self.settle(self.start)


def _adapt(carrier: Carrier, given: Any, leaf: Any, sizes: bool) -> bool:
    """Changes a carrier to what the body gives; whether it did."""
    if carrier.kind == "tensor" or (carrier.static and same(given, leaf)):
        return False
    before, dtype, start = carrier.kind, dtype_of(leaf), dtype_of(carrier.start)
    if dtype is None or start is None:
        return False  # told later, with all others
    whole = (torch.int64,) * 2 == (dtype, start) and not isinstance(leaf, Tensor)
    if whole and sizes and before in ("static", "int"):
        carrier.kind = "int"
    elif isinstance(leaf, Tensor):
        carrier.kind, carrier.device = dtype, leaf.device
    else:
        carrier.kind = torch.promote_types(dtype, start if isinstance(before, str) else before)
    return bool(carrier.kind != before)


def plan(
    scout: Scout, fn: Any, start: Flat, step: Callable[[Sequence[Any]], Flat], sizes: bool
) -> tuple[list[Carrier], list[Any]]:
    """Finds what must be carried, by running the body on values that are known less and less.

    A number is carried only if the body changes it where all that is carried is unknown: then it
    may change at any step.

    Returns:
        The carriers, and the stand-ins that the last run was given.
    """
    carriers = [Carrier(leaf, "tensor" if isinstance(leaf, Tensor) else "static") for leaf in start.leaves]
    for _ in range(3 * len(carriers) + 1):
        given = [carrier.stand_in() for carrier in carriers]
        with scout.at_work():
            scout.make(given)
            after = step(given)
        if after.spec != start.spec:
            names = ("what is carried", spell_function(fn))
            check_same("a loop's body gives another structure than it is given", where(), names, (start, after))
        leaves = [scout.inside(leaf) for leaf in after.leaves]
        if not any([_adapt(*each, sizes) for each in zip(carriers, given, leaves, strict=True)]):
            break
    _check(fn, start, carriers, given, leaves)
    outside = [_torch.storage_key(tensor) for tensor in (*scout.stand_ins(), *given) if isinstance(tensor, Tensor)]
    for carrier, one, other in zip(carriers, given, leaves, strict=True):
        if isinstance(other, Tensor):
            key = _torch.storage_key(other)
            carrier.copy = key in outside
            outside.append(key)
            strides = zip(one.stride(), other.stride(), strict=True) if isinstance(one, Tensor) else ()
            carrier.dense = any(not same(a, b) for a, b in strides)
    return carriers, given


def where() -> str:
    """The line of the model that is running."""
    return str(user_site(record.current().names))


def _check(fn: Any, start: Flat, carriers: Sequence[Carrier], given: Sequence[Any], leaves: Sequence[Any]) -> None:
    """Refuses a body that gives another dtype, device, size or kind of value than it is given."""
    rows, grows = [], True
    for path, carrier, one, other in zip(start.paths, carriers, given, leaves, strict=True):
        if carrier.static or carrier.kind == "int":
            fits = same(one, other) or not carrier.static
            resized = False
        elif isinstance(other, Tensor):
            resized = other.dtype == one.dtype and other.device == one.device and not _same_sizes(one, other)
            fits = not resized and other.dtype == one.dtype and other.device == one.device
        else:
            fits, resized = not isinstance(carrier.start, Tensor), False
        if not fits:
            rows.append(f"carried{path}: {spell_function(fn)} is given {describe(one)} and gives {describe(other)}")
            grows = grows and resized
    if rows and grows:
        raise UnsupportedError(
            compose(
                "a loop's body changes the size of what it carries, which a graph of torch.export can't",
                where=where(),
                differences=rows,
                instead="carry a tensor of the largest size and how much of it is filled:\n"
                "rows, count = hj.while_loop(go_on, lambda rows, n: (rows.index_fill(0, n, 1), n + 1), (rows, n))",
                page="unsupportederror",
            )
        )
    if rows:
        instead = "a body that gives what it is given: carry.to(x.dtype), torch.zeros(()) for 0.0"
        what = "a loop's body gives another kind of value than it is given"
        raise CaptureError(compose(what, where=where(), differences=rows, instead=instead, page="branches-that-differ"))


def _same_sizes(one: Tensor, other: Tensor) -> bool:
    return one.dim() == other.dim() and all(same_size(a, b) for a, b in zip(one.shape, other.shape, strict=True))


def same_size(one: Any, other: Any) -> bool:
    """Whether two sizes are sure to be equal, without a guess."""
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return same(one, other) or bool(statically_known_true(one == other))


def while_loop(
    cond_fn: Callable[..., Any],
    body_fn: Callable[..., Any],
    carried: Sequence[Any],
    kind: str = "loop",
    site: Site | None = None,
) -> tuple[Any, ...]:
    """Records a loop that goes on while a predicate holds."""
    start = flatten(tuple(carried))
    nested = active() is not None
    goes: list[Any] = []

    def body(leaves: Sequence[Any]) -> Flat:
        given = body_fn(*start.rebuild(leaves))
        return flatten(tuple(given) if isinstance(given, (tuple, list)) else (given,))

    def step(leaves: Sequence[Any]) -> Flat:
        goes[:] = [cond_fn(*start.rebuild(leaves))]
        return body(leaves)

    with scouting() as scout:
        if nested:
            read(scout, start)
        carriers, given = plan(scout, body_fn, start, step, sizes=True)
        known = truth(goes[0])
        if nested:
            found: tuple[Any, ...] = unknown(scout, start, carriers)
            return found
        sizes = scout.sizes
        taken = [_torch.storage_key(tensor) for tensor in (*scout.stand_ins(), *given) if isinstance(tensor, Tensor)]
        lent = isinstance(goes[0], Tensor) and _torch.storage_key(goes[0]) in taken
    if known is False:
        return tuple(carried)
    if known:
        raise CaptureError(
            compose(
                "a loop never ends: its predicate holds whatever is carried",
                where=where(),
                differences=[f"{spell_function(cond_fn)} gives {goes[0]!r}"],
                instead="a predicate of what is carried: hj.while_loop(lambda n, x: n < 5, body, (0, x))",
                page="captureerror",
            )
        )
    held = [carrier for carrier in carriers if not carrier.static]

    def whole(args: Sequence[Any]) -> list[Any]:
        values = iter(args)
        return [carrier.start if carrier.static else carrier.enter(next(values)) for carrier in carriers]

    def flat_cond(*args: Any) -> Any:
        with Swap(scout, args[len(held) :]) as swapped:
            goes_on = swapped.inside(cond_fn(*start.rebuild(whole(args))))
            return as_condition(goes_on.clone() if lent else goes_on)

    def flat_body(*args: Any) -> tuple[Any, ...]:
        with Swap(scout, args[len(held) :]) as swapped:
            leaves = [swapped.inside(leaf) for leaf in body(whole(args)).leaves]
            return tuple(each.settle(leaf) for each, leaf in zip(carriers, leaves, strict=True) if not each.static)

    captured = own_memory(scout.captured)
    begin = _tied(own_memory([carrier.begin() for carrier in held], scout.captured), scout.captured)
    with pointed(kind, site, ROUNDS):
        results: Sequence[Any] = _operators.while_loop(flat_cond, flat_body, tuple(begin), (*captured, *sizes))
    last: tuple[Any, ...] = start.rebuild(whole(results))
    return last


def _tied(begin: list[Tensor], captured: Sequence[Tensor]) -> list[Tensor]:
    """Makes what a loop begins with require gradients if anything that its body uses does.

    Where it does not, torch's gradients of a loop are silently wrong: they stop at the last iteration. Nothing is
    added in torch.export, whose programs are made to be run.
    """
    sources = [tensor for tensor in (*captured, *begin) if tensor.requires_grad]
    if not sources or not torch.is_grad_enabled() or torch.compiler.is_exporting():
        return begin
    none = sources[0].reshape(-1)[:0]  # no numbers, but their gradients
    return [
        torch.cat([none.to(leaf), leaf.reshape(-1)]).reshape(leaf.shape)
        if leaf.dtype.is_floating_point and not leaf.requires_grad
        else leaf
        for leaf in begin
    ]


def read(scout: Scout, start: Flat) -> None:
    """Notes that an outer piece uses what a loop in it begins with."""
    for leaf in start.leaves:
        scout.inside(leaf)


def unknown(scout: Scout, start: Flat, carriers: Sequence[Carrier]) -> Any:
    """What a loop gives on stand-ins: values of its kinds that nothing is known of."""
    with scout.at_work():
        return start.rebuild(scout.make([carrier.stand_in() for carrier in carriers]))
