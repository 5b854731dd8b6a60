"""What a decorated call costs in eager mode, against torch's own decorator."""

import inspect
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.benchmark import Timer

import hybridjit as hj

from .table import Row, Table, paired

ROUNDS = 15
MOST = 0.9


def function(x: Tensor, most: int) -> Tensor:
    """Does nothing, so that the decorator is all there is to measure."""
    return x


class Module(nn.Module):
    def method(self, x: Tensor, most: int) -> Tensor:
        return x


def run() -> tuple[Table]:
    module = Module()
    table = Table(
        "overhead of a decorated call over the bare one, eager",
        "torch.jit.script_if_tracing",
        (
            overhead("function, by position", function, "f(x, 3)", {"x": torch.zeros(3)}),
            overhead("function, by keyword", function, "f(x, most=3)", {"x": torch.zeros(3)}),
            overhead("method", Module.method, "f(module, x, 3)", {"module": module, "x": torch.zeros(3)}),
        ),
        f"at most {MOST} of torch's overhead",
        MOST,
    )
    return (table,)


def overhead(name: str, bare: Callable[..., Any], call: str, names: dict[str, Any]) -> Row:
    """Times the call on the bare function and on both decorated ones in turn, several times over."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit, once, when decorating
        peer: Callable[..., Any] = torch.jit.script_if_tracing(bare)  # type: ignore[no-untyped-call]
    ours = hj.script_if_tracing(bare)
    assert inspect.unwrap(ours) is bare
    # By processor time: a call of a microsecond is nothing beside what else the machine does meanwhile.
    timers = [Timer(call, globals={"f": f, **names}, timer=time.process_time) for f in (bare, ours, peer)]
    pairs = []
    for _ in range(ROUNDS):
        alone, ours_took, peer_took = (timer.blocked_autorange(min_run_time=0.05).median for timer in timers)
        pairs.append((ours_took - alone, peer_took - alone))
    return paired(name, pairs)
