"""`on_frozen`: what becomes of values that leave the trace."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit._describe import place
from hybridjit.export.capture import Captured
from hybridjit.export.guarded import Study
from hybridjit.export.task import Settings


class Scaled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * float(x.max().numpy())


class Sized(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.new_ones(len(x) + int(x.shape[0] * 0.5))


class Call(nn.Module):
    def __init__(self, fn: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> object:
        return self.fn(x)


X, OTHER = torch.tensor([4.0, 1.0]), torch.tensor([5.0, 1.0])
HERE = place(__file__, Scaled.forward.__code__.co_firstlineno + 1)
FIX = "the torch function of the same name"


def test_guard(tmp_path: Path) -> None:
    """By default the file raises at another value, with the line, both values and the fix; also in plain torch."""
    exported = hj.export(Scaled().eval(), X)
    exported.save(tmp_path / "model.pt")
    text = f"value frozen at {HERE}: tensor.numpy(), captured 4.0, got 5.; write {FIX}"
    for file in (exported, hj.load(tmp_path / "model.pt")):
        assert torch.equal(file(X), X * 4)
        with pytest.raises(hj.GuardError) as caught:
            file(OTHER)
        assert str(caught.value).splitlines() == [text, "  see docs/errors.md#guarderror"]
    with pytest.raises(torch.jit.Error) as plain:  # type: ignore[attr-defined]
        torch.jit.load(tmp_path / "model.pt")(OTHER)
    assert f"hybridjit: {text}" in str(plain.value)


def test_error() -> None:
    """An export that would need a guard is refused, with each line once and the fixes."""
    with pytest.raises(hj.CaptureError) as caught:
        hj.export(Scaled().eval(), X, on_frozen="error")
    assert str(caught.value).splitlines() == [
        "1 value of tensors would be frozen into the file",
        "  at Scaled",
        f"  - {HERE}: tensor.numpy(): the array is kept (4.0)",
        f"  write instead: {FIX}",
        "  see docs/errors.md#captureerror",
    ]


def test_error_where_nothing_is_frozen() -> None:
    """What stays dynamic, and what has no part in the result, is no error."""
    model = Sized().eval()
    assert hj.export(model, X, on_frozen="error")(torch.ones(9)).shape == (13,)
    assert hj.export(Call(unread).eval(), X, on_frozen="error").report.ok


def unread(x: Tensor) -> Tensor:
    """Takes a number out of the trace that nothing goes on with."""
    largest = complex(x.max())
    if largest == 1j:
        raise ValueError(f"not {largest}")
    return x + 1


def test_ignore() -> None:
    """Asked to, the file keeps the value as a plain trace does, and the report says so."""
    exported = hj.export(Scaled().eval(), X, on_frozen="ignore")
    assert torch.equal(exported(OTHER), OTHER * 4)
    (finding,) = exported.report.findings
    assert (finding.code, finding.severity) == ("HJ106", "warning")
    with pytest.raises(hj.VerificationError, match=r"frozen at .*tensor.numpy\(\): the array is kept"):
        hj.export(Scaled().eval(), X, check_inputs=[OTHER], on_frozen="ignore")


@pytest.mark.parametrize("word", ["", "raise", "Guard", None, 3])
def test_another_word(word: object) -> None:
    """Another word is refused, with those that there are."""
    with pytest.raises(hj.InputError) as caught:
        hj.export(Scaled().eval(), X, on_frozen=word)  # type: ignore[arg-type]
    assert str(caught.value).splitlines() == [
        "on_frozen takes one of three words",
        f"  - expected one of guard, error, ignore, got {word!r}",
        '  write instead: on_frozen="guard"',
        "  see docs/errors.md#inputerror",
    ]


def test_sizes_stay_dynamic() -> None:
    """What is computed of sizes in Python goes on being computed in the file, untold."""
    model = Sized().eval()
    exported = hj.export(model, X)
    for rows in (1, 3, 8, 101):
        assert exported(torch.ones(rows)).shape == model(torch.ones(rows)).shape
    assert not exported.report.findings


def test_a_value_without_a_part_has_no_guard() -> None:
    """A value that an assertion or a message asks for is a note, with the input that showed it; the file takes any."""
    exported = hj.export(Call(unread).eval(), X)
    torch.testing.assert_close(exported(OTHER), OTHER + 1)
    (note,) = [finding for finding in exported.report.findings if finding.code == "HJ103"]
    assert note.severity == "note" and "; it does not matter: with another value (" in note.message


LIMITED: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "hex": (lambda x: x * len(hex(x.shape[0])), torch.ones(70)),
    "rows": (lambda x: x * 2 if len(list(x)) > 60 else x, torch.ones(70)),
    "parts": (lambda x: x * 2 if len(x.unbind()) > 60 else x, torch.ones(70)),
    "close": (lambda x: x * 2 if math.isclose(x.shape[0], 70, abs_tol=9) else x, torch.ones(70)),
    "text": (lambda x: x * 2 if float(repr(float(x.max()))) > 60 else x, torch.tensor([4.0, 70.0])),
    "largest": (lambda x: x * 2 if max(v for v in x) > 60 else x, torch.tensor([4.0, 70.0])),
}


@pytest.mark.parametrize("name", LIMITED)
def test_a_limit_that_no_example_reaches(name: str) -> None:
    """A number that Python compares where no trace follows is guarded, though it made no difference so far."""
    limited, beyond = LIMITED[name]
    exported = hj.export(Call(limited).eval(), X)
    torch.testing.assert_close(exported(X), limited(X))
    with pytest.raises(hj.GuardError, match=r"value frozen at .*test_guarded\.py"):
        exported(beyond)


def test_check_inputs_have_their_paths() -> None:
    """Values of several inputs that are given are a choice among them; the rest raises."""
    exported = hj.export(Scaled().eval(), X, check_inputs=[OTHER])
    assert torch.equal(exported(OTHER), OTHER * 5) and torch.equal(exported(X), X * 4)
    with pytest.raises(hj.GuardError, match=r"captured 4.0 or 5.0, got 6.; "):
        exported(OTHER + 1)


def test_static_is_no_finding() -> None:
    """A value that is frozen on purpose is guarded, and neither a finding nor an error."""
    model = Call(lambda x: x * hj.static(x.shape[0], reason="pairs")).eval()
    exported = hj.export(model, X, on_frozen="error")
    assert not exported.report.findings and exported.report.statics[0].reason == "pairs"
    with pytest.raises(hj.GuardError):
        exported(torch.ones(3))


def test_the_model_comes_back() -> None:
    """Whatever was captured on the way: buffers, attributes and random state are as they were."""

    class Keeps(nn.Module):
        count: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))
            self.last = 0.0

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            self.last = x.max().item()
            return x * self.last + self.count + torch.rand(())

    model = Keeps().eval()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    hj.export(model, X, check_inputs=[OTHER], branches="auto")
    assert (model.count.item(), model.last) == (0.0, 0.0)
    assert torch.equal(torch.get_rng_state(), state)
    assert "len" not in globals() and "int" not in globals()


class Remembers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        before, self.last = self.last, x
        return x if before is None else x + before


def test_a_model_that_remembers_in_attributes() -> None:
    """A second call that gives something else because of what the first one set is refused, with the attribute."""
    with pytest.raises(hj.CaptureError, match="it remembers in attributes") as caught:
        hj.export(Remembers().eval(), X)
    assert "last" in str(caught.value)


@pytest.mark.parametrize(
    "asks",
    [lambda x: x.conj() * x, lambda x: x.real + 1 if x.is_complex() else x - 1],
)
def test_complex_numbers_where_real_ones_were_captured(asks: Callable[[Tensor], Tensor]) -> None:
    """What leaves real numbers as they are leaves no trace, and so complex ones are refused where it matters."""
    x, numbers = torch.rand(3, 2), torch.complex(torch.rand(3, 2), torch.rand(3, 2))
    exported = hj.export(Call(asks).eval(), x)
    torch.testing.assert_close(exported(x.double()), asks(x.double()))
    with pytest.raises(hj.GuardError, match=r"captured float32\[3, 2\] cpu, got complex numbers; export the model"):
        exported(numbers)
    plain = hj.export(Call(lambda x: x * 2).eval(), x)
    torch.testing.assert_close(plain(numbers), numbers * 2)


@pytest.mark.parametrize(("model", "most"), [(Scaled(), 2), (Call(unread), 4)])
def test_further_inputs_are_captured_as_long_as_they_may_spare_a_guard(
    model: nn.Module, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value has its guard at once, if no other could spare it that; of one without a part a single other is seen."""
    captured: list[str] = []
    traced = Study.traced

    def counted(self: Study, settings: Settings, name: str, *args: Any, **kwargs: Any) -> Captured:
        captured.append(name)
        return traced(self, settings, name, *args, **kwargs)

    monkeypatch.setattr(Study, "traced", counted)
    exported = hj.export(model.eval(), X)
    assert len(captured) <= most, captured
    assert exported(X).shape == X.shape


class LastColumns(nn.Module):
    """Asks how many dimensions there are, and for no dtype."""

    def forward(self, x: Tensor) -> Tensor:
        return x[..., 1:3] * 2


class ByDtype(nn.Module):
    """Asks for the dtype, and not how many dimensions there are."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.dtype == torch.float32 else x * 3


def test_what_is_asked_of_an_input_is_guarded() -> None:
    """The number of dimensions or the dtype, and not both where one is asked."""
    x, exported = torch.rand(2, 4), hj.export(LastColumns().eval(), torch.rand(2, 4))
    for each in (x.double(), x.half(), (x * 9).int()):
        assert torch.equal(exported(each), LastColumns()(each))
    with pytest.raises(hj.GuardError, match=r"x: captured float32\[2, 4\] cpu, got 3 dimensions; export the model"):
        exported(torch.rand(5, 2, 4))
    exported = hj.export(ByDtype().eval(), x)
    assert torch.equal(exported(x[0]), ByDtype()(x[0]))
    with pytest.raises(hj.GuardError, match=r"x: captured float32\[2, 4\] cpu, got another dtype; export the model"):
        exported(x.double())
