"""The time of a call, by format, against eager mode and torch's own ways to make a model faster.

Each is called as its own runtime calls it, on one thread, in turns with the others in one process. A peer that gives
something else than the model, or raises, is named and does not count.
"""

import importlib
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.benchmark import Timer

import hybridjit as hj

from .format_models import Chosen, Codebook, Encoder, Hourglass, Pictures
from .format_models import Table as Rows
from .table import Row, Table, paired

MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "table": (partial(Rows, 64, 512), (256, 64)),
    "pictures": (partial(Pictures, 32), (4, 3, 64, 64)),
    "encoder": (partial(Encoder, 256, 8), (8, 64, 256)),
    "chosen": (partial(Chosen, 512), (256, 512)),
    "codebook": (partial(Codebook, 512, 64), (512, 64)),
    "hourglass": (partial(Hourglass, 32), (4, 3, 64, 64)),
}
"""What makes each, and the sizes of its input."""
ROUNDS = 15
ROUND = 0.1
NEAR = 1e-3
"""By how much a result may differ: compiled code rounds at other places."""
MOST = 1.05
"""The greatest ratio of the best format to the best peer: none, and what two runs of the same differ by."""

Call = Callable[[], Any]


def run() -> tuple[Table, ...]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch.jit, and of inductor about the machine
            return _tables({name: times(name, build(), sizes) for name, (build, sizes) in MODELS.items()})
    finally:
        torch.set_num_threads(threads)


def times(name: str, model: nn.Module, sizes: tuple[int, ...]) -> dict[str, list[float]]:
    """The seconds of a call in each round, by what is called."""
    torch.manual_seed(0)
    model.eval()
    x = torch.randn(sizes)
    ways = dict(_right(name, model, x, {**peers(model, x), **ours(model, x)}))
    timers = {way: Timer("call()", globals={"call": call}, timer=time.process_time) for way, call in ways.items()}
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, timer in timers.items():
            found[way].append(timer.blocked_autorange(min_run_time=ROUND).median)
    return found


def peers(model: nn.Module, x: Tensor) -> dict[str, Callable[[], Call]]:
    """What torch has; a plain trace has only the path of this input."""

    def compiled() -> Call:
        torch.compiler.reset()
        return partial(torch.compile(model), x)

    def traced() -> Call:
        made: Any = torch.jit.trace(model, x, check_trace=False, strict=False)  # type: ignore[no-untyped-call]
        return partial(made, x)

    def packaged() -> Call:
        from torch._inductor import aoti_compile_and_package, aoti_load_package

        program = torch.export.export(model, (x,), strict=False)
        return partial(aoti_load_package(aoti_compile_and_package(program)), x)

    return {
        "eager": lambda: partial(model, x),
        "torch.compile": compiled,
        "plain trace": traced,
        "torch.export, AOTInductor": packaged,
    }


def ours(model: nn.Module, x: Tensor) -> dict[str, Callable[[], Call]]:
    """The formats, without what hybridjit does around a call in Python: see the benchmark `costs` for that."""

    def made(format: str, **options: Any) -> Any:
        return hj.export(model, (x,), format=format, **options).module

    def onnx() -> Call:
        runtime: Any = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        session = runtime.InferenceSession(made("onnx").SerializeToString(), options)
        (name,) = [each.name for each in session.get_inputs()]
        return lambda: [torch.from_numpy(each) for each in session.run(None, {name: x.numpy()})]

    return {
        "hybridjit, torchscript": lambda: partial(made("torchscript"), x),
        "hybridjit, torchscript frozen": lambda: partial(made("torchscript", optimize="freeze"), x),
        "hybridjit, pt2": lambda: partial(made("pt2").module(), x),
        "hybridjit, onnx": onnx,
        "hybridjit, aoti": lambda: partial(made("aoti", dynamic_shapes=(None,), rtol=NEAR, atol=NEAR), x),
    }


def _right(name: str, model: nn.Module, x: Tensor, makers: dict[str, Callable[[], Call]]) -> Iterator[tuple[str, Call]]:
    """The ways that give what the model gives."""
    wanted = flat(model(x))
    for way, make in makers.items():
        try:
            call = make()
            for _ in range(3):
                got = flat(call())
            torch.testing.assert_close(got, wanted, rtol=NEAR, atol=NEAR)
        except Exception as error:  # a peer's of any kind
            print(f"{name}, {way}: left out: {type(error).__name__}: {str(error).strip().splitlines()[0]}", flush=True)
            continue
        yield way, call


def flat(result: Any) -> list[Tensor]:
    """The tensors of a result."""
    if isinstance(result, dict):
        return list(result.values())
    return [result] if isinstance(result, Tensor) else list(result)


def _tables(found: dict[str, dict[str, list[float]]]) -> tuple[Table, ...]:
    each, best = [], []
    for name, rounds in found.items():
        ways = sorted(rounds, key=lambda way: median(rounds[way]))
        each += [paired(f"{name}: {way}", list(zip(rounds[way], rounds["eager"], strict=True))) for way in ways]
        our, peer = (next(way for way in ways if way.startswith("hybridjit") is mine) for mine in (True, False))
        row = paired("", list(zip(rounds[our], rounds[peer], strict=True)))
        title = f"{name}: {our.partition(', ')[2]} over {peer}"
        best.append(Row(title, row.ours, row.peer, row.ratio, row.spread))
    claim = f"at most {MOST}, which is a twentieth for what two runs differ by"
    return (
        Table("a call, by format", "eager mode", tuple(each)),
        Table("a call in the fastest format over the fastest peer", "its peer", tuple(best), claim, MOST),
    )
