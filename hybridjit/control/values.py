"""Python values into a trace's graph, and results of a recorded graph back into Python."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import FunctionType
from typing import Any, NoReturn, get_args, get_type_hints

import torch
from torch import Tensor

from .. import _torch
from .._describe import describe, place, qualified
from .._errors import CaptureError, compose
from .origins import source_of
from .structure import tensors_of

_NUMBERS = {"IntType": int, "FloatType": float, "BoolType": bool}
_ENUMERATIONS = (torch.dtype, torch.layout, torch.memory_format)
"""TorchScript has them as integers."""
_CONVERSIONS = {"IntType": "aten::Int", "FloatType": "aten::Float", "BoolType": "aten::Bool"}


def stands_for_none(node: Any) -> bool:
    """Whether a node stands for a tensor that there is none: that a dict would lack, of a side that raises."""
    return node.kind() == "aten::__getitem__" and bool(next(node.inputs()).node().kind() == "prim::DictConstruct")


def number_type(value: Any) -> str:
    """The name of a number's Python type, also of a traced size or a number that a piece returned.

    Empty for anything else.
    """
    if type(value) in (bool, int, float):
        return type(value).__name__
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return type(value).__name__.removeprefix("Sym").lower()
    if isinstance(value, Tensor) and _torch.tracing_state() is not None:
        node = _torch.value_of(value).node()
        if node.kind() == "prim::NumToTensor":
            kind = _torch.kind(node.input().type())
            return _NUMBERS[kind].__name__ if kind in _NUMBERS else ""
    return ""


def lower_argument(graph: _torch.Graph, value: Any, type_: _torch.JitType, where: str) -> tuple[_torch.Value, Any]:
    """Finds or makes the graph value of a Python argument.

    Args:
        graph: The graph under construction.
        value: The argument; where the type is a number it may be a traced tensor of one element,
            which then stays dynamic.
        type_: The TorchScript type of the parameter.
        where: Names the argument in errors.

    Returns:
        The graph value, and the Python value to run the piece on for an example result.
    """
    kind = _torch.kind(type_)
    if kind == "OptionalType" and value is not None:
        return lower_argument(graph, value, _torch.element_types(type_)[0], where)
    if kind == "TensorType":
        if not isinstance(value, Tensor):
            _refuse_argument(value, type_, where)
        return _torch.value_of(value), value
    if kind in _NUMBERS and isinstance(value, Tensor):
        return _lower_number(graph, value, kind, where)
    if (asked := source_of(value)) is not None:
        return _torch.insert(graph, "prim::device", [asked], type_), value
    if kind in ("ListType", "TupleType") and isinstance(value, (list, tuple)):
        types = _torch.element_types(type_)
        types = types * len(value) if kind == "ListType" else types
        if len(types) != len(value):
            _refuse_argument(value, type_, where)
        pairs = [
            lower_argument(graph, item, inner, f"{where}[{index}]")
            for index, (item, inner) in enumerate(zip(value, types, strict=True))
        ]
        operator = "prim::ListConstruct" if kind == "ListType" else "prim::TupleConstruct"
        examples = [example for _, example in pairs]
        made = _torch.insert(graph, operator, [graph_value for graph_value, _ in pairs], type_)
        if kind == "ListType":
            return made, examples
        fields = hasattr(value, "_fields")
        return made, type(value)(*examples) if fields else tuple(examples)
    if kind == "DictType" and isinstance(value, dict):
        key_type, item_type = _torch.element_types(type_)
        flat, examples_by_key = [], {}
        for key, item in value.items():
            flat.append(lower_argument(graph, key, key_type, f"{where} key")[0])
            item_value, examples_by_key[key] = lower_argument(graph, item, item_type, f"{where}[{key!r}]")
            flat.append(item_value)
        return _torch.insert(graph, "prim::DictConstruct", flat, type_), examples_by_key
    if tensors_of(value):
        _refuse_argument(value, type_, where)
    if kind in _NUMBERS and not (kind == "IntType" and isinstance(value, _ENUMERATIONS)):
        allowed: tuple[type, ...] = (int, float) if kind == "FloatType" else (_NUMBERS[kind],)
        if not isinstance(value, allowed):
            _refuse_argument(value, type_, where)
        value = _NUMBERS[kind](value)
    try:
        return _torch.insert_constant(graph, value), value
    except (RuntimeError, TypeError):
        _refuse_argument(value, type_, where)


def _lower_number(graph: _torch.Graph, value: Tensor, kind: str, where: str) -> tuple[_torch.Value, Any]:
    """A traced size, or another tensor of one element, as a number that stays dynamic."""
    with _torch.paused_tracing():  # even numel() would be recorded
        suits = value.numel() == 1 and not value.is_complex()
        if not suits or (value.is_floating_point() and kind == "IntType"):
            _refuse_argument(value, _torch.type_named(kind), where)
    traced = _torch.value_of(value)
    if traced.node().kind() == "prim::NumToTensor":
        traced = traced.node().input()  # a size already is a number
    number = _NUMBERS[kind]
    if _torch.kind(traced.type()) != kind:
        traced = _torch.insert(graph, _CONVERSIONS[kind], [traced], _torch.type_named(kind))
    with _torch.paused_tracing():
        return traced, number(value.item())


def _refuse_argument(value: Any, type_: _torch.JitType, where: str) -> NoReturn:
    with _torch.paused_tracing():
        got = describe(value)
    expected = _torch.spell_type(type_)
    # "…: argument boxes", or "…: argument boxes[0]" for what is inside.
    found = re.search(r"([\w.]+)((?:\[.*\]| key)?)$", where)
    name, inside = found.groups() if found else ("x", "")
    pitfall, instead = "", "its tensors and numbers as separate, annotated parameters"
    if _torch.kind(type_) in _NUMBERS:
        instead = f"a Python {expected}, or a tensor with one element of that kind"
    elif inside:
        pitfall = "mixed values in a dict or list"
        instead = "class Values(NamedTuple):  # a field for each value\n    x: Tensor\n    n: int"
    elif _torch.kind(type_) == "TensorType":
        pitfall = "an unannotated parameter, or one of another type"
        spelled: dict[type, str] = {list: "List[Tensor]", tuple: "Tuple[Tensor, Tensor]"}
        spelled[dict] = "Dict[str, Tensor]"
        annotation = spelled.get(type(value), type(value).__name__)
        instead = f"{name}: Optional[Tensor] = None" if value is None else f"{name}: {annotation}"
    raise CaptureError(
        compose(
            "a scripted piece got an argument of another type than it declares",
            where=where,
            differences=[f"expected {expected}, got {got}", *([f"pitfall: {pitfall}"] if pitfall else [])],
            instead=instead,
            page="scripting-pitfalls",
        )
    )


def lift_result(
    graph: _torch.Graph,
    result: Any,
    value: _torch.Value,
    type_: _torch.JitType,
    hint: Any,
    known: list[Tensor],
    fn: FunctionType,
) -> Any:
    """Binds an example result to the graph values that stand for it.

    What Python around the piece fixes for good (whether an optional is there, how long a list is,
    which text was returned) is checked in the graph, so that another value stops the run.

    Args:
        graph: The graph under construction.
        result: The example result.
        value: Its graph value.
        type_: Its TorchScript type.
        hint: The result's annotation, for the class of a NamedTuple; ``None`` if unknown.
        known: Tensors that are bound already: those the trace had before the call, and, added here,
            those bound so far. The same tensor again must not be bound again.
        fn: The piece, for messages.

    Returns:
        ``result`` with its tensors bound, and its numbers as bound tensors of no dimensions.
    """
    place_ = place(fn.__code__.co_filename, fn.__code__.co_firstlineno)
    kind = _torch.kind(type_)

    def lift(item: Any, item_value: _torch.Value, item_type: _torch.JitType, item_hint: Any) -> Any:
        return lift_result(graph, item, item_value, item_type, item_hint, known, fn)

    def guard(holds: _torch.Value, message: str, got: Sequence[_torch.Value] = ()) -> None:
        text = f"hybridjit: value frozen at {place_}: {fn.__qualname__} {message}"
        _torch.insert_raise_unless(graph, holds, text, got)

    boolean = _torch.type_named("BoolType")
    if kind == "TensorType":
        if any(result is tensor for tensor in known):
            # Binding the caller's own tensor would change what the rest of the trace takes it for; and
            # what is one tensor on this path may be two on another.
            with _torch.paused_tracing():
                result = torch.ops.aten.alias(result)
        _torch.bind_value(result, value)
        known.append(result)
        return result
    if kind in _NUMBERS:
        with _torch.paused_tracing():
            dtype = torch.float64 if kind == "FloatType" else None
            number = torch.tensor(result, dtype=dtype)
        bound = _torch.insert(graph, "prim::NumToTensor", [value], _torch.type_named("TensorType"))
        _torch.bind_value(number, bound)
        return number
    if kind == "NoneType":
        return None
    if kind == "OptionalType":
        none = _torch.insert_constant(graph, None)
        operator, state = ("aten::__is__", "a value") if result is None else ("aten::__isnot__", "None")
        holds = _torch.insert(graph, operator, [value, none], boolean)
        captured = "None" if result is None else "a value"
        guard(
            holds,
            f"captured a result that is {captured}, got {state}; "
            "write a function that always returns a tensor (an empty one for None)",
        )
        if result is None:
            return None
        inner = _torch.element_types(type_)[0]
        sure = _torch.insert(graph, "prim::unchecked_cast", [value], inner)
        return lift(result, sure, inner, inner_hint(hint))
    if kind == "TupleType":
        types = _torch.element_types(type_)
        hints = field_hints(hint, len(types))
        values = _torch.insert_unpack(graph, "prim::TupleUnpack", value, types)
        items = [lift(*each) for each in zip(result, values, types, hints, strict=True)]
        if len(getattr(hint, "_fields", ())) == len(items):
            return hint(*items)
        return type(result)(*items) if hasattr(result, "_fields") else tuple(items)
    if kind == "ListType":
        inner = _torch.element_types(type_)[0]
        integer = _torch.type_named("IntType")
        length = _torch.insert(graph, "aten::len", [value], integer)
        expected = _torch.insert_constant(graph, len(result))
        guard(
            _torch.insert(graph, "aten::eq", [length, expected], boolean),
            f"captured a list of {len(result)}, got {{}}; write a function that returns one tensor "
            "(torch.stack, torch.cat with a tensor of counts), or keep what uses the list inside it",
            [length],
        )
        values = _torch.insert_unpack(graph, "prim::ListUnpack", value, [inner] * len(result))
        element = (get_args(hint) or (None,))[0]
        return [lift(item, v, inner, element) for item, v in zip(result, values, strict=True)]
    if kind == "DictType":
        return _lift_dict(graph, result, value, type_, lift, guard)
    if kind == "StringType":
        captured_text = _torch.insert_constant(graph, result)
        guard(
            _torch.insert(graph, "aten::eq", [value, captured_text], boolean),
            "captured another text than it gives here; write a function that returns tensors",
        )
        return result
    raise CaptureError(
        compose(
            f"{qualified(fn)} returns what a trace can't carry",
            where=place_,
            differences=[
                f"expected tensors, numbers, tuples, lists and dicts of them, got {_torch.spell_type(type_)}",
                "pitfall: mixed values in a dict or list",
            ],
            instead="class Out(NamedTuple):  # a field for each value\n    boxes: Tensor\n    count: int",
            page="scripting-pitfalls",
        )
    )


def _lift_dict(
    graph: _torch.Graph, result: dict[Any, Any], value: _torch.Value, type_: _torch.JitType, lift: Any, guard: Any
) -> dict[Any, Any]:
    _, item_type = _torch.element_types(type_)
    length = _torch.insert(graph, "aten::len", [value], _torch.type_named("IntType"))
    expected = _torch.insert_constant(graph, len(result))
    guard(
        _torch.insert(graph, "aten::eq", [length, expected], _torch.type_named("BoolType")),
        f"captured a dict of {len(result)} keys, got {{}}; write a function that always gives the same keys",
        [length],
    )
    made = {}
    for key, item in result.items():
        key_value = _torch.insert_constant(graph, key)
        present = _torch.insert(graph, "aten::__contains__", [value, key_value], _torch.type_named("BoolType"))
        guard(present, f"captured a dict with the key {key!r}, which is missing here")
        item_value = _torch.insert(graph, "aten::__getitem__", [value, key_value], item_type)
        made[key] = lift(item, item_value, item_type, None)
    return made


def inner_hint(hint: Any) -> Any:
    """``T`` of ``Optional[T]``."""
    return next((arg for arg in get_args(hint) if arg is not type(None)), hint)


def field_hints(hint: Any, count: int) -> list[Any]:
    """The annotations of a tuple's fields; ``None`` for each where they are not known."""
    if hasattr(hint, "_fields"):
        try:
            annotations = get_type_hints(hint)
        except (NameError, TypeError, SyntaxError):  # names that exist for a type checker only
            annotations = {}
        hints = [annotations.get(name) for name in hint._fields]
    else:
        hints = list(get_args(hint))
    return hints if len(hints) == count else [None] * count
