"""What is refused before a trace, and what is taken."""

import io
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj


class Keywords(nn.Module):
    def forward(self, x: Tensor, by: float = 2.0, *, plus: Tensor) -> Tensor:
        return x * by + plus


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> int:
        return 1


def test_training_mode_names_modules() -> None:
    """A module in training mode is named, and accepted once `static` says it is meant."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).eval()
    model[1].train()
    with pytest.raises(hj.InputError, match="training: 1"):
        hj.export(model, torch.ones(3, 2))
    hj.static(model[1], reason="Monte Carlo dropout")
    report = hj.export(model, torch.ones(3, 2)).report
    assert report.ok and report.statics[0].reason == "Monte Carlo dropout"


def test_data_parallel_is_taken_off() -> None:
    """DataParallel is unwrapped with a note."""
    report = hj.export(nn.DataParallel(nn.Linear(2, 1)).eval(), torch.ones(3, 2)).report
    assert report.findings[0].code == "HJ001"


def test_keywords_and_defaults() -> None:
    """Keyword-only arguments and defaults go through."""
    exported = hj.export(Keywords().eval(), torch.ones(3), {"plus": torch.ones(3)})
    assert torch.equal(exported(torch.ones(4), plus=torch.ones(4)), torch.full((4,), 3.0))


def test_no_tensors() -> None:
    """Inputs or a result without tensors, a lazy model, and no model at all, are refused."""
    for model, inputs in [
        (nn.Identity().eval(), 1),
        (Nothing().eval(), torch.ones(1)),
        (nn.LazyLinear(1).eval(), torch.ones(1, 1)),
    ]:  # fmt: skip
        with pytest.raises(hj.InputError):
            hj.export(model, inputs)
    with pytest.raises(hj.InputError, match=r"takes an nn\.Module"):
        hj.export(torch.sin, torch.ones(1))  # type: ignore[arg-type]


def test_within_a_trace() -> None:
    """An export within a trace is refused."""
    with pytest.raises(hj.UnsupportedError, match="under way"):
        torch.jit.trace(  # type: ignore[no-untyped-call]
            lambda x: hj.export(nn.Identity().eval(), x)(x), torch.ones(1)
        )


WITHOUT_JIT = """
import torch, warnings, sys
from torch import Tensor

def gone(*args, **kwargs):
    raise RuntimeError("`torch.jit` was removed in this release")

if "gone" in sys.argv:
    torch.jit.trace = torch.jit.script = torch.jit.trace_module = torch.jit.CompilationUnit = gone
warnings.simplefilter("error")
import hybridjit as hj

@hj.script_if_tracing
def piece(x: Tensor) -> Tensor:
    if x.shape[0] > 2:
        return x * 2
    return x

class Model(torch.nn.Module):
    def forward(self, x):
        return hj.cond(x.sum() > 0, lambda: x + 1, lambda: x) * piece(x)

