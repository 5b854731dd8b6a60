"""Everything private to torch that hybridjit uses, and nothing else.

``torch._C``, ``torch._*``, ``torch.jit._*`` and ``torch.utils._pytree`` appear in this file only
(``tests/test_quarantine.py`` looks for strays), and so does all of the deprecated ``torch.jit``:
when torch changes, this file changes. Written for torch 2.11 to 2.15.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import json
import linecache
import os
import re
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType, SimpleNamespace
from typing import Any, Literal, NoReturn, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils import _pytree

_C: Any = torch._C
TorchDispatchMode: Any = torch.utils._python_dispatch.TorchDispatchMode
coo_to_csr: Any = torch._convert_indices_from_coo_to_csr
check_with: Any = torch._check_with
_jit: Any = torch.jit
_autograd: Any = torch.autograd.function

Graph: TypeAlias = Any
"""``torch._C.Graph``; torch's stubs lack most of its methods."""
Value: TypeAlias = Any
JitType: TypeAlias = Any
ScriptModule: TypeAlias = torch.jit.ScriptModule
LoadedModule: type[Any] = _jit.RecursiveScriptModule  # what a file is in Python
ScriptFunction, ScriptMethod = _jit.ScriptFunction, _C.ScriptMethod

TracerWarning: type[Warning] = _jit.TracerWarning
JitError: type[Exception] = _jit.Error
"""Raised by TorchScript at run time, also for a ``raise`` written in the model."""

tracing_state: Callable[[], Any] = _C._get_tracing_state
"""The tracer's state, ``None`` when nothing is being traced; Dynamo understands this call."""
asked_by: list[tuple[Any, str]] = [(_jit, "is_tracing"), (_C, "_get_tracing_state")]  # who tells that it is traced

is_scripting: Callable[[], bool] = _jit.is_scripting
"""Whether TorchScript compiled the code that asks; TorchScript knows the call."""

