"""Control flow under Dynamo, in torch.compile and strict export: torch's own operators, called as it takes them.

Dynamo reads the code below, rather than running it, and finds by itself what a function captures. What it does
not do: results that are no tensors, results that are captured tensors, and numbers that change in a loop. Results
other than tensors leave a function as empty tuples, which have no leaves; their values are noted on the side, by
functions that Dynamo runs while it traces.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import has_static_value

from .. import _torch
from . import notes
from .lower_rows import each, from_dim, is_plain, one_more, pack, to_dim, unpack

_operators: Any = torch.ops.higher_order


class _Fields(NamedTuple):
    """The fields of a dataclass: an operator's functions may return no object that they make."""

    values: tuple[Any, ...]


def _is_placed(value: Any) -> bool:
    return isinstance(value, _Fields) or (isinstance(value, tuple) and len(value) == 0)


def _is_made(value: Any) -> bool:
    return _is_dataclass(value) or (isinstance(value, tuple) and len(value) == 0)


def _is_dataclass(value: Any) -> bool:
    """`dataclasses.is_dataclass`, of which Dynamo of torch 2.11 can ask the value, but not its class."""
    return not isinstance(value, (int, float)) and hasattr(value, "__dataclass_fields__")


def _entry(path: str, leaf: Any) -> tuple[Any, ...]:
    if isinstance(leaf, Tensor):
        return (path, f"{str(leaf.dtype)[6:]} of {leaf.dim()} dimensions")
    if isinstance(leaf, (bool, int, float)):
        kind = "bool" if isinstance(leaf, bool) else "int64" if isinstance(leaf, int) else "float64"
        entry = (path, f"{kind} of 0 dimensions")
        return (*entry, leaf) if has_static_value(leaf) else entry
    return (path, "static", leaf)


def as_tensor(leaf: Any) -> Tensor:
    """A tensor of its own: Dynamo lets no result be a captured tensor."""
    if isinstance(leaf, Tensor):
        return leaf.clone()
    dtype = torch.bool if isinstance(leaf, bool) else torch.int64 if isinstance(leaf, int) else torch.float64
    return torch.full((), leaf, dtype=dtype)


def _entries_of(paths: Sequence[str], leaves: Sequence[Any]) -> tuple[Any, ...]:
    """An entry per leaf that is carried; the value of a number may change."""
    pairs = zip(paths, leaves, strict=True)
    return tuple([_entry(path, leaf)[:2] if _is_carried(leaf) else _entry(path, leaf) for path, leaf in pairs])


def _is_carried(leaf: Any) -> bool:
    return isinstance(leaf, (Tensor, bool, int, float))


def _give(
    entries: list[tuple[Any, ...]], value: Any, packs: bool = False, prefix: str = "", numbers: bool = True
) -> Any:
    """What a function gives, as an operator takes it; adds an entry per leaf.

    Where ``numbers`` may not become tensors, they must be the same whichever function runs.
    """
    leaves, paths, spec = _torch.tree_flatten(value, _is_made)
    given: list[Any] = []
    for path, leaf in zip(paths, leaves, strict=True):
        if _is_dataclass(leaf):
            names = tuple([field.name for field in dataclasses.fields(leaf)])
            entries.append((prefix + path, type(leaf).__qualname__, type(leaf), *names))
            inner = [f"{prefix}{path}.{name}" for name in names]
            fields = [
                _give(entries, getattr(leaf, name), packs, at, numbers) for name, at in zip(names, inner, strict=True)
            ]
            given.append(_Fields(tuple(fields)))
            continue
        is_number = isinstance(leaf, (int, float)) and not isinstance(leaf, bool)
        if is_number and not numbers:
            entries.append((prefix + path, "static", leaf))
            given.append(())
            continue
        entries.append(_entry(prefix + path, leaf))
        if _is_carried(leaf):
            given.append(pack(as_tensor(leaf)) if packs else as_tensor(leaf))
        else:
            given.append(())
    return _torch.tree_unflatten(given, spec)


def _take(call: int, given: Any, turn: Callable[[int, Tensor], Any], index: int = 0) -> tuple[Any, int]:
    """What an operator gave, as the functions meant it, and the index of the leaf after it."""
    leaves, _, spec = _torch.tree_flatten(given, _is_placed)
    taken = []
    for leaf in leaves:
        here = index
        index += 1
        if isinstance(leaf, _Fields):
            fields = {}
            for number in range(notes.count(call, here)):
                field, index = _take(call, leaf.values[number], turn, index)
                fields[notes.sourceless(notes.value(call, here, 3 + number))] = field
            taken.append(notes.classes[notes.sourceless(notes.kind(call, here))](**fields))
        else:
            taken.append(turn(here, leaf) if isinstance(leaf, Tensor) else notes.sourceless(notes.value(call, here)))
    return _torch.tree_unflatten(taken, spec), index


def _received(call: int, index: int, leaf: Tensor, packs: bool) -> Tensor:
    return _apart(unpack(leaf, getattr(torch, notes.kind(call, index).split()[0])) if packs else leaf)


