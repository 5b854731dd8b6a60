"""Control flow under Dynamo, in torch.compile and strict export: torch's own operators, called as it takes them.

Dynamo reads the code below, rather than running it, and finds by itself what a function captures. What it does
not do: results that are no tensors, results that are captured tensors, and numbers that change in a loop. Results
other than tensors leave a function as empty tuples, which have no leaves; their values are noted on the side, by
functions that Dynamo runs while it traces.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import has_static_value

from .. import _torch
from .._errors import CaptureError, compose
from .lower_rows import each, from_dim, one_more, pack, to_dim, unpack

F = TypeVar("F", bound=Callable[..., Any])

_operators: Any = torch.ops.higher_order
_DTYPES: dict[type, torch.dtype] = {bool: torch.bool, int: torch.int64, float: torch.float64}
_KINDS = {kind: f"{str(dtype).removeprefix('torch.')} of 0 dimensions" for kind, dtype in _DTYPES.items()}
_notes: dict[tuple[int, int], tuple[Any, ...]] = {}
_calls = itertools.count()
_classes: dict[str, Any] = {}
"""The dataclasses that functions gave, by name."""


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
    _classes.update({entry[1]: entry[2] for entry in entries if len(entry) > 2 and isinstance(entry[2], type)})
    if before is None:
        return 0
    names = (before[0], name)
    found: tuple[dict[str, Any], dict[str, Any]]
    found = ({entry[0]: entry for entry in before[1:]}, {entry[0]: entry for entry in entries})
    rows = []
    for path in dict.fromkeys((*found[0], *found[1])):
        one, other = found[0].get(path), found[1].get(path)
        if one is None or other is None:
            present = one or other or ("", "")
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
def _kind(call: int, index: int) -> str:
    """The kind of a leaf: a dtype and a number of dimensions, ``static``, or the name of a dataclass."""
    return str(_notes[call, 0][1 + index][1])


@_while_tracing
def _count(call: int, index: int) -> int:
    """How many fields a dataclass has."""
    return len(_notes[call, 0][1 + index]) - 3


@_while_tracing
def _value(call: int, index: int, at: int = 2) -> Any:
    """The value of a leaf that is the same on both sides, or the name of a dataclass's field."""
    return _notes[call, 0][1 + index][at]


def _sourceless(value: Any) -> Any:
    """A constant that Dynamo knows for its own: it can't guard the place where it got one while it traced."""
    if value is None:
        return None
    if isinstance(value, tuple):  # an empty one: any other is no leaf
        return ()
    if isinstance(value, bool):
        return bool(value)
    if isinstance(value, str):
        return value + ""
    return value + 0 if isinstance(value, (int, float)) else value


class _Fields(NamedTuple):
    """The fields of a dataclass: an operator's functions may return no object that they make."""

    values: tuple[Any, ...]


def _is_placed(value: Any) -> bool:
    return isinstance(value, _Fields) or (isinstance(value, tuple) and len(value) == 0)


def _is_made(value: Any) -> bool:
    return dataclasses.is_dataclass(value) or (isinstance(value, tuple) and len(value) == 0)


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


def _entries_of(paths: Sequence[str], leaves: Sequence[Any]) -> tuple[Any, ...]:
    """An entry per leaf that is carried; the value of a number may change."""
    pairs = zip(paths, leaves, strict=True)
    return tuple([_entry(path, leaf)[:2] if _is_carried(leaf) else _entry(path, leaf) for path, leaf in pairs])


def _is_carried(leaf: Any) -> bool:
    return isinstance(leaf, (Tensor, bool, int, float))


def _give(entries: list[tuple[Any, ...]], value: Any, packs: bool = False, prefix: str = "") -> Any:
    """What a function gives, as an operator takes it; adds an entry per leaf."""
    leaves, paths, spec = _torch.tree_flatten_until(value, _is_made)
    given: list[Any] = []
    for path, leaf in zip(paths, leaves, strict=True):
        if dataclasses.is_dataclass(leaf):
            names = tuple([field.name for field in dataclasses.fields(leaf)])
            entries.append((prefix + path, type(leaf).__qualname__, type(leaf), *names))
            fields = [_give(entries, getattr(leaf, name), packs, f"{prefix}{path}.{name}") for name in names]
            given.append(_Fields(tuple(fields)))
            continue
        entries.append(_entry(prefix + path, leaf))
        if _is_carried(leaf):
            given.append(pack(_as_tensor(leaf)) if packs else _as_tensor(leaf))
        else:
            given.append(())
    return _torch.tree_unflatten(given, spec)


def _take(call: int, given: Any, turn: Callable[[int, Tensor], Any], index: int = 0) -> tuple[Any, int]:
    """What an operator gave, as the functions meant it, and the index of the leaf after it."""
    leaves, _, spec = _torch.tree_flatten_until(given, _is_placed)
    taken = []
    for leaf in leaves:
        here = index
        index += 1
        if isinstance(leaf, _Fields):
            fields = {}
            for number in range(_count(call, here)):
                field, index = _take(call, leaf.values[number], turn, index)
                fields[_sourceless(_value(call, here, 3 + number))] = field
            taken.append(_classes[_sourceless(_kind(call, here))](**fields))
        else:
            taken.append(turn(here, leaf) if isinstance(leaf, Tensor) else _sourceless(_value(call, here)))
    return _torch.tree_unflatten(taken, spec), index


def _unpacked(call: int, index: int, leaf: Tensor) -> Tensor:
    return unpack(leaf, getattr(torch, _kind(call, index).split()[0]))


