"""Further methods of a model: entry points of their own, one set of weights, one state."""

import copy
import inspect
import io
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj

X = torch.randn(3, 4)


class Proposals(NamedTuple):
    boxes: Tensor
    scores: Tensor


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.sharp = False

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return self.refine(image, self.propose(image).boxes)

    def propose(self, image: Tensor) -> Proposals:
        boxes = self.linear(image)
        return Proposals(boxes, boxes.sum(1) * (2 if self.sharp else 1))

    def refine(self, image: Tensor, boxes: Tensor, times: int = 1) -> dict[str, Tensor]:
        return {"boxes": boxes * times + image}


@pytest.fixture
def model() -> Model:
    return Model().eval().requires_grad_(False)


def reloaded(module: Any) -> Any:
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


METHODS = {"propose": (X,), "refine": [hj.Inputs(X, boxes=X), hj.Inputs(X, X, times=2)]}


def test_methods_of_the_loaded_object(model: Model, tmp_path: Path) -> None:
    """Each method takes and returns what the model's does, also after loading; other structures are entries."""
    hj.export(model, X, methods=METHODS).save(tmp_path / "model.pt")
    exported = hj.load(tmp_path / "model.pt")
    got = exported.propose(torch.ones(1, 4))
    assert type(got) is Proposals
    torch.testing.assert_close(got, model.propose(torch.ones(1, 4)))
    torch.testing.assert_close(exported.refine(X, X, times=2), model.refine(X, X, times=2))
    torch.testing.assert_close(exported(X), model(X))
    assert [entry.method for entry in exported.report.entries] == ["forward", "propose", "refine", "refine_2"]
    assert [check.input for check in exported.report.checks] == [
        "input",
        "methods['propose']",
        "methods['refine'][0]",
        "methods['refine'][1]",
    ]


def test_they_look_like_methods(model: Model) -> None:
    """They are listed, have a name and the model's signature; what is not there says what is."""
    exported = hj.export(model, X, methods=METHODS, flags={"sharp": (False, True)})
    assert {"propose", "refine", "save"} <= set(dir(exported)) and exported.propose.__name__ == "propose"
    assert list(inspect.signature(exported.propose).parameters) == ["image", "sharp"]
    with pytest.raises(AttributeError, match="no attribute 'proposes'; its methods are forward, propose, refine"):
        exported.proposes  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'forward'; it is called itself: exported\(\.\.\.\)"):
        exported.forward  # noqa: B018
    assert copy.copy(exported).propose(X).boxes.shape == X.shape


def test_methods_in_the_file(model: Model) -> None:
    """``torch.jit.load`` finds them by name, on the same parameters."""
    module = reloaded(hj.export(model, X, methods=METHODS).module)
    torch.testing.assert_close(module.propose(X), tuple(model.propose(X)))
    with torch.no_grad():
        module.model.linear.bias.add_(1)
        model.linear.bias.add_(1)
    torch.testing.assert_close(module.propose(X), tuple(model.propose(X)))
    torch.testing.assert_close(module(X), model(X)["boxes"])
    assert len(list(module.parameters())) == 2


def test_flags_apply_where_they_are(model: Model) -> None:
    """An attribute switches every method, a keyword the method that has it."""
    flags = {"sharp": (False, True), "times": (1, 2)}
    exported = hj.export(model, X, methods={"propose": X, "refine": (X, X)}, flags=flags)
    model.sharp = True
    torch.testing.assert_close(exported.propose(X, sharp=True), model.propose(X))
    torch.testing.assert_close(exported.refine(X, X, times=2), model.refine(X, X, times=2))
    assert [entry.flags for entry in exported.report.entries if entry.method == "propose"] == [
        "sharp=False",
        "sharp=True",
    ]
    assert len([entry for entry in exported.report.entries if entry.method == "refine"]) == 4


REFUSED: dict[str, Any] = {
    "expected calls by method, got list": [X],
    "forward: its calls are inputs and check_inputs": {"forward": X},
    "proposes: expected a method of ": {"proposes": X},
    "'_hidden': is no name that a file's method can have": {"_hidden": X},
    "'a b': is no name that a file's method can have": {"a b": X},
    "parameters: is taken, an exported model or a script module has something else by that name": {"parameters": X},
    "propose: expected a call, or a list of calls, got an empty list": {"propose": []},
    "save: is taken": {"save": X},
}