def _apart(result: Tensor) -> Tensor:
    """A result whose gradient is a tensor of its own: torch's operators refuse two gradients that share memory."""
    return result * 1 if _trains() and is_plain(result.dtype) else result


def number(value: Tensor) -> Any:
    """An integer that a loop carries; a tensor, as in a trace, where Dynamo has no number of what data tell."""
    from . import splits  # which imports this

    return value.item() if splits.are_wanted() else value.clone()


def _trains() -> bool:
    """Whether gradients are wanted."""
    return torch.is_grad_enabled() and not notes.is_exporting()


_SIDES = ("the side where it holds", "the side where it does not")


def cond(
    pred: Any,
    true_fn: Callable[..., Any],
    false_fn: Callable[..., Any],
    operands: Sequence[Any],
    names: tuple[str, str] = _SIDES,
    numbers: bool = True,
) -> Any:
    """`lower_cond` where Dynamo traces.

    Args:
        pred: A predicate.
        true_fn: What to do where it holds.
        false_fn: What to do where it does not.
        operands: Arguments of both.
        names: What errors call the two.
        numbers: Whether numbers that differ become tensors; else they are refused.
    """
    if not isinstance(pred, Tensor) and has_static_value(pred):
        return true_fn(*operands) if pred else false_fn(*operands)
    what = "the two sides of a branch give different results"
    call = notes.begin()
    packs = _trains()
    flat, _, spec = _torch.tree_flatten(tuple(operands))

    def side(index: int, name: str, fn: Callable[..., Any], other: Callable[..., Any]) -> Callable[..., Any]:
        def run(*tensors: Tensor) -> Any:
            found = iter(tensors)
            args = _torch.tree_unflatten([next(found) if isinstance(leaf, Tensor) else leaf for leaf in flat], spec)
            entries: list[tuple[Any, ...]] = []
            try:
                given = _give(entries, fn(*args), packs, numbers=numbers)
            except Exception as error:  # stays in the graph, as an assertion; what is given is never read
                message = type(error).__name__ + ": " + str(error)
                if isinstance(pred, Tensor):
                    notes.note_error(call, index, message)
                else:
                    _torch.assert_in_graph(torch.full((), False), message)
                entries = []
                given = _give(entries, other(*args), packs, numbers=numbers)
            notes.note(call, index, what, name, tuple(entries))
            return given

        return run

    true = side(0, names[0], true_fn, false_fn)
    false = side(1, names[1], false_fn, true_fn)
    if isinstance(pred, Tensor):
        pred = (pred if pred.dtype == torch.bool else pred != 0).reshape(())
    tensors = tuple([leaf for leaf in flat if isinstance(leaf, Tensor)])
    given = _operators.cond(pred, true, false, tensors)
    if isinstance(pred, Tensor):
        # Beside the branch, not in it: a branch whose results nobody uses is dropped, an assertion is not.
        if notes.error(call, 0):
            _torch.assert_in_graph(~pred, notes.sourceless(notes.error(call, 0)))
        if notes.error(call, 1):
            _torch.assert_in_graph(pred, notes.sourceless(notes.error(call, 1)))

    def turn(index: int, leaf: Tensor) -> Any:
        if notes.is_static(call, index):
            return notes.sourceless(notes.value(call, index))
        return _received(call, index, leaf, packs)

    return _take(call, given, turn)[0]


def while_loop(cond_fn: Callable[..., Any], body_fn: Callable[..., Any], carried: Sequence[Any]) -> tuple[Any, ...]:
    """`lower_while_loop` where Dynamo traces."""
    what = "a loop's body gives another kind of value than it is given"
    start, paths, spec = _torch.tree_flatten(tuple(carried))
    call = notes.begin()
    notes.note(call, 0, what, "what is carried", _entries_of(paths, start))

    def whole(flat: Sequence[Any]) -> Any:
        values = iter(flat)
        leaves = []
        for leaf in start:
            value = next(values) if _is_carried(leaf) else leaf
            whole_number = isinstance(leaf, int) and not isinstance(leaf, bool)
            leaves.append(number(value) if whole_number else value)
        return _torch.tree_unflatten(leaves, spec)

    def goes_on(*flat: Any) -> Any:
        holds = cond_fn(*whole(flat))
        if not isinstance(holds, Tensor):
            return holds
        return (holds.clone() if holds.dtype == torch.bool else holds != 0).reshape(())

    def body(*flat: Any) -> tuple[Tensor, ...]:
        given = body_fn(*whole(flat))
        leaves, found, _ = _torch.tree_flatten(tuple(given) if isinstance(given, (tuple, list)) else (given,))
        notes.note(call, 1, what, "the body", _entries_of(found, leaves))
        return tuple([as_tensor(leaf) for leaf in leaves if _is_carried(leaf)])

    begin = tuple([as_tensor(leaf) for leaf in start if _is_carried(leaf)])
    last = _operators.while_loop(goes_on, body, _tied(begin, body), ())
    return tuple(whole([_apart(leaf) for leaf in last]))


