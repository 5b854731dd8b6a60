"""Control flow under torch.export, AOT and Dynamo: each piece becomes torch's own operator for it.

torch's functions for users (`torch.cond` and its like) hand closures to Dynamo, which refuses much of what
models do. Here the functions are run once on stand-ins (`scout`), which tells what they capture; then the
operator is called with that as explicit operands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import _torch
from .._sites import Site
from .lower_loops import while_loop
from .lower_rows import map_rows, scan
from .points import TRUTH, pointed
from .results import Slot, as_condition, attempt, match, settle, spell_error, truth, unread
from .scout import Scout, Swap, active, own_memory, scouting
from .structure import Flat, flatten

_operators: Any = torch.ops.higher_order


def capturing() -> str:
    """What records operations right now, if anything does.

    Returns:
        ``"dynamo"`` in torch.compile and strict export, ``"export"`` in non-strict export, ``make_fx``
        and AOT, empty in plain eager code.
    """
    if _torch.dynamo_traces():
        return "dynamo"
    if _torch.dispatch_modes() and _torch.tracing_modes():
        return "export"
    return ""


def lower_cond(
    pred: Any,
    true_fn: Callable[..., Any],
    false_fn: Callable[..., Any],
    operands: Sequence[Any] = (),
    kind: str = "cond",
    site: Site | None = None,
    names: Sequence[str] = TRUTH,
) -> Any:
    """Records both sides of a branch.

    Args:
        pred: A Python bool, which picks its side here and now, a comparison of sizes, or a tensor of one element.
        true_fn: What to do where it holds.
        false_fn: What to do where it does not.
        operands: Arguments of both.
        kind: What it is for the coverage of branches, see `points.Point`.
        site: Where it is; the line of the user's that calls if absent.
        names: What its sides are called.

    Returns:
        What the side taken gives; numbers that differ become tensors of no dimensions.

    Raises:
        CaptureError: The sides differ in what a graph must have alike, or one writes to a tensor from outside.
    """
    if _torch.dynamo_traces():
        from . import lower_dynamo

        return lower_dynamo.cond(pred, true_fn, false_fn, operands)
    known = truth(pred)
    if known is not None:
        return (true_fn if known else false_fn)(*operands)
    sides = (partial(true_fn, *operands), partial(false_fn, *operands))
    nested = active() is not None
    with scouting() as scout:
        with scout.at_work():
            runs = attempt(scout, sides)
        spec, slots = match("the two sides of a branch give different results", scout, sides, runs)
        if nested:
            with scout.at_work():
                return _fill(spec, slots, _merge(scout, pred, runs, slots))
        sizes = scout.sizes
    captured = (*own_memory(scout.captured), *sizes)
    holds = as_condition(pred)

    def side(index: int) -> Callable[..., tuple[Tensor, ...]]:
        def run(*args: Any) -> tuple[Tensor, ...]:
            with Swap(scout, args) as swapped:
                if isinstance(runs[index], Exception):
                    if not isinstance(holds, Tensor):
                        _torch.assert_in_graph(torch.full((), False), spell_error(runs[index]))
                    return unread(slots)
                leaves = [swapped.inside(leaf) for leaf in flatten(sides[index]()).leaves]
                return tuple(
                    settle(leaf, slot, slot.copies[index])
                    for leaf, slot in zip(leaves, slots, strict=True)
                    if slot.tensor
                )

        return run

    if isinstance(holds, Tensor):
        # Beside the branch, not in it: a branch whose results nobody uses is dropped, an assertion is not.
        for index, run in enumerate(runs):
            if isinstance(run, Exception):
                _torch.assert_in_graph(holds if index else ~holds, spell_error(run))
    if not any(slot.tensor for slot in slots) and isinstance(holds, Tensor):
        return _fill(spec, slots, ())
    with pointed(kind, site, names, [isinstance(run, Exception) for run in runs]):
        results: Sequence[Tensor] = _operators.cond(holds, side(0), side(1), captured)
    return _fill(spec, slots, results)


def _fill(spec: Flat, slots: Sequence[Slot], results: Sequence[Tensor]) -> Any:
    found = iter(results)
    return spec.rebuild([next(found) if slot.tensor else slot.value for slot in slots])


def _merge(scout: Scout, pred: Any, runs: Sequence[Any], slots: Sequence[Slot]) -> Sequence[Tensor]:
    """Gives what a branch gives on stand-ins: of sizes that are not known where the sides differ."""
    leaves = [
        unread(slots)
        if isinstance(run, Exception)
        else tuple(settle(leaf, slot, True) for leaf, slot in zip(run.leaves, slots, strict=True) if slot.tensor)
        for run in runs
    ]
    merged: Sequence[Tensor] = _operators.cond(as_condition(pred), lambda: leaves[0], lambda: leaves[1], ())
    return scout.make(merged)


def lower_while_loop(
    cond_fn: Callable[..., Any],
    body_fn: Callable[..., Any],
    carried: Sequence[Any],
    kind: str = "loop",
    site: Site | None = None,
) -> tuple[Any, ...]:
    """Records a loop that goes on while a predicate holds.

    Args:
        cond_fn: The predicate of what is carried.
        body_fn: Gives what is carried to the next iteration.
        carried: First values. An int that the body changes is an integer of the graph inside and after; a float or
            bool that it changes, a tensor.
        kind: What it is for the coverage of branches, see `points.Point`.
        site: Where it is; the line of the user's that calls if absent.

    Returns:
        The last values.

    Raises:
        CaptureError: The body changes the structure, dtype or device of what it carries, or writes to a tensor from
            outside, or the predicate always holds.
        UnsupportedError: The body changes a size of what it carries.
    """
    if _torch.dynamo_traces():
        from . import lower_dynamo

        return lower_dynamo.while_loop(cond_fn, body_fn, carried)
    return while_loop(cond_fn, body_fn, carried, kind, site)


def lower_fori_loop(lower: Any, upper: Any, body_fn: Callable[..., Any], init: Any) -> Any:
    """Records a loop over a range of numbers.

    Args:
        lower: The first number: an int, a size, or an integer tensor of one element.
        upper: One past the last.
        body_fn: Gives what is carried next, from the number, which is an integer here too, and what is carried.
        init: What is carried first.

    Returns:
        What is carried in the end.

    Raises:
        CaptureError: As `lower_while_loop`.
        UnsupportedError: As `lower_while_loop`.
    """
    # The counter itself is a tensor, so that its last value, which nobody wants, is not read.
    start = lower.reshape(()) if isinstance(lower, Tensor) else torch.full((), lower, dtype=torch.int64)
    last = upper.reshape(()) if isinstance(upper, Tensor) else upper

    def body(index: Tensor, carry: Any) -> tuple[Tensor, Any]:
        return index + 1, body_fn(number(index), carry)

    number: Callable[[Tensor], Any] = Tensor.item
    if _torch.dynamo_traces():
        from . import lower_dynamo

        number = lower_dynamo.number

    return lower_while_loop(lambda index, carry: index < last, body, (start, init))[1]


def lower_scan(
    combine_fn: Callable[..., Any], init: Any, xs: Any, dim: int = 0, reverse: bool = False
) -> tuple[Any, Any]:
    """Records a loop over slices that carries a value and stacks what each step gives.

    Args:
        combine_fn: Gives the next carry and what to stack, from the carry and a slice.
        init: The first carry; a number that the function changes becomes a tensor of no dimensions.
        xs: Tensors of one length in ``dim``, which may be 0.
        dim: The dimension to go along.
        reverse: Whether to begin at the end; what is stacked keeps the order of ``xs``.

    Returns:
        The last carry, and the stacks, along ``dim`` too where they have it.

    Raises:
        CaptureError: As `lower_while_loop`.
        UnsupportedError: As `lower_while_loop`.
    """
    if _torch.dynamo_traces():
        from . import lower_dynamo

        return lower_dynamo.scan(combine_fn, init, xs, dim, reverse)
    return scan(combine_fn, init, xs, dim, reverse)


def lower_map(fn: Callable[..., Any], xs: Any) -> Any:
    """Records a function of each slice along the first dimension, and stacks what it gives.

    Args:
        fn: The function.
        xs: Tensors of one length, which may be 0.

    Returns:
        The stacks.

    Raises:
        CaptureError: The function writes to a tensor from outside.
    """
    if _torch.dynamo_traces():
        from . import lower_dynamo

        return lower_dynamo.map_rows(fn, xs)
    return map_rows(fn, xs)