SCRIPT_IF_TRACING_MARK = "__script_if_tracing_wrapper"
"""``torch.jit.script`` and Dynamo unwrap a function that carries it, by ``__original_fn``."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences torch.jit's deprecation warnings inside hybridjit's own calls."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*`?torch\.jit", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=r".*`?torch\.jit", category=FutureWarning)
        yield


def jit_refusal() -> str:
    """Why ``torch.jit`` traces and compiles nothing here, or empty: it is going, release by release."""
    if not _jit._state._enabled.enabled:
        return "it is switched off by PYTORCH_JIT=0"
    try:
        with quiet():
            _jit.trace(torch.neg, torch.zeros(1), check_trace=False)
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


# --- the tracer ---------------------------------------------------------------------------------


@contextlib.contextmanager
def paused_tracing() -> Iterator[None]:
    """Runs the body eagerly while a trace is under way: nothing in it is recorded."""
    state = _C._get_tracing_state()
    if state is None:  # or Dynamo would put the calls below into its graph
        yield
        return
    _C._set_tracing_state(None)
    try:
        yield
    finally:
        _C._set_tracing_state(state)


def current_scope(graph: Graph) -> str:
    """The module scope that the running trace is in, as nodes spell it: ``__module.a/__module.a.b``."""
    probe = graph.create("prim::TupleConstruct", [])
    scope: str = probe.scopeName()
    probe.destroy()
    return scope


def resume_tracing(state: Any) -> None:
    """Goes on with a trace; an operation that raises may leave it switched off."""
    _C._set_tracing_state(state)


unwatched: Callable[[], contextlib.AbstractContextManager[None]] = _C.DisableTorchFunction
"""Hides operations from every ``TorchFunctionMode``."""


def current_graph() -> Graph:
    """The graph that the running trace records into."""
    return _C._get_tracing_state().graph()


def value_of(self: Tensor) -> Value:
    """The graph value of a tensor; a tensor the trace does not know becomes a constant.

    The tracer names a value after the variable of its caller that holds the tensor, unless that is ``self``.
    """
    if (state := _C._get_tracing_state()) is None:  # torch would end the process
        raise RuntimeError("a tensor has a value in a graph only while that is recorded")
    while _C._functorch.is_functorch_wrapped_tensor(self):  # by vmap, of whose tensors the trace has the physical ones
        self = _C._functorch.get_unwrapped(self)
    try:
        return _C._get_value_trace(self)
    except RuntimeError:  # a tensor that the trace never saw, with a gradient: torch has switched the trace off
        resume_tracing(state)
        raise


def set_sizes(made: Value, sizes: Sequence[Value | None]) -> None:
    """Gives the operation that made a tensor traced sizes in place of the numbers in its list of sizes."""
    [given] = [each.node() for each in made.node().inputs() if each.node().kind() == "prim::ListConstruct"]
    for place, size in enumerate(sizes):
        if size is not None:
            number = current_graph().create("aten::Int", [size], 1)
            number.insertBefore(given)
            number.output().setType(type_named("IntType"))
            given.replaceInput(place, number.output())


def bind_value(tensor: Tensor, value: Value) -> None:
    """Makes the trace take ``tensor`` for ``value`` from here on."""
    _C._set_value_trace(tensor, value)


# --- types --------------------------------------------------------------------------------------

_TYPES = {
    name: getattr(_C, name).get()
    for name in ("TensorType", "IntType", "FloatType", "BoolType", "StringType", "NoneType")
} | {"IntList": _C.ListType.ofInts()}


def kind(type_: JitType) -> str:
    """The kind of a TorchScript type: ``TensorType``, ``ListType``, ``ClassType`` and so on."""
    name: str = type_.kind()
    return name


def element_types(type_: JitType) -> list[JitType]:
    """The element types of a tuple; the element type of a list or an optional; key and value of a dict."""
    match kind(type_):
        case "TupleType":
            return list(type_.elements())
        case "ListType" | "OptionalType":
            return [type_.getElementType()]
        case "DictType":
            return [type_.getKeyType(), type_.getValueType()]
    return []


def type_named(name: str) -> JitType:
    """``TensorType``, ``IntType``, ``FloatType``, ``BoolType``, ``StringType``, ``NoneType`` or ``IntList``."""
    return _TYPES[name]


def spell_type(type_: JitType) -> str:
    """The type as its user writes it: ``List[Tensor]``."""
    text: str = type_.annotation_str
    return re.sub(r"__torch__\.", "", text)


# --- building graphs ----------------------------------------------------------------------------


def insert(graph: Graph, operator: str, inputs: Sequence[Value], type_: JitType | None = None) -> Value:
    """Inserts a node with one output and returns that output."""
    output = graph.insertNode(graph.create(operator, list(inputs))).output()
    if type_ is not None:
        output.setType(type_)
    return output


def insert_tuple(graph: Graph, values: Sequence[Value]) -> Value:
    """Inserts a tuple."""
    return insert(graph, "prim::TupleConstruct", values, _C.TupleType([value.type() for value in values]))


def insert_unpack(graph: Graph, operator: str, value: Value, types: Sequence[JitType]) -> list[Value]:
    """Inserts ``prim::TupleUnpack`` or ``prim::ListUnpack`` with one output per type."""
    outputs = list(graph.insertNode(graph.create(operator, [value], len(types))).outputs())
    for output, type_ in zip(outputs, types, strict=True):
        output.setType(type_)
    return outputs


def insert_constant(graph: Graph, value: object) -> Value:
    """Inserts a constant that TorchScript can hold: numbers, text, devices, dtypes, lists of them."""
    return graph.insertConstant(value)


def insert_graph(graph: Graph, callee: Graph, inputs: Sequence[Value]) -> list[Value]:
    """Copies ``callee`` into the running trace with its control flow, fed by ``inputs``.

    The trace's scope fix-up can lift a value out of a module scope that has closed, but not one
    that only a nested block uses. So inputs first pass through a tuple, which stands at the top
    level and is gone once torch lowers tuples, at the end of the trace.
    """
    if inputs:
        types = [value.type() for value in inputs]
        inputs = insert_unpack(graph, "prim::TupleUnpack", insert_tuple(graph, inputs), types)
    return list(graph.insertGraph(callee, list(inputs)))


def insert_raise_unless(graph: Graph, holds: Value, message: str, got: Sequence[Value] = ()) -> None:
    """Inserts ``if not holds: raise RuntimeError(message.format(*got))``.

    The constants come before the branch: made inside a block, the tracer could hand them to code
    after it.
    """
    template, none = insert_constant(graph, message), insert_constant(graph, None)
    node = insert_if(graph, holds)
    node.addBlock()
    otherwise = node.addBlock()
    text = template
    if got:
        text = otherwise.addNode("aten::format", [template, *got]).output()
        text.setType(_TYPES["StringType"])
    _without_outputs(otherwise.addNode("prim::RaiseException", [text, none]))


def _without_outputs(node: Any) -> None:
    for output in list(node.outputs()):
        node.eraseOutput(output.offset())


def insert_raise(graph: Graph, message: str) -> None:
    """Inserts ``raise RuntimeError(message)``."""
    inputs = [insert_constant(graph, message), insert_constant(graph, None)]
    _without_outputs(graph.insertNode(graph.create("prim::RaiseException", inputs)))


def insert_uninitialized(graph: Graph) -> Value:
    """Inserts a tensor that is never read: the result of a side that raises."""
    return insert(graph, "prim::Uninitialized", [], _TYPES["TensorType"])


_COMPARISONS = {f"aten::{name}" for name in ("gt", "lt", "ge", "le", "eq", "ne")}


def insert_bool(graph: Graph, value: Value) -> Value:
    """Inserts the truth of a tensor of one element; of sizes compared, without a detour by tensors."""
    node = value.node()
    if node.kind() == "prim::NumToTensor" and kind(node.input().type()) == "BoolType":
        return node.input()
    if node.kind() in _COMPARISONS:
        numbers = [_number_behind(each) for each in node.inputs()]
        if all(number is not None for number in numbers):
            return insert(graph, node.kind(), numbers, _TYPES["BoolType"])
    return insert(graph, "aten::Bool", [value], _TYPES["BoolType"])


def insert_number(graph: Graph, value: Value, type_name: str) -> Value:
    """Inserts the Python number of a tensor of one element: ``BoolType``, ``IntType`` or ``FloatType``."""
    if type_name == "BoolType":
        return insert_bool(graph, value)
    number = _number_behind(value)
    if number is not None and kind(number.type()) == type_name:
        return number
    return insert(graph, f"aten::{type_name.removesuffix('Type')}", [value], type_named(type_name))


def _number_behind(value: Value) -> Value | None:
    if value.node().kind() == "prim::NumToTensor":
        # Nobody may change the tensor, or look at its memory under another name and change that.
        if any("(a" in use.user.schema() for use in value.uses()):
            return None
        value = value.node().input()
    return value if kind(value.type()) in ("IntType", "FloatType") else None


def insert_unusable(graph: Graph, message: str) -> Value:
    """Inserts a tensor that raises ``message`` when it is used, and vanishes when it is not.

    No operator raises without a side effect, but a key that a dict lacks does.
    """
    empty = insert(graph, "prim::DictConstruct", [], _C.DictType(_TYPES["StringType"], _TYPES["TensorType"]))
    return insert(graph, "aten::__getitem__", [empty, insert_constant(graph, message)], _TYPES["TensorType"])


# --- blocks in a running trace ------------------------------------------------------------------


def insert_if(graph: Graph, holds: Value) -> Any:
    """Inserts a ``prim::If`` without blocks or outputs."""
    return graph.insertNode(graph.create("prim::If", [holds], 0))


def append_to_list(graph: Graph, node: Any, value: Value) -> Value:
    """Makes an empty list before a node, appends a tensor to it where recording goes on, and returns the list."""
    point = graph.insertPoint()
    graph.setInsertPoint(node)
    made = insert(graph, "prim::ListConstruct", [], _C.ListType(_TYPES["TensorType"]))
    graph.setInsertPoint(point)
    insert(graph, "aten::append", [made, value], _C.ListType(_TYPES["TensorType"]))
    return made


@contextlib.contextmanager
def recording_into(graph: Graph, block: Any) -> Iterator[None]:
    """Records into a block instead of behind the last operation.

    Modules that are called in it open no scope of their own: the trace's scope fix-up makes a
    method of each scope, and can't reach into blocks.
    """
    point, scopes = graph.insertPoint(), _jit._trace._trace_module_map
    graph.setInsertPoint(block)
    _jit._trace._trace_module_map = None
    try:
        yield
    finally:
        _jit._trace._trace_module_map = scopes
        graph.setInsertPoint(point)


def close_blocks(
    graph: Graph, node: Any, results: Sequence[Sequence[Value]], *, loop: bool = False, nested: bool = False
) -> list[Value]:
    """Gives each block of a node its results, and returns the node's own, in the same order.

    Args:
        graph: The graph.
        node: A ``prim::If`` or ``prim::Loop`` whose blocks are recorded.
        results: Per block its results; of a loop first whether it goes on.
        loop: Whether it is a loop, whose first result is not handed out.
        nested: Whether the node is itself in a block.
    """
    for block, values in zip(node.blocks(), results, strict=True):
        for value in values:
            block.registerOutput(value)
        if not nested:
            keep_constants(block, node)
            _drop_detours(block)
    if not nested:
        _bring_in(graph, node)
    outputs = [node.addOutput() for _ in results[0][loop:]]
    for output in outputs:
        output.setType(_TYPES["TensorType"])
    return outputs


def keep_constants(block: Any, node: Any) -> None:
    """Moves a block's tensors and bools that are constants before a node.

    The tracer hands a tensor out again, wherever it was made. A bool that says whether a loop goes on
    would keep the loop and all blocks around it when nobody needs them, and torch can't load empty ones.
    """
    for constant in block.findAllNodes("prim::Constant", True):
        if kind(constant.output().type()) in ("TensorType", "BoolType"):
            constant.moveBefore(node)


def _drop_detours(block: Any) -> None:
    """Uses a number itself where the tracer made a tensor of it and took it out again, as for ``x[i]``."""
    for node in block.findAllNodes("aten::Int", True):
        source = node.inputsAt(0).node()
        number = _number_behind(source.output()) if source.outputsSize() == 1 else None
        if number is not None and kind(number.type()) == "IntType":
            node.output().replaceAllUsesWith(number)


def _bring_in(graph: Graph, node: Any) -> None:
    """Brings what a node's blocks use from outside in through a tuple before the node.

    The trace's scope fix-up, which makes a method of each call of a module, lifts a value out of a call
    that has ended, but only to where its top level uses it. Torch lowers the tuple away afterwards.
    Parameters below the module that is running stay where they are used, so that a side that is not
    taken does not look them up; unless a block returns one as it is, which the fix-up overlooks.
    """
    below = (current_scope(graph).rpartition("/")[2] or "__module") + "."
    uses: list[tuple[Any, int]] = []
    own: set[int] = set()
    for block in node.blocks():
        _find_uses(block, uses, own)
    outer: dict[int, Value] = {}
    places = []
    for user, index in uses:
        value = user.inputsAt(index)
        source = value.node()
        own_attribute = source.kind() == "prim::TracedAttr" and source.s("scope").startswith(below)
        if own_attribute and user.kind() != "prim::Return":
            continue
        if value.unique() not in own and source.kind() != "prim::Constant":
            outer[value.unique()] = value
            places.append((user, index))
    if not outer:
        return
    point = graph.insertPoint()
    graph.setInsertPoint(node)
    types = [value.type() for value in outer.values()]
    packed = insert_tuple(graph, list(outer.values()))
    brought = dict(zip(outer, insert_unpack(graph, "prim::TupleUnpack", packed, types), strict=True))
    for user, index in places:
        user.replaceInput(index, brought[user.inputsAt(index).unique()])
    graph.setInsertPoint(point)


def bring_in(tensor: Tensor) -> None:
    """Makes the trace take a tensor, whose module's call may have ended, for a value of the scope that it is in now."""
    graph, value = current_graph(), value_of(tensor)
    bind_value(tensor, insert_unpack(graph, "prim::TupleUnpack", insert_tuple(graph, [value]), [value.type()])[0])


def _find_uses(block: Any, uses: list[tuple[Any, int]], made: set[int]) -> None:
    """Collects every use of a value in a block, and every value that is made in it."""
    made.update(value.unique() for value in block.inputs())
    for node in [*block.nodes(), block.returnNode()]:
        uses += [(node, index) for index in range(node.inputsSize())]
        made.update(value.unique() for value in node.outputs())
        for inner in node.blocks():
            _find_uses(inner, uses, made)