model, x = Model().eval(), torch.ones(3)
warnings.simplefilter("ignore")
exported = hj.export(model, x, format="pt2", check_inputs=[-x])
assert torch.equal(exported(-2 * x), model(-2 * x))
exported = hj.export(model, x, format="auto", check_inputs=[-x])
assert exported.format == "pt2", exported.format
run = torch.compile(model, backend="hybridjit")
assert torch.equal(run(x), model(x)) and hj.compile_report().graphs[0].result == "eager"
hj.export(model, x)
"""


@pytest.mark.parametrize(
    ("switched", "reason"), [("0", "switched off by PYTORCH_JIT=0"), ("1", "`torch.jit` was removed")]
)
def test_without_jit(switched: str, reason: str) -> None:
    """Where torch.jit is switched off or gone, its format says so and names the others, which work."""
    environment = {**os.environ, "PYTORCH_JIT": switched, "PYTHONPATH": str(Path(__file__).parents[2])}
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.py"  # TorchScript reads a piece's source
        script.write_text(WITHOUT_JIT)
        command = [sys.executable, str(script), *(["gone"] if switched == "1" else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert "UnsupportedError: format 'torchscript' needs torch.jit, which does not work here" in done.stderr, (
        done.stderr
    )
    assert reason in done.stderr and 'write instead: format="pt2", "onnx" or "aoti"' in done.stderr


class Flagged(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: Tensor, scale: float = 2.0) -> Tensor:
        if bool(x.sum() > 0):
            x = self.linear(x)
        return x * scale


def script(model: nn.Module) -> Any:
    return torch.jit.script(model)


def trace(model: nn.Module) -> Any:
    return torch.jit.trace(model, torch.ones(3, 2))  # type: ignore[no-untyped-call]


def through_file(module: Any) -> Any:
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)  # type: ignore[no-untyped-call]
    buffer.seek(0)
    return torch.jit.load(buffer)  # type: ignore[no-untyped-call]


SCRIPTED: dict[str, Callable[[nn.Module], Any]] = {
    "scripted": script,
    "frozen": lambda model: torch.jit.freeze(script(model)),  # type: ignore[no-untyped-call]
    "loaded": lambda model: through_file(script(model)),
    "optimized": lambda model: torch.jit.optimize_for_inference(script(model)),  # type: ignore[no-untyped-call]
}


@pytest.mark.parametrize("within", [False, True], ids=["root", "submodule"])
@pytest.mark.parametrize("kind", SCRIPTED)
def test_script_modules(kind: str, within: bool) -> None:
    """A script module is exported with its branches, as the model or within it, and stays as it is."""
    model = Flagged().eval()
    scripted = SCRIPTED[kind](model)
    whole = nn.Sequential(scripted).eval() if within else scripted
    before = set(vars(scripted))
    x = torch.ones(3, 2)
    exported = hj.export(whole, x, check_inputs=[-x, x[:1]])
    torch.testing.assert_close(exported(-2 * x), model(-2 * x))
    torch.testing.assert_close(exported(5 * x), model(5 * x))
    assert set(vars(scripted)) == before
    assert not exported.report.findings


@pytest.mark.parametrize("within", [False, True], ids=["root", "submodule"])
@pytest.mark.parametrize("load", [False, True], ids=["traced", "loaded"])
def test_traced_modules(load: bool, within: bool) -> None:
    """So is a traced one, also from a file, and its argument keeps its name."""
    model = nn.Linear(2, 1).eval()
    traced = through_file(trace(model)) if load else trace(model)
    x = torch.ones(3, 2)
    exported = hj.export(nn.Sequential(traced).eval() if within else traced, x, check_inputs=[x[:1]])
    assert torch.equal(exported(x * 2), model(x * 2))
    assert torch.equal(exported(input=x), model(x))


def test_what_was_exported_is_exported_again() -> None:
    """The raw module of an export is a model like any other."""
    model = nn.Linear(2, 1).eval()
    again = hj.export(hj.export(model, torch.ones(1, 2)).module, torch.ones(1, 2))
    assert torch.equal(again(torch.ones(3, 2)), model(torch.ones(3, 2)))


def test_script_module_with_keywords_and_rich_results() -> None:
    """Defaults and keyword arguments of a loaded script module are those of its schema."""
    scripted = through_file(script(Flagged().eval()))
    exported = hj.export(scripted, (torch.ones(3, 2),), {"scale": 3.0})
    assert exported.report.ok
    with pytest.raises(hj.InputError, match=r"scale: expected 3\.0, got 4\.0"):
        exported(torch.ones(3, 2), scale=4.0)


class Number(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        return x, 3


class Compiled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.compile(nn.Linear(2, 2), backend="eager")

    def forward(self, x: Tensor) -> Any:
        return self.inner(x)


class TwoNames(nn.Module):
    d: Tensor
    e: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.ones(2))
        self.b = self.a
        self.c = nn.ParameterList([self.a, nn.Parameter(torch.zeros(2)), self.a])
        self.register_buffer("d", torch.full((2,), 3.0))
        self.register_buffer("e", self.d)
        self.register_buffer("f", None)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = x * self.e
        return x * self.a + self.b - self.d * next(iter(self.c))


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = torch.eye(2).to_sparse()

    def forward(self, x: Tensor) -> Tensor:
        return self.matrix @ x


@pytest.mark.parametrize(
    ("model", "fix"),
    [
        (script(Number()), "the module as it was before torch.jit.script, with @hybridjit.script_if_tracing"),
        (Compiled(), "the submodule as it was before torch.compile"),
        (Sparse(), "register_buffer in __init__ for a sparse tensor"),
    ],
    ids=["number", "compiled", "sparse"],
)
def test_what_the_tracer_refuses(model: nn.Module, fix: str) -> None:
    """What the tracer refuses whatever the values are gets a way out that fits."""
    with pytest.raises(hj.CaptureError) as error:
        hj.export(model.eval(), torch.ones(2, 2))
    assert f"write instead: {fix}" in str(error.value)


@pytest.mark.parametrize("branches", [None, "auto"])
def test_one_tensor_by_two_names(branches: Any, tmp_path: Path) -> None:
    """A parameter or buffer that a module has twice is one tensor in the file; the model keeps both names."""
    model = TwoNames().eval()
    names, kept = list(model.state_dict()), vars(model).keys()
    exported = hj.export(model, torch.ones(2, 2), branches=branches)
    exported.save(tmp_path / "model.pt")
    for file in (exported, hj.load(tmp_path / "model.pt")):
        for x in (torch.ones(2, 2), -torch.rand(3, 2) if branches else torch.rand(3, 2)):
            torch.testing.assert_close(file(x), model(x))
    assert list(model.state_dict()) == names and vars(model).keys() == kept and model.b is model.a


@pytest.mark.parametrize("in_place", [False, True])
def test_compiled_models(in_place: bool) -> None:
    """``torch.compile`` is taken off, and what ``model.compile()`` set stays there."""
    model: Any = nn.Linear(2, 1).eval()
    if in_place:
        model.compile(backend="eager")
        implementation = model._compiled_call_impl
    compiled: Any = model if in_place else torch.compile(model, backend="eager")
    report = hj.export(compiled, torch.ones(3, 2)).report
    assert report.ok and [f.code for f in report.findings] == ([] if in_place else ["HJ001"])
    assert not in_place or model._compiled_call_impl is implementation


def test_hooks() -> None:
    """Hooks of the forward pass are in the file, by keyword too; those of the backward pass are no hindrance."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)).eval()
    calls: list[object] = []
    model[0].register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    model.register_forward_hook(lambda module, args, out: out * 2)
    model.register_forward_pre_hook(
        lambda module, args, kwargs: (args, {"input": kwargs["input"] * 3}), with_kwargs=True
    )
    model[1].register_full_backward_hook(lambda *given: calls.append(given))
    x = torch.ones(3, 2)
    exported = hj.export(model, (), {"input": x}, check_inputs=[hj.Inputs(input=x[:1])])
    assert torch.equal(exported(input=x * 2), model(input=x * 2))
    model(input=x).sum().backward()
    assert len(calls) == 1


