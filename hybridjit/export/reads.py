"""Reads of attributes, one for each in place of one for each use: torch's loader takes long over many in branches.

For each name that one side of a branch has and the other has not, it copies the text of the whole file.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from typing import Any

from .. import _torch


def share_reads(module: _torch.ScriptModule) -> None:
    """Reads each parameter and submodule once where blocks of a graph read it again, and computes the same.

    Args:
        module: The module, which has not run.
    """
    parts = [part for part in module.modules() if isinstance(part, _torch.ScriptModule)]
    graphs = [(part, graph) for part in parts for graph in _torch.method_graphs(part).values()]
    ours = [graph for part, graph in graphs if part is module or _torch.is_traced(part)]
    branching = [graph for graph in ours if any(list(node.blocks()) for node in graph.nodes())]
    # Where something is set, what is read later may be another.
    if branching and not any(each.findNode("prim::SetAttr", True) for _, each in graphs):
        for graph in branching:
            _share(graph)


def _share(graph: _torch.Graph) -> None:
    """Moves a read that blocks have in common before the innermost operation that they are both of."""
    known: dict[tuple[int, str], tuple[Any, list[Any]]] = {}
    for node, inside in list(_reads(graph, [])):
        key = node.input().unique(), node.s("name")
        if key not in known:
            known[key] = node, inside
            continue
        first, around = known[key]
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(around, inside)))  # noqa: B905
        if common < len(around):
            first.moveBefore(around[common][0])
            known[key] = first, around[:common]
        node.output().replaceAllUsesWith(first.output())
        node.destroy()


def _reads(block: Any, inside: list[Any]) -> Iterator[tuple[Any, list[Any]]]:
    """The reads of attributes, each with the operations that it is within, and in which of their blocks."""
    for node in block.nodes():
        if node.kind() == "prim::GetAttr":
            yield node, inside
        for place, inner in enumerate(node.blocks()):
            yield from _reads(inner, [*inside, (node, place)])
