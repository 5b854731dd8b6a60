"""The control-flow programs that come with torch, written with hybridjit: right, refused or wrong, per mode.

`python -m benchmarks.cases` runs every program of `torch._export.db.examples` and the control-flow
entries of `torch.testing._internal.hop_db`, with torch's `cond`, `map`, `while_loop` and `scan` replaced
by hybridjit's.
"""

import argparse
import contextlib
import copy
import io
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

import hybridjit as hj

from .table import environment

MODES = ("eager", "trace", "pt2", "onnx", "export", "strict", "compile", "plain trace", "plain export", "plain onnx")
"""``trace``, ``pt2`` and ``onnx`` are hybridjit's exports; those that are plain have torch's own control flow."""


@dataclass
class Case:
    """A program and calls of it, of which the first is captured and the others take other paths."""

    name: str
    model: nn.Module
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]]
    control_flow: bool
    dynamic_shapes: Any = None
    verdicts: dict[str, str] = field(default_factory=dict)


OTHERS: dict[str, list[tuple[Any, ...]]] = {
    "cond_branch_class_method": [(torch.randn(2),), (torch.randn(7),)],
    "cond_branch_nested_function": [(torch.randn(12),), (torch.randn(9),)],
    "cond_branch_nonlocal_variables": [(torch.randn(3),), (torch.randn(8),)],
    "cond_closed_over_variable": [(torch.tensor(False), torch.randn(3, 2))],
    "cond_operands": [(torch.randn(2, 2), torch.ones(2)), (torch.randn(5, 2), torch.ones(2))],
    "cond_predicate": [(torch.randn(6, 4, 12),)],
    "constrain_as_value_example": [(torch.tensor(2), torch.randn(5, 5))],
    "constrain_as_size_example": [(torch.tensor(3),)],
    "dynamic_shape_map": [(torch.randn(5, 2), torch.randn(2)), (torch.randn(1, 2), torch.randn(2))],
    "dynamic_shape_assert": [(torch.randn(7, 2),)],
    "dynamic_shape_constructor": [(torch.randn(5, 2),)],
    "dynamic_shape_if_guard": [(torch.randn(4, 2, 2),)],
    "dynamic_shape_round": [(torch.randn(7, 3),)],
    "dynamic_shape_slicing": [(torch.randn(6, 4),)],
    "dynamic_shape_view": [(torch.randn(6, 10),)],
    "list_contains": [(torch.randn(3, 2),)],
    "scalar_output": [(torch.randn(3, 7),)],
}
"""Other calls of the examples whose path depends on a size or a value."""


def examples() -> list[Case]:
    """The programs of `torch._export.db.examples`."""
    cases = []
    found: dict[str, Any] = import_module("torch._export.db.examples").all_examples()
    for name, case in found.items():
        calls = [(tuple(case.example_args), dict(case.example_kwargs))]
        calls += [(other, {}) for other in OTHERS.get(name, [])]
        flow = any("torch.cond" in tag or "torch.map" in tag for tag in case.tags)
        cases.append(Case(name, case.model, calls, flow, case.dynamic_shapes))
    return cases


class Program(nn.Module):
    """A function as a module."""

    def __init__(self, fn: Callable[..., Any], nested: bool = False) -> None:
        super().__init__()
        self.fn = fn
        self.nested = nested

    def forward(self, *args: Any) -> Any:
        return self.fn(list(args[:2]), *args[2:]) if self.nested else self.fn(*args)


