"""What tells whether a capture is right on the inputs of a study."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit.export import trials

jit: Any = torch.jit


class Rounds(nn.Module):
    """Is another one in a trace at most sizes."""

    def forward(self, x: Tensor) -> Tensor:
        if jit.is_tracing():
            return x * (x.shape[0] // 4)
        return x * (x.shape[0] / 4)


def test_one_input_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """That one input is wrong by more than rounding is enough: each such question takes several runs of the model."""
    asked: list[torch.Size] = []

    def chaotic(flat: tuple[Tensor], *args: Any, **kwargs: Any) -> bool:
        asked.append(flat[0].shape)
        return False

    monkeypatch.setattr(trials, "is_chaotic", chaotic)
    model = Rounds().eval()
    exported = hj.export(model, torch.ones(4, 2))
    assert len([sizes for sizes in asked if sizes != (4, 2)]) == 1  # besides other dtypes
    for rows in (1, 4, 7):
        x = torch.rand(rows, 2)
        torch.testing.assert_close(exported(x), model(x))


def test_an_input_that_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the model itself gives something else after a rounding error, a difference is no evidence."""
    monkeypatch.setattr(trials, "is_chaotic", lambda *args, **kwargs: True)
    exported = hj.export(Rounds().eval(), torch.ones(4, 2))
    torch.testing.assert_close(exported(torch.ones(5, 2)), torch.ones(5, 2))
