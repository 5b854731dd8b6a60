"""The ways of exporting: each takes a model and its first call, and gives something to call."""

import copy
import inspect
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

import hybridjit as hj

from .cases import Builder, Case
from .judge import LOUD, REFUSED, RIGHT, WRONG, Flat, difference, fill, first_line, flatten, replace, structure

Run = Callable[[hj.Inputs], Any]
EAGER = "eager"
SIMPLE: dict[str, Callable[[nn.Module, Case], Run]] = {}
TOLD, UNTOLD, LEFT_OUT = "told", "untold", "left-out"
HYBRID = (TOLD, UNTOLD, LEFT_OUT)
COMPILE_BACKEND = "eager"  # what is captured, and when it captures again, is the same with any backend


@dataclass(frozen=True)
class Verdict:
    """What became of one input, and the processor's seconds; the first one is the one that was exported from."""

    input: str
    verdict: str
    seconds: float = 0.0
    said: str = ""


@dataclass(frozen=True)
class Made:
    """An export was made, or was not, and how long that took."""

    seconds: float
    error: str = ""


class _Tracee(nn.Module):
    """Tensors in and out, as a trace needs; what else a call says is kept from the first."""

    def __init__(self, model: nn.Module, call: hj.Inputs) -> None:
        super().__init__()
        self.model = model
        self.kept = _Kept(call)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        args, kwargs = fill((self.kept.call.args, self.kept.call.kwargs), iter(tensors))
        flat = flatten(self.model(*args, **kwargs))
        self.kept.rest = flat.rest
        return flat.tensors


class _Kept:
    """Not a container that the tracer looks into."""

    def __init__(self, call: hj.Inputs) -> None:
        self.call = call
        self.rest: Any = None


def trace(model: nn.Module, case: Case) -> Run:
    """torch.jit.trace, with tensors for arguments; numbers and flags have no place in the file."""
    tracee = _Tracee(model, case.first)
    jit: Any = torch.jit
    known = structure((case.first.args, case.first.kwargs))
    file = jit.trace(tracee, flatten((case.first.args, case.first.kwargs)).tensors, check_trace=False)
    rest = tracee.kept.rest

    def run(call: hj.Inputs) -> Any:
        if structure((call.args, call.kwargs)) != known:
            raise TypeError("a trace has one structure of tensors")
        result = file(*flatten((call.args, call.kwargs)).tensors)
        return Flat((result,) if isinstance(result, Tensor) else tuple(result), rest)

    return run


def script(model: nn.Module, case: Case) -> Run:
    """torch.jit.script, called as the model is."""
    jit: Any = torch.jit
    file = jit.script(model)
    return lambda call: case.scripted(file(*call.args, **call.kwargs))


def export(model: nn.Module, case: Case) -> Run:
    """torch.export with every dimension dynamic where it finds that it can be."""
    auto = torch.export.Dim.AUTO

    def dims(value: Any) -> Any:
        if isinstance(value, Tensor):
            return (auto,) * value.dim()
        if isinstance(value, dict):
            return {key: dims(child) for key, child in value.items()}
        if isinstance(value, (tuple, list)):
            return type(value)(dims(child) for child in value)
        return None

    args, kwargs = case.first.args, case.first.kwargs
    bound = inspect.signature(model.forward).bind(*args, **kwargs)
    shapes: dict[str, Any] = {}
    for name, value in bound.arguments.items():  # a parameter **kwargs has no name of its own, one *args has
        shapes |= dims(value) if name == "kwargs" else {name: dims(value)}
    module = torch.export.export(model, args, kwargs, dynamic_shapes=shapes).module()
    return lambda call: module(*call.args, **call.kwargs)


def compile_dynamic(model: nn.Module, case: Case) -> Run:
    """torch.compile(dynamic=True); it compiles again where it has to, so Python stays with it."""
    compiled: Any = torch.compile(model, dynamic=True, backend=COMPILE_BACKEND)
    compiled(*case.first.args, **case.first.kwargs)
    return lambda call: compiled(*call.args, **call.kwargs)


def hybrid(model: nn.Module, first: hj.Inputs, others: list[hj.Inputs]) -> Run:
    """hybridjit, given further calls or none."""
    exported = hj.export(model, first, branches="auto", check_inputs=others, rtol=1e-3, atol=1e-4)
    return lambda call: exported(*call.args, **call.kwargs)