def is_in_place(func: Any) -> bool:
    """Whether an operation, as a ``TorchFunctionMode`` sees it, changes its first argument by name."""
    name = getattr(func, "__name__", "")
    if name.endswith("__"):
        return name in ("__setitem__", "__set__") or (
            name.startswith("__i") and name not in ("__invert__", "__index__", "__int__")
        )
    return name.endswith("_")


def known_value(tensor: Tensor) -> Value | None:
    """The graph value of a tensor, ``None`` if it can't have one: it needs a gradient, and the trace never saw it."""
    with contextlib.suppress(RuntimeError):
        return value_of(tensor)
    return None


_ARITHMETIC = _COMPARISONS | {f"aten::{name}" for name in ("size", "numel", "add", "sub", "mul", "floor_divide", "Int")}


def expression(value: Value, depth: int = 12) -> object:
    """What tells two values apart: of arithmetic on sizes its terms, so many operations deep, else the value itself."""
    node = value.node()
    if node.kind() == "prim::Constant" and kind(value.type()) in ("IntType", "FloatType", "BoolType"):
        return repr(value.toIValue())
    if node.kind() in ("prim::NumToTensor", "aten::Int") and depth:
        return expression(node.input(), depth - 1)
    if node.kind() in _ARITHMETIC and depth:
        first, *rest = node.inputs()
        of_tensor = kind(first.type()) == "TensorType" and node.kind() in _SIZES
        start = first.unique() if of_tensor else expression(first, depth - 1)
        return (node.kind(), start, *(expression(each, depth - 1) for each in rest))
    return value.unique()


_SIZES = ("aten::size", "aten::numel")


def is_constant(tensor: Tensor) -> bool:
    """Whether the trace takes a tensor for a constant."""
    return (value := known_value(tensor)) is None or value.node().kind() == "prim::Constant"


_VARYING = ("prim::Param", "prim::TracedAttr", "aten::is_grad_enabled", "aten::__derive_index")  # of a loop, its turn
_OF_SHAPE = (*_SIZES, "aten::dim", "aten::stride", "prim::device", "prim::dtype", "prim::shape")


def varies(value: Value, known: dict[int, bool], reshaped: Collection[int] = ()) -> bool:
    """Whether a value of the running trace can be another one in another call of the same file.

    Args:
        value: The value.
        known: What is known already, by the value's number; added to.
        reshaped: The numbers of the buffers that may have another shape then.
    """
    open_ = [value]  # a stack of our own: a value may be thousands of operations away from what it comes from
    while open_:
        number: int = open_[-1].unique()
        if number not in known:
            node, node_kind = open_[-1].node(), open_[-1].node().kind()
            given = [*node.inputs()] if node_kind not in _VARYING else []
            of_inputs = [known.get(each.unique()) for each in given]
            if node_kind in _OF_SHAPE and given[0].node().kind() == "prim::TracedAttr":
                known[number] = given[0].unique() in reshaped  # a parameter keeps its shape
            elif node_kind in _VARYING or True in of_inputs:
                known[number] = True
            elif None in of_inputs:
                open_.append(given[of_inputs.index(None)])  # most often one is enough
                continue
            else:
                known[number] = node.isNondeterministic() or any(node.blocks())
        open_.pop()
    return known[value.unique()]


def is_random(results: Iterable[Tensor]) -> bool:
    """Whether one of these tensors was drawn at random."""
    return any((value := known_value(each)) is not None and value.node().isNondeterministic() for each in results)


def erase_after(place: tuple[Any, int]) -> None:
    """Removes what was recorded into a block after its first so many nodes."""
    block, count = place
    keep_constants(block, block.owningNode())
    for node in reversed(list(block.nodes())[count:]):
        node.destroy()


def storage_key(tensor: Tensor) -> int:
    """Identifies the memory behind a tensor while it lives."""
    try:
        with unwatched():
            return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse and other tensors without one storage
        return id(tensor)


# --- devices in graphs --------------------------------------------------------------------------


def is_in_scope(value: Value) -> bool:
    """Whether a value may be used where recording goes on: it was made there or in a block around."""
    home = value.node().owningBlock()
    while (call := home.owningNode()) is not None and call.kind() == "prim::TracedModuleForward":
        home = call.owningBlock()  # the trace's scope fix-up lifts it out of a module's call
    block = current_graph().insertPoint().owningBlock()
    while block.returnNode() != home.returnNode():
        if block.owningNode() is None:
            return False
        block = block.owningNode().owningBlock()
    return True


def insert_device(graph: Graph, tensor: Value, before: Any) -> Value:
    """Inserts the device of a tensor before a node."""
    node = graph.create("prim::device", [tensor], 1)
    node.insertBefore(before)
    node.output().setType(_C.DeviceObjType.get())
    return node.output()


def insert_is_on(graph: Graph, tensor: Value, device: str) -> Value:
    """Inserts whether a tensor is on a device of a type, as a tensor."""
    where = insert(graph, "prim::device", [tensor], _C.DeviceObjType.get())
    name = insert(graph, "prim::type", [where], _TYPES["StringType"])
    same = insert(graph, "aten::eq", [name, insert_constant(graph, device)], _TYPES["BoolType"])
    return insert(graph, "prim::NumToTensor", [same], _TYPES["TensorType"])


def insert_move(graph: Graph, tensor: Value, device: Value, before: Any) -> Value:
    """Inserts ``tensor.to(device)`` before a node; it is the tensor itself where that is there already."""
    point = graph.insertPoint()
    graph.setInsertPoint(before)
    no, none = graph.insertConstant(False), graph.insertConstant(None)
    moved = insert(graph, "aten::to", [tensor, device, none, no, no], _TYPES["TensorType"])
    graph.setInsertPoint(point)
    return moved


def write_device(made: Value, source: Value | None, otherwise: torch.device) -> None:
    """Writes into what made a tensor in the running trace where its device comes from.

    Args:
        made: The tensor.
        source: The tensor whose device it has.
        otherwise: The device, if there is none.
    """
    graph, node = current_graph(), made.node()
    while node.kind() in ("aten::clone", "aten::detach", "aten::alias", "aten::lift_fresh"):
        node = node.inputsAt(0).node()
    for index, value in enumerate(node.inputs()):
        if kind(value.type()) != "DeviceObjType" or value.node().kind() != "prim::Constant":
            continue
        if source is not None:
            node.replaceInput(index, insert_device(graph, source, node))
        elif value.toIValue().type == otherwise.type:
            constant = insert_constant(graph, otherwise)
            constant.node().moveBefore(node)
            node.replaceInput(index, constant)


def moves_in_memory(device: torch.device) -> bool:
    """Whether a script module that has been loaded moves there by ``to``; else it must be loaded there."""
    return bool(torch._has_compatible_shallow_copy_type(torch.empty(0), torch.empty(0, device=device)))


def method_graphs(module: ScriptModule) -> dict[str, Graph]:
    """The graphs of a module's methods, by name, to be changed before the module first runs."""
    cpp: Any = module._c
    return {name: cpp._get_method(name).graph for name in cpp._method_names()}


def is_traced(module: object) -> bool:
    """Whether a module was made by a trace, and its graphs are nobody else's."""
    return isinstance(module, _jit._trace.TracedModule | _jit._trace.TopLevelTracedModule)


def alias_of(node: Any, index: int) -> Literal["no", "view", "write", "unknown"]:
    """What an operator does with the memory of an argument, by its schema; calls, blocks and returns have none."""
    if node.kind() in ("prim::ListConstruct", "prim::TupleConstruct"):
        return "view"
    schema: str = node.schema()
    if schema == "(no schema)":
        return "unknown"
    alias = _C.parse_schema(schema).arguments[index].alias_info
    return "no" if alias is None else "write" if alias.is_write else "view"


def rank_of(value: Value) -> int | None:
    """The number of dimensions that a tensor had in the trace, where that is known."""
    rank = value.type().dim() if kind(value.type()) == "TensorType" else None
    return None if rank is None else int(rank)


