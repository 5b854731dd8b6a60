"""One program in eager mode and captured, on inputs that take every branch."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch
from torch import Tensor

import hybridjit as hj

from . import language
from .programs import Program, draw_inputs

Inputs = tuple[Tensor, ...]
_DRAWS, _KEPT = 16, 6


@dataclass
class Outcome:
    """What became of a program.

    Attributes:
        kind: ``right``; ``refused`` when captured, or ``loud`` when run, by an error that names hybridjit;
            ``torch``, by a defect of torch itself; ``invalid``, if eager mode itself raises on all inputs;
            else a defect: ``wrong``, or ``crash`` by another error.
        detail: What differs, or the error.
        sides: How many sides of branches the inputs took.
        gradients: Whether gradients were compared too.
    """

    kind: str
    detail: str = ""
    sides: int = 0
    gradients: bool = False

    @property
    def defect(self) -> bool:
        return self.kind in ("wrong", "crash")


@dataclass
class Eager:
    """Inputs, and what eager mode gives on them."""

    inputs: Inputs
    results: Any = None
    after: Inputs = ()
    error: Exception | None = None
    sides: set[tuple[int, int]] = field(default_factory=set)


def copied(inputs: Inputs) -> Inputs:
    return tuple(x.clone() for x in inputs)


def run_eager(model: Any, inputs: Inputs) -> Eager:
    given = copied(inputs)
    language.taken = set()
    try:
        done = Eager(inputs, detached(model(*given)), given)
    except Exception as error:
        done = Eager(inputs, error=error)
    finally:
        done.sides, language.taken = language.taken, None
    return done


def detached(results: Sequence[Tensor]) -> list[Tensor]:
    return [each.detach().clone() for each in results]


def choose(model: Any, program: Program, random: Random) -> list[Eager]:
    """Inputs, each of which takes a side that those before it did not, and a few more."""
    seen: set[tuple[int, int]] = set()
    chosen: list[Eager] = []
    for _ in range(_DRAWS):
        done = run_eager(model, draw_inputs(program, random))
        if len(chosen) < _KEPT - 2 or done.sides - seen:
            chosen.append(done)
            seen |= done.sides
    return sorted(chosen, key=lambda each: each.error is not None)


def trace(model: Any, inputs: Inputs) -> Any:
    """A trace, saved and loaded."""
    traced = torch.jit.trace(model, copied(inputs), check_trace=False)
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


def export(model: Any, inputs: Inputs) -> Any:
    """A non-strict torch.export, for inputs of the example's own sizes."""
    return torch.export.export(model, copied(inputs), strict=False).module()


CAPTURES: dict[str, Callable[[Any, Inputs], Any]] = {"trace": trace, "export": export}


def compare(program: Program, seed: int, capture: str = "trace", gradients: bool = False) -> Outcome:
    """Captures a program with the first input, and compares it with eager mode on all of them."""
    torch.manual_seed(seed)
    model = program.model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runs = choose(model, program, Random(seed))
        sides = len(set().union(*(each.sides for each in runs)))
        if runs[0].error is not None:
            return Outcome("invalid", str(runs[0].error), sides)
        if capture == "export":
            runs = [each for each in runs if _shapes(each.inputs) == _shapes(runs[0].inputs)]
        try:
            captured = CAPTURES[capture](model, runs[0].inputs)
        except hj.HybridJitError as error:
            return Outcome("refused", str(error), sides)
        except Exception as error:
            return Outcome("crash", f"captured: {type(error).__name__}: {error}", sides)
        loud = ""
        for number, run in enumerate([*runs, *runs[:2]]):  # some again, once the optimiser has seen them
            found = _differs(captured, run)
            if found is None:
                continue
            kind, detail = found
            if kind != "loud":
                kind = "torch" if _is_torchs_own(captured, runs, detail) else kind
                return Outcome(kind, f"input {number} {_shapes(run.inputs)}: {detail}", sides)
            loud = detail
        if loud:
            return Outcome("loud", loud, sides)
        if gradients:
            for run in runs:
                if run.error is None and (detail := _gradients_differ(model, captured, run.inputs)):
                    return Outcome("wrong", f"{_shapes(run.inputs)}: {detail}", sides)
        return Outcome("right", "", sides, gradients)


def _shapes(inputs: Inputs) -> list[list[int]]:
    return [list(x.shape) for x in inputs]


def _differs(captured: Any, run: Eager) -> tuple[str, str] | None:
    given = copied(run.inputs)
    try:
        results = captured(*given)
    except Exception as error:
        if run.error is not None:
            return None
        text = str(error)
        return ("loud" if "hybridjit:" in text else "crash"), f"run: {type(error).__name__}: {text}"
    if run.error is not None:
        # Torch drops an operation that nobody needs, with the error it would raise; a raise is kept.
        return ("wrong", "the check did not raise") if isinstance(run.error, AssertionError) else None
    if any(each is None for each in results):
        return "crash", "run: a result is None"
    got = detached(results if isinstance(results, (tuple, list)) else [results])
    for what, expected, found in (("result", run.results, got), ("input", list(run.after), list(given))):
        try:
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6, equal_nan=True)
        except AssertionError as error:
            return "wrong", f"{what}: {error}\nexpected {expected}\ngot {found}"
    return None


def _is_torchs_own(captured: Any, runs: Sequence[Eager], detail: str) -> bool:
    """Whether TorchScript's optimiser lost a value: without it the same file is right.

    It does so for hand-written TorchScript too, in loops within loops of whose results nobody needs all.
    """
    lost = "None" in detail or "isTensor()" in detail  # returned, or given to an operation
    if not lost or not hasattr(captured, "save_to_buffer"):
        return False
    again = torch.jit.load(io.BytesIO(captured.save_to_buffer()))
    with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
        return all(_differs(again, run) is None for run in runs)


def _gradients_differ(model: Any, captured: Any, inputs: Inputs) -> str:
    expected = _gradients(model, inputs)
    if expected is None:
        return ""
    found = _gradients(captured, inputs)
    if found is None:
        return "eager mode has gradients, the loaded file none"
    for name, gradient in expected.items():
        try:
            # TorchScript's own backward sums in another order, which half precision shows.
            close = 1e-4 if gradient.dtype in (torch.float32, torch.float64) else 2e-2
            torch.testing.assert_close(found[name], gradient, rtol=close, atol=close, equal_nan=True)
        except AssertionError as error:
            return f"gradient of {name}: {error}\nexpected {gradient}\ngot {found[name]}"
    return ""


def _gradients(model: Any, inputs: Inputs) -> dict[str, Tensor] | None:
    leaves = {f"input {n}": x.clone() for n, x in enumerate(inputs)}
    for x in leaves.values():
        x.requires_grad_(x.is_floating_point())
    wanted = {name: x for name, x in [*leaves.items(), *model.named_parameters()] if x.requires_grad}
    try:
        results = model(*leaves.values())
    except RuntimeError:  # an in-place change of an input that is to have a gradient
        return None
    results = results if isinstance(results, (tuple, list)) else [results]
    assert all(isinstance(each, Tensor) for each in results)
    losses = [x.double().nan_to_num(0, 0, 0).sum() for x in results if x.requires_grad]
    if not losses:
        return None
    found = torch.autograd.grad(torch.stack(losses).sum(), list(wanted.values()), allow_unused=True)
    return {
        name: torch.zeros_like(x) if gradient is None else gradient
        for (name, x), gradient in zip(wanted.items(), found, strict=True)
    }