def cond(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], operands: Sequence[Any]) -> Any:
    """`lower_cond` where Dynamo traces."""
    if not isinstance(pred, Tensor) and has_static_value(pred):
        return true_fn(*operands) if pred else false_fn(*operands)
    what = "the two sides of a branch give different results"
    call = _begin()
    packs = _packs()
    flat, _, spec = _torch.tree_flatten(tuple(operands))

    def side(index: int, name: str, fn: Callable[..., Any], other: Callable[..., Any]) -> Callable[..., Any]:
        def run(*tensors: Tensor) -> Any:
            found = iter(tensors)
            args = _torch.tree_unflatten([next(found) if isinstance(leaf, Tensor) else leaf for leaf in flat], spec)
            entries: list[tuple[Any, ...]] = []
            try:
                given = _give(entries, fn(*args), packs)
            except Exception as error:  # stays in the graph, as an assertion that fails; what follows is never read
                _torch.raise_in_graph(f"{type(error).__name__}: {error}")
                entries = []
                given = _give(entries, other(*args), packs)
            _note(call, index, what, name, tuple(entries))
            return given

        return run

    true = side(0, "the side where it holds", true_fn, false_fn)
    false = side(1, "the side where it does not", false_fn, true_fn)
    if isinstance(pred, Tensor):
        pred = (pred if pred.dtype == torch.bool else pred != 0).reshape(())
    given = _operators.cond(pred, true, false, tuple([leaf for leaf in flat if isinstance(leaf, Tensor)]))

    def turn(index: int, leaf: Tensor) -> Any:
        if _is_static(call, index):
            return _sourceless(_value(call, index))
        return _unpacked(call, index, leaf) if packs else leaf

    return _take(call, given, turn)[0]


def while_loop(cond_fn: Callable[..., Any], body_fn: Callable[..., Any], carried: Sequence[Any]) -> tuple[Any, ...]:
    """`lower_while_loop` where Dynamo traces."""
    what = "a loop's body gives another kind of value than it is given"
    start, paths, spec = _torch.tree_flatten(tuple(carried))
    call = _begin()
    _note(call, 0, what, "what is carried", _entries_of(paths, start))

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
        _note(call, 1, what, "the body", _entries_of(found, leaves))
        return tuple([_as_tensor(leaf) for leaf in leaves if _is_carried(leaf)])

    begin = tuple([_as_tensor(leaf) for leaf in start if _is_carried(leaf)])
    return tuple(whole(_operators.while_loop(goes_on, body, begin, ())))


def scan(combine_fn: Callable[..., Any], init: Any, xs: Any, dim: int, reverse: bool) -> tuple[Any, Any]:
    """`lower_scan` where Dynamo traces."""
    rows, _, rows_spec = _torch.tree_flatten(xs)
    rows = [from_dim(tensor, dim, reverse) for tensor in rows]
    start, paths, spec = _torch.tree_flatten(init)
    begin = [_as_tensor(leaf) for leaf in start if _is_carried(leaf)]
    if not begin:
        mapped = map_rows(lambda row: combine_fn(init, row)[1], _torch.tree_unflatten(rows, rows_spec))
        return init, each(mapped, lambda y: to_dim(y, dim, reverse))
    packs = torch.is_grad_enabled()
    dtypes = [leaf.dtype for leaf in begin]
    what = "a loop's body gives another kind of value than it is given"
    carry_call, y_call = _begin(), _begin()
    _note(carry_call, 0, what, "what is carried", _entries_of(paths, start))
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
        _note(carry_call, 1, what, "the body", _entries_of(found, leaves))
        new = [_as_tensor(leaf) for leaf in leaves if _is_carried(leaf)]
        if padded:
            new = [torch.where(flat[-1], *pair) for pair in zip(new, old, strict=True)]
        entries: list[tuple[Any, ...]] = []
        given = _give(entries, y, packs)
        _note(y_call, 0, what, "", tuple(entries))
        return [pack(leaf) if packs else leaf for leaf in new], given

    last, ys = _operators.scan(
        functools.partial(step, combine_fn=combine_fn), [pack(t) if packs else t for t in begin], rows, ()
    )

    def turn(index: int, y: Tensor) -> Tensor:
        if packs:
            y = _unpacked(y_call, index, y)
        return to_dim(y[:length] if padded else y, dim, reverse)

    return whole(unpacked(last)), _take(y_call, ys, turn)[0]


def map_rows(fn: Callable[..., Any], xs: Any) -> Any:
    """`lower_map` where Dynamo traces."""
    rows, _, spec = _torch.tree_flatten(xs)
    length = rows[0].shape[0]
    padded = _needs_row(length)
    # A copy, because the function may use all of what is mapped, and the operator refuses a slice beside the whole.
    rows = [torch.cat([tensor, one_more(tensor)]) if padded else tensor.clone() for tensor in rows]
    call = _begin()
    packs = _packs()

    def step(*flat: Any) -> Any:
        entries: list[tuple[Any, ...]] = []
        given = _give(entries, fn(_torch.tree_unflatten(flat, spec)), packs)
        _note(call, 0, "", "", tuple(entries))
        return given

    given = _operators.map_impl(step, rows, [])

    def turn(index: int, y: Tensor) -> Tensor:
        y = _unpacked(call, index, y) if packs else y
        return y[:length] if padded else y

    return _take(call, given, turn)[0]


def _packs() -> bool:
    """Whether integers go through an operator as floats: the gradients of torch's own know no others."""
    return torch.is_grad_enabled() and not torch.compiler.is_exporting()


def _needs_row(length: Any) -> bool:
    """Whether a length is 0, or may be when the exported program runs: the operators take no slice of nothing."""
    return length == 0 if has_static_value(length) else torch.compiler.is_exporting()
