"""Loops recorded into the running trace: the body once, as a block that is repeated."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import _torch
from .._errors import CaptureError, compose
from .._sites import user_site
from . import record
from .blocks import as_tensor, fresh, run_side, trace_cond
from .points import ROUNDS, note
from .recorder import Recorder, watching
from .structure import Flat, check_same, flatten, spell_function
from .values import lower_argument


def as_carry(result: Any, count: int) -> Any:
    """What a body returned, as the tuple that is carried: a lone value is a tuple of one."""
    if count == 1 and not isinstance(result, (tuple, list)):
        return (result,)
    return tuple(result)


def stack(column: Sequence[Any], dim: int) -> Tensor:
    """Stacks what the steps of a `scan` gave, along its dimension or, of results too small for it, the first."""
    tensors = [as_tensor(y) for y in column]
    return torch.stack(tensors, stack_dim(tensors[0].dim(), dim))


def stack_dim(dims: int, dim: int) -> int:
    """Where results of so many dimensions are stacked."""
    return dim if dim <= dims else 0


def zero_slice(x: Tensor, dim: int) -> Tensor:
    """A slice of zeros, of the sizes that slices of an empty tensor have."""
    return x.new_zeros([*x.shape[:dim], *x.shape[dim + 1 :]])


@dataclass
class Round:
    """What one round gives.

    Attributes:
        carry: What the next round takes.
        after: Whether there is a next one; ``None`` where a count says so.
        row: What the step of a `scan` gives besides.
    """

    carry: Flat
    after: Tensor | None = None
    row: Flat | None = None


def trace_while_loop(
    cond_fn: Callable[..., Any], body_fn: Callable[..., Any], carried: tuple[Any, ...], own: tuple[Any, Any]
) -> Any:
    """Records a `while_loop`.

    Args:
        cond_fn: Whether to go on.
        body_fn: One round.
        carried: What is carried first.
        own: Both functions as the user wrote them, for messages.
    """
    graph = _torch.current_graph()
    start = _as_tensors(flatten(carried))
    with watching() as recorder:
        first = _truth(cond_fn(*start.rebuild(start.leaves)), own[0])
        goes = _torch.insert_bool(graph, _torch.value_of(first))
        with _torch.paused_tracing():
            runs = bool(first)

        def once(index: Any, carry: Any) -> Round:
            state = _as_tensors(flatten(as_carry(body_fn(*carry), len(carried))))
            return Round(state, _truth(cond_fn(*state.rebuild(state.leaves)), own[0]))

        def rest(done: Round) -> list[Round]:
            state, after = done.carry.rebuild(done.carry.leaves), done.after
            while after:
                state = as_carry(body_fn(*state), len(carried))
                after = cond_fn(*state)
            return [Round(flatten(state))]

        trips = _torch.insert_constant(graph, sys.maxsize)
        return _record(recorder, start, (trips, goes), once, rest, runs, own[1])[0]


def trace_fori_loop(lower: Any, upper: Any, body_fn: Callable[..., Any], init: Any, own: Any) -> Any:
    """Records a `fori_loop`."""
    graph = _torch.current_graph()
    integer = _torch.type_named("IntType")
    where = f"fori_loop ({spell_function(own)})"
    start = _as_tensors(flatten(init))
    with watching() as recorder:
        first, low = lower_argument(graph, lower, integer, f"{where}: argument lower")
        last, high = lower_argument(graph, upper, integer, f"{where}: argument upper")
        from_zero = isinstance(lower, int) and lower == 0
        trips = last if from_zero else _torch.insert(graph, "aten::sub", [last, first], integer)

        def once(index: Any, carry: Any) -> Round:
            number = index if from_zero else _torch.insert(graph, "aten::add", [index, first], integer)
            value = _torch.insert(graph, "prim::NumToTensor", [number], _torch.type_named("TensorType"))
            return Round(flatten(body_fn(_lent(recorder, _example(torch.tensor, low), value), carry)))

        def rest(done: Round) -> list[Round]:
            state = done.carry.rebuild(done.carry.leaves)
            for number in range(low + 1, high):
                state = body_fn(torch.tensor(number), state)
            return [Round(flatten(state))]

        goes = _torch.insert_constant(graph, True)
        return _record(recorder, start, (trips, goes), once, rest, low < high, own)[0]


def trace_scan(combine_fn: Callable[..., Any], init: Any, xs: Any, dim: int, reverse: bool, own: Any) -> Any:
    """Records a `scan`.

    At least one round runs, on zeros where ``xs`` is empty: what it gives tells the sizes of the
    result, and is dropped.
    """
    graph = _torch.current_graph()
    integer, tensor = _torch.type_named("IntType"), _torch.type_named("TensorType")
    start, flat = _as_tensors(flatten(init)), flatten(xs)
    names = "the side of no slices", "the side of some"
    with watching() as recorder:
        length = flat.leaves[0].shape[dim]
        empty = length == 0
        zeros: Callable[[], Any] = lambda: [zero_slice(x, dim).unsqueeze(dim) for x in flat.leaves]  # noqa: E731
        padded = trace_cond(empty, zeros, lambda: list(flat.leaves), (), names, None, "scan", (ROUNDS[0], ""))
        size, count = lower_argument(graph, padded[0].shape[dim], integer, "scan: argument xs")

        def slices(number: int, value: Any = None) -> Any:
            index = count - 1 - number if reverse else number
            if value is None:
                return flat.rebuild([x.select(dim, index) for x in padded])
            if reverse:
                past = _torch.insert(graph, "aten::add", [value, _torch.insert_constant(graph, 1)], integer)
                value = _torch.insert(graph, "aten::sub", [size, past], integer)
            made = []
            for x in padded:
                inputs = [_torch.value_of(x), _torch.insert_constant(graph, dim), value]
                selected = _torch.insert(graph, "aten::select", inputs, tensor)
                made.append(_lent(recorder, _example(x.select, (dim, index)), selected))
            return flat.rebuild(made)

        def once(index: Any, carry: Any) -> Round:
            carry, row = combine_fn(carry, slices(0, index))
            return Round(flatten(carry), None, flatten(row))

        def rest(done: Round) -> list[Round]:
            rounds, carry = [done], done.carry.rebuild(done.carry.leaves)
            for number in range(1, count):
                carry, row = combine_fn(carry, slices(number))
                rounds.append(Round(flatten(carry), None, flatten(row)))
            return rounds

        goes = _torch.insert_constant(graph, True)
        carry, columns, row = _record(recorder, start, (size, goes), once, rest, True, own, "scan")
        stacks = []
        for examples, values in columns:
            place = stack_dim(examples[0].dim(), dim)
            stacked = _torch.insert(graph, "aten::stack", [values, _torch.insert_constant(graph, place)], tensor)
            together = _bind(_example(torch.stack, (examples, place)), stacked)
            stacks.append((together.flip(place) if reverse else together).narrow(place, 0, length))
        recorder.adopt(stacks)
        if start.leaves:
            carry = trace_cond(empty, lambda: start.rebuild(start.leaves), lambda: carry, (), names, None, "")
        return carry, row.rebuild(stacks)


def _record(
    recorder: Recorder,
    start: Flat,
    counts: tuple[Any, Any],
    once: Callable[[Any, Any], Round],
    rest: Callable[[Round], list[Round]],
    runs: bool,
    own: Any,
    kind: str = "loop",
) -> tuple[Any, list[tuple[list[Tensor], Any]], Any]:
    """Records a loop.

    Args:
        recorder: The recorder of the trace.
        start: What is carried first.
        counts: How many rounds there are at most, and whether there is a first one.
        once: One round, to be recorded.
        rest: The rounds after the first, on the example's data; the last one's carry counts.
        runs: Whether the example runs a round.
        own: The body as the user wrote it.
        kind: What kind of branch point it is.

    Returns:
        What is carried in the end; per leaf of a step's result the examples and the list in the graph;
        the structure of that result.
    """
    graph = _torch.current_graph()
    tensors = [leaf for leaf in start.leaves if isinstance(leaf, Tensor)]
    node, index, inner = insert_loop(graph, *counts, [_torch.value_of(each) for each in tensors])
    note(node, kind, user_site(record.current().names), ROUNDS)
    (block,) = node.blocks()
    says = f"the body of a loop ({spell_function(own)})"
    done: list[Round] = []

    def body() -> None:
        values = iter(inner)
        leaves = [
            _lent(recorder, fresh(leaf), next(values)) if isinstance(leaf, Tensor) else leaf for leaf in start.leaves
        ]
        done.append(once(index, start.rebuild(leaves)))

    side = run_side(recorder, block, says, body, (), must=runs)
    rounds = done
    columns: list[tuple[list[Tensor], Any]] = []
    with _torch.recording_into(graph, block):
        if side.raised:
            goes = counts[1]  # never read; a loop that counts must go on, or torch can't print it
            results = [_torch.insert_uninitialized(graph) for _ in tensors]
        else:
            where = str(user_site(record.current().names))
            with _torch.paused_tracing():
                what = "the body of a loop returns something else than it takes"
                check_same(what, where, ("the carry", "the body"), (start, done[0].carry))
            results = [_torch.value_of(as_tensor(leaf)) for leaf in done[0].carry.leaves if not _is_fixed(leaf)]
            after = done[0].after
            goes = counts[1] if after is None else _torch.insert_bool(graph, _torch.value_of(after))
            for leaf in done[0].row.leaves if done[0].row else ():
                columns.append(([], _torch.append_to_list(graph, node, _torch.value_of(as_tensor(leaf)))))
            with recorder.example_of(side.frame):
                rounds = rest(done[0]) if runs else [Round(start)]
    outputs = _torch.close_blocks(graph, node, [[goes, *results]], loop=True, nested=recorder.depth > 0)
    final = rounds[-1].carry if not side.raised else start
    values = iter(outputs)
    # In a block their memory is taken for the block's own, which that of a tensor from outside must not be.
    own_memory = torch.clone if recorder.depth else torch.ops.aten.alias
    leaves = [
        leaf if _is_fixed(leaf) else _bind(fresh(as_tensor(leaf), own_memory), next(values)) for leaf in final.leaves
    ]
    recorder.adopt([leaf for leaf in leaves if isinstance(leaf, Tensor)])
    for number, (examples, _) in enumerate(columns):
        examples += [as_tensor(each.row.leaves[number]) for each in rounds if each.row]
    row = done[0].row if done else None
    done.clear()
    del rounds, final  # seal looks for tensors that somebody else still holds
    recorder.seal(side.frame)
    return start.rebuild(leaves), columns, row


def _is_fixed(leaf: Any) -> bool:
    return not isinstance(leaf, (Tensor, bool, int, float))


def _as_tensors(flat: Flat) -> Flat:
    """Numbers that a loop carries become tensors of no dimensions."""
    leaves = [leaf if _is_fixed(leaf) else as_tensor(leaf) for leaf in flat.leaves]
    return Flat(leaves, flat.paths, flat.spec)


def _bind(tensor: Tensor, value: Any) -> Tensor:
    _torch.bind_value(tensor, value)
    return tensor


def _example(make: Callable[..., Tensor], args: Any) -> Tensor:
    """An example made without recording it."""
    with _torch.paused_tracing():
        example = make(*args) if isinstance(args, tuple) else make(args)
    return fresh(example)


def _lent(recorder: Recorder, tensor: Tensor, value: Any) -> Tensor:
    """Binds a tensor that the body is given to what it is there, and to nothing outside of it."""
    recorder.frames[-1].made.append(weakref.ref(tensor))
    return _bind(tensor, value)


def _truth(goes: Any, cond_fn: Any) -> Tensor:
    if isinstance(goes, Tensor):
        return goes
    raise CaptureError(
        compose(
            "the condition of a while_loop does not depend on what it carries",
            where=f"cond_fn ({spell_function(cond_fn)}), called at {user_site(record.current().names)}",
            differences=[f"expected a tensor of one element, got {type(goes).__name__}"],
            instead="a comparison of tensors: lambda i, x: i < x.shape[0], with i = torch.tensor(0) in the carry",
            page="loops-over-tensors",
        )
    )


def insert_loop(
    graph: _torch.Graph, trips: _torch.Value, starts: _torch.Value, carried: Sequence[_torch.Value]
) -> tuple[Any, _torch.Value, list[_torch.Value]]:
    """Inserts a ``prim::Loop``, and returns it, its iteration number and what it carries, both inside."""
    node = graph.insertNode(graph.create("prim::Loop", [trips, starts, *carried], 0))
    block = node.addBlock()
    block.addInputToBlock().setType(_torch.type_named("IntType"))
    for _ in carried:
        block.addInputToBlock().setType(_torch.type_named("TensorType"))
    index, *values = block.inputs()
    return node, index, values
