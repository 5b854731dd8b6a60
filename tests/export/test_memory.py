"""Models that remember in attributes what a file does not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

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


class Scales(nn.Module):
    """Changes its weights in a call, in one of the ways there are."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.linear = nn.Linear(3, 3)
        self.linear.weight.data *= 5

    def forward(self, x: Tensor) -> Tensor:
        weight = self.linear.weight
        if self.way == "data":
            weight.data = weight.data * 0.5
        elif self.way == "parameter":
            self.linear.weight = nn.Parameter(weight * 0.5)
        elif self.way == "in place":
            weight.data.mul_(0.5)
        elif self.way == "at most 1":  # as networks for few channels of a signal do
            weight.data = torch.renorm(weight.data, p=2, dim=0, maxnorm=1.0)
        result: Tensor = self.linear(x)
        return result


@pytest.mark.parametrize("way", ["data", "parameter"])
def test_weights_that_each_call_replaces(way: str) -> None:
    """No file puts another tensor in the place of a weight, and so none is right from the second call on."""
    with pytest.raises(hj.CaptureError, match=r"sets the attribute linear\.weight; the file does not"):
        hj.export(Scales(way).eval(), torch.rand(4, 3))


@pytest.mark.parametrize("way", ["at most 1", "in place"])
def test_weights_that_calls_change(way: str, tmp_path: Path) -> None:
    """All calls go on with what the first makes of them, or the file does as the model; none is behind it yet."""
    model = Scales(way).eval()
    exported = hj.export(model, torch.rand(4, 3))
    exported.save(tmp_path / "scales.pt")
    for file in (exported, hj.load(tmp_path / "scales.pt")):
        again = copy.deepcopy(model)
        for _ in range(3):
            x = torch.rand(4, 3)
            torch.testing.assert_close(file(x), again(x))


class AddsUp(nn.Module):
    """Writes to a tensor that is no buffer: the file has it as a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.total = torch.zeros(3)

    def forward(self, x: Tensor) -> Tensor:
        self.total += x.sum(0)
        return x - self.total


def test_a_constant_that_calls_write_to() -> None:
    """The export that is returned has not been called."""
    model = AddsUp().eval()
    exported = hj.export(copy.deepcopy(model), torch.rand(4, 3))
    for _ in range(3):
        x = torch.rand(4, 3)
        torch.testing.assert_close(exported(x), model(x))


class SetsOnOneSide(nn.Module):
    """Sets a buffer, a tensor and a number where the data say so."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(4))
        self.last = torch.ones(4)
        self.most = 4

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            self.scale, self.last, self.most = x.mean(0), x[0], x.shape[0]
        return x * self.scale + self.last * self.most


class Around(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = SetsOnOneSide()

    def forward(self, x: Tensor) -> Any:
        return self.inner(x) + 1


@pytest.mark.parametrize(("model", "path"), [(SetsOnOneSide(), ""), (Around(), "inner.")])
def test_attributes_set_on_one_side(model: nn.Module, path: str) -> None:
    """A side of a branch that sets attributes is told, as what always does is."""
    exported = hj.export(model.eval(), -torch.ones(3, 4), branches="auto")
    said = [finding.message for finding in exported.report.findings if finding.code == "HJ002"]
    assert said == [f"forward sets the attribute {path}{name}; the file does not" for name in ("last", "most", "scale")]