def next_node(node: Any) -> Any:
    """The node after another in its block."""
    block = node.owningBlock()
    nodes = [*block.nodes(), block.returnNode()]
    return nodes[nodes.index(node) + 1]


def source_of(node: Any) -> tuple[str, int, bool]:
    """The user's line that a trace noted for an operation, and whether torch's own code stands between.

    The file is empty where no line was noted.
    """
    own, torchs = (os.path.dirname(os.path.abspath(path)) + os.sep for path in (__file__, torch.__file__))
    library = False
    text = node.sourceRange()
    for file, line in re.findall(r'^(?:\s*File ")?(.+?)(?:", line |\()(\d+)', text, re.MULTILINE):
        library |= file.startswith(torchs)
        if not file.startswith((own, torchs)):
            return file, int(line), library
    return "", 0, library


def insert_attribute(graph: Graph, module: ScriptModule, path: str) -> Value:
    """Reads a parameter or buffer of a method's own module, at the graph's start."""
    value, first = next(iter(graph.inputs())), next(iter(graph.nodes()))
    *above, last = path.split(".")
    for name in (*above, last):
        node = graph.create("prim::GetAttr", [value], 1)
        node.s_("name", name)
        node.insertBefore(first)
        value = node.output()
        if name is last:
            value.setType(_TYPES["TensorType"])
        else:
            module = getattr(module, name)
            value.setType(module._c._type())
    return value


# --- compiling ----------------------------------------------------------------------------------


class RefusedPieceError(RuntimeError):
    """A piece compiles, but does what a trace can't keep. The text names what, and the place if known."""


@dataclass(frozen=True)
class Compiled:
    """A compiled piece: what to run for an example result, and what to put into a trace.

    Attributes:
        run: Runs it on example values by name; for a method without its ``self``.
        graph: Its graph, calls inlined, with one more input per entry of ``attributes``.
        parameters: Name and type of each argument, ``self`` left out.
        result: The type of its result.
        attributes: For a method, the paths below ``self`` that it reads, in input order.
    """

    run: Callable[..., Any]
    graph: Graph
    parameters: tuple[tuple[str, JitType], ...]
    result: JitType
    attributes: tuple[str, ...] = ()


def parse(fn: FunctionType) -> Any:
    """Parses a function's source for TorchScript; raises ``OSError`` where there is none.

    Returns:
        torch's ``ParsedDef``: ``.ast`` may be edited before it is compiled, since positions in
        the original source are kept.
    """
    sources: Any = __import__("torch._sources", fromlist=["_"])
    return sources.parse_def(fn)


def compile_function(fn: FunctionType, parsed: Any) -> Compiled:
    """Compiles a function from its (edited) source, as ``torch.jit.script`` does."""
    internal: Any = __import__("torch._jit_internal", fromlist=["_"])
    definition = _build_definition(fn, parsed, self_name=None)
    resolve = internal.createResolutionCallbackFromClosure(fn)
    with quiet():
        scripted = _C._jit_script_compile(internal._qualified_name(fn), definition, resolve, {})
    schema = scripted.schema
    return Compiled(
        run=scripted,
        graph=scripted.inlined_graph,
        parameters=tuple((a.name, a.type) for a in schema.arguments),
        result=schema.returns[0].type,
    )


def compile_method(fn: FunctionType, module: nn.Module, parsed: Any, called: Callable[[nn.Module], bool]) -> Compiled:
    """Compiles a method of a module, together with the submodules that it calls.

    The types are not shared with other scripted modules (as in a trace): sharing would mark the
    module's type as compiled, and a later ``torch.jit.script(model)`` would lack its ``forward``.

    Args:
        fn: The method, as a plain function.
        module: Its ``self``.
        parsed: Its parsed source.
        called: Whether the forward of a submodule is to be compiled too.
    """
    recursive = _jit._recursive
    internal: Any = __import__("torch._jit_internal", fromlist=["_"])
    definition = _build_definition(fn, parsed, self_name="RecursiveScriptModule")
    resolve = internal.createResolutionCallbackFromClosure(fn)
    stub = recursive.ScriptMethodStub(resolve, definition, fn)

    def stubs(candidate: nn.Module) -> list[Any]:
        if candidate is module:
            return [stub]
        found: list[Any] = recursive.infer_methods_to_compile(candidate) if called(candidate) else []
        return found

    with quiet(), _resolved_annotations(module):
        scripted = recursive.create_script_module(module, stubs, share_types=False)
        method = scripted._c._get_method(fn.__name__)
    graph = inline(method.graph.copy())
    attributes = _lift_attributes(graph)
    schema = method.schema
    return Compiled(
        run=method,
        graph=graph,
        parameters=tuple((a.name, a.type) for a in schema.arguments[1:]),
        result=schema.returns[0].type,
        attributes=attributes,
    )


@contextlib.contextmanager
def _resolved_annotations(root: nn.Module) -> Iterator[None]:
    """Lets torch read the annotations of classes under ``from __future__ import annotations``.

    It reads those of the class (in torch 2.15 of nothing else), and none that are text. One that
    can't be evaluated is left out: torch then goes by the value.
    """
    changed: dict[type, Any] = {}
    try:
        for cls in {type(module) for module in root.modules() if not isinstance(module, ScriptModule)}:
            bases = [base for base in cls.__mro__ if issubclass(base, nn.Module) and base is not nn.Module]
            found: dict[str, tuple[Any, type]] = {}
            for base in reversed(bases):
                found |= {name: (note, base) for name, note in inspect.get_annotations(base).items()}
            if not any(isinstance(note, str) for note, _ in found.values()):
                continue
            resolved: dict[str, Any] = {"": None}  # never empty: torch would go on to a base class
            for name, (note, base) in found.items():
                with contextlib.suppress(NameError, AttributeError, TypeError, SyntaxError):
                    # Evaluates what Python itself would have evaluated without the future import.
                    space = vars(sys.modules[base.__module__])
                    resolved[name] = eval(note, space, dict(vars(base))) if isinstance(note, str) else note
            changed[cls] = vars(cls).get("__annotations__")
            cls.__annotations__ = resolved
        yield
    finally:
        for cls, before in changed.items():
            if before is None:
                del cls.__annotations__
            else:
                cls.__annotations__ = before


def _build_definition(fn: FunctionType, parsed: Any, self_name: str | None) -> Any:
    frontend: Any = _jit.frontend
    # torch takes some spellings of "type: ignore" for a type comment.
    source = re.sub(r"#\s*type:\s*ignore.*", "", parsed.source)
    type_line = _jit.annotations.get_type_line(source)
    return frontend.build_def(parsed.ctx, parsed.ast.body[0], type_line, fn.__name__, self_name)


def _lift_attributes(graph: Graph) -> tuple[str, ...]:
    """Turns every attribute that a method's graph reads into an input, and drops its ``self``."""
    own = next(iter(graph.inputs()))
    paths = {own.unique(): ""}
    lifted: dict[str, Value] = {}
    modules = []
    for node in every_node(graph):
        if node.kind() != "prim::GetAttr" or node.input().unique() not in paths:
            continue
        prefix, output = paths[node.input().unique()], node.output()
        path = f"{prefix}.{node.s('name')}" if prefix else node.s("name")
        if kind(output.type()) == "ClassType":
            paths[output.unique()] = path
            modules.append(node)
            continue
        if path not in lifted:
            lifted[path] = graph.addInput()
            lifted[path].setType(output.type())
        output.replaceAllUsesWith(lifted[path])
        node.destroy()
    for node in reversed(modules):
        if node.hasUses():
            break
        node.destroy()
    if list(own.uses()):
        nodes = every_node(graph)
        names = sorted({node.s("name") for node in nodes if node.kind() == "prim::SetAttr"})
        if names:
            raise RefusedPieceError(f"the method assigns self.{', '.join(names)}, or a module it calls does")
        raise RefusedPieceError("the method uses a module as a value, where it may only call it")
    graph.eraseInput(0)
    return tuple(lifted)


