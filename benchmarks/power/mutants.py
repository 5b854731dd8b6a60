"""Ways to break a file's graph, each a place and a change; in the same order each time the file is loaded."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from hybridjit import _torch
from hybridjit.export.operators import every_node, is_tensor

KINDS = (
    "freeze a size",
    "freeze a device",
    "freeze a dtype",
    "drop a branch",
    "swap a branch",
    "change a constant",
    "change an axis",
    "change an order",
    "stop a loop early",
    "swap weights",
    "drop an output",
    "reorder outputs",
)
Values: TypeAlias = "dict[int, list[Any]]"
"""What numbered values were while the file ran: sizes, conditions, and how often loops went round."""


@dataclass(frozen=True)
class Mutant:
    """One way to break a file.

    Attributes:
        kind: One of `KINDS`.
        what: The operation and the change, in words.
        apply: Changes the module that it was found in.
        same: Why it can't change any result, if it can't.
        watched: The number of the value that it freezes, if it freezes one; -1 otherwise.
    """

    kind: str
    what: str
    apply: Callable[[], None]
    same: str = ""
    watched: int = -1


def graphs(module: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The graphs of a module's methods, and of those of its submodules."""
    for name, graph in sorted(_torch.method_graphs(module).items()):
        yield f"{path}{name}", graph
    for name, child in module.named_children():
        yield from graphs(child, f"{path}{name}.")


def numbered(module: Any) -> Iterator[tuple[int, str, Any, Any]]:
    """Every operation, with a number that is the same each time the file is loaded."""
    number = 0
    for path, graph in graphs(module):
        for node in every_node(graph):
            yield number, path, graph, node
            number += 1


_SIZES = ("aten::size", "aten::len", "aten::numel")


def watch(module: Any) -> None:
    """Makes a file say what its sizes and conditions are, and how often its loops go round."""
    for number, _, graph, node in list(numbered(module)):
        kind = node.kind()
        if kind in _SIZES and str(node.output().type()) == "int":
            _say(graph, node, node.output(), number, after=True)
        elif kind == "prim::If":
            _say(graph, node, node.inputsAt(0), number, after=False)
        elif kind == "prim::Loop":
            [block] = node.blocks()
            first = next(iter([*block.nodes(), block.returnNode()]))
            _say(graph, first, next(iter(block.inputs())), number, after=False)


def _say(graph: Any, node: Any, value: Any, number: int, after: bool) -> None:
    said = graph.create("prim::Print", [_constant(graph, f"watched {number}", node), value], 0)
    if after:
        said.insertAfter(node)
    else:
        said.insertBefore(node)


