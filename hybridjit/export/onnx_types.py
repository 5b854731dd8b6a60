"""The dtypes and dimensions of a trace that goes to ONNX: torch's translation asks for them, and loses them in blocks.

It finds them by itself, but not of what lists and the blocks of loops and branches hold, where it then stops, or
takes floats of Python's for ones of 32 bits. They are noted while the trace runs, and stated in it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, List  # noqa: UP035 - what TorchScript reads

import torch
from torch import Tensor

from .. import _torch
from ..control.arithmetic import ENUMERATIONS
from ..control.values import stands_for_none

_ARITHMETIC = [
    f"aten::{name}"
    for name in ("add", "sub", "rsub", "mul", "div", "floor_divide", "remainder", "fmod", "pow", "maximum", "minimum")
]
_COMPARISONS = [f"aten::{name}" for name in ("eq", "ne", "lt", "le", "gt", "ge")]
_OF_NUMBERS = {each: each for each in (*_ARITHMETIC, *_COMPARISONS, "aten::neg", "aten::ceil", "aten::floor")} | {
    "aten::Int": "",  # the conversion of the result does it
    "aten::floordiv": "aten::floor_divide",
    "prim::min": "aten::minimum",
    "prim::max": "aten::maximum",
}
"""What is computed with numbers, by its name for tensors."""
_INT64, _FLOAT64, _BOOL = (ENUMERATIONS["dtype"].index(each) for each in (torch.int64, torch.float64, torch.bool))
_KINDS = {"TensorType", "IntType", "FloatType", "BoolType"}
_STATED = "hybridjit::stated"


def state_types(module: Any, inputs: Iterable[tuple[Tensor, ...]]) -> None:
    """Says in the graph of a script module what its tensors are, if it has branches, loops, masks or Python's floats.

    Args:
        module: The module, whose ``forward`` computes the same after that.
        inputs: What to run it on, to see them.
    """
    graph = _torch.inline(_torch.method_graphs(module)["forward"])
    if not any(list(node.blocks()) or _on_floats(node) or node.kind() == "aten::index" for node in graph.nodes()):
        return
    _register()
    seen = _seen(module, graph.copy(), inputs)
    edit = _Edit(graph)
    for (value, after), (dtype, dims) in zip(_tensors(graph), seen, strict=True):
        if dtype is not None and dims is not None:
            edit.state(value, after, dtype, dims)
    for change in (edit.put_mask_first, edit.widen):
        for node in _torch.every_node(graph):
            change(node)


@functools.cache
def _register() -> object:
    """Makes the operation that states what a tensor is: nothing when it runs, and a type in torch's translation."""
    libraries: Any = torch.library
    library = libraries.Library("hybridjit", "FRAGMENT")
    library.define("stated(Tensor(a) x, int dtype, int dims) -> Tensor(a)")
    library.impl("stated", lambda x, dtype, dims: x, "CompositeExplicitAutograd")

    def stated(graph: Any, x: Any, dtype: int, dims: int) -> Any:
        if _is_tensor(x):
            known = x.type()
            known = known if known.dtype() else known.with_dtype(ENUMERATIONS["dtype"][dtype])
            x.setType(known if known.dim() is not None else known.with_sizes([None] * dims))
        return x

    exporter: Any = torch.onnx
    parsed = exporter.symbolic_helper.parse_args("v", "i", "i")(stated)
    exporter.register_custom_op_symbolic(_STATED, parsed, 9)
    return library  # whose operations go with it


def _steps(block: Any, end: Any) -> Iterator[tuple[Any, Any]]:
    """The operations of a block and of the blocks in it, each with the one after it, or the end of its block."""
    nodes = list(block.nodes())
    for node, after in zip(nodes, [*nodes, end][1:], strict=True):
        for inner in node.blocks():
            yield from _steps(inner, inner)
        yield node, after


def _tensors(graph: _torch.Graph) -> list[tuple[Any, Any]]:
    """The tensors that operations give and blocks are given, each with the operation before which it is there."""
    found = []
    for node, after in _steps(graph, graph.return_node()):
        for inner in node.blocks():
            found += [(value, next(iter(inner.nodes()), inner)) for value in inner.inputs()]
        # The last of these is what a side gives that raises.
        known = node.kind() in ("prim::Constant", "prim::GetAttr", "prim::Uninitialized")
        if not known and not stands_for_none(node):
            found += [(value, after) for value in node.outputs()]
    return [(value, after) for value, after in found if _is_tensor(value)]


def _is_tensor(value: Any) -> bool:
    return _torch.kind(value.type()) == "TensorType"


def _on_floats(node: Any) -> bool:
    """Whether an operation computes with Python's floats, alone or beside a tensor."""
    kinds = {_torch.kind(value.type()) for value in (*list(node.inputs())[:2], *node.outputs())}
    return node.kind() in _OF_NUMBERS and "FloatType" in kinds <= _KINDS


def nothing(count: int) -> List[int]:  # noqa: UP006
    """So many zeros."""
    return [0] * count


def note(seen: List[int], place: int, x: Tensor) -> None:  # noqa: UP006
    """Notes the dtype of a tensor and how many dimensions it has, each as one bit of a number."""
    seen[2 * place] = seen[2 * place] | (1 << x.dtype)  # type: ignore[operator] # a number in TorchScript
    seen[2 * place + 1] = seen[2 * place + 1] | (1 << x.dim())


