"""`is_tracing` and `is_exporting` in every place that can ask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from tests.control.checks import traced

X = torch.ones(2)


answers: list[tuple[bool, bool]] = []


@pytest.fixture(autouse=True)
def nobody_asked() -> None:
    answers.clear()


class Asking(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        answers.append((hj.is_tracing(), hj.is_exporting()))
        return x + 1


def test_eager() -> None:
    """Neither."""
    model = Asking()
    model(X)
    assert answers == [(False, False)]


def test_a_trace_of_ones_own() -> None:
    """Tracing, not exporting; in the sides of a branch too."""
    model = Asking()
    traced(lambda x: hj.cond(x.sum() > 0, lambda: model(x), lambda: model(-x)), X)
    assert answers == [(True, False)] * 2
    model(X)
    assert answers[-1] == (False, False)


def test_an_export() -> None:
    """Both while it captures; neither when it checks the model in eager mode."""
    model = Asking().eval()
    hj.export(model, (X,))
    assert (True, True) in answers and (False, False) in answers
    assert set(answers) == {(True, True), (False, False)}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torch_export() -> None:
    """Both under torch.export, strict and not."""

    class Which(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1 if hj.is_tracing() and hj.is_exporting() else x - 1

    for strict in (False, True):
        module = torch.export.export(Which(), (X,), strict=strict).module()
        assert torch.equal(module(X), X + 1)


@torch.jit.script
def scripted(x: Tensor) -> tuple[bool, bool]:
    return hj.is_tracing(), hj.is_exporting()


def test_scripted_code() -> None:
    """In compiled code the answer is that of an exported file."""
    assert scripted(X) == (False, True)


def test_a_compiled_function() -> None:
    """torch.compile traces, and exports nothing."""

    def asks(x: Tensor) -> Tensor:
        return x + 1 if hj.is_tracing() and not hj.is_exporting() else x - 1

    compiled: Any = torch.compile(asks, backend="eager", fullgraph=True)
    assert torch.equal(compiled(X), X + 1)
