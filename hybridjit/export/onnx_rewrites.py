"""A trace in the operations that ONNX has: what torch's translation of TorchScript lacks, written as others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _torch


def average_windows(x: Tensor, height: int, width: int) -> Tensor:
    """``adaptive_avg_pool2d`` to a size that is known only when the file runs: two products with window weights."""
    weights = []
    for along, (size, count) in enumerate(((x.size(-2), height), (x.size(-1), width))):
        index = torch.arange(count, device=x.device).unsqueeze(1 - along)  # no transpose: ONNX wants to know the rank
        start = torch.floor_divide(index * size, count)
        stop = torch.floor_divide((index + 1) * size + count - 1, count)
        place = torch.arange(size, device=x.device).unsqueeze(along)
        inside = ((place >= start) & (place < stop)).to(x.dtype)
        weights.append(inside / inside.sum(1 - along, keepdim=True))
    return torch.matmul(torch.matmul(weights[0], x), weights[1])


def rewrite(module: Any) -> None:
    """Changes the graphs of a script module, which computes the same after that."""
    for part in module.modules():
        for graph in _torch.method_graphs(part).values():
            for node in _torch.every_node(graph):
                if node.kind() == "aten::adaptive_avg_pool2d":
                    _pool(graph, node)
                elif node.kind() in ("aten::sort", "aten::argsort"):
                    _sort(graph, node)


def _pool(graph: _torch.Graph, node: Any) -> None:
    x, sizes = node.inputs()
    if sizes.node().kind() != "prim::ListConstruct" or sizes.node().inputsSize() != 2:
        return
    function: Any = average_windows
    compiled = _torch.compile_function(function, _torch.parse(function))
    _replace(graph, node, compiled.graph, [x, *sizes.node().inputs()])


def _sort(graph: _torch.Graph, node: Any) -> None:
    """A stable sort is ONNX's only one; there is no other way to ask for it."""
    inputs = list(node.inputs())
    if len(inputs) != 4:
        return
    x, _, dim, descending = inputs
    point = graph.insertPoint()
    graph.setInsertPoint(node)
    made = graph.insertNode(graph.create(node.kind(), [x, dim, descending], node.outputsSize()))
    graph.setInsertPoint(point)
    for old, new in zip(node.outputs(), made.outputs(), strict=True):
        new.setType(old.type())
        old.replaceAllUsesWith(new)
    node.destroy()


def _replace(graph: _torch.Graph, node: Any, callee: _torch.Graph, inputs: list[Any]) -> None:
    point = graph.insertPoint()
    graph.setInsertPoint(node)
    (made,) = graph.insertGraph(callee, inputs)
    graph.setInsertPoint(point)
    node.output().replaceAllUsesWith(made)
    node.destroy()
