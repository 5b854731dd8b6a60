"""What control flow costs: in eager mode, in the exported file, and while it is captured."""

import io
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.benchmark import Timer

import hybridjit as hj

from .programs import Program, programs
from .table import Row, Table, paired, spell

ROUNDS = 151
ROUND = 0.005
"""Seconds that a statement is timed for in one round: short, so that what else the machine does hits all alike."""
CAPTURES = 3
MOST_CAPTURES = 50
SECONDS = 1.0
"""How long to capture one program again, if it is captured so often and not more."""

Function = Callable[[Tensor], Tensor]


def run() -> tuple[Table, ...]:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit
        return (*eager(), *files(), *captures())


def eager() -> tuple[Table, ...]:
    """A call of `cond` on a tensor that holds, against Python's `if` and against `torch.cond`."""
    x = torch.zeros(3)
    names: dict[str, Any] = {"x": x, "pred": x.sum() == 0, "hj_cond": hj.cond, "torch_cond": torch.cond}
    names |= {"up": lambda x: x + 1, "down": lambda x: x - 1}
    plain = "one = lambda: x; other = lambda: pred\none() if pred else other()"
    nothing = interleaved(("hj_cond(pred, lambda: x, lambda: pred)", plain), names)
    # torch.cond takes no side that returns its argument, so that both have something to compute.
    calls = interleaved((*(f"{cond}(pred, up, down, (x,))" for cond in ("hj_cond", "torch_cond")), "up(x)"), names)
    title = "a call of cond, eager"
    return (
        Table(
            title,
            "if, two lambdas",
            (paired("sides that do nothing", [(ours, theirs) for ours, theirs in nothing]),),
            "at most 1.6 of an if",
            1.6,
        ),
        Table(
            title,
            "torch.cond",
            (paired("without what a side does", [(ours - alone, theirs - alone) for ours, theirs, alone in calls]),),
            "at most a two-hundredth of torch.cond",
            1 / 200,
        ),
        Table(title, "torch.cond", (paired("with x + 1 on a side", [(ours, theirs) for ours, theirs, _ in calls]),)),
    )


def files() -> tuple[Table, Table]:
    """A run of the exported file, against torch.jit.script of the same control flow and against eager mode."""
    scripted, in_eager = [], []
    for program in programs():
        pairs = against(program)
        scripted.append(paired(program.name, [(ours, theirs) for ours, theirs, _ in pairs]))
        in_eager.append(paired(program.name, [(ours, python) for ours, _, python in pairs]))
    title = "a run of the exported file, one thread"
    return (
        Table(title, "torch.jit.script", tuple(scripted), "at most 1.02 of torch.jit.script", 1.02),
        Table(title, "eager", tuple(in_eager)),
    )


def against(program: Program) -> list[tuple[float, ...]]:
    """Seconds of the file, of the scripted module and of eager mode, on inputs that take every path."""
    first, *others = program.inputs
    exported = hj.export(program.ours, (first,), check_inputs=[(x,) for x in others])
    theirs = reloaded(torch.jit.script(program.scripted))
    models: list[Any] = [exported.module, theirs, program.ours]
    weights = dict(exported.module.named_parameters())
    for model in models[1:]:
        for name, weight in model.named_parameters():
            weight.data = weights[f"model.{name}"].data  # where a matrix lies in memory makes a factor of 1.7
    for model in models[:2]:
        for _ in range(20):  # torch profiles the first runs, and optimises
            for x in program.inputs:
                torch.testing.assert_close(model(x), program.ours(x))
    names = {"inputs": program.inputs, **{f"model{number}": model for number, model in enumerate(models)}}
    return interleaved([f"for x in inputs: model{number}(x)" for number in range(len(models))], names)


def reloaded(module: torch.jit.ScriptModule) -> Any:
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)  # type: ignore[no-untyped-call]


