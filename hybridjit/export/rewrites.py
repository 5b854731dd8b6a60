"""Exported programs, in the operations that what comes after torch.export knows."""

from __future__ import annotations

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