def refuse_list_writes(compiled: Compiled) -> None:
    """Refuses to write to a list or dict from outside the piece: a trace makes a new one at each call.

    Raises:
        RefusedPieceError: With the line, as torch's own compile errors have it.
    """
    inputs = list(compiled.graph.inputs())
    names = [name for name, _ in compiled.parameters] + [f"self.{path}" for path in compiled.attributes]
    outside = {
        value.unique(): name
        for value, name in zip(inputs, names, strict=True)
        if kind(value.type()) in ("ListType", "DictType")
    }
    for node in every_node(compiled.graph) if outside else ():
        target = next(iter(node.inputs()), None)
        # In a schema, (a!) marks what an operator writes to; for lists that is always the first.
        if target is not None and target.unique() in outside and "(a!)" in node.schema():
            name = outside[target.unique()]
            raise RefusedPieceError(f"the function changes {name} in place\n{node.sourceRange()}")


def every_node(block: Any) -> list[Any]:
    """The nodes of a graph or block, each followed by those of its blocks."""
    found = []
    for node in block.nodes():
        found.append(node)
        for inner in node.blocks():
            found += every_node(inner)
    return found


@contextlib.contextmanager
def unoptimized() -> Iterator[None]:
    """Runs TorchScript without profiling or optimising: an example result is wanted once."""
    with quiet(), _jit.optimized_execution(False):
        yield


# --- traces and files ---------------------------------------------------------------------------


def trace(module: nn.Module, inputs: tuple[Tensor, ...]) -> ScriptModule:
    """``torch.jit.trace`` without its self-check, which re-runs the very inputs it was traced on."""
    with quiet(), _traceable(module):
        traced = _jit.trace(module, inputs, check_trace=False)
    assert isinstance(traced, ScriptModule)
    return traced


def observe(module: nn.Module, inputs: tuple[Tensor, ...], traced: ScriptModule) -> Graph:
    """A further trace of what was ``traced``, as one graph without scopes, to be looked at; half as dear as `trace`."""
    with quiet(), _traceable(module):
        graph, _ = _C._create_graph_by_tracing(module, inputs, lambda value: "", True, False, traced._c)
    assert isinstance(graph, _C.Graph)
    return graph


def has_setup_context(function: Any) -> bool:
    """Whether an autograd function has its context set up apart from ``forward``, which then takes none."""
    return bool(function.setup_context is not _autograd._SingleLevelFunction.setup_context)


@contextlib.contextmanager
def applying(run: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]) -> Iterator[None]:
    """Calls ``run(function, args, kwargs)``, within the body, where a trace would record the call of one.

    Up to torch 2.14 also by a reference to ``apply`` that was taken before; from 2.15 on that is a function in C.
    """
    top = _autograd.Function
    before = vars(top)["apply"]
    owner = _autograd._SingleLevelFunction if isinstance(before, classmethod) else top

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if _C._is_tracing():
            return run(cls, args, kwargs)
        return before.__get__(None, cls)(*args, **kwargs) if owner is top else super(owner, cls).apply(*args)

    owner.apply = classmethod(apply)
    try:
        yield
    finally:
        del owner.apply
        if owner is top:
            top.apply = before


_REFUSED = ("_backward_hooks", "_backward_pre_hooks", "_compiled_call_impl")


@contextlib.contextmanager
def _traceable(root: nn.Module) -> Iterator[None]:
    """Takes away, within the body, what the tracer refuses and a trace without gradients has no use for.

    Hooks of the backward pass, what ``module.compile()`` set, marks of ``torch.jit.export``; casts that autocast keeps;
    the dear search for variables' names; a tensor's second name in a module. A frozen module gets a loaded one's type.
    """
    changed: list[tuple[dict[str, Any], str, Any]] = []

    def put(held: dict[str, Any], name: str, value: object) -> None:
        changed.append((held, name, held.get(name)))
        held[name] = value

    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    torch.clear_autocast_cache()
    try:
        put(vars(torch._jit_internal), "module_has_exports", lambda module: False)
        put(vars(_jit._trace), "_create_interpreter_name_lookup_fn", lambda *frames: lambda value: "")
        for module in root.modules():
            held = vars(module)
            if isinstance(module, ScriptModule):
                if "_concrete_type" not in held and "_c" in held:
                    put(held, "_concrete_type", _C.ConcreteModuleType.from_jit_type(held["_c"]._type()))
                continue
            for name in filter(held.get, _REFUSED):
                put(held, name, type(held[name])() if isinstance(held[name], dict) else None)
            for place, name, tensor in _named_again(held):
                put(held, place, {key: each for key, each in held[place].items() if key != name})
                put(held, name, tensor)
        yield
    finally:
        torch.set_autocast_cache_enabled(cached)
        for held, name, value in reversed(changed):
            held[name] = value
            if value is None:
                del held[name]


def _named_again(held: dict[str, Any]) -> list[tuple[str, str, Tensor]]:
    every = [(place, *item) for place in ("_parameters", "_buffers") for item in held[place].items()]
    first: dict[int, Any] = {}
    return [each for each in every if each[2] is not None and first.setdefault(id(each[2]), each) is not each]


def compile_as(function: Any, other: Any) -> bool:
    """Makes TorchScript take a Python function for another, if that is one of its own operations; says whether."""
    table = _jit._builtins._get_builtin_table()
    return id(other) in table and bool(table.setdefault(id(function), table[id(other)]))


def uncompiled(model: nn.Module) -> nn.Module | None:
    """The module that ``torch.compile`` was given, ``None`` if this is none that it made."""
    dynamo: Any = sys.modules.get("torch._dynamo")
    return model._orig_mod if dynamo is not None and isinstance(model, dynamo.OptimizedModule) else None


def save_script(module: ScriptModule, path: str | os.PathLike[str], extra: Mapping[str, str]) -> None:
    """``torch.jit.save`` to a path, with extra files."""
    with quiet():
        _jit.save(module, os.fspath(path), _extra_files=dict(extra))


def load_script(
    source: str | os.PathLike[str] | io.BytesIO, device: torch.device | None = None, extra: dict[str, Any] | None = None
) -> ScriptModule:
    """``torch.jit.load`` from a path or a buffer; fills ``extra`` with the extra files asked for."""
    with quiet():
        loaded: ScriptModule = _jit.load(source, map_location=device, _extra_files=extra)
    return loaded


def open_script(path: str | os.PathLike[str], device: torch.device | None) -> Any:
    """What ``torch.jit.load`` reads, before `script_view` makes Python's own modules of it."""
    return _C.import_ir_module(_C.CompilationUnit(), os.fspath(path), device, {}, False)


script_view: Callable[[Any], ScriptModule] = _jit._recursive.wrap_cpp_module


def moved_script(module: ScriptModule, device: torch.device) -> ScriptModule:
    """A copy of a module on another device, by the way that a loading program takes."""
    buffer = io.BytesIO()
    with quiet():
        _jit.save(module, buffer)
    buffer.seek(0)
    return load_script(buffer, device)


def signature_of(forward: Callable[..., Any]) -> inspect.Signature:
    """The signature of a function; a traced or loaded method, which has none, tells it by its schema.

    Raises:
        ValueError: It has neither.
    """
    try:
        return inspect.signature(forward)
    except ValueError:
        if not isinstance(forward, _C.ScriptMethod):
            raise
    parameters = []
    for argument in list(forward.schema.arguments)[1:]:  # without self
        kind = inspect.Parameter.KEYWORD_ONLY if argument.kwarg_only else inspect.Parameter.POSITIONAL_OR_KEYWORD
        default = argument.default_value if argument.has_default_value() else inspect.Parameter.empty
        parameters.append(inspect.Parameter(argument.name, kind, default=default))
    return inspect.Signature(parameters)


def script_attributes(module: ScriptModule) -> dict[str, Any]:
    """What a script module holds besides parameters and submodules; the values of containers are copies."""
    cpp: Any = module._c
    known = _C.ConcreteModuleType.from_jit_type(cpp._type()).get_attributes()
    names = [name for name, (_, is_parameter) in known.items() if not is_parameter]
    return {name: cpp.getattr(name) for name in names if kind(known[name][0]) in _HELD}


_HELD = {f"{name}Type" for name in ("Tensor", "Int", "Float", "Bool", "String", "List", "Dict", "Tuple", "Optional")}


def set_script_attributes(module: ScriptModule, values: Mapping[str, Any]) -> None:
    """Puts back what `script_attributes` told."""
    cpp: Any = module._c
    for name, value in values.items():
        now = cpp.getattr(name)
        if now is not value:
            cpp.setattr(name, value)


