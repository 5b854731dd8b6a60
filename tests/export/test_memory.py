"""Models that remember in attributes what a file does not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj

X = torch.tensor([3.0, 1.0])


class FirstMean(nn.Module):
    """Goes on with the mean of the first input it is given."""

    mean: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.mean is None:
            self.mean = x.mean()
        return x - self.mean


class Counts(nn.Module):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


class Grows(nn.Module):
    """Keeps a table that is as long as the longest input so far."""

    table = torch.zeros(0)

    def forward(self, x: Tensor) -> Tensor:
        if len(self.table) < x.shape[0]:
            self.table = torch.arange(x.shape[0]).float()
        return x * self.table[: x.shape[0]]


class Angles(nn.Module):
    """Keeps angles in a buffer, and in a number how many of them there are, as rotary embeddings do."""

    known = 0

    angles: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("angles", torch.zeros(8), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        if n > self.known:
            angles = torch.arange(n) * 0.5 + 1
            self.angles[:n] = angles
            self.known = n
        else:
            angles = self.angles[:n]
        return x * angles


class AnglesOfFirst(Angles):
    """The same of angles that hang on the first input."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.known:
            self.angles[:] = x.mean()
            self.known = 1
        return x * self.angles[: x.shape[0]]


class LastInput(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        self.last = x
        return x + 1


@pytest.mark.parametrize("model", [FirstMean, Counts, AnglesOfFirst])
def test_memory_is_refused(model: type[nn.Module]) -> None:
    """A model whose second call goes by what the first one left is refused, with the attribute; and is as it was."""
    made = model().eval()
    with pytest.raises(hj.CaptureError) as caught:
        hj.export(made, X)
    what, where, attribute, inputs, *_ = str(caught.value).splitlines()
    assert what == "the model's second call gives something else than its first: it remembers in attributes"
    assert where == f"  at {model.__qualname__}"
    assert attribute.startswith("  - forward sets the attribute ")
    assert inputs.startswith("  - first on input, then on ")
    assert not {"mean", "calls", "known"} & vars(made).keys()


class FirstScale(nn.Module):
    """Goes on with how much larger the first image it is given was than its features, as pooling by regions does."""

    scale: float | None = None

    def forward(self, features: Tensor, height: int = 12) -> Tensor:
        if self.scale is None:
            self.scale = float(features.shape[0]) / height
        return features * self.scale


def test_memory_that_a_guard_keeps_out() -> None:
    """Where the file raises on all that the model would go on with from its first call, it is what the model is."""
    model = FirstScale().eval()
    exported = hj.export(model, torch.ones(6, 2))
    torch.testing.assert_close(exported(torch.full((6, 2), 3.0)), model(torch.full((6, 2), 3.0)))
    with pytest.raises(hj.GuardError, match="captured 6"):
        exported(torch.ones(8, 2))


@pytest.mark.parametrize("model", [Grows, LastInput, Angles])
def test_memory_that_does_not_matter(model: type[nn.Module]) -> None:
    """What a call leaves and the next does not go by is a note."""
    exported = hj.export(model().eval(), X)
    assert [finding.severity for finding in exported.report.findings if finding.code == "HJ002"] == ["note"]


def test_a_buffer_and_how_far_it_is_filled() -> None:
    """A cache in a buffer, with its length in a number, is no memory: the file fills it in every call."""
    model = Angles().eval()
    exported = hj.export(model, X)
    for length in (2, 5, 3, 7):
        torch.testing.assert_close(exported(torch.ones(length)), Angles()(torch.ones(length)))
