"""Control flow under Dynamo, in torch.compile and strict export: torch's own operators, called as it takes them.

Dynamo reads the code below, rather than running it, and finds by itself what a function captures. What it does
not do: results that are no tensors, results that are captured tensors, and numbers that change in a loop. Results
other than tensors leave a function as empty tuples, which have no leaves; their values are noted on the side, by
functions that Dynamo runs while it traces.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import has_static_value

from .. import _torch
from .._errors import CaptureError, compose
from .lower_rows import each, from_dim, one_more, to_dim

F = TypeVar("F", bound=Callable[..., Any])

_operators: Any = torch.ops.higher_order
_DTYPES: dict[type, torch.dtype] = {bool: torch.bool, int: torch.int64, float: torch.float64}
_KINDS = {kind: f"{str(dtype).removeprefix('torch.')} of 0 dimensions" for kind, dtype in _DTYPES.items()}
_notes: dict[tuple[int, int], tuple[Any, ...]] = {}
_calls = itertools.count()


def _while_tracing(fn: F) -> F:
    """Makes Dynamo run a function of constants while it traces, and take what it gives for a constant."""
    constant: Callable[[F], F] = torch.compiler.assume_constant_result
    return constant(fn)


@_while_tracing
def _begin() -> int:
    """Begins to note what the two sides give; the notes of calls long done are dropped."""
    call = next(_calls)
    for old in [key for key in _notes if key[0] < call - 1000]:
        del _notes[old]
    return call


@_while_tracing
def _note(call: int, side: int, what: str, name: str, entries: tuple[Any, ...]) -> int:
    """Notes a result: per leaf its path, its kind, and for what is no tensor its value, if Dynamo knows it.

    Raises:
        CaptureError: The side noted before differs from this one.
    """
    before = _notes.get((call, 1 - side))
    _notes[call, side] = (name, *entries)
    if before is None:
        return 0
    names = (before[0], name)
    found = ({entry[0]: entry for entry in before[1:]}, {entry[0]: entry for entry in entries})
    rows = []
    for path in dict.fromkeys((*found[0], *found[1])):
        one, other = found[0].get(path), found[1].get(path)
        if one is None or other is None:
            present = one or other
            rows.append(f"result{path}: only {names[one is None]} gives it, {present[1]}")
        elif one[1] != other[1] or (one[1] == "static" and one[2:] != other[2:]):
            spelled = [entry[1] if entry[1] != "static" else repr(entry[2]) for entry in (one, other)]
            rows.append(f"result{path}: {names[0]} gives {spelled[0]}, {names[1]} {spelled[1]}")
    if rows:
        instead = "the same containers with the same keys and dtypes on both sides: result.to(x.dtype)"
        raise CaptureError(compose(what, differences=rows, instead=instead, page="branches-that-differ"))
    return 0


@_while_tracing
def _is_static(call: int, index: int) -> bool:
    """Whether a leaf is the same value on both sides."""
    first = _notes[call, 0][1 + index]
    second = _notes.get((call, 1), _notes[call, 0])[1 + index]
    return len(first) == 3 and bool(first[1:] == second[1:] and type(first[2]) is type(second[2]))


@_while_tracing
def _value(call: int, index: int) -> Any:
    """The value of a leaf that is the same on both sides."""
    return _notes[call, 0][1 + index][2]


def _is_empty(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 0


def _entry(path: str, leaf: Any) -> tuple[Any, ...]:
    if isinstance(leaf, Tensor):
        return (path, f"{str(leaf.dtype)[6:]} of {leaf.dim()} dimensions")
    for kind in (bool, int, float):
        if isinstance(leaf, kind):
            return (path, _KINDS[kind], leaf) if has_static_value(leaf) else (path, _KINDS[kind])
    return (path, "static", leaf)


def _as_tensor(leaf: Any) -> Tensor:
    """A tensor of its own: Dynamo lets no result be a captured tensor."""
    if isinstance(leaf, Tensor):
        return leaf.clone()
    dtype = torch.bool if isinstance(leaf, bool) else torch.int64 if isinstance(leaf, int) else torch.float64
    return torch.full((), leaf, dtype=dtype)


def _is_carried(leaf: Any) -> bool:
    return isinstance(leaf, (Tensor, bool, int, float))


def _give(call: int, side: int, what: str, name: str, value: Any) -> Any:
    """What a function gives, as an operator takes it."""
    leaves, paths, spec = _torch.tree_flatten_until(value, _is_empty)
    _note(call, side, what, name, tuple([_entry(path, leaf) for path, leaf in zip(paths, leaves, strict=True)]))
    return _torch.tree_unflatten([_as_tensor(leaf) if _is_carried(leaf) else () for leaf in leaves], spec)


def _take(call: int, given: Any) -> Any:
    """What an operator gave, as the functions meant it."""
    leaves, _, spec = _torch.tree_flatten_until(given, _is_empty)
    return _torch.tree_unflatten(
        [_value(call, index) if _is_static(call, index) else leaf for index, leaf in enumerate(leaves)], spec
    )


def cond(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], operands: Sequence[Any]) -> Any:
    """`lower_cond` where Dynamo traces."""
    if not isinstance(pred, Tensor) and has_static_value(pred):
        return true_fn(*operands) if pred else false_fn(*operands)
    what = "the two sides of a branch give different results"
    call = _begin()

    def side(index: int, name: str, fn: Callable[..., Any], other: Callable[..., Any]) -> Callable[[], Any]:
        def run() -> Any:
            try:
                value = fn(*operands)
            except Exception as error:  # stays in the graph, as an assertion that fails; what follows is never read
                _torch.raise_in_graph(f"{type(error).__name__}: {error}")
                leaves, _, spec = _torch.tree_flatten_until(other(*operands), _is_empty)
                zeros = [torch.zeros_like(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
                value = _torch.tree_unflatten(zeros, spec)
            return _give(call, index, what, name, value)

        return run

    true = side(0, "the side where it holds", true_fn, false_fn)
    false = side(1, "the side where it does not", false_fn, true_fn)
    if isinstance(pred, Tensor):
        pred = (pred if pred.dtype == torch.bool else pred != 0).reshape(())
    return _take(call, _operators.cond(pred, true, false, ()))


def while_loop(cond_fn: Callable[..., Any], body_fn: Callable[..., Any], carried: Sequence[Any]) -> tuple[Any, ...]:
    """`lower_while_loop` where Dynamo traces."""
    what = "a loop's body gives another kind of value than it is given"
    start, paths, spec = _torch.tree_flatten(tuple(carried))
    call = _begin()
    entries = [_entry(path, leaf)[:2] if _is_carried(leaf) else _entry(path, leaf) for path, leaf in zip(paths, start)]
    _note(call, 0, what, "what is carried", tuple(entries))

    def whole(flat: Sequence[Any]) -> Any:
        values = iter(flat)
        leaves = []
        for leaf in start:
            value = next(values) if _is_carried(leaf) else leaf
            whole_number = isinstance(leaf, int) and not isinstance(leaf, bool)
            leaves.append(value.item() if whole_number else value)
        return _torch.tree_unflatten(leaves, spec)

    def goes_on(*flat: Any) -> Any:
        holds = cond_fn(*whole(flat))
        if not isinstance(holds, Tensor):
            return holds
        return (holds.clone() if holds.dtype == torch.bool else holds != 0).reshape(())

    def body(*flat: Any) -> tuple[Tensor, ...]:
        given = body_fn(*whole(flat))
        leaves, found, _ = _torch.tree_flatten(tuple(given) if isinstance(given, (tuple, list)) else (given,))
        _note(call, 1, what, "the body", tuple([_entry(p, leaf) for p, leaf in zip(found, leaves)]))
        return tuple([_as_tensor(leaf) for leaf in leaves if _is_carried(leaf)])

    begin = tuple([_as_tensor(leaf) for leaf in start if _is_carried(leaf)])
    return tuple(whole(_operators.while_loop(goes_on, body, begin, ())))


def scan(combine_fn: Callable[..., Any], init: Any, xs: Any, dim: int, reverse: bool) -> tuple[Any, Any]:
    """`lower_scan` where Dynamo traces."""
    rows, _, rows_spec = _torch.tree_flatten(xs)
    rows = [from_dim(tensor, dim, reverse) for tensor in rows]
    start, paths, spec = _torch.tree_flatten(init)
    what = "a loop's body gives another kind of value than it is given"
    carry_call, y_call = _begin(), _begin()
    entries = [_entry(path, leaf)[:2] if _is_carried(leaf) else _entry(path, leaf) for path, leaf in zip(paths, start)]
    _note(carry_call, 0, what, "what is carried", tuple(entries))
    length = rows[0].shape[0]
    padded = _needs_row(length)
    if padded:
        rows = [torch.cat([tensor, one_more(tensor)]) for tensor in rows]
        rows.append(torch.arange(length + 1, device=rows[0].device) < length)
    begin = [_as_tensor(leaf) for leaf in start if _is_carried(leaf)]

    def whole(flat: Sequence[Any]) -> Any:
        values = iter(flat)
        return _torch.tree_unflatten([next(values) if _is_carried(leaf) else leaf for leaf in start], spec)

    # torch's operator wants a partial of a function with this keyword.
    def step(*flat: Any, combine_fn: Callable[..., Any]) -> tuple[list[Tensor], Any]:
        row = flat[len(begin) :][: rows_spec.num_leaves]
        after, y = combine_fn(whole(flat), _torch.tree_unflatten(row, rows_spec))
        leaves, found, _ = _torch.tree_flatten(after)
        _note(carry_call, 1, what, "the body", tuple([_entry(p, leaf) for p, leaf in zip(found, leaves)]))
        new = [_as_tensor(leaf) for leaf in leaves if _is_carried(leaf)]
        if padded:
            new = [torch.where(flat[-1], one, old) for one, old in zip(new, flat)]
        return new, _give(y_call, 0, what, "", y)

    if not begin:
        mapped = map_rows(
            lambda row: combine_fn(init, row)[1], _torch.tree_unflatten(rows[: rows_spec.num_leaves], rows_spec)
        )
        return init, each(mapped, lambda y: to_dim(y, dim, reverse))
    last, ys = _operators.scan(functools.partial(step, combine_fn=combine_fn), begin, rows, ())
    ys = each(_take_rows(y_call, ys), lambda y: to_dim(y[:length] if padded else y, dim, reverse))
    return whole(last), ys


def map_rows(fn: Callable[..., Any], xs: Any) -> Any:
    """`lower_map` where Dynamo traces."""
    rows, _, spec = _torch.tree_flatten(xs)
    length = rows[0].shape[0]
    padded = _needs_row(length)
    if padded:
        rows = [torch.cat([tensor, one_more(tensor)]) for tensor in rows]
    call = _begin()

    def step(*flat: Any) -> Any:
        return _give(call, 0, "", "", fn(_torch.tree_unflatten(flat, spec)))

    ys = _take_rows(call, _operators.map_impl(step, rows, []))
    return each(ys, lambda y: y[:length]) if padded else ys


def _needs_row(length: Any) -> bool:
    """Whether a length is 0, or may be when the exported program runs: the operators take no slice of nothing."""
    return length == 0 if has_static_value(length) else torch.compiler.is_exporting()


def _take_rows(call: int, given: Any) -> Any:
    """As `_take`; a number is stacked, even where each step gives the same."""
    leaves, _, spec = _torch.tree_flatten_until(given, _is_empty)
    return _torch.tree_unflatten(
        [leaf if isinstance(leaf, Tensor) else _value(call, index) for index, leaf in enumerate(leaves)], spec
    )
