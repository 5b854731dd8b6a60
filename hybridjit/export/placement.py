"""Makes a finished trace run on any device: what is made on the CPU where no model said so goes along.

Most of what the model said of devices is in the trace already (`control.origins`). Here every value is labelled: it
is on the device of the inputs and parameters, or on the CPU, and what put it there. Where the two meet in an
operation, eager mode would raise on another device; so what was put on the CPU by nobody's wish (a factory
without a device, a tensor in the graph) is made on the other device instead, and what the model put there
itself is moved where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .. import _torch
from ..control.origins import MEANT, Asked
from .device_notes import counted, of_operation, of_question
from .labels import FOLLOWS, Label, OnCpu, Origin, flat, join
from .operators import Operator, every_node, holds_tensors, is_tensor, operator_of
from .report import Finding


@dataclass
class Method:
    """One method's graph, and what is known of it.

    Attributes:
        name: Its path: ``head.nms.forward``.
        module: Whose it is.
        path: That module's path.
        graph: The graph.
        labels: By number of the value.
        modules: The paths of the values that are modules.
    """

    name: str
    module: _torch.ScriptModule
    path: str
    graph: _torch.Graph
    labels: dict[int, Label] = field(default_factory=dict)
    modules: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Use:
    """An operand of an operation: input ``index`` of ``holder``, which is the operation or a list that it takes."""

    holder: Any
    index: int
    value: _torch.Value
    label: Label


@dataclass(frozen=True)
class _At:
    """A module among the arguments of a method, by its path."""

    path: str


class Placement:
    """One traced module on its way to any device.

    Args:
        module: The traced module, which has not run yet.
        home: The device that it was traced on.
    """

    def __init__(self, module: _torch.ScriptModule, home: torch.device) -> None:
        self._root = module
        self._home = home
        self._methods: dict[str, Method] = {}
        self._given: dict[str, tuple[Label, ...]] = {}  # of each method its arguments, joined over the calls
        self._done: dict[str, Label] = {}  # of each method its result
        self._free: set[Origin] = set()  # what nobody wanted on the CPU, and meets what follows: it goes along
        self._moves: list[tuple[Method, Use, _torch.Value | None, Any]] = []
        """What the model wants where it is, and is moved where it is used, to the device of a value or to the CPU."""
        self._stuck: list[tuple[Method, Any]] = []  # on two devices, and nothing helps
        self._foreign: list[tuple[Method, Any]] = []
        """Operations whose device is another than the CPU and the one traced on, or that no tensor can tell."""

    def follow(self) -> list[Finding | None]:
        """Changes the graphs; returns what there is to know, with the user's lines."""
        known = -1
        while known != len(self._free):  # what goes along now may meet something else then
            known = len(self._free)
            for each in (self._done, self._moves, self._stuck, self._foreign):
                each.clear()
            for name, graph in _torch.method_graphs(self._root).items():
                self._call(self._root, "", name, [FOLLOWS] * (len(list(graph.inputs())) - 1))
        # A size is no tensor in eager mode, and what has no origin is made of sizes.
        tensors = [(method, node) for method, use, _, node in self._moves if use.label != OnCpu()]
        met = [*self._replace_devices(), *tensors]
        for move in self._moves:
            self._move(*move)
        for method in self._methods.values():
            self._keep(method)
            _clean(method.graph)
        found = [("HJ204", each) for each in met] + [("HJ205", each) for each in self._stuck]
        found += [("HJ206", each) for each in self._foreign]
        return [of_operation(code, node, method.path) for code, (method, node) in found]

    # --- labels ---------------------------------------------------------------------------------

    def _call(self, module: _torch.ScriptModule, path: str, name: str, passed: Sequence[Label | _At]) -> Label:
        """The label of what a method returns."""
        full = f"{path}.{name}".lstrip(".")
        before = self._given.get(full)
        given = [None if isinstance(each, _At) else each for each in passed]
        labels = tuple(given) if before is None else tuple(map(join, before, given))
        if full in self._done and labels == before:
            return self._done[full]
        self._given[full] = labels
        if full not in self._methods:
            self._methods[full] = Method(full, module, path, _torch.method_graphs(module)[name])
        method = self._methods[full]
        own, *values = method.graph.inputs()
        method.modules[own.unique()] = path
        for value, label, each in zip(values, labels, passed, strict=True):
            method.labels[value.unique()] = label
            if isinstance(each, _At):  # a module that its owner lends to another
                method.modules[value.unique()] = each.path
        self._block(method, method.graph.nodes())
        results = [method.labels.get(value.unique()) for value in method.graph.outputs()]
        self._done[full] = results[0] if len(results) == 1 else tuple(results)
        return self._done[full]

    def _block(self, method: Method, nodes: Iterator[Any]) -> None:
        for node in nodes:
            results = self._node(method, node)
            for value, label in zip(node.outputs(), results, strict=True):
                method.labels[value.unique()] = label

    def _node(self, method: Method, node: Any) -> list[Label]:
        kind = node.kind()
        outputs = list(node.outputs())
        given = [method.labels.get(value.unique()) for value in node.inputs()]
        if kind == "prim::Constant":
            return [self._constant(method, outputs[0]) if is_tensor(outputs[0]) else None]
        if kind == "prim::GetAttr":
            path = method.modules.get(node.input().unique())
            if path is not None and _torch.kind(outputs[0].type()) == "ClassType":
                method.modules[outputs[0].unique()] = f"{path}.{node.s('name')}".lstrip(".")
            return [FOLLOWS if holds_tensors(outputs[0]) else None]
        if kind == "prim::CallMethod":
            return self._submodule(method, node, given, outputs)
        if kind == "prim::If":
            return self._branch(method, node)
        if kind == "prim::Loop":
            return self._loop(method, node, given)
        if kind in ("prim::ListConstruct", "prim::TupleConstruct"):
            return [tuple(given) if holds_tensors(outputs[0]) else None]
        if kind in ("prim::TupleUnpack", "prim::ListUnpack"):
            inside = given[0]
            if isinstance(inside, tuple) and len(inside) == len(outputs):
                return list(inside)
            return [flat(inside)] * len(outputs)
        if kind == "prim::NumToTensor":
            return [OnCpu()]
        if not any(map(holds_tensors, outputs)) and not node.inputsSize():
            return [None] * len(outputs)
        return self._operation(method, node, outputs)

    def _constant(self, method: Method, value: _torch.Value) -> Label:
        origin = Origin(method.name, value.unique(), True)
        if value.node().t("value").device.type != "cpu":
            self._free.add(origin)
        return FOLLOWS if origin in self._free else OnCpu(frozenset([origin]))

    def _submodule(self, method: Method, node: Any, given: list[Label], outputs: list[Any]) -> list[Label]:
        path = method.modules[node.inputsAt(0).unique()]
        module: Any = self._root
        for name in path.split(".") if path else ():
            module = getattr(module, name)
        if not _torch.is_traced(module):  # somebody else's graph, which stays as it is
            label = flat(tuple(given[1:]))
            return [FOLLOWS if label is None else label] * len(outputs)
        lent = [method.modules.get(value.unique()) for value in node.inputs()]
        passed = [label if at is None else _At(at) for label, at in zip(given, lent, strict=True)]
        return [self._call(module, path, node.s("name"), passed[1:])]

    def _branch(self, method: Method, node: Any) -> list[Label]:
        sides = []
        for block in node.blocks():
            self._block(method, block.nodes())
            sides.append([method.labels.get(value.unique()) for value in block.outputs()])
        return [join(*pair) for pair in zip(*sides, strict=True)]

    def _loop(self, method: Method, node: Any, given: list[Label]) -> list[Label]:
        [block] = node.blocks()
        carried, before = given[2:], None
        while carried != before:
            before = carried
            for value, label in zip(list(block.inputs())[1:], carried, strict=True):
                method.labels[value.unique()] = label
            self._block(method, block.nodes())
            ends = [method.labels.get(value.unique()) for value in list(block.outputs())[1:]]
            carried = [join(*pair) for pair in zip(carried, ends, strict=True)]
        return carried

    def _operation(self, method: Method, node: Any, outputs: list[Any]) -> list[Label]:
        operator = operator_of(node)
        uses = [use for index in range(node.inputsSize()) for use in _uses(method, node, index)]
        results: list[Label] = []
        if operator.device is not None:
            named = self._device(method, node, operator.device, bool(uses))
            results = [named] * len(outputs) if named is not None else []
        if not operator.mixes:
            self._check(method, node, operator, uses)
        if not results:
            deciding = uses[operator.decides : operator.decides + 1] if operator.decides is not None else uses
            label: Label = FOLLOWS if FOLLOWS in (use.label for use in deciding) else _union(deciding)
            results = [label if holds_tensors(value) else None for value in outputs]
        for index in operator.cpu_outputs:
            results[index] = OnCpu()
        return results

    def _check(self, method: Method, node: Any, operator: Operator, uses: list[Use]) -> None:
        """Looks whether an operation takes tensors from two devices."""
        for use in uses:
            if use.holder is node and use.index in operator.on_cpu and use.label == FOLLOWS:
                self._moves.append((method, use, None, node))
        uses = [use for use in uses if not (use.holder is node and use.index in operator.on_cpu)]
        if operator.indexing and uses and uses[0].label == FOLLOWS:
            uses = [use for use in uses if use.holder is node]
        here = [use for use in uses if use.label == FOLLOWS]
        there = [
            use
            for use in uses
            if isinstance(use.label, OnCpu) and not (operator.pointwise and _torch.rank_of(use.value) == 0)
        ]
        if here and there:
            self._meet(method, node, operator, here, there)

    def _device(self, method: Method, node: Any, index: int, has_tensors: bool) -> Label:
        """The label that an argument ``device`` gives; ``None`` if it gives none."""
        value = node.inputsAt(index)
        source = value.node()
        if source.kind() == "prim::device":
            return flat(method.labels.get(source.input().unique()))
        if source.kind() != "prim::Constant":
            return FOLLOWS  # a device that the file is given
        constant = value.toIValue()
        if constant is None and has_tensors:
            return None  # that of the first tensor
        number = node.output().unique()
        if constant is None or constant == torch.device("cpu"):
            origin = Origin(method.name, number, self._home.type == "cpu")
        elif constant.type != "cpu" and constant == self._home:
            origin = Origin(method.name, number, True)
            self._free.add(origin)
        else:
            origin = Origin(method.name, number, False)
            if constant != MEANT:
                self._foreign.append((method, node))
        return FOLLOWS if origin in self._free else OnCpu(frozenset([origin]))

    def _meet(self, method: Method, node: Any, operator: Operator, here: list[Use], there: list[Use]) -> None:
        """Brings to one device what an operation takes from two."""
        for use in there:
            origins = use.label.origins if isinstance(use.label, OnCpu) else frozenset()
            if origins and all(origin.free and self._anchor(origin.method) for origin in origins):
                self._free |= origins
            elif operator.in_place and use.holder is node and use.index == 0:
                self._stuck.append((method, node))
            elif is_tensor(use.value) and is_tensor(here[0].value):
                self._moves.append((method, use, here[0].value, node))
            else:
                self._stuck.append((method, node))

    def _anchor(self, name: str) -> Callable[[], _torch.Value] | None:
        """Gives what to take the device from in a method: a tensor that it is given, else a parameter or buffer."""
        method = self._methods[name]
        for value in list(method.graph.inputs())[1:]:
            if is_tensor(value) and method.labels.get(value.unique()) == FOLLOWS:
                given: _torch.Value = value
                return lambda: given
        for path, _ in (*method.module.named_parameters(), *method.module.named_buffers()):
            return lambda: _torch.insert_attribute(method.graph, method.module, path)
        return None

    # --- changes --------------------------------------------------------------------------------

    def _replace_devices(self) -> list[tuple[Method, Any]]:
        """Gives what goes along a tensor's device in place of a constant; returns what is to be told of."""
        changed = []
        for method in self._methods.values():
            numbers = {origin.value for origin in self._free if origin.method == method.name}
            if not numbers:
                continue
            nodes = [n for n in every_node(method.graph) if any(v.unique() in numbers for v in n.outputs())]
            anchor = self._anchor(method.name)
            if anchor is None:
                self._foreign += [(method, node) for node in nodes]
                continue
            tensor = anchor()
            for node in nodes:
                changed.append((method, node))
                index = operator_of(node).device
                if node.kind() != "prim::Constant" and index is not None:
                    node.replaceInput(index, _torch.insert_device(method.graph, tensor, node))
                    continue
                users, after = list(node.output().uses()), _torch.next_node(node)
                device = _torch.insert_device(method.graph, tensor, after)
                moved = _torch.insert_move(method.graph, node.output(), device, after)
                for use in users:
                    use.user.replaceInput(use.offset, moved)
        return changed if self._home.type == "cpu" else []

    def _keep(self, method: Method) -> None:
        """Keeps a tensor in the graph on the CPU where it is used there: loading moves it along, ``to`` does not."""
        for node in method.graph.findAllNodes("prim::Constant"):
            if not is_tensor(node.output()):
                continue
            origin = Origin(method.name, node.output().unique(), True)
            there = [use for use in node.output().uses() if not self._goes_along(method, use.user)]
            if origin in self._free or not there:
                continue
            after = _torch.next_node(node)
            device = _before(method.graph, torch.device("cpu"), after)
            kept = _torch.insert_move(method.graph, node.output(), device, after)
            for use in there:
                use.user.replaceInput(use.offset, kept)

    def _goes_along(self, method: Method, user: Any) -> bool:
        """Whether what uses a tensor moves it itself, or takes a scalar from anywhere."""
        operator = operator_of(user)
        if operator.mixes and operator.device is not None:
            return True
        return operator.pointwise and FOLLOWS in (method.labels.get(value.unique()) for value in user.outputs())

    def _move(self, method: Method, use: Use, other: _torch.Value | None, node: Any) -> None:
        """Moves an operand where it is used, to the device of another one or to the CPU."""
        holder = use.holder
        if holder is not node:
            holder.moveBefore(node)
        if other is None:
            device = _torch.insert_constant(method.graph, torch.device("cpu"))
            device.node().moveBefore(holder)
        else:
            device = _torch.insert_device(method.graph, other, holder)
        holder.replaceInput(use.index, _torch.insert_move(method.graph, use.value, device, holder))


