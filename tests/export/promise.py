"""Everything that an export promises to leave as it was, and a model that makes it change all of it."""

from __future__ import annotations

import functools
import hashlib
import math
import random
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit import _torch
from hybridjit.control import record, recorder

PACKAGE = str(Path(hj.__file__).parent)


@functools.lru_cache
def table(size: int) -> Tensor:
    """A function with a cache, for which the export has a stand-in."""
    return torch.arange(size).float() / math.sqrt(9.0)


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:  # a leak, and with branches="auto" a branch
            x = self.linear(x) * self.scale
        return x + table(x.shape[0])[:, None] * len(x)


class Model(nn.Module):
    """Writes to all that it has, asks for sizes, draws numbers."""

    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.part = Part()
        self.register_buffer("steps", torch.zeros(()))
        self.history: list[int] = []
        self.part.register_forward_hook(lambda module, args, result: result * 2)
        self.part.linear.weight.grad = torch.ones(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        self.history.append(1)
        self.latest = x
        random.random()
        y = self.part(x) + torch.rand(1) * 0
        return y * torch.tensor([x.shape[0], 1.0, 2.0]).sum()


def made() -> Model:
    torch.manual_seed(0)
    return Model().eval()


X, LONGER = torch.full((2, 3), 0.5), torch.full((4, 3), -0.5)


def export(model: nn.Module) -> hj.Exported:
    """An export with all that there is to it."""
    return hj.export(model, X, check_inputs=[LONGER], branches="auto", flags=[{"part.scale": 2}])


def contents(value: Any) -> Any:
    """A value as something that can be compared: of tensors what they are, where, and what is in them."""
    if isinstance(value, Tensor):
        data = hashlib.sha256(value.detach().numpy().tobytes()).hexdigest()
        return id(value), value.data_ptr(), value.requires_grad, tuple(value.shape), data, contents(value.grad)
    if isinstance(value, dict):
        return id(value), [(key, contents(each)) for key, each in value.items()]
    if isinstance(value, (list, tuple)):
        return [contents(each) for each in value]
    return id(value) if not isinstance(value, (int, float, str, type(None))) else value


def everything(model: nn.Module) -> dict[str, Any]:
    """All that is promised to be as before."""
    numpy = sys.modules["numpy"]
    state: dict[str, Any] = {
        f"{name or 'the model'}.{key}": contents(value)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
    }
    return state | {
        "methods": [(type(module), type(module).forward) for module in model.modules()],
        "torch's generator": torch.get_rng_state().tolist(),
        "Python's generator": random.getstate(),
        "NumPy's generator": str(numpy.random.get_state()),
        "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled()),
        "warnings": (list(warnings.filters), warnings.showwarning),
        "this module's names": {name: id(value) for name, value in globals().items()},
        "builtins": [id(each) for each in (len, int, float, round, min, max, math.sqrt)],
        "torch's functions": [id(vars(torch)[name]) for name in sorted(vars(torch))],
        "a tensor's methods": {name: id(value) for name, value in vars(Tensor).items()},
        "function modes": len(_torch.function_modes()),
        "dispatch modes": _torch.dispatch_modes(),
        "tracing": (_torch.tracing_state(), recorder.active(), record.is_recording()),
        "scopes of a trace": id(_torch._jit._trace._trace_module_map),
        "profiled execution": _torch._C._get_graph_executor_optimize(),
        "threads": threading.active_count(),
        "files": sorted(str(path) for path in Path(tempfile.gettempdir()).glob("hybridjit-*")),
    }


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What is not as before, by name."""
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]


@contextmanager
def raising_at(chosen: Callable[[CodeType], bool], error: type[BaseException], at: int = 1) -> Iterator[list[int]]:
    """Raises when a function is called.

    Args:
        chosen: Which functions, by their code.
        error: What to raise.
        at: At the how-many-eth call of them.

    Yields:
        A list of one number: how many calls there were, that one included.
    """
    calls = [0]

    def watch(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and chosen(frame.f_code):
            calls[0] += 1
            if calls[0] == at:
                raise error("on purpose")

    sys.setprofile(watch)
    try:
        yield calls
    finally:
        sys.setprofile(None)
