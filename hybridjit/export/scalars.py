"""Arithmetic on sizes as TorchScript's own numbers: a trace has tensors of no dimensions there, each a dear operation.

What is computed is the same to the bit: only what has 64 bits both as a tensor and as a number becomes one, and of
divisions those by a positive constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from .. import _torch
from .operators import arguments, every_node, is_tensor

Value: TypeAlias = "_torch.Value"
_INT, _FLOAT, _BOOL = "IntType", "FloatType", "BoolType"
_NUMBERS = (_INT, _FLOAT, _BOOL)
_KINDS = {torch.int64: _INT, torch.float64: _FLOAT, torch.bool: _BOOL}
_BY_NUMBER = {4: _INT, 7: _FLOAT, 11: _BOOL}
"""Dtypes as graphs have them."""
_COMPARISONS = tuple(f"aten::{name}" for name in ("gt", "lt", "ge", "le", "eq", "ne"))
_SAME = ("aten::detach", "aten::clone", "aten::contiguous", "aten::alias")
_TRUTHS = {
    **{f"aten::{name}": "aten::__and__" for name in ("logical_and", "bitwise_and", "__and__")},
    **{f"aten::{name}": "aten::__or__" for name in ("logical_or", "bitwise_or", "__or__")},
    **{f"aten::{name}": "aten::ne" for name in ("logical_xor", "bitwise_xor", "__xor__")},
}
_ROUNDS = {"aten::floor": "aten::floor", "aten::ceil": "aten::ceil", "aten::trunc": "aten::Int"}
_TAKEN = {"aten::Int": _INT, "aten::IntImplicit": _INT, "aten::Float": _FLOAT, "aten::FloatImplicit": _FLOAT}
_TAKEN |= {"aten::Bool": _BOOL, "aten::ScalarImplicit": ""}


class _Scalars:
    """Makes numbers of the tensors of one graph."""

    def __init__(self, graph: _torch.Graph) -> None:
        self._graph = graph
        self._known: dict[int, Value | None] = {}

    def lower(self) -> None:
        """Lets what takes a number out of a tensor have the number that the tensor was made of."""
        nodes = list(every_node(self._graph))
        for node in nodes:
            if node.kind() in _TAKEN and is_tensor(node.inputsAt(0)):
                number = self._number(node.inputsAt(0))
                made = None if number is None else self._taken(node, number)
                if made is not None:
                    node.output().replaceAllUsesWith(made)
        for node in reversed(nodes):
            if (node.kind() in _TAKEN or _is_pure(node)) and not node.hasUses():
                node.destroy()

    def _taken(self, node: Any, number: Value) -> Value | None:
        wanted = _TAKEN[node.kind()]
        if wanted:
            return self._as(number, wanted, node)
        # For operations, most of which take any number; those on numbers alone have an overload for each kind.
        tensors = all(any(map(is_tensor, use.user.outputs())) for use in node.output().uses())
        return number if tensors and _torch.kind(number.type()) != _BOOL else None

    def _number(self, tensor: Value) -> Value | None:
        """The number in a tensor; ``None`` if it is not known to be one of 64 bits, or may be written to."""
        open_ = [tensor]  # a stack of our own, as sizes are counted up thousands of times
        while open_:
            value = open_[-1]
            if value.unique() in self._known:
                open_.pop()
                continue
            below = [each for each in value.node().inputs() if is_tensor(each) and each.unique() not in self._known]
            if value.node().kind() in _MAKING and below:
                self._known.update({value.unique(): None} if _is_shared(value) else {})
                open_ += below if value.unique() not in self._known else []
                continue
            self._known[value.unique()] = None if _is_shared(value) else self._made(value.node())
        return self._known[tensor.unique()]

    def _made(self, node: Any) -> Value | None:
        kind, inputs = node.kind(), list(node.inputs())
        if kind == "prim::NumToTensor":
            return inputs[0] if _torch.kind(inputs[0].type()) in _NUMBERS else None
        if kind == "prim::Constant":
            return self._constant(node)
        if kind == "aten::full":
            return _filled(*inputs[:3])
        if kind not in _MAKING or kind in _ROUNDS:
            return None
        if kind == "aten::to" and (rounded := inputs[0].node()).kind() in _ROUNDS:
            return self._rounded(node, rounded)
        given = [self._known[each.unique()] if is_tensor(each) else each for each in inputs]
        if None in given[:2]:
            return None
        if kind in _SAME:
            return given[0]
        if kind == "aten::to":
            wanted = _dtype_of(node, given[0])
            return self._as(given[0], wanted, node) if wanted else None
        if kind in _ONE:
            return self._one(node, given[0])
        return self._two(node, given)

    def _constant(self, node: Any) -> Value | None:
        if not node.hasAttribute("value") or node.kindOf("value") != "t":
            return None
        held = node.t("value")
        if held.dim() or held.dtype not in _KINDS or not math.isfinite(held.item()):
            return None
        return self._at(node, lambda: _torch.insert_constant(self._graph, held.item()))

    def _rounded(self, node: Any, rounded: Any) -> Value | None:
        """Of floor, ceil and trunc, which give integers in TorchScript, the integer."""
        number = self._known.get(rounded.inputsAt(0).unique())
        if number is None or _torch.kind(number.type()) != _FLOAT or _is_shared(rounded.output()):
            return None
        wanted = _dtype_of(node, number)
        return self._insert(node, _ROUNDS[rounded.kind()], [number], _INT) if wanted == _INT else None

    def _one(self, node: Any, number: Value) -> Value | None:
        kind = _torch.kind(number.type())
        if node.kind() in ("aten::neg", "aten::abs"):
            operator = node.kind().replace("aten::abs", "prim::abs")
            return None if kind == _BOOL else self._insert(node, operator, [number], kind)
        return self._insert(node, "aten::__not__", [number], _BOOL) if kind == _BOOL else None

    def _two(self, node: Any, given: Sequence[Any]) -> Value | None:
        name, pair = node.kind(), list(given[:2])
        kinds = [_torch.kind(each.type()) for each in pair]
        if kinds == [_BOOL, _BOOL]:
            return self._insert(node, _TRUTHS[name], pair, _BOOL) if name in _TRUTHS else None
        if not set(kinds) <= {_INT, _FLOAT}:
            return None
        floats = [taken for taken, kind in zip(node.inputs(), kinds, strict=False) if kind == _FLOAT]
        if floats and not any(map(is_tensor, floats)):
            return None  # with one of Python's floats a tensor of integers becomes one of the default dtype
        result = _FLOAT if floats else _INT
        if name in _COMPARISONS:
            return self._insert(node, name, pair, _BOOL)
        if name in ("aten::add", "aten::sub", "aten::rsub"):
            if len(given) > 2 and _constant_of(given[2]) != 1:
                return None
            return self._insert(node, name.replace("rsub", "sub"), pair[::-1] if name == "aten::rsub" else pair, result)
        if name == "aten::mul":
            return self._insert(node, name, pair, result)
        if name in ("aten::maximum", "aten::minimum"):
            return self._insert(node, f"prim::{name[6:9]}", pair, _INT) if result == _INT else None
        if name == "aten::div" and len(given) == 2:
            return self._insert(node, name, pair, _FLOAT) if result == _FLOAT else None
        return self._divided(node, name, given) if result == _INT else None

    def _divided(self, node: Any, name: str, given: Sequence[Any]) -> Value | None:
        divisor = _constant_of(given[1])
        floors = name == "aten::floor_divide" or (name == "aten::div" and _constant_of(given[2]) == "floor")
        if type(divisor) is not int or divisor <= 0 or not (floors or name == "aten::remainder"):
            return None
        return self._insert(node, "aten::floordiv" if floors else name, given[:2], _INT)

    def _as(self, number: Value, wanted: str, node: Any) -> Value | None:
        """A number as one of another kind."""
        kind = _torch.kind(number.type())
        if kind == wanted or (wanted == _INT and kind == _FLOAT):  # what is too large for an integer, torch refuses
            return number if kind == wanted else None
        return self._insert(node, f"aten::{wanted.removesuffix('Type')}", [number], wanted)

    def _insert(self, node: Any, operator: str, inputs: Sequence[Value], kind: str) -> Value:
        return self._at(node, lambda: _torch.insert(self._graph, operator, inputs, _torch.type_named(kind)))

    def _at(self, node: Any, make: Callable[[], Value]) -> Value:
        point = self._graph.insertPoint()
        self._graph.setInsertPoint(node)
        try:
            made = make()
            made.node().copyMetadata(node)
        finally:
            self._graph.setInsertPoint(point)
        return made


_ONE = ("aten::neg", "aten::abs", "aten::logical_not", "aten::bitwise_not")
_BINARY = ("add", "sub", "rsub", "mul", "div", "floor_divide", "remainder", "maximum", "minimum")
_MAKING = {*(f"aten::{name}" for name in _BINARY), "aten::to", *_ONE, *_SAME, *_TRUTHS, *_COMPARISONS, *_ROUNDS}
"""What may make a number of numbers."""
_PURE = {"prim::NumToTensor", "aten::full", "aten::size", *_MAKING}


def _is_pure(node: Any) -> bool:
    """Whether an operation that nobody uses can go: one that is given ``out=`` writes."""
    return node.kind() in _PURE and "!" not in node.schema()


def _filled(sizes: Value, value: Value, dtype: Value) -> Value | None:
    """The number that a tensor of no dimensions is filled with."""
    empty = sizes.node().kind() == "prim::ListConstruct" and not sizes.node().inputsSize()
    kind = _BY_NUMBER.get(_constant_of(dtype))
    return value if empty and kind is not None and _torch.kind(value.type()) == kind else None


def _dtype_of(node: Any, number: Value) -> str | None:
    """The kind of number that ``x.to(...)`` makes of one; ``None`` if it has not 64 bits, or is not known."""
    names = arguments(node.schema())
    if "dtype" not in names:  # the dtype of another tensor, maybe
        return None
    dtype = _constant_of(node.inputsAt(names.index("dtype")))
    return _torch.kind(number.type()) if dtype is None else _BY_NUMBER.get(dtype)


def _constant_of(value: Value) -> Any:
    return value.toIValue() if value.node().kind() == "prim::Constant" else ...


def _is_shared(value: Value) -> bool:
    """Whether somebody may write to a tensor, or have its memory under another name and write to that."""
    for use in value.uses():
        user = use.user
        if user.kind() in ("prim::ListConstruct", "aten::to", *_SAME):
            if _is_shared(user.output()):
                return True
        elif "(a" in user.schema() or user.schema() == "(no schema)":
            return True
    return False


def numbers_as_such(module: _torch.ScriptModule) -> None:
    """Lets the graphs of a traced module compute sizes without tensors, where that is the same.

    Args:
        module: The module, which has not run yet.
    """
    for part in module.modules():
        if _torch.is_traced(part) and isinstance(part, _torch.ScriptModule):
            for graph in _torch.method_graphs(part).values():
                _Scalars(graph).lower()