def eager(model: nn.Module, case: Case) -> Run:
    """The model, one call after the other: whether it gives the same as when it is new."""
    return lambda call: model(*call.args, **call.kwargs)


SIMPLE |= {
    EAGER: eager,
    "trace": trace,
    "script": script,
    "export": export,
    "compile": compile_dynamic,
    UNTOLD: lambda model, case: hybrid(model, case.first, []),
    TOLD: lambda model, case: hybrid(model, case.first, list(case.others.values())),
}
COLUMNS = ("eager", "trace", "script", "export", "compile", TOLD, UNTOLD, LEFT_OUT)


def fresh(builder: Builder) -> Case:
    """A model as it was never called."""
    torch.manual_seed(0)
    with torch.no_grad():
        made = builder()
        strengthen(made.model)
        return made


def strengthen(model: nn.Module) -> None:
    """Weights so large that results depend on all inputs, as a trained model's do.

    Many libraries begin with weights near zero: then attention looks everywhere alike, boxes are all the
    same, and what is frozen of masks and positions hardly shows.
    """
    torch.manual_seed(2)
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, nn.Parameter) or weight.dim() < 2 or not weight.is_floating_point():
            continue
        aim = 0.5 if isinstance(module, nn.Embedding) else weight[0].numel() ** -0.5
        if weight.numel() > 1 and weight.std() < aim / 2:
            nn.init.normal_(weight, std=aim)


def own(call: hj.Inputs) -> hj.Inputs:
    """A call with tensors of its own, since a model may write into them."""
    args, kwargs = replace((call.args, copy.copy(call.kwargs)), lambda tensor: tensor.clone())
    return hj.Inputs(*args, **kwargs)


def expected_of(builder: Builder) -> dict[str, Any]:
    """What a new model gives for each call, or the error that it raises."""
    results: dict[str, Any] = {}
    for label in calls_of(fresh(builder)):
        made = fresh(builder)
        try:
            results[label] = _called(eager(made.model, made), calls_of(made)[label])
        except Exception as error:  # this model does not take this input
            results[label] = error
    return results


FIRST = "(first)"


def calls_of(made: Case) -> dict[str, hj.Inputs]:
    return {FIRST: made.first, **made.others}


def _called(run: Run, call: hj.Inputs) -> Any:
    torch.manual_seed(1)
    return run(own(call))


def judged(run: Run, label: str, call: hj.Inputs, expected: Any) -> Verdict:
    """Calls and compares."""
    if isinstance(expected, Exception):
        return Verdict(label, REFUSED, said=first_line(expected))
    start = time.process_time()
    try:
        result = _called(run, call)
    except Exception as error:  # loud, in whichever way
        return Verdict(label, LOUD, time.process_time() - start, first_line(error))
    seconds = time.process_time() - start
    said = difference(result, expected)
    return Verdict(label, WRONG if said else RIGHT, seconds, said[:300])


def measure(column: str, builder: Builder) -> Iterator[dict[str, Any]]:
    """What `Made` and each `Verdict` say, as it becomes known."""
    expected = expected_of(builder)
    if column != LEFT_OUT:
        made = fresh(builder)
        yield from _measured(lambda: SIMPLE[column](made.model, _owned(made)), calls_of(made), expected)
        return
    for label in fresh(builder).others:
        made = fresh(builder)
        rest = [call for other, call in made.others.items() if other != label]
        run = lambda made=made, rest=rest: hybrid(made.model, own(made.first), rest)  # noqa: E731
        yield from _measured(run, {label: made.others[label]}, expected)


def _owned(made: Case) -> Case:
    return Case(made.model, own(made.first), {k: own(v) for k, v in made.others.items()}, made.scripted)


def _measured(make: Callable[[], Run], calls: dict[str, hj.Inputs], expected: dict[str, Any]) -> Iterator[Any]:
    start = time.process_time()
    try:
        torch.manual_seed(1)
        run = make()
    except Exception as error:  # loud for all
        said = first_line(error)
        yield asdict(Made(time.process_time() - start, said))
        for label in calls:
            refused = isinstance(expected[label], Exception)
            yield asdict(Verdict(label, REFUSED if refused else LOUD, said=said))
        return
    yield asdict(Made(time.process_time() - start))
    for label, call in calls.items():
        yield asdict(judged(run, label, call, expected[label]))
