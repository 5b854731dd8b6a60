"""Code that asks whether it is traced is named, and nothing of torch stays changed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit.export.forks import forks

jit: Any = torch.jit
ANSWERS = jit.is_tracing, torch._C._get_tracing_state


class Forked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        if jit.is_tracing():
            x = x + 1
        elif ANSWERS[0]():
            raise RuntimeError("traced after all")
        return self.inner(x)


def test_a_fork_is_a_note() -> None:
    """A question without consequences is a note with line and module path, once a line; torch's own are none."""

    class Asks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(2):
                if torch._C._get_tracing_state() is not None:
                    x = x * 1
            return nn.functional.interpolate(x[None, None], scale_factor=2)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.asks = Asks()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.asks(x)
            return y

    report = hj.export(Outer().eval(), torch.ones(3)).report
    [finding] = [each for each in report.findings if each.code == "HJ303"]
    assert (finding.severity, finding.module_path) == ("note", "asks")
    assert finding.line == Asks.forward.__code__.co_firstlineno + 2
    assert "asks _get_tracing_state()" in finding.message


def test_a_mismatch_points_to_it() -> None:
    """A trace that differs at the traced input itself is refused with the line that asked, and where values part."""
    with pytest.raises(hj.VerificationError) as error:
        hj.export(Forked().eval(), torch.ones(3, 2))
    line = Forked.forward.__code__.co_firstlineno + 1
    text = str(error.value)
    assert f"test_forks.py:{line} asks is_tracing(): what this does in a trace" in text
    assert f"test_forks.py:{line + 4}: torch.nn.functional.linear" in text and "parts first at" in text
    assert "write instead: the same code in both" in text


def test_put_back() -> None:
    """Torch's functions are the old ones after a success, a refusal and an interrupt."""
    hj.export(nn.Linear(2, 2).eval(), torch.ones(3, 2))
    with pytest.raises(hj.VerificationError):
        hj.export(Forked().eval(), torch.ones(3, 2))
    with pytest.raises(KeyboardInterrupt), forks({}):
        assert jit.is_tracing is not ANSWERS[0]
        raise KeyboardInterrupt
    assert (jit.is_tracing, torch._C._get_tracing_state) == ANSWERS


def ask(x: Tensor) -> Tensor:
    if jit.is_tracing():
        return x + 1
    return x


def look(x: Tensor) -> Tensor:
    if torch._C._get_tracing_state() is not None:
        return x + 1
    return x


@pytest.mark.parametrize("fn", [ask, pytest.param(look, id="look")])
def test_scripting_within(fn: Any) -> None:
    """A function that asks can still be scripted while the questions are watched."""
    with forks({}) as found:
        compiled: Any = torch.jit.script(fn)
        assert compiled(torch.ones(1)).item() in (1.0, 2.0)
    assert found == []


def test_only_while_tracing() -> None:
    """A question whose answer is no is not noted."""
    with forks({}) as found:
        assert not jit.is_tracing()
    assert found == []


class Asked(nn.Module):
    """Does in a trace what it does not do in eager mode."""

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.fails = fails

    def forward(self, x: Tensor) -> Tensor:
        if jit.is_tracing():
            if self.fails:
                raise NotImplementedError("not in a trace")
            x = x + 1
        return x * 2


@pytest.mark.parametrize("fails", [False, True])
def test_code_that_asks_is_told_what_eager_mode_is_told(fails: bool) -> None:
    """Where a trace is wrong or fails by what code does in a trace alone, the file has what it does in eager mode."""
    model = Asked(fails).eval()
    exported = hj.export(model, torch.ones(3, 2))
    x = torch.randn(5, 2)
    torch.testing.assert_close(exported(x), model(x))
    [finding] = [each for each in exported.report.findings if each.code == "HJ303"]
    assert "was told that nothing is traced" in finding.message


class FromPositions(nn.Module):
    """Parts rows by their positions in a trace, and in eager mode only where these don't go on one by one."""

    def forward(self, x: Tensor, at: Tensor) -> Tensor:
        apart = torch.diff(at) != 1
        if not jit.is_tracing() and not apart.any():
            at = torch.arange(at.shape[0])
        return x + at // 6


def test_positions_that_begin_elsewhere_show_a_fork() -> None:
    """What a trace makes of positions is compared at positions that all are one more, too."""
    model, x = FromPositions().eval(), torch.zeros(8)
    exported = hj.export(model, hj.Inputs(x, torch.arange(8)))
    for start in (0, 3):
        try:
            result = exported(x, torch.arange(8) + start)
        except hj.GuardError:
            continue
        assert torch.equal(result, model(x, torch.arange(8) + start))


class Counts(nn.Module):
    """Needs a size as a Python number, and fails on a traced one; asks in a way that nothing answers otherwise."""

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[0]
        if size.__class__ is not int:
            raise TypeError("a number is needed")
        return x * size


