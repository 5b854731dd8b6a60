"""`compile_report`: what became of the graphs that Dynamo gave to the backend."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class CompiledGraph:
    """A graph that Dynamo captured.

    Attributes:
        operations: How many operations it has.
        result: ``"torchscript"``; ``"eager"`` where it runs as Dynamo captured it; ``"not run"`` until its first call.
        reason: Why it runs in eager mode, or why some calls of it did; else empty.
        calls: How often it was called.
        fallbacks: How many of these calls ran in eager mode.
        seconds: How long it took to capture and verify it.
        ends: Why it ends before its function does, and where: a graph break; else empty.
    """

    operations: int
    result: str = "not run"
    reason: str = ""
    calls: int = 0
    fallbacks: int = 0
    seconds: float = 0.0
    ends: str = ""


@dataclass(frozen=True)
class CompileReport:
    """What the backend has done in this process; ``str()`` is a table.

    Attributes:
        graphs: The graphs, in the order in which Dynamo captured them.
    """

    graphs: tuple[CompiledGraph, ...] = ()

    @property
    def breaks(self) -> dict[str, int]:
        """How many graphs end in a graph break, by reason and line."""
        return dict(Counter(graph.ends for graph in self.graphs if graph.ends))

    @property
    def fallbacks(self) -> tuple[CompiledGraph, ...]:
        """The graphs of which calls ran in eager mode."""
        return tuple(graph for graph in self.graphs if graph.fallbacks or graph.result == "eager")

    def __str__(self) -> str:
        held = sum(graph.result == "torchscript" for graph in self.graphs)
        head = f"{len(self.graphs)} graphs, {held} as TorchScript, {len(self.fallbacks)} with fallbacks, "
        rows = [head + f"{sum(self.breaks.values())} graph breaks"]
        for number, graph in enumerate(self.graphs):
            row = f"  graph {number}: {graph.result}, {graph.operations} operations, {graph.calls} calls"
            row += f", {graph.fallbacks} of them in eager mode" if graph.fallbacks else ""
            rows.append(row + (f": {graph.reason}" if graph.reason else ""))
        rows += [f"  {count} broken by {reason}" for reason, count in self.breaks.items()]
        return "\n".join(rows)


_graphs: list[CompiledGraph] = []
_lock = threading.Lock()


def note(graph: CompiledGraph, number: int | None = None) -> int:
    """Adds a graph, or puts one in the place of an earlier state of it; gives its number."""
    with _lock:
        if number is None:
            _graphs.append(graph)
            return len(_graphs) - 1
        _graphs[number] = graph
        return number


def compile_report() -> CompileReport:
    """What became of the graphs that ``torch.compile(model, backend="hybridjit")`` captured.

    Returns:
        The graphs of this process, the graph breaks, and the fallbacks, with their reasons.

    Example:
        >>> import torch, hybridjit as hj
        >>> compiled = torch.compile(torch.nn.Linear(2, 1), backend="hybridjit")
        >>> before = len(hj.compile_report().graphs)
        >>> compiled(torch.zeros(3, 2)).shape
        torch.Size([3, 1])
        >>> hj.compile_report().graphs[before].result
        'torchscript'
    """
    with _lock:
        return CompileReport(tuple(_graphs))
