"""Guards: checks in a trace that something is what it was when the trace was made; or the file raises."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _torch
from .._describe import describe

_TYPES = {bool: "BoolType", int: "IntType", float: "FloatType"}
_ADVICE = "; export the model with such an input among check_inputs"


def insert_guard(value: Tensor, captured: Sequence[Any], message: str, fix: str) -> None:
    """Inserts ``if value not in captured: raise RuntimeError(f"hybridjit: {message}, got {value}; {fix}")``.

    Args:
        value: A traced tensor: of one element for a number, of any shape for a tensor.
        captured: What it may be, at least one: a bool, numbers, or tensors.
        message: What was frozen where, without the value it has at run time.
        fix: What to write instead.
    """
    graph = _torch.current_graph()
    traced = _torch.value_of(value)
    # TorchScript's format knows no escape for {}, so text that may hold one is an argument.
    head, tail = (_torch.insert_constant(graph, text) for text in (f"hybridjit: {message}", f"; {fix}"))
    truth = _torch.type_named("BoolType")

    def either(each: Sequence[Any]) -> Any:
        return functools.reduce(lambda a, b: _torch.insert(graph, "aten::__or__", [a, b], truth), each)

    if isinstance(captured[0], Tensor):
        with _torch.paused_tracing():
            expected = [_torch.insert_constant(graph, one.detach().clone()) for one in captured]
        same = either([_torch.insert(graph, "aten::equal", [traced, one], truth) for one in expected])
        _torch.insert_raise_unless(graph, same, "{}, got others{}", [head, tail])
        return
    kind = _TYPES[type(captured[0])]
    actual = _torch.insert_number(graph, traced, kind)

    def is_(number: Any) -> Any:
        if kind == "BoolType":
            return actual if number else _torch.insert(graph, "aten::__not__", [actual], truth)
        if number != number:  # NaN is no value's equal, its own neither
            return _torch.insert(graph, "aten::isnan", [actual], truth)
        return _torch.insert(graph, "aten::eq", [actual, _torch.insert_constant(graph, number)], truth)

    _torch.insert_raise_unless(
        graph, either([is_(number) for number in captured]), "{}, got {}{}", [head, actual, tail]
    )


def insert_refusal(value: Tensor, holds: bool, message: str) -> None:
    """Inserts ``if bool(value) != holds: raise RuntimeError(f"hybridjit: {message}")``."""
    graph, truth = _torch.current_graph(), _torch.type_named("BoolType")
    actual = _torch.insert_bool(graph, _torch.value_of(value))
    same = actual if holds else _torch.insert(graph, "aten::__not__", [actual], truth)
    # TorchScript's format knows no escape for {}, so text that may hold one is an argument.
    _torch.insert_raise_unless(graph, same, "{}", [_torch.insert_constant(graph, f"hybridjit: {message}")])


def guard_inputs(
    inputs: Sequence[tuple[str, Tensor]], fixed: Collection[str], alike: Sequence[Collection[tuple[torch.dtype, ...]]]
) -> None:
    """Inserts the checks of what a trace takes for granted of its inputs.

    Args:
        inputs: The inputs, with what they are called.
        fixed: What is checked: ``"kinds"``, or ``"dtypes"`` or ``"ranks"``, ``"ranks 1"`` of one; ``"precision"``, that
            they have not half of it; ``"complex"``, that they are real; ``"sizes"``; ``"apart"``, that no two are one
            tensor.
        alike: The dtypes of inputs that the user gave, of those together that compute the same.
    """
    dtypes = tuple(tensor.dtype for _, tensor in inputs)
    same = next((each for each in alike if dtypes in each), [dtypes])
    typed = [at for at in range(len(inputs)) if {"kinds", "dtypes", f"dtypes {at}"} & {*fixed}]
    if typed and len(same) > 1:
        known = dict.fromkeys(tuple(each[at] for at in typed) for each in same)
        guard_dtypes([inputs[at] for at in typed], list(known))
    for index, (name, tensor) in enumerate(inputs):
        rank = bool({"kinds", "ranks", f"ranks {index}"} & {*fixed})
        guard_kind(name, tensor, index in typed and len(same) == 1, rank)
        if index not in typed:
            guard_dtype(name, tensor, fixed, {each[index] for each in same})
        if "sizes" in fixed:
            guard_sizes(name, tensor)
    if "apart" in fixed:
        guard_apart(inputs)


def guard_sizes(name: str, tensor: Tensor) -> None:
    """Inserts a check of the sizes of an input, which a trace may have frozen in ways that nobody saw."""
    graph = _torch.current_graph()
    truth, sizes = _torch.type_named("BoolType"), _torch.type_named("IntList")
    with _torch.paused_tracing(), _torch.unwatched():
        captured, spelled = list(tensor.shape), describe(tensor)
    head = _torch.insert_constant(graph, f"hybridjit: {name}: captured {spelled}, got sizes ")
    got = _torch.insert(graph, "aten::size", [_torch.value_of(tensor)], sizes)
    same = _torch.insert(graph, "aten::eq", [got, _torch.insert_constant(graph, captured)], truth)
    _torch.insert_raise_unless(graph, same, "{}{}{}", [head, got, _torch.insert_constant(graph, _ADVICE)])


def have_sizes(tensors: Sequence[Tensor], sizes: Sequence[Sequence[Sequence[int]]]) -> _torch.Value:
    """Inserts the question whether tensors have, all of them at once, one of several lists of sizes.

    Args:
        tensors: Traced tensors.
        sizes: For each list of sizes, that of each tensor.

    Returns:
        A boolean of the graph.
    """
    return _have(tensors, "aten::size", "IntList", [[list(size) for size in each] for each in sizes])


def have_ranks(tensors: Sequence[Tensor], ranks: Sequence[Sequence[int]]) -> _torch.Value:
    """Inserts the question whether tensors have, all of them at once, one of several lists of numbers of dimensions."""
    return _have(tensors, "aten::dim", "IntType", ranks)


def have_dtypes(tensors: Sequence[Tensor], dtypes: Sequence[Sequence[torch.dtype]]) -> _torch.Value:
    """Inserts the question whether tensors have, all of them at once, one of several lists of dtypes."""
    return _have(tensors, "prim::dtype", "IntType", dtypes)


def _have(tensors: Sequence[Tensor], asks: str, kind: str, answers: Sequence[Sequence[Any]]) -> _torch.Value:
    graph = _torch.current_graph()
    truth, type_ = _torch.type_named("BoolType"), _torch.type_named(kind)
    got = [_torch.insert(graph, asks, [_torch.value_of(tensor)], type_) for tensor in tensors]

    def joined(operator: str, each: Sequence[Any]) -> Any:
        return functools.reduce(lambda a, b: _torch.insert(graph, operator, [a, b], truth), each)

    def same(one: Sequence[Any]) -> Any:
        pairs = [pair for pair in zip(got, one, strict=True) if pair[1] != []]  # [] has no type of its own
        held = [
            _torch.insert(graph, "aten::eq", [have, _torch.insert_constant(graph, each)], truth) for have, each in pairs
        ]
        return joined("aten::__and__", held) if held else _torch.insert_constant(graph, True)

    return joined("aten::__or__", [same(one) for one in answers])


def guard_kind(name: str, tensor: Tensor, dtype: bool = True, rank: bool = True) -> None:
    """Inserts a check of the dtype and the rank of an input, or of one of them, which a trace takes for granted."""
    graph = _torch.current_graph()
    number, truth = _torch.type_named("IntType"), _torch.type_named("BoolType")
    with _torch.paused_tracing(), _torch.unwatched():
        dims, kind, spelled = tensor.dim(), tensor.dtype, describe(tensor)
    value, advice = _torch.value_of(tensor), _ADVICE
    asked: list[tuple[str, Any, str]] = [("aten::dim", dims, " dimensions")] if rank else []
    asked += [("prim::dtype", kind, "")] if dtype else []
    for operator, captured, tail in asked:
        got = _torch.insert(graph, operator, [value], number)
        same = _torch.insert(graph, "aten::eq", [got, _torch.insert_constant(graph, captured)], truth)
        says = f"hybridjit: {name}: captured {spelled}, got "
        texts = [says, got, f"{tail}{advice}"] if tail else [f"{says}another dtype{advice}"]
        given = [_torch.insert_constant(graph, each) if isinstance(each, str) else each for each in texts]
        _torch.insert_raise_unless(graph, same, "{}" * len(given), given)


def guard_dtypes(inputs: Sequence[tuple[str, Tensor]], known: Sequence[Sequence[torch.dtype]]) -> None:
    """Inserts a check that inputs have, all of them at once, dtypes of which each was shown to do the same."""
    graph = _torch.current_graph()
    spelled = " or ".join(", ".join(str(each).removeprefix("torch.") for each in dtypes) for dtypes in known)
    names = ", ".join(name for name, _ in inputs)
    text = f"hybridjit: {names}: captured {spelled}, got another dtype{_ADVICE}"
    have = have_dtypes([tensor for _, tensor in inputs], known)
    _torch.insert_raise_unless(graph, have, "{}", [_torch.insert_constant(graph, text)])


def guard_dtype(name: str, tensor: Tensor, unlike: Collection[str], known: Collection[torch.dtype] = ()) -> None:
    """Inserts checks that an input has no dtype of a sort on which what was captured is another program.

    Args:
        name: What the input is called.
        tensor: The traced input.
        unlike: ``"precision"``: not half precision where it has single precision; ``"complex"``: not complex where
            it is real.
        known: Dtypes that were shown to do the same.
    """
    graph, truth = _torch.current_graph(), _torch.type_named("BoolType")
    with _torch.paused_tracing(), _torch.unwatched():
        dtype, spelled = tensor.dtype, describe(tensor)
    found = []
    if "precision" in unlike and dtype == torch.float32:
        found.append(((torch.float16, torch.bfloat16), f"half precision; call it with {name}.float()"))
    if "complex" in unlike and dtype.is_floating_point:
        said = f"complex numbers{_ADVICE}"
        found.append(((torch.complex64, torch.complex128), said))
    for several, said in found:
        others = [each for each in several if each not in known]
        if not others:
            continue
        asked = _torch.insert(graph, "prim::dtype", [_torch.value_of(tensor)], _torch.type_named("IntType"))
        constants = [_torch.insert_constant(graph, each) for each in others]
        apart = [_torch.insert(graph, "aten::ne", [asked, each], truth) for each in constants]
        both = functools.reduce(lambda a, b: _torch.insert(graph, "aten::__and__", [a, b], truth), apart)
        text = _torch.insert_constant(graph, f"hybridjit: {name}: captured {spelled}, got {said}")
        _torch.insert_raise_unless(graph, both, "{}", [text])


def guard_apart(inputs: Sequence[tuple[str, Tensor]]) -> None:
    """Inserts a check that no two inputs are one tensor, of those that could be by dtype and sizes."""
    graph, truth = _torch.current_graph(), _torch.type_named("BoolType")
    with _torch.paused_tracing(), _torch.unwatched():
        kinds = [(tensor.dtype, tensor.shape) for _, tensor in inputs]
    for index, (name, tensor) in enumerate(inputs):
        for before, (other, held) in enumerate(inputs[:index]):
            if kinds[before] == kinds[index]:
                given = [_torch.value_of(held), _torch.value_of(tensor)]
                apart = _torch.insert(graph, "aten::__isnot__", given, truth)
                text = f"hybridjit: {other}, {name}: captured two tensors, got one for both"
                _torch.insert_raise_unless(graph, apart, f"{text}; write (x == y).all() for x is y")


_SAID = re.compile(r"^\w*Error: (?:KeyError: )?hybridjit: (.*)", re.MULTILINE | re.DOTALL)
"""At the end of TorchScript's traceback; before it, the line that raises is quoted."""
_COUNTED = re.compile(
    r"Expected (?:chunk to return at least )?(\d+) (?:elements|outputs).* but (?:found|got only) (\d+)"
)
"""What TorchScript says where a list of tensors (of split, of unbind) has another length than in the trace."""


def said_by_guard(error: str) -> str:
    """What a guard says, of all that torch says where a file raises; empty if none does."""
    if counted := _COUNTED.search(error):
        parts = f"a tensor was taken apart into {counted[1]} parts when captured, got {counted[2]}"
        return f"{parts}; write an operation on the whole tensor, or hj.map"
    said = _SAID.search(error)
    return said[1].rstrip() if said else ""
