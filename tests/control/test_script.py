"""`script_if_tracing`: a piece keeps its control flow in a trace, and is nothing but itself outside."""

from __future__ import annotations

import inspect
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit import CaptureError, InputError


class Kept(NamedTuple):
    boxes: Tensor
    number: int


@hj.script_if_tracing
def at_most(x: Tensor, n: int) -> Tensor:
    """Keeps the first n rows."""
    if x.shape[0] > n:
        x = x[:n] * 2
    return x


@hj.script_if_tracing
def keep(x: Tensor, *, n: int = 3) -> Kept:
    if x.shape[0] > n:
        return Kept(x[:n], n)
    return Kept(x + 1, x.shape[0])


@hj.script_if_tracing
def same_or_double(x: Tensor) -> Tensor:
    return x * 2 if x.sum() > 0 else x


@hj.script_if_tracing
def with_globals(x: Tensor) -> Tensor:
    return x * math.ceil(x.shape[0] / 2) if x.sum() > 0 else x + math.pi


def trace(fn: Callable[..., Any], *inputs: Tensor) -> Callable[..., Any]:
    traced: Callable[..., Any] = torch.jit.trace(fn, inputs, check_trace=False)
    return traced


def check(fn: Callable[..., Any], example: Tensor, *others: Tensor) -> None:
    """A trace of one input gives what eager code gives, on every input."""
    traced = trace(fn, example.clone())
    for x in (example, *others):
        torch.testing.assert_close(traced(x.clone()), fn(x.clone()), rtol=0, atol=0)


UP, DOWN = torch.arange(1.0, 6.0), -torch.ones(2)


def test_eager_is_the_function_itself() -> None:
    """Outside a trace the very objects go in and come out, and every way to call works."""
    assert same_or_double(DOWN) is DOWN
    assert torch.equal(at_most(n=2, x=UP), UP[:2] * 2)
    assert keep(UP).number == 3


def test_the_wrapper_looks_like_the_function() -> None:
    """Name, documentation and signature are kept."""
    assert at_most.__name__ == "at_most"
    assert at_most.__doc__ == "Keeps the first n rows."
    assert str(inspect.signature(at_most)) == "(x: 'Tensor', n: 'int') -> 'Tensor'"


def test_eager_errors_are_the_functions_own() -> None:
    """A wrong call in eager mode is Python's own TypeError."""
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'n'"):
        at_most(UP)  # type: ignore[call-arg]


def test_both_sides_are_recorded() -> None:
    """A trace of either side is right on the other."""
    check(lambda x: at_most(x, 3), UP, DOWN)
    check(lambda x: at_most(x, 3), DOWN, UP)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int32])
def test_dtypes(dtype: torch.dtype) -> None:
    """Any dtype goes through, and comes out as in eager mode."""
    check(lambda x: at_most(same_or_double(x), 3), UP.to(dtype), DOWN.to(dtype))


def test_empty_tensors() -> None:
    """An empty input runs a trace of a full one, and the other way round."""
    check(lambda x: at_most(x, 3), UP, torch.ones(0))
    check(lambda x: at_most(x, 3), torch.ones(0), UP)


@hj.script_if_tracing
def numbers(x: Tensor, n: int, scale: float, flip: bool) -> Tensor:
    if flip:
        x = -x
    for _ in range(n):
        x = x * scale
    return x