def operators() -> list[Case]:
    """The control-flow entries of `torch.testing._internal.hop_db`."""
    hop_db: Any = import_module("torch.testing._internal.hop_db")
    x, one = torch.rand(2, 2, 2) + 0.1, torch.rand(1)
    far = -torch.ones(2, 2, 2)
    cases = [
        Case("hop: cond", Program(hop_db.simple_cond), [((x,), {}), ((far,), {})], True),
        Case(
            "hop: while_loop",
            Program(hop_db.simple_while_loop),
            [((torch.tensor(n), torch.rand(2, 3, 4)), {}) for n in (3, 0, 1, 7)],
            True,
        ),
        Case("hop: scan", Program(hop_db.simple_scan), [((torch.rand(2, 2), torch.rand(2, 2, 2)), {})], True),
    ]
    cases[-1].calls += [((torch.rand(2, 2), torch.rand(n, 2, 2)), {}) for n in (1, 5)]
    for name in ("simple_map", "nested_map", "triple_nested_map"):
        # Its lists of tensors are arguments of their own here.
        calls: list[Any] = [((x, torch.rand(2, 2, 2), one, torch.rand(1)), {})]
        if name == "simple_map":
            calls.append(((torch.rand(5, 2, 2), torch.rand(5, 2, 2), one, torch.rand(1)), {}))
        cases.append(Case(f"hop: {name}", Program(getattr(hop_db, name), nested=True), calls, True))
    return cases


def _map(fn: Callable[..., Any], xs: Any, *args: Any) -> Any:
    """torch's `map` takes what all steps share as further arguments."""
    return hj.map(lambda x: fn(x, *args), xs)


@contextlib.contextmanager
def replaced() -> Iterator[None]:
    """torch's control flow replaced by hybridjit's, wherever the programs got it from."""
    old: Any = import_module("functorch.experimental.control_flow")
    hops: Any = import_module("torch._higher_order_ops")
    new: dict[Any, Any] = {
        id(torch.cond): hj.cond,
        id(old.map): _map,
        id(hops.while_loop): hj.while_loop,
        id(hops.scan): hj.scan,
    }
    with contextlib.ExitStack() as stack:
        for module in list(sys.modules.values()):
            name = getattr(module, "__name__", "")
            if not name.startswith(("torch._export.db.examples.", "torch.testing._internal.hop_db")):
                continue
            for key, value in list(vars(module).items()):
                if id(value) in new:
                    stack.enter_context(mock.patch.object(module, key, new[id(value)]))
        stack.enter_context(mock.patch.object(torch, "cond", hj.cond))
        stack.enter_context(mock.patch.object(hops, "while_loop", hj.while_loop))
        stack.enter_context(mock.patch.object(hops, "scan", hj.scan))
        yield


def same(one: Any, other: Any) -> bool:
    """Whether two results agree: structure, dtype, shape and values."""
    try:
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5, equal_nan=True)
    except AssertionError:
        return False
    return True


def leaves(value: Any) -> list[Any]:
    """The leaves of a pytree."""
    found: list[Any] = import_module("torch.utils._pytree").tree_leaves(value)
    return found


def tensors(value: Any) -> list[Tensor]:
    """The leaves of a pytree that are tensors or numbers, as tensors."""
    return [torch.as_tensor(leaf) for leaf in leaves(value) if isinstance(leaf, (Tensor, int, float))]


