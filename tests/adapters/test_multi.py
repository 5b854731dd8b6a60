"""Several traces of one model as one module."""

import copy
import io
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj


class Model(nn.Module):
    """Two results with the flag, one without; a buffer that counts, and weights that are tied."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(300, 300)
        self.table = nn.Embedding(300, 300)
        self.table.weight = self.linear.weight
        self.register_buffer("calls", torch.zeros(1))
        self.both = False
        self.mode = "fast"

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        y = self.linear(x) + self.table(torch.tensor([0]))
        if self.mode == "full":
            y = y * 3
        return (y, y * 2) if self.both else y


class Proposing(nn.Module):
    """Another method of the model, which holds it by another name."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.inner = model

    def forward(self, x: Tensor) -> Any:
        return self.inner.linear(x) + self.inner.calls


def traced(module: nn.Module, *inputs: Tensor, **attributes: object) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the embedding's index is a constant on purpose
        for name, value in attributes.items():
            setattr(module, name, value)
        return torch.jit.trace(module, inputs or X, check_trace=False)


def reloaded(module: torch.jit.ScriptModule) -> Any:
    return torch.jit.load(io.BytesIO(saved(module)))


def saved(module: torch.jit.ScriptModule) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    return buffer.getvalue()


X = torch.randn(2, 300)


@pytest.fixture
def model() -> Model:
    return Model().eval().requires_grad_(False)


@pytest.fixture
def multi(model: Model) -> hj.MultiTrace:
    once, twice = traced(model, both=False), traced(model, both=True)
    model.calls.zero_()
    return hj.MultiTrace([({"both": False}, once), ({"both": True}, twice), ("propose", traced(Proposing(model)))])


def same(multi: Any, model: Model) -> None:
    """The module, on its own state, gives what the model gives on another."""
    for both in (False, True):
        model.both = both
        expected = model(X)
        got = multi(X, both=both)
        values = list(got.values())
        assert list(got) == (["result[0]", "result[1]"] if both else ["result"])
        torch.testing.assert_close(values, list(expected) if both else [expected])
    torch.testing.assert_close(multi.propose(X), Proposing(model)(X))


def test_in_python(multi: hj.MultiTrace, model: Model) -> None:
    """The flags choose, the first trace gives the defaults, and the methods share a buffer that they change."""
    own = copy.deepcopy(model)
    same(multi, own)
    assert multi.module.calls == 2 and list(multi(X)) == ["result"]


def test_parameters_are_the_traces_own(multi: hj.MultiTrace, model: Model) -> None:
    """There is one set of parameters, the very tensors that were traced, and tied ones stay tied."""
    assert {id(p) for p in multi.parameters()} == {id(p) for p in model.parameters()}
    with torch.no_grad():
        model.linear.bias.fill_(7)
    assert bool((multi.module.linear.bias == 7).all())