def interleaved(statements: list[str] | tuple[str, ...], names: dict[str, Any]) -> list[tuple[float, ...]]:
    """Times statements in turn, several times over, every other time in reverse: what slows all cancels in a ratio."""
    timers = [Timer(statement, globals=names) for statement in statements]
    counts = [max(1, int(ROUND / timer.blocked_autorange(min_run_time=0.1).median)) for timer in timers]
    rounds = []
    for number in range(ROUNDS):
        order = range(len(timers))[:: -1 if number % 2 else 1]
        took = {place: timers[place].timeit(counts[place]).mean for place in order}
        rounds.append(tuple(took[place] for place in range(len(timers))))
    return rounds


def captures() -> tuple[Table, Table]:
    """Capture time per branch, as programs grow, against a small program of the same kind."""
    capture(in_a_row(2))  # fills torch's caches
    recorded: list[Row] = []
    whole: list[Row] = []
    for kind, base, counted in (
        ("in a row", 10, {n: (n, in_a_row(n)) for n in (10, 1, 100, 1000)}),
        ("deep, on one side", 2, {n: (n, one_side(n)) for n in (2, 1, 4, 8, 12)}),
        ("deep, on both sides", 4, {n: (2**n - 1, both_sides(n)) for n in (4, 1, 2, 6, 8, 10)}),
        ("ifs in a row, all paths", 3, {n: (2**n - 1, paths(n)) for n in (3, 1, 2, 4, 5, 6)}),
    ):
        seconds = {n: [each / count for each in capture(function)] for n, (count, function) in counted.items()}
        for n, (count, _) in sorted(counted.items()):
            for rows, each, first in zip((recorded, whole), seconds[n], seconds[base], strict=True):
                rows.append(Row(f"{n} {kind}: {spell(each * count)}", each, first, each / first))
    peer = "of a small one"
    return (
        # Not flat: for every operation the tracer notes the Python stack, about 1 us a frame; a level adds frames.
        Table("recording, per branch", peer, tuple(recorded), "at most twice a branch of a small program", 2.0),
        Table("torch.jit.trace, per branch: recording, and torch's passes over the graph", peer, tuple(whole)),
    )


def capture(function: Function) -> tuple[float, float]:
    """Seconds of the processor until the function has returned, and until `torch.jit.trace` has: the fastest run."""
    taken: list[float] = []

    def forward(x: Tensor) -> Tensor:
        y = function(x)
        taken.append(time.process_time() - started)
        return y

    whole: list[float] = []
    while len(whole) < CAPTURES or (sum(whole) < SECONDS and len(whole) < MOST_CAPTURES):
        started = time.process_time()
        torch.jit.trace(forward, torch.ones(3), check_trace=False)  # type: ignore[no-untyped-call]
        whole.append(time.process_time() - started)
    return min(taken), min(whole)


def in_a_row(n: int) -> Function:
    def run(x: Tensor) -> Tensor:
        for i in range(n):
            x = twice_or_less(x, i)
        return x

    return run


def twice_or_less(x: Tensor, i: int) -> Tensor:
    return hj.cond(x.sum() > i, lambda: x * 2, lambda: x - 1)


def one_side(n: int) -> Function:
    def run(x: Tensor, left: int = n) -> Tensor:
        return x if left == 0 else hj.cond(x.sum() > left, lambda: run(x * 2, left - 1), lambda: x - 1)

    return run


def both_sides(n: int) -> Function:
    def run(x: Tensor, left: int = n) -> Tensor:
        if left == 0:
            return x
        return hj.cond(x.sum() > left, lambda: run(x * 2, left - 1), lambda: run(x - 1, left - 1))

    return run


def paths(n: int) -> Function:
    @hj.branch_if_tracing
    def run(x: Tensor) -> Tensor:
        for i in range(n):
            if x.sum() > i:  # noqa: SIM108
                x = x * 2
            else:
                x = x - 1
        return x

    return run