def count_operations(module: ScriptModule, method: str = "forward") -> int:
    """How many operations a method has, submodules and blocks included, constants and attributes not."""
    with unwatched():
        return sum(n.kind() not in ("prim::Constant", "prim::GetAttr") for n in every_node(inlined(module, method)))


def inlined(module: ScriptModule, method: str) -> Graph:
    """A copy of a method's graph, calls inlined.

    Of ``module.inlined_graph`` torch keeps another copy for good, and of every method that it calls.
    """
    graph = module._c._get_method(method).graph.copy()
    end, calls = graph.insertPoint(), True
    while calls:
        calls = False
        held: dict[int, Any] = {next(iter(graph.inputs())).unique(): module._c}
        for node in graph.findAllNodes("prim::GetAttr", True):
            owner = held.get(node.input().unique())
            if owner is not None and isinstance(value := owner.getattr(node.s("name")), _C.ScriptModule):
                held[node.output().unique()] = value
        for node in graph.findAllNodes("prim::CallMethod", True):
            if (owner := held.get(node.inputsAt(0).unique())) is not None:
                graph.setInsertPoint(node)
                results = graph.insertGraph(owner._get_method(node.s("name")).graph, list(node.inputs()))
                for old, new in zip(list(node.outputs()), results, strict=True):
                    old.replaceAllUsesWith(new)
                graph.setInsertPoint(end)  # torch ends the process if it finds itself at a node that is gone
                node.destroy()
                calls = True
    return inline(graph)  # functions


def inline(graph: Graph) -> Graph:
    """Puts what a graph calls in the place of the calls."""
    with without_autocast():
        _C._jit_pass_inline(graph)
    return graph


Row: TypeAlias = "tuple[str, tuple[object, ...], tuple[int, ...], tuple[tuple[Row, ...], ...]]"
"""One operation: its kind, its attributes, which earlier values it takes, and its blocks."""


def program(traced: ScriptModule | Graph, constant: Callable[[Tensor], object]) -> tuple[Row, ...]:
    """What a trace computes, so that two captures can be compared: no names, no places, no shapes of an example.

    Args:
        traced: The trace, or the graph of one.
        constant: Makes of a tensor in the graph something that can be compared.
    """
    graph = traced.copy() if isinstance(traced, _C.Graph) else inlined(traced, "forward")
    _C._jit_pass_dce(graph)
    return _rows(graph, {}, constant)


def _rows(block: Any, numbers: dict[int, int], constant: Callable[[Tensor], object]) -> tuple[Row, ...]:
    if block.findNode("prim::RaiseException", False):  # its text may have sizes in it
        return (("prim::RaiseException", (), (), ()),)

    def numbered(values: Iterable[Value]) -> tuple[int, ...]:
        return tuple([numbers.setdefault(value.unique(), len(numbers)) for value in values])

    numbered(block.inputs())
    rows: list[Row] = []
    for node in [*block.nodes(), block.return_node() if isinstance(block, _C.Graph) else block.returnNode()]:
        node_kind, taken = node.kind(), numbered(node.inputs())
        plain = node_kind.startswith("aten::")  # no blocks, and nothing noted; looking there takes most of the time
        inner = () if plain else tuple(_rows(each, numbers, constant) for each in node.blocks())
        numbered(node.outputs())
        attributes = []
        for name in node.attributeNames() if not (plain or inner) else ():  # what is noted on branches and loops
            held = getattr(node, node.kindOf(name))(name)
            attributes += [name, constant(held) if isinstance(held, Tensor) else repr(held)]
        rows.append((node_kind, tuple(attributes), taken, inner))
    return tuple(rows)


def optimized(module: ScriptModule, methods: Sequence[str], *, inference: bool) -> ScriptModule:
    """``torch.jit.freeze``, and ``torch.jit.optimize_for_inference`` after it."""
    others = [name for name in methods if name != "forward"]
    with quiet():
        module = _jit.freeze(module, preserved_attrs=others)
        if inference:
            module = _jit.optimize_for_inference(module, other_methods=others or None)
    return module


def script_code(module: ScriptModule) -> str:
    """The TorchScript source of a module's methods, ``forward`` first."""
    if not hasattr(module, "code"):
        return str(module.inlined_graph)
    names = sorted(module._c._method_names(), key=lambda name: name != "forward")
    return "\n".join(str(module._c._get_method(name).code) for name in names)


# --- several traces as the methods of one module -------------------------------------------------


@contextlib.contextmanager
def without_autocast() -> Iterator[None]:
    """Switches autocast off: the casts of a trace are in it, and TorchScript would add its own, for good."""
    accelerator = torch.accelerator.current_accelerator()
    with contextlib.ExitStack() as stack:
        for device in {"cpu", "cuda", accelerator.type if accelerator else "cpu"}:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


any_autocast: Callable[[], bool] = _C._is_any_autocast_enabled
sparse_count, sparse_indices, left_aligned = Tensor._nnz, Tensor._indices, torch._nested_tensor_from_mask_left_aligned


def shell(holder: nn.Module) -> ScriptModule:
    """A script module without methods that has the parameters, buffers and submodules of a module."""
    with quiet(), _traceable(holder):
        made: ScriptModule = _jit._trace.TopLevelTracedModule(holder, _compilation_unit=_jit._state._python_cu)
    return made


def plain_modules(module: ScriptModule, name: str) -> nn.Module:
    """A traced module as one that is not, with the same tensors; scripted ones in it stay themselves.

    Args:
        module: The module.
        name: What its class is called.
    """
    held = script_attributes(module)
    tensors = {each for each, value in held.items() if isinstance(value, Tensor)}
    if {each for each, value in held.items() if value is not None} - tensors - {"training"}:
        return module
    made: nn.Module = type(name, (nn.Module,), {})()
    for each, parameter in module.named_parameters(recurse=False):
        made.register_parameter(each, nn.Parameter(parameter) if type(parameter) is Tensor else parameter)
    for each, buffer in module.named_buffers(recurse=False):
        made.register_buffer(each, buffer)
    for each, child in module.named_children():
        assert isinstance(child, ScriptModule)
        made.add_module(each, plain_modules(child, str(child.original_name)))
    return made.train(bool(held.get("training", False)))


def argument_names(module: ScriptModule, method: str) -> list[str]:
    """The names of a method's arguments, ``self`` left out; raises `RefusedPieceError` if one of them is no tensor."""
    arguments = list(module._c._get_method(method).schema.arguments)[1:]
    for argument in arguments:
        if kind(argument.type) != "TensorType":
            raise RefusedPieceError(f"{method}: {argument.name} is a {spell_type(argument.type)}, not a tensor")
    return [argument.name for argument in arguments]


def result_type(module: ScriptModule, method: str) -> str:
    """The type of a method's result as its user writes it: ``Tuple[Tensor, Tensor]``."""
    return spell_type(module._c._get_method(method).schema.returns[0].type)