def follow_devices(module: _torch.ScriptModule, home: torch.device, asked: Sequence[Asked] = ()) -> list[Finding]:
    """Makes a traced module run on any device.

    Args:
        module: The module, as it comes from the trace; it must not have run yet.
        home: The device that it was traced on.
        asked: What was seen of devices while it was traced.

    Returns:
        What does not follow, or goes along though eager mode would refuse it, with the user's lines.
    """
    return counted([*map(of_question, asked), *Placement(module, home).follow()])


def _clean(graph: _torch.Graph) -> None:
    """Gives the CPU its own name again, and pins no memory: that speeds up copies and changes no value."""
    for node in graph.findAllNodes("prim::Constant"):
        value = node.output()
        kind = _torch.kind(value.type())
        if kind == "DeviceObjType" and value.toIValue() == MEANT:
            value.replaceAllUsesWith(_before(graph, torch.device("cpu"), node))
            node.destroy()
        elif kind == "BoolType" and value.toIValue():
            for use in list(value.uses()):
                if use.offset == operator_of(use.user).pinned:
                    use.user.replaceInput(use.offset, _before(graph, False, use.user))
    for node in graph.findAllNodes("aten::pin_memory"):
        copied = _torch.insert(graph, "aten::clone", [node.inputsAt(0), _before(graph, None, node)])
        copied.node().moveBefore(node)
        node.output().replaceAllUsesWith(copied)
        node.destroy()


def _before(graph: _torch.Graph, value: object, node: Any) -> _torch.Value:
    constant = _torch.insert_constant(graph, value)
    constant.node().moveBefore(node)
    return constant


def _uses(method: Method, node: Any, index: int) -> list[Use]:
    """The tensors that an operation takes as one argument: it, or what is in the list."""
    value = node.inputsAt(index)
    source = value.node()
    if source.kind() == "prim::ListConstruct" and holds_tensors(value):
        return [use for inner in range(source.inputsSize()) for use in _uses(method, source, inner)]
    label = flat(method.labels.get(value.unique()))
    return [] if label is None else [Use(node, index, value, label)]


def _union(uses: Sequence[Use]) -> Label:
    """The label of what is computed from tensors on the CPU, or from none."""
    return OnCpu(frozenset().union(*(use.label.origins for use in uses if isinstance(use.label, OnCpu))))