def test_traced_sizes_stay_dynamic() -> None:
    """An int, float and bool parameter follows the size it was given."""
    check(lambda x: numbers(x, x.shape[0], x.shape[0], x.shape[0] > 3), UP, DOWN, torch.ones(0))
    check(lambda x: numbers(x, x.shape[0] // 2 + 1, x.sum(), x.sum() > 0), UP, DOWN)


@hj.script_if_tracing
def optional_int(x: Tensor, n: int | None = None) -> Tensor:
    return x if n is None else x[:n]


@hj.script_if_tracing
def shaped(x: Tensor, size: list[int], pair: tuple[int, float]) -> Tensor:
    return x.reshape(size) * pair[0] + pair[1]


def test_sizes_in_containers_stay_dynamic() -> None:
    """An Optional[int], List[int] and Tuple parameter follows the sizes it was given."""
    check(lambda x: optional_int(x, x.shape[0] - 1), UP, DOWN)
    check(lambda x: optional_int(x), UP, DOWN)
    check(lambda x: shaped(x, [1, x.shape[0]], (x.shape[0], x.shape[0])), UP, DOWN)


@hj.script_if_tracing
def measures(x: Tensor) -> tuple[int, float, bool]:
    if x.sum() > 0:
        return x.shape[0], 0.5, True
    return 0, 2.5, False


def test_numbers_in_results_stay_dynamic() -> None:
    """An int, float and bool result follows the branch that was taken."""

    def model(x: Tensor) -> Tensor:
        count, scale, positive = measures(x)
        return torch.stack([x.sum() * count, x.sum() * scale + positive])

    traced = trace(model, UP)
    for x in (UP, DOWN):
        torch.testing.assert_close(traced(x), model(x), check_dtype=False)


def test_a_result_feeds_the_next_piece() -> None:
    """A number from one piece is a number for the next, not a constant."""
    check(lambda x: at_most(x, keep(x, n=2).number), UP, torch.ones(1))


@hj.script_if_tracing
def unannotated(x, n, scale=2):  # type: ignore[no-untyped-def]
    for _ in range(n):
        x = x * scale
    return x


def test_unannotated_numbers() -> None:
    """Unannotated parameters are numbers where numbers are given: from Python, a size, or a default."""
    check(lambda x: unannotated(x, 3), UP, DOWN)
    check(lambda x: unannotated(x, x.shape[0]), UP, DOWN)
    check(lambda x: unannotated(x, x.shape[0], 0.5), UP, DOWN)


def test_keyword_only_defaults() -> None:
    """A keyword-only parameter takes its default, or what it is given."""
    check(lambda x: keep(x).boxes, UP, DOWN)
    check(lambda x: keep(x, n=1).boxes, UP, DOWN)


def test_a_named_tuple_keeps_its_class() -> None:
    """The traced code around gets the class that eager code gets."""
    seen: list[object] = []

    def model(x: Tensor) -> Tensor:
        result = keep(x)
        seen.append(type(result))
        return result.boxes * result.number

    check(model, UP, DOWN)
    assert set(seen) == {Kept}


@hj.script_if_tracing
def positive_or_none(x: Tensor) -> Tensor | None:
    if x.sum() > 0:
        return x * 2
    return None


def use_optional(x: Tensor) -> Tensor:
    found = positive_or_none(x)
    return x if found is None else found + 1


def test_an_optional_result_is_guarded() -> None:
    """A trace goes on with the kind of result it saw, and stops at the other, by file and line."""
    line = inspect.getsourcelines(positive_or_none)[1]
    for seen, other, text in ((UP, DOWN, "a value, got None"), (DOWN, UP, "None, got a value")):
        traced = trace(use_optional, seen)
        assert torch.equal(traced(seen * 3), use_optional(seen * 3))
        with pytest.raises(torch.jit.Error) as error:
            traced(other)
        assert f"test_script.py:{line}: positive_or_none captured a result that is {text}" in str(error.value)


@hj.script_if_tracing
def halves(x: Tensor) -> list[Tensor]:
    out: list[Tensor] = []
    for i in range(x.shape[0] // 2):
        out.append(x[2 * i : 2 * i + 2] if x[i] > 0 else x[2 * i : 2 * i + 2] * 3)
    return out


def test_a_list_result_is_guarded() -> None:
    """A list of the same length goes through, with its branches; another length stops the run."""
    check(lambda x: torch.cat(halves(x)), UP[:4], UP, -UP)
    with pytest.raises(torch.jit.Error, match=r"halves captured a list of 2, got 3"):
        trace(lambda x: torch.cat(halves(x)), UP)(torch.ones(6))


@hj.script_if_tracing
def as_dict(x: Tensor) -> dict[str, Tensor]:
    out = {"x": x}
    out["y"] = x + 1 if x.sum() > 0 else x - 1
    return out


def test_a_dict_result() -> None:
    """A dict comes out with its keys."""
    check(lambda x: as_dict(x)["y"] * as_dict(x)["x"], UP, DOWN)


@hj.script_if_tracing
def key_by_sign(x: Tensor) -> dict[str, Tensor]:
    return {"up": x} if x.sum() > 0 else {"down": x}


def test_other_keys_stop_the_run() -> None:
    """A dict with another key than the captured one is an error at run time."""
    with pytest.raises(torch.jit.Error, match="key_by_sign captured a dict with the key 'up', which is missing"):
        trace(lambda x: key_by_sign(x)["up"], UP)(DOWN)


@hj.script_if_tracing
def name_of(x: Tensor) -> str:
    return "up" if x.sum() > 0 else "down"


def test_a_text_result_is_guarded() -> None:
    """A text that another input would change stops the run."""
    traced = trace(lambda x: x + 1 if name_of(x) == "up" else x, UP)
    assert torch.equal(traced(UP * 2), UP * 2 + 1)
    with pytest.raises(torch.jit.Error, match="another text"):
        traced(DOWN)


def test_a_result_that_is_the_input() -> None:
    """The input keeps its meaning when the example's result is the input itself."""

    def model(x: Tensor) -> Tensor:
        y = same_or_double(x)
        return x * 10 + y

    check(model, DOWN, UP)
    check(model, UP, DOWN)


@hj.script_if_tracing
def twice_the_same(x: Tensor) -> tuple[Tensor, Tensor]:
    y = x + 1
    if x.sum() > 0:
        return y, y
    return y, y * 2 + 5


def test_one_tensor_twice_in_a_result() -> None:
    """Two results that are one tensor in the example are two on the other branch."""
    check(lambda x: twice_the_same(x)[0] * 10 + twice_the_same(x)[1], UP, DOWN)

    def model(x: Tensor) -> Tensor:
        first, second = twice_the_same(x)
        return first * 10 + second

    check(model, UP, DOWN)


@hj.script_if_tracing
def zero_positives(x: Tensor) -> Tensor:
    x[x > 0] = 0
    return x


def test_writing_to_the_input() -> None:
    """A write to the caller's tensor is seen by the code after the call."""

    def model(x: Tensor) -> Tensor:
        x = x + 0
        zero_positives(x)
        return x + 1

    check(model, UP, DOWN)


class Gate(nn.Module):
    """A method that uses all that a module has."""

    offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.scale = nn.Parameter(torch.rand(4))
        self.register_buffer("offset", torch.rand(4))
        self.limit = 3
        self.missing: Tensor | None = None

    def helper(self, x: Tensor, times: int) -> Tensor:
        for _ in range(times):
            x = x * self.scale
        return x

    @hj.script_if_tracing
    def gate(self, x: Tensor, times: int = 2) -> Tensor:
        if x.shape[0] > self.limit:
            x = self.inner(x[: self.limit])
        elif self.missing is None:
            for block in self.blocks:
                x = torch.relu(block(x)) + self.offset
        return self.helper(x, times)

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x) + self.gate(x, times=1)


BIG, SMALL = torch.ones(5, 4), torch.ones(2, 4)


def test_a_method_of_a_module() -> None:
    """Parameters, buffers, numbers, submodules and helper methods of self all work, on both sides."""
    with torch.no_grad():
        check(Gate().eval(), BIG, SMALL, torch.ones(0, 4))
        check(Gate().eval(), SMALL, BIG)


def test_parameters_are_not_copied() -> None:
    """The trace has the model's parameters once, reads them as attributes, and sees them change."""
    model = Gate().eval()
    traced: Any = trace(model, BIG)
    assert sorted(traced.state_dict()) == sorted(model.state_dict())
    graph = str(traced.inlined_graph)
    assert graph.count('prim::GetAttr[name="scale"]') >= 1
    assert "value=<Tensor>" not in graph
    with torch.no_grad():
        for parameter in traced.parameters():
            parameter.zero_()
    assert traced(SMALL).abs().sum() == 0
    assert traced(BIG).abs().sum() == 0


def test_gradients_flow() -> None:
    """A traced piece trains: gradients of input and parameters are those of eager code."""
    model = Gate()
    traced: Any = trace(model, BIG)
    for example in (BIG, SMALL):
        grads = []
        for run in (model, traced):
            x = example.clone().requires_grad_()
            run(x).square().sum().backward()
            assert x.grad is not None
            grads.append([x.grad, *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
            model.zero_grad()
        torch.testing.assert_close(grads[0], grads[1])


class Nested(nn.Module):
    """Pieces in submodules, one of them used after its scope has closed."""

    class Sizes(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x + 1, same_or_double(x)

    class Late(nn.Module):
        def forward(self, x: Tensor, earlier: Tensor) -> Tensor:
            return at_most(x, earlier.shape[0] - 1) + at_most(earlier, 2).sum() + x.shape[0]

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Nested.Sizes(), Nested.Late()

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.first(x)
        return at_most(self.second(one, two), two.shape[0] - 1)


def test_values_of_closed_module_scopes() -> None:
    """Values made in one submodule go into pieces of another, and of their parent."""
    check(Nested(), UP, DOWN, torch.ones(3))
    check(Nested(), DOWN, UP)


def test_eager_and_traced_in_turns() -> None:
    """A trace leaves nothing behind that would change eager calls."""
    trace(lambda x: at_most(x, 3), UP)
    assert same_or_double(DOWN) is DOWN
    assert torch.equal(at_most(UP, 2), UP[:2] * 2)


def closed_over(limit: int, bias: Tensor) -> type[nn.Module]:
    class Model(nn.Module):
        @hj.script_if_tracing
        def forward(self, x: Tensor) -> Tensor:
            return x[:limit] * math.sqrt(4.0) if x.shape[0] > limit else x + math.pi

    class WithTensor(nn.Module):
        @hj.script_if_tracing
        def forward(self, x: Tensor) -> Tensor:
            return x[:limit] + bias if x.shape[0] > limit else x - bias

    return Model if bias.numel() == 0 else WithTensor


def test_values_from_outside() -> None:
    """Numbers and tensors of the enclosing function, and imported modules, are found."""
    check(closed_over(3, torch.ones(0))(), UP, DOWN)
    check(closed_over(3, torch.ones(1))(), UP, DOWN)
    check(with_globals, UP, DOWN)


class Scriptable(nn.Module):
    @hj.script_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return at_most(x, 3) * math.sqrt(4.0)
        return x


def method_with_closure() -> nn.Module:
    def helper(x: Tensor) -> Tensor:
        return x * math.pi

    class Model(nn.Module):
        @hj.script_if_tracing
        def forward(self, x: Tensor) -> Tensor:
            return helper(x) if x.sum() > 0 else x * math.e

    return Model()


@pytest.mark.parametrize("model", [Scriptable(), method_with_closure()])
def test_torch_jit_script_sees_through(model: nn.Module) -> None:
    """torch.jit.script compiles a decorated function and method, with their globals and closure."""
    scripted = torch.jit.script(model)
    for x in (UP, DOWN):
        torch.testing.assert_close(scripted(x), model(x))


class Straight(nn.Module):
    """Decorated pieces without data-dependent control flow."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    @hj.script_if_tracing
    def gate(self, x: Tensor, times: int) -> Tensor:
        if times > 1:
            x = self.inner(x)
        return x * times

    def forward(self, x: Tensor) -> Tensor:
        return at_most(self.gate(x, 2), 3)


def test_torch_compile_sees_through() -> None:
    """torch.compile takes decorated functions and methods without a graph break."""
    torch._dynamo.reset()
    model = Straight()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for x in (BIG, SMALL):
        torch.testing.assert_close(compiled(x), model(x))
    function = torch.compile(at_most, fullgraph=True, backend="eager")
    torch.testing.assert_close(function(UP, 2), at_most(UP, 2))


@pytest.mark.parametrize("strict", [False, True])
def test_torch_export_sees_through(strict: bool) -> None:
    """torch.export takes a model with decorated pieces."""
    model = Straight().eval()
    exported = torch.export.export(model, (BIG,), strict=strict)
    torch.testing.assert_close(exported.module()(BIG), model(BIG))


PROGRAM = """
import torch, hybridjit as hj
from torch import Tensor, nn

@hj.script_if_tracing
def at_most(x: Tensor, n: int) -> Tensor:
    if x.shape[0] > n:
        x = x[:n] * 2
    return x

class Model(nn.Module):
    @hj.script_if_tracing
    def gate(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x
    def forward(self, x: Tensor) -> Tensor:
        return at_most(self.gate(x), 3)

print(Model()(torch.ones(5)).tolist(), Model()(-torch.ones(2)).tolist())
"""


def run(program: str, folder: Path, **environment: str) -> str:
    path = folder / "program.py"
    path.write_text(program)
    root = str(Path(hj.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, **environment}
    done = subprocess.run(
        [sys.executable, str(path)], env=environment, cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_torchscript(tmp_path: Path) -> None:
    """Under PYTORCH_JIT=0 a decorated model runs eagerly."""
    assert run(PROGRAM, tmp_path, PYTORCH_JIT="0") == "[2.0, 2.0, 2.0] [1.0, 1.0]\n"


def test_a_plain_file_needs_no_hybridjit(tmp_path: Path) -> None:
    """A trace saved by torch.jit.save loads and runs in a process that can't import hybridjit."""
    traced: Any = trace(Gate().eval(), BIG)
    traced.save(str(tmp_path / "gate.pt"))
    expected = [traced(x).sum().item() for x in (BIG, SMALL)]
    out = run(
        "import sys, warnings\n"
        "sys.modules['hybridjit'] = None\n"
        "warnings.simplefilter('ignore')\n"
        "import torch\n"
        "model = torch.jit.load('gate.pt')\n"
        "print(*[model(torch.ones(n, 4)).sum().item() for n in (5, 2)])\n",
        tmp_path,
    )
    assert [float(text) for text in out.split()] == pytest.approx(expected)


def test_no_warnings_of_torch_jit() -> None:
    """hybridjit's own use of torch.jit gives no deprecation warning: the one is of the trace here."""

    @hj.script_if_tracing
    def fresh(x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x

    with pytest.warns((DeprecationWarning, FutureWarning)) as warned:
        traced = trace(fresh, UP)
    assert len(warned) <= 2
    assert all("torch.jit.trace" in str(warning.message) for warning in warned)
    assert torch.equal(traced(DOWN), -DOWN)


@pytest.mark.parametrize(
    ("target", "got", "instead"),
    [
        (nn.Linear(1, 1), "the module Linear", "decorate the method"),
        (Gate, "the class Gate", "decorate the method"),
        (3, "int", "a def statement"),
    ],
)
def test_decorating_something_else(target: Any, got: str, instead: str) -> None:
    """What is no function is refused where it is decorated."""
    with pytest.raises(InputError) as error:
        hj.script_if_tracing(target)
    lines = str(error.value).splitlines()
    assert lines[0] == "script_if_tracing takes a Python function"
    assert lines[2] == f"  - expected a function, got {got}"
    assert lines[3].startswith(f"  write instead: {instead}")


def test_decorating_a_static_method() -> None:
    """A staticmethod is refused with the order to write; that order works."""
    with pytest.raises(InputError, match="write instead: @staticmethod"):
        hj.script_if_tracing(staticmethod(at_most))

    class Model(nn.Module):
        @staticmethod
        @hj.script_if_tracing
        def piece(x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

        def forward(self, x: Tensor) -> Tensor:
            return self.piece(x)

    check(Model(), UP, DOWN)


class Plain:
    @hj.script_if_tracing
    def piece(self, x: Tensor) -> Tensor:
        return x


def test_a_method_of_no_module() -> None:
    """A self that is no module is refused, with the line and the way out."""
    plain = Plain()
    with pytest.raises(CaptureError) as error:
        trace(lambda x: plain.piece(x), UP)
    line = inspect.getsourcelines(Plain.piece)[1]
    assert str(error.value).splitlines() == [
        f"{__name__}.Plain.piece can't be scripted: its 'self' is no nn.Module",
        f"  at {os.path.relpath(__file__)}:{line}",
        "  - self: expected an nn.Module, got Plain",
        "  - pitfall: a method of a class that is no nn.Module",
        "  write instead: a function that takes what it needs of self as arguments:",
        "    @script_if_tracing",
        "    def piece(x: Tensor, threshold: float) -> Tensor: ...",
        "  see docs/errors.md#scripting-pitfalls",
    ]
    assert torch.equal(plain.piece(UP), UP)