def add_method(
    module: ScriptModule,
    name: str,
    traced: ScriptModule,
    find: Callable[[str, object], str],
    writes: Sequence[str] = (),
    places: dict[Any, Any] | None = None,
) -> None:
    """Gives a module a method that computes what a trace does, on the module's own attributes.

    Args:
        module: The module.
        name: The method's name.
        traced: The trace.
        find: Of an attribute that the trace reads, by its path and value there, the path in the module.
        writes: Attributes of the module that the last results become, and are no results.
        places: Places in source code that other methods of the module have; those that are new are added.
    """
    graph = inlined(traced, "forward")
    own = next(iter(graph.inputs()))
    first, nodes = next(iter(graph.nodes()), graph.return_node()), every_node(graph)
    read: dict[int, tuple[str, Any]] = {own.unique(): ("", traced._c)}
    own.setType(module._c._type())
    owners: dict[str, tuple[Value, Any]] = {"": (own, module._c)}

    def owner(path: str, before: Any) -> Value:
        """The submodule at a path, read from ``self`` at the start of the graph, once."""
        if path not in owners:
            above, _, last = path.rpartition(".")
            value = owner(above, before)
            node = graph.create("prim::GetAttr", [value], 1)
            node.s_("name", last)
            node.insertBefore(before)
            held = owners[above][1].getattr(last)
            node.output().setType(held._type())
            owners[path] = node.output(), held
        return owners[path][0]

    gone = []
    for node in nodes:
        if node.kind() not in ("prim::GetAttr", "prim::SetAttr") or node.inputsAt(0).unique() not in read:
            continue
        prefix, held = read[node.inputsAt(0).unique()]
        path, value = f"{prefix}.{node.s('name')}".lstrip("."), held.getattr(node.s("name"))
        if isinstance(value, _C.ScriptModule):
            read[node.output().unique()] = path, value
            gone.append(node)
            continue
        above, _, last = find(path, value).rpartition(".")
        node.replaceInput(0, owner(above, first))
        node.s_("name", last)
    for node in reversed(gone):
        if node.hasUses():
            path = read[node.output().unique()][0]
            raise RefusedPieceError(f"{path} is used as a value, where it may only be called")
        node.destroy()
    results = _unpacked(graph)
    for path, value in zip(writes, results[len(results) - len(writes) :], strict=True):
        above, _, last = path.rpartition(".")
        node = graph.create("prim::SetAttr", [owner(above, graph.return_node()), value], 0)
        node.s_("name", last)
        node.insertBefore(graph.return_node())
    if writes:
        _return_only(graph, results[: len(results) - len(writes)])
    names = argument_names(traced, "forward")
    example = tuple(torch.zeros(()) for _ in names)
    with quiet(), unwatched():  # the tracer makes the method; what it computes is put in afterwards
        module._c._create_method_from_trace(
            name, lambda *tensors: tensors[0].clone(), example, lambda _: "", True, False, names, False
        )
    into = module._c._get_method(name).graph
    into.eraseOutput(0)
    for node in reversed(list(into.nodes())):
        node.destroy()
    for value in list(into.inputs())[1:]:
        value.setType(type_named("TensorType"))
    for value in into.insertGraph(graph, list(into.inputs())):
        into.registerOutput(value)
    known = {} if places is None else places
    kept = known.setdefault("", _C.Graph())  # from which nothing takes the nodes that hold the places
    for node in every_node(into):
        # Every operation has the text of its whole Python stack to itself, more than all else about it.
        place = node.sourceRange(), node.scopeName()
        if place not in known:
            known[place] = kept.create("prim::Constant", 0)
            known[place].copyMetadata(node)
        node.copyMetadata(known[place])


def apart(module: ScriptModule) -> Callable[..., Any]:
    """A module's ``forward`` as a function; what torch makes to run it, much more than a trace, goes with it."""
    run = function_of(inlined(module, "forward"))
    return lambda *inputs: run(module, *inputs)


def function_of(graph: Graph) -> Callable[..., Any]:
    """A function that computes a graph, and goes when nobody holds it."""
    made: Callable[..., Any] = _C._create_function_from_graph("forward", graph)
    return made


def empty(module: ScriptModule, model: nn.Module) -> None:
    """Takes the operations out of a trace, which can't be used after that.

    Torch keeps the types of script modules, with their methods, for as long as the process runs.

    Args:
        module: The trace.
        model: What was traced; traces that it consists of are left alone.
    """
    others = {str(part._c._type()) for part in model.modules() if isinstance(part, ScriptModule)}
    for part in module.modules():
        if is_traced(part) and isinstance(part, ScriptModule) and str(part._c._type()) not in others:
            for graph in method_graphs(part).values():
                while list(graph.outputs()):
                    graph.eraseOutput(0)
                for node in reversed(list(graph.nodes())):
                    node.destroy()


def _unpacked(graph: Graph) -> list[Value]:
    """The results of a trace: what is in its tuple, or the lone one."""
    [result] = graph.outputs()
    return list(result.node().inputs()) if result.node().kind() == "prim::TupleConstruct" else [result]


def _return_only(graph: Graph, results: Sequence[Value]) -> None:
    result = results[0]
    if len(results) > 1:
        graph.setInsertPoint(graph.return_node())
        result = insert_tuple(graph, results)  # of a tuple's type, which may not be inferred
    graph.eraseOutput(0)
    graph.registerOutput(result)
    _C._jit_pass_dce(graph)


def define(module: ScriptModule, source: str) -> None:
    """Adds a method that is written in TorchScript, and may call the others."""
    with quiet(), without_autocast():
        module._c._define(module._concrete_type, source, {"ValueError": ValueError}.get)


def method_named(module: nn.Module, name: str) -> Callable[..., Any]:
    """A method of a module; of a script module, whatever else it has by that name."""
    of: Any = module
    found: Callable[..., Any] = of._c._get_method(name) if isinstance(module, ScriptModule) else getattr(of, name)
    return found


def scriptable(module: ScriptModule, methods: Sequence[str]) -> nn.Module:
    """A module that calls a script module, for ``torch.jit.script``, which takes no script module in another's place.

    Args:
        module: The module.
        methods: Those of its methods that the result is to have.
    """
    lines = []
    for name in methods:
        schema = module._c._get_method(name).schema
        arguments = list(schema.arguments)[1:]
        spelled = [
            f"{each.name}: {spell_type(each.type)}{f' = {each.default_value!r}' if each.has_default_value() else ''}"
            for each in arguments
        ]
        lines.append(f"def {name}({', '.join(['self', *spelled])}) -> {spell_type(schema.returns[0].type)}:")
        lines.append(f"    return self.module.{name}({', '.join(each.name for each in arguments)})")
    source = "".join(f"{line}\n" for line in lines)
    file = f"<hybridjit {hash(source)}>"
    linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file  # torch reads the source there
    made: dict[str, Any] = {}
    space = {"Tensor": Tensor, "Dict": dict, "Tuple": tuple, "List": list, "__name__": __name__}
    exec(compile(source, file, "exec"), space, made)
    for name in methods:
        if name != "forward":
            _jit.export(made[name])
    holder: nn.Module = type("MultiTrace", (nn.Module,), made)()
    holder.module = module
    return holder.train(module.training)


def attribute_at(module: ScriptModule, path: str) -> object:
    """What a script module holds at a path; raises ``AttributeError`` if nothing."""
    held: Any = module._c
    for name in path.split("."):
        if not held.hasattr(name):
            raise AttributeError(path)
        held = held.getattr(name)
    return held


# --- pytrees ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TreeNode:
    """One level of a registered container.

    Attributes:
        keys: One per child, spelled as in Python source: ``['boxes']``, ``[0]``, ``.scores``.
        children: The children.
        context: What besides the children the container needs to be made again.
        dumped: The context as JSON text; ``None`` if it has none.
    """

    keys: tuple[str, ...]
    children: tuple[Any, ...]
    context: Any
    dumped: str | None


def open_node(value: object) -> TreeNode | None:
    """Opens a container that torch's pytree has registered by one level; ``None`` for anything else."""
    registered = _pytree.SUPPORTED_NODES.get(type(value))
    if registered is None:
        return None
    if registered.flatten_with_keys_fn is not None:
        pairs, context = registered.flatten_with_keys_fn(value)
        keys = tuple(_pytree.keystr((key,)) for key, _ in pairs)
        children = tuple(child for _, child in pairs)
    else:
        plain, context = registered.flatten_fn(value)
        children = tuple(plain)
        keys = tuple(f"[{index}]" for index in range(len(children)))
    return TreeNode(keys, children, context, _dump_context(type(value), context))


def tree_flatten(value: object, is_leaf: Callable[[Any], bool] | None = None) -> tuple[list[Any], list[str], Any]:
    """Flattens a pytree to its leaves, their paths and its spec; goes no deeper than ``is_leaf``."""
    try:
        pairs, spec = _pytree.tree_flatten_with_path(value, is_leaf)
    except ValueError:  # a class that was registered without names for what it holds
        leaves, spec = _pytree.tree_flatten(value, is_leaf)
        return leaves, [f"[{index}]" for index in range(len(leaves))], spec
    return [leaf for _, leaf in pairs], [_pytree.keystr(path) for path, _ in pairs], spec


tree_unflatten: Callable[[Iterable[Any], Any], Any] = _pytree.tree_unflatten
"""Puts leaves into the structure of a spec."""
tree_map: Callable[..., Any] = _pytree.tree_map
tree_leaves: Callable[[Any], list[Any]] = _pytree.tree_leaves