@pytest.mark.parametrize("message", REFUSED)
def test_refused(message: str, model: Model) -> None:
    """What can't be a method of the file is refused with the reason."""
    vars(model)["save"] = lambda x: x
    with pytest.raises(hj.InputError) as error:
        hj.export(model, X, methods=REFUSED[message])
    lines = str(error.value).splitlines()
    assert lines[0] == "methods takes the calls of further methods of the model"
    assert lines[1].startswith(f"  - {message}")
    assert lines[-2] == '  write instead: methods={"propose": (image,), "refine": hybridjit.Inputs(image, boxes)}'


def test_a_structure_may_not_take_a_methods_name() -> None:
    """A second structure is named after its method, which no other method may be."""

    class Numbered(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

        def go(self, xs: list[Tensor]) -> Tensor:
            return xs[0] + 1

        def go_2(self, x: Tensor) -> Tensor:
            return x + 2

    with pytest.raises(hj.InputError, match="go_2: is also what the next structure of go is called"):
        hj.export(Numbered().eval(), X, methods={"go": [([X],), ([X, X],)], "go_2": X})


def test_methods_of_a_script_module(model: Model) -> None:
    """Of a script module only ``forward`` is exported."""
    scripted = torch.jit.trace_module(nn.Linear(4, 4).eval(), {"forward": X})
    with pytest.raises(hj.InputError, match="forward_pre: the model is a script module, of which only forward is"):
        hj.export(scripted, X, methods={"forward_pre": X})


class WrongMethod(Model):
    def propose(self, image: Tensor) -> Proposals:
        boxes = self.linear(image)
        return Proposals(boxes, boxes.sum(1) * (2 if hj.is_tracing() else 1))


def test_a_wrong_method_fails_by_name() -> None:
    """The error names the method and its input."""
    with pytest.raises(hj.VerificationError) as error:
        hj.export(WrongMethod().eval(), X, methods={"propose": (X,)})
    row = str(error.value).splitlines()[2]
    assert row.startswith("  - cpu, propose, methods['propose'] (image float32[3, 4]): result.scores: 3 of 3 values")


def test_a_method_that_raises(model: Model) -> None:
    """The error names the method that the model can't run."""
    with pytest.raises(hj.CaptureError, match=r"the model itself raises on methods\['refine'\]\n  at Model.refine"):
        hj.export(model, X, methods={"refine": (X, torch.ones(7, 7))})


class Seen(nn.Module):
    seen: Tensor

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.register_buffer("seen", rows)


class Cache(nn.Module):
    """Keeps what it saw: in a buffer that grows, so another tensor takes its place, and in one that is written."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner = Seen(torch.zeros(0, 4))
        self.register_buffer("count", torch.zeros(()))
        self.clean = True

    def forward(self, x: Tensor) -> Tensor:
        self.inner.seen = x[:0]
        return self.append(x)

    def append(self, x: Tensor) -> Tensor:
        self.inner.seen = torch.cat([self.inner.seen, x])
        self.count += 1
        return self.inner.seen.sum(0) + self.count

    def look(self, x: Tensor) -> Tensor:
        return self.inner.seen @ x.t()


def rows(count: int) -> Tensor:
    return torch.randn(count, 4)


def test_methods_share_state(tmp_path: Path) -> None:
    """A buffer that one method replaces or writes is seen by the others, call after call, as in eager mode."""
    model = Cache().eval()
    exported = hj.export(model, X, methods={"append": (rows(2),), "look": (rows(1),)})
    assert any(check.input.endswith("in a row") for check in exported.report.checks) and exported.report.ok
    assert not exported.report.findings and model.inner.seen.shape == (0, 4) and model.count == 0
    exported.save(tmp_path / "cache.pt")
    again, plain = hj.load(tmp_path / "cache.pt"), torch.jit.load(tmp_path / "cache.pt")
    for step in range(8):
        x = rows(step % 3 + 1)
        name = ("append", "look", "append", "forward")[step % 4]
        expected = getattr(model, name)(x)
        torch.testing.assert_close(again(x) if name == "forward" else getattr(again, name)(x), expected)
        torch.testing.assert_close(getattr(plain, name)(x), expected)
        assert plain.model.inner.seen.shape == model.inner.seen.shape
    torch.testing.assert_close(hj.load(tmp_path / "cache.pt").append(X), Cache().append(X))


def test_state_of_a_single_entry() -> None:
    """A buffer that ``forward`` replaces is replaced in a file with nothing else, too."""
    model = Cache().eval()
    exported = hj.export(model, X, check_inputs=[rows(5)])
    assert exported.report.entries == ()
    for _ in range(3):
        torch.testing.assert_close(exported(X), model(X))


def test_several_results_beside_state() -> None:
    """A model that replaces a buffer may give more than one tensor."""

    class Scaled(nn.Module):
        scale: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.ones(4))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            self.scale = x.abs().amax(0)
            return x / self.scale, self.scale

    model = Scaled().eval()
    exported = hj.export(model, X)
    for x in (rows(2), X):
        torch.testing.assert_close(exported(x), model(x))


def test_a_shared_module_is_replaced_everywhere() -> None:
    """A buffer of a module that the model has by two names is another one under both."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = Seen(torch.zeros(4))
            self.b = self.a

        def forward(self, x: Tensor) -> Tensor:
            self.a.seen = self.a.seen + x.sum(0)
            return x + 1

        def look(self, x: Tensor) -> Tensor:
            return self.b.seen + x

    model = Twice().eval()
    exported = hj.export(model, X, methods={"look": (X,)})
    exported(X)
    model(X)
    torch.testing.assert_close(exported.look(X), model.look(X))


class Steps(nn.Module):
    """Counts in Python, which the file does not: its second call differs."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(4))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen = self.seen + x.sum(0)
        return x * self.calls

    def look(self, x: Tensor) -> Tensor:
        return x + self.seen


def test_state_outside_of_buffers_fails_in_a_row() -> None:
    """Calls in a row find state that is in no buffer, which no single call shows."""
    with pytest.raises(hj.VerificationError) as error:
        hj.export(Steps().eval(), X, methods={"look": (X,)}, on_frozen="ignore")
    row = str(error.value).splitlines()[2]
    assert row.startswith("  - cpu, forward, input, call 3 in a row (x float32[3, 4]): result: 12 of 12 values differ")


class Once(Cache):
    """Can't be called twice without a reset, so that a row of its calls ends."""

    def append(self, x: Tensor) -> Tensor:
        if len(self.inner.seen) > 3:
            raise ValueError("full")
        return super().append(x)


def test_a_row_ends_where_the_model_raises() -> None:
    """An order of calls that the model itself refuses is no failure."""
    report = hj.export(Once().eval(), X, methods={"append": [(rows(2),), (rows(2),)]}).report
    assert report.ok and [check.input for check in report.checks][-1] == "methods['append'][0], call 2 in a row"


PROGRAM = """
import sys, torch
module = torch.jit.load(sys.argv[1])
results = [module.forward(torch.ones(2, 4)), module.append(torch.ones(1, 4)), module.look(torch.ones(2, 4))]
torch.save(results, sys.argv[2])
"""


def test_in_a_fresh_process(tmp_path: Path) -> None:
    """A process that knows nothing of the model, or of hybridjit, gets the same."""
    model = Cache().eval()
    hj.export(model, X, methods={"append": (rows(2),), "look": (rows(1),)}).save(tmp_path / "cache.pt")
    subprocess.run([sys.executable, "-W", "ignore", "-c", PROGRAM, "cache.pt", "out.pt"], check=True, cwd=tmp_path)
    expected = [model(torch.ones(2, 4)), model.append(torch.ones(1, 4)), model.look(torch.ones(2, 4))]
    torch.testing.assert_close(torch.load(tmp_path / "out.pt"), expected)


def test_verify_takes_methods(model: Model) -> None:
    """`verify` compares methods too, and says if the file has no such method."""
    exported = hj.export(model, X, methods={"propose": (X,)})
    report = hj.verify(exported, model, [], methods={"propose": [(X,), (torch.ones(1, 4),)]})
    assert report.ok and [check.entry for check in report.checks] == ["propose", "propose"]
    with pytest.raises(
        hj.InputError, match="the file has no method refine\n  - there is forward\n  - there is propose"
    ):
        hj.verify(exported, model, [X], methods={"refine": (X, X)})
    with torch.no_grad():
        model.linear.bias.add_(1)
    assert not hj.verify(exported, model, [], methods={"propose": (X,)}).ok


def test_hooks_run_as_in_eager(model: Model) -> None:
    """A hook of the model runs for ``forward``, and not for a method that is called directly."""
    model.register_forward_hook(lambda module, args, result: {"boxes": result["boxes"] + 100})
    exported = hj.export(model, X, methods={"propose": (X,)})
    torch.testing.assert_close(exported(X), model(X))
    torch.testing.assert_close(exported.propose(X), model.propose(X))