def watched(run: Callable[[], object]) -> Values:
    """What a file that was told to by `watch` says while it runs."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        run()
    found: Values = {}
    for number, value in re.findall(r"^watched (\d+) (\S+)$", said.getvalue(), re.MULTILINE):
        found.setdefault(int(number), []).append(value == "True" if value in ("True", "False") else int(value))
    return found


def _constant(graph: Any, value: object, node: Any) -> Any:
    made = _torch.insert_constant(graph, value)
    made.node().moveBefore(node)
    return made


def mutants(module: Any, traced: Values) -> list[Mutant]:
    """Every way to break a file that has just been loaded.

    Args:
        module: The file.
        traced: What `watch` told of the traced input.
    """
    found: list[Mutant] = []
    for number, path, graph, node in list(numbered(module)):
        at = f"{path}: {node.kind()}"
        found += _of_values(number, at, graph, node, traced)
        found += _of_arguments(at, graph, node)
        found += _of_order(at, graph, node)
    found += _of_outputs(module)
    found += _of_weights(module)
    return found


def _replaced(graph: Any, node: Any, index: int, value: object) -> Callable[[], None]:
    return lambda: node.replaceInput(index, _constant(graph, value, node))


def _frozen(graph: Any, node: Any, value: object) -> Callable[[], None]:
    return lambda: node.output().replaceAllUsesWith(_constant(graph, value, node))


def _of_values(number: int, at: str, graph: Any, node: Any, traced: Values) -> Iterator[Mutant]:
    kind = node.kind()
    seen = traced.get(number, [])
    if kind in _SIZES and seen:
        yield Mutant("freeze a size", f"{at} is {seen[0]}", _frozen(graph, node, seen[0]), "", number)
    elif kind == "prim::device":
        yield Mutant("freeze a device", f"{at} is cpu", _frozen(graph, node, torch.device("cpu")))
    elif kind == "prim::dtype":
        yield Mutant("freeze a dtype", f"{at} is float32", _frozen(graph, node, 6))
    elif kind == "prim::If" and seen:
        yield Mutant("drop a branch", f"{at} is {seen[0]}", _replaced(graph, node, 0, seen[0]), "", number)

        def swap() -> None:
            other = graph.create("aten::__not__", [node.inputsAt(0)], 1)
            other.insertBefore(node)
            other.output().setType(_torch.type_named("BoolType"))
            node.replaceInput(0, other.output())

        yield Mutant("swap a branch", at, swap)
    elif kind == "prim::Loop" and seen:
        trips = max(seen) + 1
        for most in dict.fromkeys(each for each in (trips, trips - 1, 1) if each):
            yield Mutant("stop a loop early", f"{at} after {most}", _stopped(graph, node, most), "", number)


def _stopped(graph: Any, node: Any, most: int) -> Callable[[], None]:
    limit = node.inputsAt(0)
    if limit.node().kind() != "prim::Constant" or limit.toIValue() < 1 << 62:  # it runs so many times at most
        return _replaced(graph, node, 0, most)

    def stop() -> None:  # a `while`: what it carries counts along, since a file can't hold one with a limit
        [block] = node.blocks()
        integer, truth = _torch.type_named("IntType"), _torch.type_named("BoolType")
        node.addInput(_constant(graph, 0, node))
        count = block.addInputToBlock()
        count.setType(integer)
        end = block.returnNode()
        made: list[Any] = []
        for operator, values, type_ in (
            ("aten::add", (count, 1), integer),
            ("aten::lt", (None, most), truth),
            ("aten::__and__", (None, next(iter(block.outputs()))), truth),
        ):
            first = made[-1] if values[0] is None else values[0]
            other = _constant(graph, values[1], end) if isinstance(values[1], int) else values[1]
            operation = graph.create(operator, [first, other], 1)
            operation.insertBefore(end)
            operation.output().setType(type_)
            made.append(operation.output())
        end.replaceInput(0, made[-1])
        block.registerOutput(made[0])
        node.addOutput().setType(integer)

    return stop


_AXES = ("dim", "dim0", "dim1", "axis", "start_dim")
_QUIET = (
    "device layout pin_memory memory_format non_blocking copy generator inplace benchmark deterministic cudnn_enabled "
    "allow_tf32 cudnn_enable training train implicit sparse scale_grad_by_freq output_size_hint"
)
"""Arguments that say how something is computed, not what."""
_DTYPES = {6: 7, 7: 6, 5: 6, 4: 3, 3: 4, 0: 4, 11: 0}
"""By torch's numbers: float32 becomes float64, int64 int32, and so on."""


def _arguments(schema: str) -> list[str]:
    inside = re.search(r"\((.*)\) ->", schema)
    parts = re.split(r", (?![^\[]*\])", inside[1]) if inside else []
    return [part.split("=")[0].split()[-1] for part in parts if part and part != "*"]