def _tied(begin: tuple[Tensor, ...], body: Callable[..., Any]) -> tuple[Tensor, ...]:
    """Makes what a loop begins with require gradients if anything that its body uses does.

    Where it does not, torch's gradients of a loop are silently wrong: they stop at the last iteration. A branch never
    taken says the same numbers, and that they depend on all that the body uses.
    """
    plain = [is_plain(leaf.dtype) for leaf in begin]
    missing = [leaf for leaf, floats in zip(begin, plain, strict=True) if floats and not leaf.requires_grad]
    if not _trains() or len(missing) == 0:
        return begin

    def never(*carried: Tensor) -> tuple[Tensor, ...]:
        return tuple([leaf for leaf, floats in zip(body(*carried), plain, strict=True) if floats])

    def always(*carried: Tensor) -> tuple[Tensor, ...]:
        return tuple([leaf.clone() for leaf, floats in zip(carried, plain, strict=True) if floats])

    tied = iter(_operators.cond(torch.full((), False), never, always, begin))
    return tuple([_apart(next(tied)) if floats else leaf for leaf, floats in zip(begin, plain, strict=True)])


def scan(combine_fn: Callable[..., Any], init: Any, xs: Any, dim: int, reverse: bool) -> tuple[Any, Any]:
    """`lower_scan` where Dynamo traces."""
    rows, _, rows_spec = _torch.tree_flatten(xs)
    rows = [from_dim(tensor, dim, reverse) for tensor in rows]
    start, paths, spec = _torch.tree_flatten(init)
    begin = [as_tensor(leaf) for leaf in start if _is_carried(leaf)]
    if not begin:
        mapped = map_rows(lambda row: combine_fn(init, row)[1], _torch.tree_unflatten(rows, rows_spec))
        return init, each(mapped, lambda y: to_dim(y, dim, reverse))
    packs = torch.is_grad_enabled()
    dtypes = [leaf.dtype for leaf in begin]
    what = "a loop's body gives another kind of value than it is given"
    carry_call, y_call = notes.begin(), notes.begin()
    notes.note(carry_call, 0, what, "what is carried", _entries_of(paths, start))
    length = rows[0].shape[0]
    padded = _needs_row(length)
    if padded:
        rows = [torch.cat([tensor, one_more(tensor)]) for tensor in rows]
        rows.append(torch.arange(length + 1, device=rows[0].device) < length)

    def unpacked(flat: Sequence[Any]) -> list[Tensor]:
        return [unpack(leaf, dtype) if packs else leaf for leaf, dtype in zip(flat, dtypes, strict=True)]

    def whole(tensors: Sequence[Any]) -> Any:
        values = iter(tensors)
        return _torch.tree_unflatten([next(values) if _is_carried(leaf) else leaf for leaf in start], spec)

    # torch's operator wants a partial of a function with this keyword.
    def step(*flat: Any, combine_fn: Callable[..., Any]) -> tuple[list[Tensor], Any]:
        old = unpacked(flat[: len(begin)])
        row = flat[len(begin) :][: rows_spec.num_leaves]
        after, y = combine_fn(whole(old), _torch.tree_unflatten(row, rows_spec))
        leaves, found, _ = _torch.tree_flatten(after)
        notes.note(carry_call, 1, what, "the body", _entries_of(found, leaves))
        new = [as_tensor(leaf) for leaf in leaves if _is_carried(leaf)]
        if padded:
            new = [torch.where(flat[-1], *pair) for pair in zip(new, old, strict=True)]
        entries: list[tuple[Any, ...]] = []
        given = _give(entries, y, packs)
        notes.note(y_call, 0, what, "", tuple(entries))
        return [pack(leaf) if packs else leaf for leaf in new], given

    last, ys = _operators.scan(
        functools.partial(step, combine_fn=combine_fn), [pack(t) if packs else t for t in begin], rows, ()
    )

    def turn(index: int, y: Tensor) -> Tensor:
        y = _received(y_call, index, y, packs)
        return to_dim(y[:length] if padded else y, dim, reverse)

    return whole([_apart(leaf) for leaf in unpacked(last)]), _take(y_call, ys, turn)[0]


def map_rows(fn: Callable[..., Any], xs: Any) -> Any:
    """`lower_map` where Dynamo traces."""
    rows, _, spec = _torch.tree_flatten(xs)
    length = rows[0].shape[0]
    padded = _needs_row(length)
    # A copy, because the function may use all of what is mapped, and the operator refuses a slice beside the whole.
    rows = [torch.cat([tensor, one_more(tensor)]) if padded else tensor.clone() for tensor in rows]
    call = notes.begin()
    packs = _trains()

    def step(*flat: Any) -> Any:
        entries: list[tuple[Any, ...]] = []
        given = _give(entries, fn(_torch.tree_unflatten(flat, spec)), packs)
        notes.note(call, 0, "", "", tuple(entries))
        return given

    given = _operators.map_impl(step, rows, [])

    def turn(index: int, y: Tensor) -> Tensor:
        y = _received(call, index, y, packs)
        return y[:length] if padded else y

    return _take(call, given, turn)[0]


def _needs_row(length: Any) -> bool:
    """Whether a length is 0, or may be when the exported program runs: the operators take no slice of nothing."""
    return length == 0 if has_static_value(length) else notes.is_exporting()
