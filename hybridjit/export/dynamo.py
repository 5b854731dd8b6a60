"""A graph of Dynamo's as a verified TorchScript module, made at its first call; else it runs as it is."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from .._describe import place
from .._errors import GuardError, HybridJitError
from ..adapters.inputs import Inputs
from ..control.cond import cond
from ..control.loops import map as map_rows
from ..control.loops import scan, while_loop
from .compile_report import CompiledGraph, note
from .exported import Exported
from .quiet import quiet
from .values import identical

_operators: Any = torch.ops.higher_order


def compile_graph(graph: fx.GraphModule) -> Callable[..., Any]:
    """What runs a graph; `hybridjit.compile_report` tells what became of it."""
    return _Compiled(graph)


def _end_of(graph: Any) -> str:
    """Why a graph is broken off, and at which line."""
    why = getattr(graph, "compile_subgraph_reason", None)
    if why is None or not why.graph_break:
        return ""
    text = str(why.reason).strip().partition("\n")[0]
    frame = why.user_stack[-1] if why.user_stack else None
    return f"{text}, at {place(frame.filename, frame.lineno or 0)}" if frame else text


class _Compiled:
    """A graph, and the TorchScript module that it becomes at its first call."""

    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self.model = _Graph(graph).eval()
        self.exported: Exported | None = None
        operations = sum(node.op.startswith("call") for node in graph.graph.nodes)
        self.state = CompiledGraph(operations, ends=_end_of(graph))
        self.number = note(self.state)

    def __call__(self, *args: Any) -> Any:
        if self.state.result == "not run":
            self._make(args)
        result: Any = None
        fallback = self.exported is None
        if self.exported is not None:
            try:
                result = self.exported(*(arg for arg in args if isinstance(arg, Tensor)))
            except GuardError as error:  # raised before anything is written to
                self._note(reason=_reason(error))
                fallback = True
        self._note(calls=self.state.calls + 1, fallbacks=self.state.fallbacks + fallback)
        return self.graph(*args) if fallback else result

    def _note(self, **changed: Any) -> None:
        self.state = dataclasses.replace(self.state, **changed)
        note(self.state, self.number)

    def _make(self, args: Sequence[Any]) -> None:
        started = time.perf_counter()
        reason = self.model.refused or self._why_not(args)
        self._note(result="eager" if reason else "torchscript", reason=reason, seconds=time.perf_counter() - started)
        self.exported = None if reason else self.exported

    def _why_not(self, args: Sequence[Any]) -> str:
        """Exports the graph; why that was not possible."""
        from .export import export

        tensors = [arg.detach().clone() for arg in args if isinstance(arg, Tensor)]
        if not tensors:
            return "it takes no tensors"
        with torch.random.fork_rng(), torch.no_grad():
            kept = [tensor.clone() for tensor in tensors]
            self.model(*tensors)
            if not all(identical(*pair) for pair in zip(kept, tensors, strict=True)):
                return "it changes its arguments in place"
            try:
                with quiet(), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    self.exported = export(self.model, Inputs(*tensors))
            except (HybridJitError, RuntimeError, TypeError, AttributeError, NotImplementedError) as error:
                return _reason(error)
        return ""


def _reason(error: Exception) -> str:
    rows = [row.strip().removeprefix("- ") for row in str(error).splitlines() if row.strip()]
    return f"{type(error).__name__}: {': '.join(rows[:3])}"


class _Graph(nn.Module):
    """A graph as a function of its tensors: the sizes that it is given besides are sizes of these.

    Attributes:
        refused: Why it can't be one, or empty.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__()
        self.interpreter = [_Interpreter(graph)]  # no module of this one: the graph may hold what the model holds
        self.refused = _takes_numbers(graph)
        # What a graph is given may be real tensors; what its arguments were while it was captured has the sizes.
        inputs = [node.meta.get("example_value") for node in graph.graph.nodes if node.op == "placeholder"]
        tensors = [each for each in inputs if isinstance(each, Tensor)]
        self.places: list[int | tuple[int, int]] = []
        count = 0
        for each in inputs:
            if isinstance(each, Tensor):
                self.places.append(count)
                count += 1
                continue
            found = [
                (index, dim)
                for index, tensor in enumerate(tensors)
                for dim, size in enumerate(tensor.shape)
                if isinstance(each, torch.SymInt)
                and isinstance(size, torch.SymInt)
                and size.node.expr == each.node.expr
            ]
            if not found:
                self.refused = f"it takes a {type(each).__name__} that is no size of a tensor"
                return
            self.places.append(found[0])

    def forward(self, *tensors: Tensor) -> Any:
        """Runs it."""
        given = [
            tensors[place] if isinstance(place, int) else tensors[place[0]].shape[place[1]] for place in self.places
        ]
        return self.interpreter[0].run(*given, enable_io_processing=False)


_NUMBERS = ("item", "tolist", "numpy", "sym_int", "sym_float", "__bool__", "__int__", "__float__", "__index__")


def _takes_numbers(graph: fx.GraphModule) -> str:
    """Refuses a graph that makes Python numbers of tensors, which a trace would keep as they are."""
    for module in graph.modules():
        for node in module.graph.nodes if isinstance(module, fx.GraphModule) else ():
            name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
            if node.op.startswith("call") and name.partition(".")[0] in _NUMBERS:
                return f"it makes a number of a tensor, by {name}"
    return ""


class _Interpreter(fx.Interpreter):
    """Runs a graph with torch's branches and loops as hybridjit's, which a trace keeps."""

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Calls a function of the graph, or what stands for it."""
        replaced = _REPLACED.get(target)
        return replaced(*args, **kwargs) if replaced else super().call_function(target, args, kwargs)


def _of(graph: Any) -> Callable[..., Any]:
    return lambda *args: _Interpreter(graph).run(*args, enable_io_processing=False)


def _cond(pred: Any, true: Any, false: Any, operands: Any = ()) -> Any:
    return cond(pred, _of(true), _of(false), tuple(operands))


def _while_loop(goes_on: Any, body: Any, carried: Any, more: Any = ()) -> Any:
    more = tuple(more)
    test, step = _of(goes_on), _of(body)
    return while_loop(lambda *now: test(*now, *more), lambda *now: tuple(step(*now, *more)), tuple(carried))


def _scan(combine: Any, init: Any, xs: Any, more: Any = ()) -> Any:
    step, count = _of(combine), len(init)

    def run(carry: Any, row: Any) -> Any:
        given = tuple(step(*carry, *row, *more))
        return given[:count], given[count:]

    last, stacked = scan(run, tuple(init), tuple(xs))
    return (*last, *stacked)


def _map(fn: Any, xs: Any, more: Any = ()) -> Any:
    step = _of(fn)
    return map_rows(lambda row: tuple(step(*row, *more)), tuple(xs))


_REPLACED: dict[Any, Callable[..., Any]] = {
    _operators.cond: _cond,
    _operators.while_loop: _while_loop,
    _operators.scan: _scan,
    _operators.map_impl: _map,
}