def register_node(
    cls: type,
    flatten: Callable[[Any], tuple[list[Any], Any]],
    unflatten: Callable[[Any, Any], Any],
    names: Callable[[Any], list[str]],
) -> None:
    """Makes a class one that pytree takes apart.

    Args:
        cls: The class.
        flatten: Gives what an instance holds, and its context.
        unflatten: Makes an instance of them.
        names: How each thing that it holds is spelled, given the context.
    """

    def with_keys(value: Any) -> tuple[list[tuple[Any, Any]], Any]:
        held, context = flatten(value)
        return [(_pytree.GetAttrKey(name), each) for name, each in zip(names(context), held, strict=True)], context

    _pytree.register_pytree_node(cls, flatten, unflatten, flatten_with_keys_fn=with_keys)


def _dump_context(type_: type, context: Any) -> str | None:
    serializer = _pytree.SUPPORTED_SERIALIZED_TYPES.get(type_)
    dump = serializer.to_dumpable_context if serializer and serializer.to_dumpable_context else None
    try:
        return json.dumps(dump(context) if dump else context)
    except (TypeError, ValueError):  # a context of Python objects has no JSON
        return None


def close_node(type_: type, children: Sequence[Any], context: Any, dumped: str | None) -> Any:
    """Makes a registered container again, from its live context or, if that is absent, the dumped one."""
    if context is None and dumped is not None:
        serializer = _pytree.SUPPORTED_SERIALIZED_TYPES.get(type_)
        restore = serializer.from_dumpable_context if serializer else None
        context = restore(json.loads(dumped)) if restore else json.loads(dumped)
    return _pytree.SUPPORTED_NODES[type_].unflatten_fn(list(children), context)


def registered_type(name: str) -> type | None:
    """The class that pytree has registered under ``package.module.Class``, if it has one."""
    for type_ in _pytree.SUPPORTED_NODES:
        if f"{type_.__module__}.{type_.__qualname__}" == name:
            return type_
    return None


# --- torch.export and Dynamo --------------------------------------------------------------------

dispatch_modes: Callable[[], int] = _C._len_torch_dispatch_stack
"""How many dispatch modes are on: none in plain eager code, and cheap to ask."""
dynamo_traces: Callable[[], bool] = torch.compiler.is_dynamo_compiling
"""Whether Dynamo traces; it takes the answer for a constant."""


BACKENDS = "torch._dynamo.backends.registry"


def dynamo_wants_one_graph() -> bool:
    """Whether Dynamo, which traces, may not break its graph: with ``fullgraph=True`` and in strict export."""
    from torch._dynamo.symbolic_convert import InstructionTranslator

    tracer = InstructionTranslator.current_tx()
    return bool(tracer.one_graph or tracer.error_on_graph_break)


def dynamo_branch_writes() -> bool:
    """Whether the branch that Dynamo traces has changed a tensor in place that was made outside of it."""
    from torch._dynamo.symbolic_convert import InstructionTranslator

    return bool(InstructionTranslator.current_tx().output.current_tracer.has_input_mutation().has_mutation)


def restart_dynamo(reason: str) -> NoReturn:
    """Makes Dynamo, which traces, begin anew and forget what it planned to do on the way."""
    from torch._dynamo.exc import UnspecializeRestartAnalysis

    raise UnspecializeRestartAnalysis(restart_reason=reason)


def tracing_modes() -> bool:
    """Whether a mode of torch's own tracing is on: fake tensors, functionalization or proxies."""
    stack = torch.utils._python_dispatch._get_current_dispatch_mode_stack()
    return any(getattr(mode, "_mode_key", None) is not None for mode in stack)


@contextlib.contextmanager
def unrecorded() -> Iterator[None]:
    """Runs the body on fake tensors, and records none of it; sizes that appear in it are forgotten."""
    from torch._guards import detect_fake_mode
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import _temp_remove_pre_dispatch_torch_function_mode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv
    from torch.utils._python_dispatch import _disable_current_modes

    fake = detect_fake_mode() or FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    with _temp_remove_pre_dispatch_torch_function_mode(), _disable_current_modes(), fake:
        with fake.shape_env.ignore_fresh_unbacked_symbols() if fake.shape_env else contextlib.nullcontext():
            yield
        fake.epoch += 1  # or an operation's new size would be taken for the one it had in here


def fresh_integer(example: int) -> int:
    """An integer of unknown value within `unrecorded`."""
    from torch._guards import detect_fake_mode

    shapes = getattr(detect_fake_mode(), "shape_env", None)
    return example if shapes is None else shapes.create_unbacked_symint()


def assert_in_graph(holds: Tensor, message: str) -> None:
    """Records an assertion."""
    torch.ops.aten._assert_async.msg(holds, message)


def current_tracer() -> Any:
    """What records the graph, or the subgraph, under way in ``make_fx`` and non-strict export; or ``None``."""
    from torch.fx.experimental import proxy_tensor

    return getattr(proxy_tensor._CURRENT_MAKE_FX_TRACER, "fx_tracer", None)


def lend_modules(outer: Any) -> None:
    """Tells a subgraph's tracer the names of modules by which the outer one knows them."""
    inner = current_tracer()
    if inner is not outer and hasattr(inner, "proxy_paths") and hasattr(outer, "proxy_paths"):
        inner.proxy_paths, inner.proxy_modules = outer.proxy_paths, outer.proxy_modules


def function_modes() -> list[Any]:
    """The function modes that are on, besides those by which ``make_fx`` records."""
    stack: list[Any] = torch.overrides._get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    own = ("PreDispatchTorchFunctionMode", "TorchFunctionMetadataMode")
    return [mode for mode in stack if type(mode).__name__ not in own]


def sizes_from_zero() -> Any:
    """Makes torch.export take sizes for any, 0 and 1 included, in the body."""
    config: Any = __import__("torch.fx.experimental._config", fromlist=["_"])
    return config.patch(backed_size_oblivious=True)


def onnx_functions() -> Any:
    """Lets torch.onnx write branches within loops, in the body: it gives its functions two versions, and refuses."""
    from unittest import mock

    passes: Any = __import__("torch.onnx._internal.exporter._ir_passes", fromlist=["_"])
    plain = passes._maybe_set_opset_version
    same = lambda imports, name, version: plain(imports, name, 1 if "pkg.torch._" in name else version)  # noqa: E731
    return mock.patch.object(passes, "_maybe_set_opset_version", same)


def compile_program(program: Any, *, weights_apart: bool, **options: Any) -> Any:
    """Compiles an exported program by AOTInductor to what goes into a package: the paths of files, and the weights.

    Args:
        program: The program.
        weights_apart: Whether its weights stay outside of the machine code, for a package that has them once.
        **options: Inductor's.
    """
    from torch import _inductor  # slow to import

    options["aot_inductor.package"] = True
    if weights_apart:
        options["aot_inductor.package_constants_in_so"] = False
        options["aot_inductor.package_constants_on_disk_format"] = "pickle_weights"
    return _inductor.aot_compile(program.module(check_guards=False), *program.example_inputs, options=options)


def packing() -> Any:
    """The packing of programs and of compiled code, with torch's ``package_pt2`` and ``load_pt2``."""
    from torch.export.pt2_archive import _package

    return _package


def export_onnx(module: ScriptModule, flat: tuple[Tensor, ...], path: str | os.PathLike[str], **options: Any) -> None:
    """Writes a script module as ONNX, without the graph that torch prints where it can't."""
    log = _C._jit_onnx_log  # which torch switches on, whatever it was set to
    _C._jit_onnx_log = lambda *texts: None
    try:
        torch.onnx.export(module, flat, path, dynamo=False, **options)
    finally:
        _C._jit_onnx_log = log


def load_programs(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The exported programs in an archive, those whose weights are in one record on one memory."""
    reader: Any
    with packing().PT2ArchiveReader(os.fspath(path)) as reader:
        archive = reader.archive_file
        methods = {name: getattr(archive, name) for name in dir(archive) if not name.startswith("_")}
        methods["get_storage_from_record"] = functools.cache(archive.get_storage_from_record)  # each is read once
        reader.archive_file = SimpleNamespace(**methods)
        found: dict[str, Any] = packing()._load_exported_programs(reader, reader.get_file_names(), None)
        return found