def _seen(
    module: Any, graph: _torch.Graph, inputs: Iterable[tuple[Tensor, ...]]
) -> list[tuple[int | None, int | None]]:
    """For each tensor of a graph the number of its dtype and its dimensions; ``None`` where there are several."""
    places = _tensors(graph)
    made, noted = _compiled(nothing), _compiled(note)
    graph.setInsertPoint(next(iter(graph.nodes())))
    (seen,) = graph.insertGraph(made, [graph.insertConstant(2 * len(places))])
    numbers = [graph.insertConstant(index) for index in range(len(places))]
    for number, (value, after) in zip(numbers, places, strict=True):
        graph.setInsertPoint(after)
        graph.insertGraph(noted, [seen, number, value])
    graph.eraseOutput(0)
    graph.registerOutput(seen)
    run = _torch.function_of(graph)
    bits = [0] * (2 * len(places))
    with torch.no_grad():
        for flat in inputs:
            bits = [before | now for before, now in zip(bits, run(module, *flat), strict=True)]
    found = [each.bit_length() - 1 if each.bit_count() == 1 else None for each in bits]
    return list(zip(found[::2], found[1::2], strict=True))


def _compiled(function: Callable[..., Any]) -> _torch.Graph:
    fn: Any = function
    return _torch.compile_function(fn, _torch.parse(fn)).graph


class _Edit:
    """Changes to a graph, which computes the same after each.

    Args:
        graph: The graph.
    """

    def __init__(self, graph: _torch.Graph) -> None:
        self.graph = graph
        self.known: dict[int, tuple[int, int]] = {}

    def state(self, value: Any, after: Any, dtype: int, dims: int) -> None:
        """States what a tensor is."""
        self.graph.setInsertPoint(after)
        made = self._insert(_STATED, value, dtype, dims)
        value.replaceAllUsesAfterNodeWith(made.node(), made)
        self.known[made.unique()] = dtype, dims

    def put_mask_first(self, node: Any) -> None:
        """Makes ``x[:, mask]`` what it is with the mask first: torch takes others for ones of one dimension."""
        if node.kind() != "aten::index" or node.inputsAt(1).node().kind() != "prim::ListConstruct":
            return
        x, indices = node.inputsAt(0), list(node.inputsAt(1).node().inputs())
        masks = [each for each in indices if _is_tensor(each)]
        first = indices.index(masks[0]) if len(masks) == 1 else 0
        dtype, count = self.known.get(indices[first].unique(), (0, 0))
        if not first or dtype != _BOOL or count < 2 or x.unique() not in self.known:
            return
        self.graph.setInsertPoint(node)
        every = list(range(self.known[x.unique()][1]))
        x = self._permuted(x, [*every[first : first + count], *every[:first], *every[first + count :]])
        index = _torch.insert(self.graph, "prim::ListConstruct", masks, node.inputsAt(1).type())
        left = list(range(len(every) - count + 1))
        found = self._permuted(self._insert("aten::index", x, index), [*left[1 : first + 1], 0, *left[first + 1 :]])
        node.output().replaceAllUsesWith(found)

    def widen(self, node: Any) -> None:
        """Gives Python's floats their 64 bits, and beside a tensor its dtype: those of torch's translation have 32."""
        if not _on_floats(node):
            return
        kind, operands = node.kind(), list(node.inputs())
        self.graph.setInsertPoint(node)
        tensors = [_is_tensor(value) for value in operands[:2]]
        if any(tensors):
            number = tensors.index(False)
            dtype, _ = self.known.get(operands[not number].unique(), (None, 0))
            if dtype is not None and operands[number].node().kind() != "prim::Constant":
                floats = ENUMERATIONS["dtype"][dtype].is_floating_point
                dtype = dtype if floats else ENUMERATIONS["dtype"].index(torch.get_default_dtype())
                node.replaceInput(number, self._tensor(operands[number], dtype))
            return
        factor = [1] if kind in ("aten::add", "aten::sub") else []  # what the second is taken times
        of_one = [self._insert("aten::unsqueeze", self._tensor(each, _FLOAT64), 0) for each in operands]
        made = self._insert(_OF_NUMBERS[kind], *of_one, *factor) if _OF_NUMBERS[kind] else of_one[0]
        made = self._insert("aten::select", made, 0, 0)
        name = _torch.kind(node.output().type()).removesuffix("Type")
        if name == "Int":
            made = self._insert("aten::to", made, _INT64, False, False, None)
        made = _torch.insert(self.graph, f"aten::{name}", [made], node.output().type())
        node.output().replaceAllUsesWith(made)
        node.destroy()

    def _tensor(self, number: Any, dtype: int) -> Any:
        return self._insert("aten::to", self._insert("prim::NumToTensor", number), dtype, False, False, None)

    def _permuted(self, x: Any, order: Sequence[int]) -> Any:
        dims = [self.graph.insertConstant(each) for each in order]
        listed = _torch.insert(self.graph, "prim::ListConstruct", dims, _torch.type_named("IntList"))
        return self._insert("aten::permute", x, listed)

    def _insert(self, kind: str, value: Any, *others: Any) -> Any:
        plain = (int, type(None))
        taken = [self.graph.insertConstant(each) if isinstance(each, plain) else each for each in others]
        return _torch.insert(self.graph, kind, [value, *taken])