def test_a_model_that_needs_numbers_gets_them_guarded() -> None:
    """A size that must be Python's is frozen with a guard, rather than the model refused."""
    model, x, other = Counts().eval(), torch.ones(3), torch.ones(4)
    exported = hj.export(model, x)
    torch.testing.assert_close(exported(x * 2), model(x * 2))
    with pytest.raises(hj.GuardError, match=r"int\(tensor\), captured 3, got 4"):
        exported(other)
    both = hj.export(model, x, check_inputs=[other])
    torch.testing.assert_close(both(other * 2), model(other * 2))


class Fitted(nn.Module):
    """Resized in single precision in a trace, as detectors of torchvision are, and in double precision otherwise."""

    def forward(self, x: Tensor) -> Tensor:
        factor: Any = 64 / min(x.shape[-2:])
        if jit.is_tracing():
            factor = (64.0 / torch._shape_as_tensor(x)[-2:].min()).float()
        return nn.functional.interpolate(x[None, None], scale_factor=factor, recompute_scale_factor=True)


def test_what_a_trace_rounds_otherwise() -> None:
    """A path for traces that rounds otherwise at some size is left for that of eager mode, which holds at all sizes."""
    model = Fitted().eval()
    exported = hj.export(model, torch.rand(64, 64), branches="auto")
    for size in (64, 83, 96, 125):
        x = torch.rand(size, size + 9)
        torch.testing.assert_close(exported(x), model(x))


def test_resizing_by_a_factor() -> None:
    """`interpolate(recompute_scale_factor=True)` computes sizes in double precision in the file, too."""

    class Smaller(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            resize = nn.functional.interpolate
            return [
                resize(x, scale_factor=0.7, recompute_scale_factor=True),
                resize(x, None, (0.7, 1 / 3), "area"),
                resize(x, scale_factor=0.5),
            ]

    model = Smaller().eval()
    exported = hj.export(model, torch.rand(1, 1, 64, 64))
    for size in (64, 87, 90, 170):
        x = torch.rand(1, 1, size, size)
        torch.testing.assert_close(exported(x), model(x))


def test_what_holds_in_a_trace_stays() -> None:
    """A path for traces that is right at all sizes is in the file, and not what eager mode does with their length."""

    class Doubled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if jit.is_tracing() else torch.stack([x[row] * 2 for row in range(len(x))])

    model = Doubled().eval()
    exported = hj.export(model, torch.rand(3, 2), branches="auto")
    for x in (torch.rand(6, 2), torch.rand(1, 2)):
        torch.testing.assert_close(exported(x), model(x))


def test_what_a_trace_does_otherwise_at_some_sizes() -> None:
    """A path for traces that is another one at few sizes is tried at several, and left for that of eager mode."""

    class Tagged(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if jit.is_tracing():
                return x * torch.where(torch._shape_as_tensor(x)[0] % 11 == 0, 2.0, 1.0)
            return x * 1.0

    exported = hj.export(Tagged().eval(), torch.rand(60, 2), branches="auto")
    for size in (60, 33, 79, 121):
        x = torch.rand(size, 2)
        torch.testing.assert_close(exported(x), x)


class Elsewhere(nn.Module):
    """Asks on a side that the example does not take, before and after it parts."""

    def forward(self, x: Tensor) -> Tensor:
        if not jit.is_tracing():
            x = x + 0
        if x.sum() > 1000 and not jit.is_tracing():
            return x * 2
        if x.sum() < -1000:
            return x * 3 if torch._C._get_tracing_state() is None else x * 4
        return x


def test_a_side_that_no_input_takes() -> None:
    """Where nothing compares the two, the code is told what it is told in eager mode."""
    model = Elsewhere().eval()
    exported = hj.export(model, torch.ones(3), branches="auto")
    for x in (torch.ones(4), torch.full((3,), 500.0), torch.full((3,), -500.0)):
        torch.testing.assert_close(exported(x), model(x))


class NeedsNumber(nn.Module):
    """Attention as a library has it: for a trace alone it makes a Python truth of a size's."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        if mask.all():
            causal = x.shape[1] > 1
            if jit.is_tracing() and isinstance(causal, Tensor):
                causal = bool(causal.item())
            return nn.functional.scaled_dot_product_attention(x, x, x, is_causal=causal)
        return nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=mask)


def test_a_side_that_only_runs_in_a_trace() -> None:
    """What does not run as in eager mode, as a number is a tensor, is recorded as the library means it for a trace."""
    model = NeedsNumber().eval()
    x, mask = torch.rand(1, 4, 8), torch.ones(4, 4, dtype=torch.bool)
    exported = hj.export(model, (x, mask.tril()), branches="auto")
    for given in (mask.tril(), mask, mask.triu()):
        torch.testing.assert_close(exported(x, given), model(x, given))