def test_nested_tensors() -> None:
    """A nested tensor, which nothing here can flatten or compare, is an InputError with its path."""
    x = torch.ones(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nested = torch.nested.nested_tensor([x, x])
    with pytest.raises(hj.InputError, match=r"nested tensor can't be traced\n  at input.args\[0\]"):
        hj.export(nn.Identity().eval(), nested)


def test_forward_without_a_signature() -> None:
    """A ``forward`` written in C has no argument names, and is an InputError."""
    model = nn.Module().eval()
    model.forward = torch.sin
    with pytest.raises(hj.InputError, match="no signature that Python can read"):
        hj.export(model, torch.ones(2))


APPLY = vars(torch.autograd.Function)["apply"]


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * 2


class Shifted(torch.autograd.Function):
    """Has its context apart from its forward, and a default."""

    @staticmethod
    def forward(x: Tensor, by: float = 3.0) -> Tensor:
        return x + by

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.by = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0] * ctx.by, None


class Kept(torch.autograd.Function):
    """Asks its context for what it keeps and what needs a gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, part: nn.Module) -> Tensor:
        ctx.save_for_backward(x)
        ctx.mark_non_differentiable(x)
        ctx.part = part
        y: Tensor = part(x) if not any(ctx.needs_input_grad) else x
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0], None


class Custom(nn.Module):
    """Calls them by their class and, where `apply` is Python's, by a reference that was taken before."""

    doubled = Doubled.apply if isinstance(vars(torch.autograd.Function)["apply"], classmethod) else None

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Any:
        y = Shifted.apply((type(self).doubled or Doubled.apply)(x))  # type: ignore[no-untyped-call]
        return Kept.apply(y, self.part) if x.sum() > 0 else Shifted.apply(y, 5.0)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("branches", [None, "auto"])