def _of_arguments(at: str, graph: Any, node: Any) -> Iterator[Mutant]:
    names = _arguments(node.schema()) if node.kind().startswith("aten::") else []
    for index, value in enumerate(node.inputs()):
        if value.node().kind() != "prim::Constant":
            continue
        name = names[index] if index < len(names) else ""
        constant: Any = value.toIValue()
        if constant is None or name in _QUIET.split() or node.kind() in ("prim::Loop", "prim::RaiseException"):
            continue
        if name == "dtype":
            kind, other = "freeze a dtype", _DTYPES.get(constant)
        elif name in _AXES:
            kind, other = "change an axis", {0: 1, -1: -2}.get(constant, constant - 1)
        else:
            kind, other = "change a constant", _other(constant)
        if other is not None:
            text = "a tensor" if isinstance(constant, Tensor) else f"{constant} is {other}"
            apply = _replaced(graph, node, index, other)
            yield Mutant(kind, f"{at}, {name or 'item ' + str(index)}: {text}", apply)


def _other(constant: Any) -> Any:
    if isinstance(constant, bool):
        return not constant
    if isinstance(constant, int):
        return 1 if constant > 1 << 40 else constant + 1
    if isinstance(constant, float):
        return constant * 1.5 + 0.1
    if isinstance(constant, Tensor) and constant.device.type == "cpu":
        return ~constant if constant.dtype == torch.bool else constant + 1
    return None


_SAME = "add mul maximum minimum eq ne logical_and logical_or __and__ __or__"
_COMMUTE = {f"aten::{name}" for name in _SAME.split(" ")}


def _of_order(at: str, graph: Any, node: Any) -> Iterator[Mutant]:
    values = list(node.inputs())
    if node.kind() == "prim::ListConstruct":
        pairs = [(i, i + 1) for i in range(len(values) - 1)]
        users = {use.user.kind() for value in node.outputs() for use in value.uses()}
        pairs = (
            pairs[:1] if users & {"aten::cat", "aten::stack", "aten::permute", "aten::view", "aten::reshape"} else []
        )
    elif node.kind().startswith("aten::") and len(values) > 1 and is_tensor(values[0]) and is_tensor(values[1]):
        pairs = [(0, 1)]
    else:
        return
    for one, other in pairs:
        a, b = values[one], values[other]
        if a.unique() == b.unique():
            continue
        plain = len(values) < 3 or (values[2].node().kind() == "prim::Constant" and values[2].toIValue() == 1)
        same = "its operands commute" if node.kind() in _COMMUTE and plain else ""

        def swap(one: int = one, other: int = other, a: Any = a, b: Any = b) -> None:
            node.replaceInput(one, b)
            node.replaceInput(other, a)

        yield Mutant("change an order", f"{at}, {one} and {other}", swap, same)


def _of_outputs(module: Any) -> Iterator[Mutant]:
    graph = _torch.method_graphs(module)["forward"]
    made = next(iter(graph.outputs())).node()
    if made.kind() != "prim::TupleConstruct":
        return
    values = list(made.inputs())
    for index in range(len(values)):
        yield Mutant("drop an output", f"forward: result {index}", functools.partial(made.removeInput, index))
        other = (index + 1) % len(values)
        text = f"forward: result {index} is {other} as well"
        yield Mutant("drop an output", text, functools.partial(made.replaceInput, index, values[other]))
    for one in range(len(values)):
        for other in range(one):

            def swap(one: int = one, other: int = other) -> None:
                made.replaceInput(one, values[other])
                made.replaceInput(other, values[one])

            yield Mutant("reorder outputs", f"forward: results {other} and {one}", swap)


def _of_weights(module: Any) -> Iterator[Mutant]:
    by_shape: dict[object, list[tuple[str, Tensor]]] = {}
    for name, parameter in module.named_parameters():
        by_shape.setdefault((parameter.shape, parameter.dtype), []).append((name, parameter))
    for every in by_shape.values():
        for (one, a), (other, b) in itertools.pairwise(every):
            same = "they are equal" if torch.equal(a, b) else ""
            yield Mutant("swap weights", f"{one} and {other}", functools.partial(_swap_weights, a, b), same)


def _swap_weights(one: Tensor, other: Tensor) -> None:
    with torch.no_grad():
        kept = one.clone()
        one.copy_(other)
        other.copy_(kept)
