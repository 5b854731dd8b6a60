"""The network for tables, on our backend for Dynamo."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import torch

import hybridjit as hj
from examples.tabular.__main__ import compiled
from examples.tabular.curve import draw
from examples.tabular.model import Rows, table
from examples.tabular.train import cross_validate


def test_training_is_that_of_eager_mode() -> None:
    """The losses of every fold are eager mode's, on what is held back as well, and they fall."""
    x, y = table(300)
    torch._dynamo.reset()
    before = len(hj.compile_report().graphs)
    ours = cross_validate(x, y, compiled, folds=3, epochs=6)
    theirs = cross_validate(x, y, lambda model: model, folds=3, epochs=6)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.training, other.training, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(one.held_back, other.held_back, rtol=1e-3, atol=1e-4)
        assert one.held_back[-1] < 0.5 < one.training[0]
    graphs = hj.compile_report().graphs[before:]
    assert graphs and {(graph.result, graph.fallbacks) for graph in graphs} == {("torchscript", 0)}


def test_both_sides() -> None:
    """Some batches hold an outlier, and some do not."""
    x, _ = table(1000)
    limit = Rows(8).most
    assert {bool(part.abs().amax() > limit) for part in x.split(100)} == {True, False}


def test_curve() -> None:
    """The picture has a line for each fold and one for their mean."""
    root = ElementTree.fromstring(draw("A title", {"training": [[1.0, 0.5], [1.0, 0.25]], "held back": [[1.0, 0.75]]}))
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 2 + 1 + 1 + 1
    assert len({line.get("points") for line in lines[:3]}) == 3
