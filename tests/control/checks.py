"""What the tests of control flow in a trace share."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Inputs = Tensor | tuple[Tensor, ...]


class Net(nn.Module):
    """A model with two layers, one of them under two names, a buffer and a plain constant; ``forward`` is given."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.big, self.small = nn.Linear(3, 3), nn.Linear(3, 3)
        self.again = self.big
        self.shift: Tensor
        self.register_buffer("shift", torch.arange(3.0))
        self.constant = torch.full((3,), 0.5)
        self.run = forward

    def forward(self, *args: Any) -> Any:
        return self.run(self, *args)


def as_tuple(inputs: Inputs) -> tuple[Tensor, ...]:
    return tuple(x.detach().clone() for x in (inputs if isinstance(inputs, tuple) else (inputs,)))


def reloaded(module: Any) -> Any:
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


def traced(fn: Callable[..., Any], example: Inputs) -> Any:
    """A trace, saved and loaded."""
    return reloaded(torch.jit.trace(fn, as_tuple(example), check_trace=False))


def plain(value: Any) -> Any:
    """A result as a trace gives it: numbers as tensors, containers as tuples."""
    if isinstance(value, (tuple, list)):
        return tuple(plain(item) for item in value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return torch.tensor(value, dtype=torch.float64) if isinstance(value, float) else torch.as_tensor(value)


def check(fn: Callable[..., Any], *inputs: Inputs) -> Any:
    """Traces with each input in turn, and compares the loaded file with eager mode on all of them."""
    loaded = None
    for example in inputs:
        loaded = traced(fn, example)
        for each in inputs:
            expected, got = plain(fn(*as_tuple(each))), plain(loaded(*as_tuple(each)))
            torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6, equal_nan=True)
    return loaded


def kinds(graph: Any) -> Counter[str]:
    """How many nodes of each kind a graph has, those of its blocks included."""
    found: Counter[str] = Counter()
    for node in graph.nodes():
        found[node.kind()] += 1
        for block in node.blocks():
            found += kinds(block)
    return found


def work(graph: Any) -> Counter[str]:
    """The nodes of a graph that are there at run time: neither constants nor attributes."""
    return Counter({k: n for k, n in kinds(graph).items() if k not in ("prim::Constant", "prim::GetAttr")})


def lines(error: Any) -> list[str]:
    """The lines of an error's message, without places in files."""
    return str(error.value).splitlines()