@pytest.mark.parametrize("way", ["script", "module", "inside another"])
def test_in_a_file(multi: hj.MultiTrace, model: Model, way: str) -> None:
    """Scripted, as ``.module``, and within a scripted model, it switches after loading."""
    own = copy.deepcopy(model)
    if way == "inside another":

        class Outer(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = multi

            def forward(self, x: Tensor, both: bool) -> dict[str, Tensor]:
                return self.inner(x, both)

        outer = reloaded(torch.jit.script(Outer()))
        assert list(outer(X, True)) == ["result[0]", "result[1]"]
        return
    same(reloaded(torch.jit.script(multi) if way == "script" else multi.module), own)


def test_one_set_of_weights_in_every_file(multi: hj.MultiTrace, model: Model) -> None:
    """The file is as large as one trace's, also after a change of dtype and a second save."""
    one = len(saved(traced(model, both=False)))
    weights = sum(p.nbytes for p in model.parameters())
    assert len(saved(multi.module)) < 1.05 * one
    half = reloaded(multi.module).to(torch.bfloat16)
    assert len(saved(half)) < 0.55 * weights
    assert half(X.bfloat16(), True)["result[1]"].dtype == torch.bfloat16


def test_results_of_one_kind_come_bare(model: Model) -> None:
    """Where all traces return as many tensors, they come as from each; a text is a flag too."""
    pairs: list[Any] = [({"mode": mode}, traced(model, mode=mode)) for mode in ("fast", "full", 'it\'s "ü"\n')]
    multi = hj.MultiTrace(pairs)
    torch.testing.assert_close(multi(X, mode="full"), 3 * multi(X))
    loaded = reloaded(torch.jit.script(multi))
    torch.testing.assert_close(loaded(X, "full"), 3 * loaded(X))
    torch.testing.assert_close(loaded(X, 'it\'s "ü"\n'), loaded(X))


def test_methods_alone(model: Model) -> None:
    """There may be methods only; ``forward`` then says which."""
    multi = hj.MultiTrace([("propose", traced(model)), ("again", traced(model))])
    torch.testing.assert_close(multi.propose(X), multi.again(X))
    with pytest.raises(hj.InputError, match="expected one of propose, again, there is no trace with flags"):
        multi(X)
    assert reloaded(torch.jit.script(multi)).propose(X).shape == X.shape


def test_unknown_flags_list_what_is_there(multi: hj.MultiTrace) -> None:
    """A combination that is not there is refused with those that are, in Python and in the file."""
    with pytest.raises(hj.InputError) as error:
        multi(X, both=1)
    assert str(error.value).splitlines() == [
        "forward is not there with this combination of flags",
        "  - got both=1",
        "  - there is both=False",
        "  - there is both=True",
        "  write instead: one of these, or a further trace",
        "  see docs/errors.md#inputerror",
    ]


def test_unknown_flags_in_a_file(model: Model) -> None:
    """A file without Python raises with the list."""
    multi = hj.MultiTrace([({"mode": "fast", "both": True}, traced(model, both=True))])
    with pytest.raises(torch.jit.Error, match="hybridjit: forward has no mode='slow', both=False; it has mode='fast'"):
        reloaded(multi.module)(X, "slow", False)


def test_copies(multi: hj.MultiTrace, model: Model) -> None:
    """A copy has parameters of its own."""
    copied = copy.deepcopy(multi)
    with torch.no_grad():
        model.linear.bias.fill_(7)
    assert not bool((copied.module.linear.bias == 7).any())


def test_traces_of_different_models(model: Model) -> None:
    """Traces whose tensors are different ones are refused by name."""
    other = traced(Model().eval())
    with pytest.raises(hj.InputError) as error:
        hj.MultiTrace([({"both": False}, traced(model)), ({"both": True}, other)])
    assert str(error.value).splitlines()[:4] == [
        "the traces hold different tensors, so they are not of one model",
        "  - both=True: linear.weight: another tensor",
        "  - both=True: linear.bias: another tensor",
        "  - both=True: calls: another tensor",
    ]


def test_a_trace_with_more_parameters(model: Model) -> None:
    """A parameter that the first trace has nowhere is refused by name."""
    more = nn.Sequential(model, nn.Linear(300, 300)).eval()
    with pytest.raises(hj.InputError, match=r"propose: 1\.weight: there is no such tensor"):
        hj.MultiTrace([({"both": False}, traced(model)), ("propose", traced(more))])


REFUSED: dict[str, Callable[[Any, Any], Any]] = {
    "expected a list of pairs, got int": lambda a, b: 3,
    "expected a list of pairs, got list": lambda a, b: [],
    r"\[0\]: expected a pair of flags or a name and a trace, got int": lambda a, b: [3],
    "on=True: expected a traced module, got int": lambda a, b: [({"on": True}, 3)],
    "on=1: expected bool, int or str, as in the first": lambda a, b: [({"on": True}, a), ({"on": 1}, b)],
    "off=1: expected bool, int or str, as in the first": lambda a, b: [({"on": 1}, a), ({"off": 1}, b)],
    "on=1.5: expected bool, int or str": lambda a, b: [({"on": 1.5}, a)],
    "on=1: is there twice": lambda a, b: [({"on": 1}, a), ({"on": 1}, b)],
    "propose: is there twice": lambda a, b: [("propose", a), ("propose", b)],
    "'pro pose': is no name that a method can have": lambda a, b: [("pro pose", a)],
    "to: is the name of something else": lambda a, b: [("to", a)],
    "linear: is the name of something else": lambda a, b: [("linear", a)],
    "x: is a flag and a tensor": lambda a, b: [({"x": 1}, a), ({"x": 2}, b)],
}


@pytest.mark.parametrize("message", REFUSED)
def test_refused(message: str, model: Model) -> None:
    """What is no list of traces of one model is refused, with what was given."""
    first, second = traced(model), traced(model)
    with pytest.raises(hj.InputError, match=message):
        hj.MultiTrace(REFUSED[message](first, second))


def test_traces_that_take_different_tensors(model: Model) -> None:
    """Traces with flags take as many tensors."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor, y: Tensor) -> Any:
            return self.model(x + y)

    with pytest.raises(hj.InputError, match="on=2: expected 1 tensors, as the first takes, it takes 2"):
        hj.MultiTrace([({"on": 1}, traced(model)), ({"on": 2}, traced(Two(), X, X))])


def test_a_trace_of_a_dict(model: Model) -> None:
    """A trace that returns no flat tensors is refused."""

    class Named(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return {"a": x + 1}

    module = torch.jit.trace(Named(), X, strict=False)
    with pytest.raises(hj.InputError, match=r"on=1: expected a tensor or a tuple of tensors as the result, got Dict"):
        hj.MultiTrace([({"on": 1}, module)])


def test_a_scripted_module() -> None:
    """A scripted module is no trace."""

    class Scripted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.times = 2

        def forward(self, x: Tensor) -> Tensor:
            return x * self.times

    with pytest.raises(hj.InputError, match="on=1: is scripted, not traced"):
        hj.MultiTrace([({"on": 1}, torch.jit.script(Scripted()))])


def test_in_the_model_of_an_export(multi: hj.MultiTrace) -> None:
    """A model that calls one is exported as any other."""

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = multi

        def forward(self, x: Tensor) -> Any:
            return self.inner(x, both=True)["result[1]"]

    assert hj.export(Outer().eval(), X).report.ok
