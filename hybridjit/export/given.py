"""Sizes given to operations as numbers where torch takes the example's: the operation in the graph gets the size."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .. import _torch
from .._sites import user_frame
from ..control.recorder import as_one_operation
from ..control.structure import tensors_of
from .asking import modules_of
from .kinds import GIVEN
from .numbers import is_number
from .operators import arguments
from .standins import vars_of

if TYPE_CHECKING:
    from .answers import See
    from .watch import Watch


def keep(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any, sizes: Collection[int]) -> set[int]:
    """Gives the operation that a call has recorded the numbers that the call was given.

    An argument is found by its name and place; it is left alone unless it has the number of the example there.

    Args:
        func: What was called.
        args: Its arguments.
        kwargs: Those by keyword.
        result: What it gave.
        sizes: The ``id`` of the traced numbers among the arguments that are not in the graph.

    Returns:
        The ``id`` of those that are now.
    """
    nodes = [_torch.value_of(each).node() for each in tensors_of(result)]
    name = getattr(func, "__name__", "")
    if not nodes or any(node != nodes[0] for node in nodes):
        return set()
    (node, *_) = nodes
    if node.kind() == "aten::_convolution" and name in _CONVOLUTIONS:
        order, known = _CONVOLUTIONS[name], _CONVOLVED
    elif node.kind() in (f"aten::{name}", f"aten::{name}_"):
        known = tuple(arguments(node.schema()))
        # What torch has written in Python may take the same in another order.
        order = tuple(inspect.signature(func).parameters) if isinstance(func, FunctionType) else known
    else:
        return set()
    places = {each: at for at, each in enumerate(known)}
    named = {**dict(zip(order, args, strict=False)), **kwargs}
    found = [(places[each], value) for each, value in named.items() if each in places]
    return {number for place, value in found for number in _replaced(node, place, value, sizes)}


def _replaced(node: Any, place: int, value: Any, sizes: Collection[int]) -> set[int]:
    """Gives one input of an operation what one argument has of traced numbers; the numbers that it took."""
    own = [each for each in (value if isinstance(value, (tuple, list)) else [value]) if id(each) in sizes]
    if not own or place >= node.inputsSize():
        return set()
    held = node.inputsAt(place)
    graph = _torch.current_graph()
    point = graph.insertPoint()
    graph.setInsertPoint(node)
    try:
        if _torch.kind(held.type()) != "ListType":
            new = _number(graph, held, value)
        else:
            items = _items(graph, held)
            given = value if isinstance(value, (tuple, list)) else [value]
            given = list(given) * (len(items) if len(given) == 1 else 1)
            pairs = list(zip(items, given, strict=False)) if len(items) == len(given) else []
            parts = [_number(graph, item, each) if id(each) in sizes else item for item, each in pairs]
            whole = parts and all(part is not None for part in parts)
            new = _torch.insert(graph, "prim::ListConstruct", parts, held.type()) if whole else None
    finally:
        graph.setInsertPoint(point)
    if new is None:
        return set()
    node.replaceInput(place, new)
    return {id(each) for each in own}


def _items(graph: _torch.Graph, held: _torch.Value) -> list[_torch.Value]:
    """What a list in the graph holds."""
    if held.node().kind() == "prim::ListConstruct":
        return list(held.node().inputs())
    numbers = held.toIValue()
    return [_torch.insert_constant(graph, each) for each in numbers] if isinstance(numbers, list) else []


_TYPES = {bool: "BoolType", int: "IntType", float: "FloatType"}


def _number(graph: _torch.Graph, held: _torch.Value, traced: Tensor) -> _torch.Value | None:
    """A traced number in place of the example's; ``None`` if that is not what is there."""
    known = held.toIValue()
    with _torch.paused_tracing():
        number = traced.item()
    alike = type(known) is type(number) or (type(known) is float and type(number) is int)
    if type(known) not in _TYPES or not alike or known != number:
        return None
    return _torch.insert_number(graph, _torch.value_of(traced), _TYPES[type(known)])


def _see_convolved(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    """Gives a convolution Python's numbers, and its operation the traced ones."""
    numbers = tensors_of((args[3:], [value for name, value in kwargs.items() if name not in _CONVOLVED[:3]]))
    sizes = {id(each): each for each in numbers if watch.varies(each)}
    given = [_plain(each, sizes) for each in args], {name: _plain(each, sizes) for name, each in kwargs.items()}
    result = watch.called(func, *given, user_frame() or sys._getframe())
    kept = keep(func, args, kwargs, result, sizes)
    for each in [sizes[key] for key in sizes if key not in kept]:
        watch.leak(GIVEN, each, _plain(each, sizes))
    return result


def _plain(value: Any, sizes: Collection[int]) -> Any:
    """Python's numbers in place of traced ones."""
    if isinstance(value, (tuple, list)):
        return [_plain(each, sizes) for each in value]
    if id(value) not in sizes:
        return value
    with _torch.paused_tracing(), _torch.unwatched():
        return value.item()


@contextlib.contextmanager
def truths_of_attention(model: nn.Module) -> Iterator[None]:
    """Has attention be causal as a size says, within the body: ``is_causal=x.shape[1] > 1``, where it takes no tensor.

    Args:
        model: The model, of whose packages the modules may have the function under a name of their own.
    """
    real: Any = torch.nn.functional.scaled_dot_product_attention

    @functools.wraps(real)
    def attention(*args: Any, **kwargs: Any) -> Any:
        causal = args[_CAUSAL] if len(args) > _CAUSAL else kwargs.get("is_causal")
        if not isinstance(causal, Tensor) or not is_number(causal):
            return real(*args, **kwargs)
        own = {id(causal)}

        def run() -> Any:
            given = [_plain(each, own) for each in args], {name: _plain(each, own) for name, each in kwargs.items()}
            result = real(*given[0], **given[1])
            return result if keep(real, args, kwargs, result, own) else None

        result = as_one_operation(real, (args, kwargs), run)
        if result is None:  # the operation is another one: its truth is asked for, as by ``if``
            own_truth = bool(causal)
            return real(
                *(own_truth if each is causal else each for each in args),
                **{name: own_truth if each is causal else each for name, each in kwargs.items()},
            )
        return result

    spaces = [vars(torch.nn.functional), *(vars_of(module) for module, _ in modules_of(model))]
    changed = [(space, name) for space in spaces for name, value in list(space.items()) if value is real]
    for space, name in changed:
        space[name] = attention
    try:
        yield
    finally:
        for space, name in changed:
            space[name] = real


_CAUSAL = 5
_CONVOLVED: tuple[str, ...] = (
    *("input", "weight", "bias", "stride", "padding", "dilation", "transposed", "output_padding", "groups"),
)
"""The arguments of the operation that stands in a trace for any convolution."""
_CONVOLUTIONS: dict[str, tuple[str, ...]] = {
    f"conv{kind}{dims}d": ("input", "weight", "bias", "stride", "padding", *others)
    for kind, others in (("", ("dilation", "groups")), ("_transpose", ("output_padding", "groups", "dilation")))
    for dims in (1, 2, 3)
}
SEEN: dict[Any, See] = {getattr(torch, name): _see_convolved for name in _CONVOLUTIONS}