def fresh(call: tuple[tuple[Any, ...], dict[str, Any]]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A call with tensors of its own: some programs change their inputs."""
    return copy.deepcopy(call)


def shapes_of(case: Case) -> Any:
    """The case's own dynamic shapes, or every dimension whose size differs from call to call."""
    if case.dynamic_shapes is not None or len(case.calls) < 2:
        return case.dynamic_shapes
    first = case.calls[0][0]
    shapes: list[Any] = []
    for index, value in enumerate(first):
        others = [call[0][index] for call in case.calls]
        if not isinstance(value, Tensor) or {other.dim() for other in others} != {value.dim()}:
            shapes.append(None)
            continue
        differs = [len({other.shape[d] for other in others}) > 1 for d in range(value.dim())]
        shapes.append({d: torch.export.Dim.AUTO for d, moves in enumerate(differs) if moves} or None)
    return (tuple(shapes),) if isinstance(case.model, Program) else tuple(shapes)


def capture(mode: str, case: Case) -> Callable[..., Any]:
    """The program in another form."""
    args, kwargs = fresh(case.calls[0])
    if mode == "eager":
        return case.model
    if mode in ("trace", "pt2", "onnx"):
        checks = [hj.Inputs(*fresh(call)[0], **call[1]) for call in case.calls[1:]]
        format = "torchscript" if mode == "trace" else mode
        return hj.export(case.model.eval(), hj.Inputs(*args, **kwargs), check_inputs=checks, format=format)
    if mode == "plain trace":
        traced: Callable[..., Any] = torch.jit.trace(case.model, args, check_trace=False)  # type: ignore[no-untyped-call]
        return traced
    if mode == "plain onnx":
        with contextlib.redirect_stdout(io.StringIO()):
            made: Any = torch.onnx.export(
                case.model, args, kwargs=kwargs, dynamo=True, verbose=False, dynamic_shapes=shapes_of(case)
            )
        return lambda *args, **kwargs: list(made(*args, **kwargs))
    if mode in ("export", "strict", "plain export"):
        shapes = shapes_of(case)
        program = torch.export.export(case.model, args, kwargs, dynamic_shapes=shapes, strict=mode == "strict")
        return program.module()
    torch.compiler.reset()
    compiled: Callable[..., Any] = torch.compile(case.model, fullgraph=True, backend="eager", dynamic=True)
    return compiled


def judge(mode: str, case: Case) -> str:
    """``right``, ``wrong``, or ``refused: `` and why."""
    plain = mode.startswith("plain")
    with contextlib.nullcontext() if plain else replaced(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            taken = capture(mode, case)
        except Exception as error:  # whatever stops a capture is the verdict
            return f"refused: {type(error).__name__}: {_line(error)}"
        for call in case.calls:
            try:
                args, kwargs = fresh(call)
                expected: Any = case.model(*args, **kwargs)
            except Exception as error:
                expected = error
            try:
                args, kwargs = fresh(call)
                result = taken(*args, **kwargs)
            except Exception as error:
                if isinstance(expected, Exception):
                    continue
                return f"refused: {type(error).__name__}: {_line(error)}"
            if mode in ("plain trace", "plain onnx") and not isinstance(expected, Exception):
                result, expected = tensors(result), tensors(expected)  # they have no numbers, and no rich results
            if isinstance(expected, Exception) or not same(result, expected):
                return "wrong"
    return "right"


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else "")[:160]


def main() -> int:
    """Prints the table and writes it as JSON; returns 1 if anything is wrong, or a control-flow case is refused."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cases", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/cases.json"), help="default: %(default)s")
    parser.add_argument("--modes", default=",".join(MODES), help="default: all")
    options = parser.parse_args()
    modes = options.modes.split(",")
    cases = [*examples(), *operators()]
    width = max(len(case.name) for case in cases)
    print(f"{'':{width}}  {'  '.join(f'{mode:12}' for mode in modes)}")
    for case in cases:
        torch.manual_seed(0)
        case.verdicts = {mode: judge(mode, case) for mode in modes}
        words = [case.verdicts[mode].partition(":")[0] for mode in modes]
        print(f"{case.name:{width}}  {'  '.join(f'{word:12}' for word in words)}", flush=True)
    for mode in modes:
        tally = {word: sum(c.verdicts[mode].startswith(word) for c in cases) for word in ("right", "refused", "wrong")}
        print(f"{mode:12}", tally)
    rows = [{"name": c.name, "control_flow": c.control_flow, **c.verdicts} for c in cases]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"environment": environment(), "cases": rows}, indent=1) + "\n")
    ours = [mode for mode in modes if not mode.startswith("plain")]
    wrong = any(c.verdicts[mode] == "wrong" for c in cases for mode in ours)
    both = [mode for mode in ("trace", "export") if mode in modes]
    missed = [c.name for c in cases if c.control_flow and {c.verdicts[mode] for mode in both} - {"right"}]
    print("claim: nothing wrong; each control-flow case right in trace and in non-strict export")
    return 1 if wrong or missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
