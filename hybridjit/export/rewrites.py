"""Exported programs, in the operations that what comes after torch.export knows."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from typing import Any

import torch


def _calls(program: Any) -> Iterator[tuple[torch.fx.Graph, Any]]:
    """Every call of a function in a program, those in branches and loops included."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in list(module.graph.nodes):
                if node.op == "call_function":
                    yield module.graph, node
            module.recompile()


def add_by_twos(program: Any) -> None:
    """Writes sums of sizes as additions, because torch.export records sums that it can't save."""
    for graph, node in _calls(program):
        if node.target is not torch.sym_sum:
            continue
        first, *rest = node.args[0] if isinstance(node.args[0], (list, tuple)) else node.args
        for each in rest:
            with graph.inserting_before(node):
                first = graph.call_function(operator.add, (first, each))
            first.meta.update(node.meta)
        node.replace_all_uses_with(first)
        graph.erase_node(node)


def round_by_truncating(program: Any) -> None:
    """Writes ``floor`` and ``ceil`` of a size's multiple by what of them torch.export can save: ``int``."""
    for graph, node in _calls(program):
        if node.target not in (math.floor, math.ceil):
            continue
        up = node.target is math.ceil
        (x,) = node.args
        with graph.inserting_before(node):
            cut = _call(graph, node, torch.sym_int, x)
            over = _call(graph, node, operator.lt if up else operator.gt, _call(graph, node, torch.sym_float, cut), x)
            step = _call(graph, node, torch.sym_ite, over, 1 if up else -1, 0)
            whole = graph.call_function(operator.add, (cut, step))
        whole.meta.update(node.meta)
        node.replace_all_uses_with(whole)
        graph.erase_node(node)


def _call(graph: torch.fx.Graph, node: Any, function: Any, *args: Any) -> Any:
    """A call in the place of another, with the value that it has."""
    made = graph.call_function(function, args)
    values = [each.meta["val"] if isinstance(each, torch.fx.Node) else each for each in args]
    made.meta = {**node.meta, "val": function(*values)}
    return made


def whole_of_floats(program: Any) -> Any:
    """The first call that makes a size or a decision of one of Python's floats, if there is one."""

    def value(node: Any) -> Any:
        return node.meta.get("val") if isinstance(node, torch.fx.Node) else None

    for _, node in _calls(program):
        floats = any(isinstance(value(each), torch.SymFloat) for each in node.args)
        if floats and isinstance(value(node), (torch.SymInt, torch.SymBool)):
            return node
    return None


def sort_by_topk(program: Any) -> None:
    """Writes stable sorts as plain ones, which torch.onnx knows: ONNX has only ``TopK``, and that is stable."""
    aten: Any = torch.ops.aten
    plain = {aten.sort.stable: aten.sort.default, aten.argsort.stable: aten.argsort.default}
    for _, node in _calls(program):
        if node.target in plain:
            named = dict(zip(("stable", "dim", "descending"), node.args[1:], strict=False))
            given = {"dim": -1, "descending": False, **named, **node.kwargs}
            node.target = plain[node.target]
            node.args, node.kwargs = (node.args[0], given["dim"], given["descending"]), {}


def count_for_any(program: Any) -> None:
    """Writes whether any is true by how many are: ONNX takes a maximum for it, which of nothing is true."""
    aten: Any = torch.ops.aten
    for graph, node in _calls(program):
        if node.target not in (aten.any.default, aten.any.dim):
            continue
        with graph.inserting_before(node):
            given = graph.call_function(aten.ne.Scalar, (node.args[0], 0))
            whole = graph.call_function(aten.to.dtype, (given, torch.int64))
            if node.target is aten.any.default:
                count = graph.call_function(aten.sum.default, (whole,))
            else:
                count = graph.call_function(aten.sum.dim_IntList, (whole, [node.args[1]], *node.args[2:]), node.kwargs)
            holds = graph.call_function(aten.ne.Scalar, (count, 0))
        for made, of in ((given, node.args[0]), (whole, node.args[0]), (count, node), (holds, node)):
            dtype = torch.int64 if made in (whole, count) else torch.bool
            made.meta = {**of.meta, "val": of.meta["val"].to(dtype)}
        node.replace_all_uses_with(holds)
        graph.erase_node(node)