def test_autograd_functions(branches: str | None, tmp_path: Path) -> None:
    """A file has what the forward of a custom autograd function does, and says so."""
    model = Custom().eval()
    exported = hj.export(model, torch.ones(2), branches=branches, check_inputs=[-torch.ones(2)])
    exported.save(tmp_path / "model.pt")
    jit: Any = torch.jit
    for x in (torch.ones(2), -torch.ones(2) * 7, torch.randn(2)):
        torch.testing.assert_close(exported(x), model(x))
        torch.testing.assert_close(jit.load(tmp_path / "model.pt")(x), model(x))
    noted = [each.message for each in exported.report.findings if each.code == "HJ308"]
    assert {message.split(":")[0] for message in noted} >= {"Doubled", "Shifted"}
    x = torch.full((2,), -1.0, requires_grad=True)
    model(x).sum().backward()  # the functions are the model's own again
    assert x.grad is not None
    assert vars(torch.autograd.Function)["apply"] is APPLY


class Resized(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x * 12345).resize_(4)


def test_no_values_in_messages() -> None:
    """A result that the trace does not reach is no file, and what is said of it holds none of its values."""
    with pytest.raises(hj.CaptureError, match="a trace loses what the tensor was made of") as error:
        hj.export(Resized().eval(), torch.ones(2, 2))
    assert "12345" not in str(error.value) and "test_capture.py:" in str(error.value)


ODD = """
from torch import nn
class Inner(nn.Module):
    def forward(self, x):
        return x * 2 if x.shape[0] > 1 else x
class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Inner()
    def forward(self, x):
        return {"y": self.inner(x)}
"""


@pytest.mark.parametrize("module", ["<stdin>", "a b", "1x", "ü.x", "a.class.b", ""])
def test_classes_of_any_name(module: str, tmp_path: Path) -> None:
    """A class that was typed in or made by `exec` is in a file that can be read, and is called what it was."""
    made: dict[str, Any] = {"__name__": module}
    exec(compile(ODD, module, "exec"), made)
    odd = type("Most odd", (made["Odd"],), {"__module__": module})
    hj.export(odd().eval(), torch.ones(2), check_inputs=[torch.ones(1)]).save(tmp_path / "odd.pt")
    for size in (1, 3):
        assert torch.equal(hj.load(tmp_path / "odd.pt")(torch.ones(size))["y"], torch.ones(size) * (1 + (size > 1)))
    assert (odd.__module__, odd.__name__, made["Inner"].__module__) == (module, "Most odd", module)


class Marked(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1

    @torch.jit.export
    def spelled(self, x: Tensor) -> str:
        return f"{type(x)!r:>9}"  # TorchScript has no such thing


def test_methods_for_torch_jit_export_are_left_alone() -> None:
    """What a trace does not run is not compiled into the file either, where nobody would check it."""
    exported = hj.export(nn.Sequential(Marked()).eval(), torch.ones(2))
    assert torch.equal(exported(torch.ones(3)), torch.full((3,), 2.0))
    assert not any(hasattr(part, "spelled") for part in exported.module.modules())
