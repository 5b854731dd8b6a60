"""Which sides of branches and loops the checks of a program take, and of what is made of it."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj

X, N = torch.rand(3, 4, generator=torch.Generator().manual_seed(0)) + 0.5, torch.tensor(2)


class Model(nn.Module):
    """Every kind of branch and loop, one of which only raises."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.inner = nn.Linear(4, 4), Inner()

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        y = hj.cond(x.sum() > 0, lambda: self.linear(x), lambda: x)
        y = self.inner(y, x)
        y = hj.fori_loop(0, n, lambda i, carry: carry + 1, y)
        return hj.switch(n, [lambda: y, lambda: y + 1, lambda: y + 2])


class Inner(nn.Module):
    @hj.branch_if_tracing
    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        if x.sum() < -100:
            raise ValueError("too small")
        if x.sum() > 8:
            return y * 2
        return y


def lines() -> dict[str, int]:
    outer, inner = Model.forward.__code__.co_firstlineno, inspect.getsourcelines(Inner)[1] + 1
    return {"cond": outer + 1, "loop": outer + 3, "switch": outer + 4, "raise": inner + 2, "if": inner + 4}


SIDES = [
    ("cond", "cond", {"true": 3, "false": 1}),
    ("raise", "if", {"true": 0, "false": 4}),
    ("if", "if", {"true": 3, "false": 1}),
    ("loop", "loop", {"0 rounds": 1, "1 round": 1, "more rounds": 2}),
    ("switch", "switch", {"0": 1, "1": 1, "2": 2}),
]
INPUTS = [(-X, torch.tensor(0)), (X, torch.tensor(1)), (X + 5, torch.tensor(5))]


def told(report: hj.Report) -> list[tuple[str, int, dict[str, int]]]:
    return sorted((b.kind, b.line, {side.name: side.checks for side in b.sides}) for b in report.branches)


def wanted() -> list[tuple[str, int, dict[str, int]]]:
    return sorted((kind, lines()[at], counts) for at, kind, counts in SIDES)


@pytest.mark.parametrize("format", ["torchscript", "pt2", "onnx"])
def test_sides_are_counted(format: str) -> None:
    """Each format counts the same sides of the same lines, and takes the raise for none that a check could take."""
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    model = Model().eval()
    exported = hj.export(model, (X, N), format=format, check_inputs=INPUTS, require_coverage=True)
    if format != "onnx":  # a loaded file of which has nothing to count with
        assert told(hj.verify(exported, model, [(X, N), *INPUTS])) == wanted()
    assert {branch[:2] for branch in told(exported.report)} == {branch[:2] for branch in wanted()}
    assert exported.report.unverified == ()
    assert [b.raises for b in exported.report.branches if b.line == lines()["raise"]] == [("true",)]
    assert {b.module_path for b in exported.report.branches if b.kind == "if"} == {"inner"}


@pytest.mark.parametrize("format", ["pt2", "onnx"])
def test_coverage_can_be_required(format: str) -> None:
    """A side that no check took refuses the export, by its line."""
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    given: dict[str, Any] = {"format": format, "require_coverage": True}
    with pytest.raises(hj.VerificationError, match=r"sides? of branches that no check took, and no file") as caught:
        hj.export(Model().eval(), (X, N), check_inputs=INPUTS[1:], **given)
    assert f"test_sides.py:{lines()['switch']}: 0" in str(caught.value)


def test_of_each_combination() -> None:
    """A side that only one combination of flags has must be taken in that one."""
    given: dict[str, Any] = {"format": "pt2", "flags": {"scale": (False, True)}, "require_coverage": True}
    with pytest.raises(hj.VerificationError, match="1 side of branches that no check took"):
        hj.export(Flagged().eval(), X, **given)
    exported = hj.export(Flagged().eval(), X, check_inputs=[-X], **given)
    (branch,) = exported.report.branches
    assert all(side.checks for side in branch.sides)


class Flagged(nn.Module):
    def forward(self, x: Tensor, scale: bool = False) -> Tensor:
        return hj.cond(x.sum() > -1, lambda: x * 2, lambda: x) if scale else x + 1


class Counts(nn.Module):
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count.add_(1)
        return hj.cond(self.count > 1, lambda: x * 2, lambda: x)


def test_calls_that_leave_state_are_counted_once() -> None:
    """What is counted is what is compared: a buffer is written once a call."""
    exported = hj.export(Counts().eval(), X, format="pt2")
    (branch,) = exported.report.branches
    assert {side.name: bool(side.checks) for side in branch.sides} == {"true": False, "false": True}


@hj.script_if_tracing
def clipped(x: Tensor, times: Tensor) -> Tensor:
    if x.sum() > 9:
        x = x / 2
    while times > 0:
        x, times = x + 1, times - 1
    return x


class Scripted(nn.Module):
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        return clipped(x, n)


@pytest.mark.parametrize("format", ["torchscript", "pt2"])
def test_scripted_pieces(format: str) -> None:
    """The branches and loops of a scripted piece are told by their own lines."""
    exported = hj.export(Scripted().eval(), (X, N), format=format, check_inputs=[(-X, N)], require_coverage=True)
    line = inspect.getsourcelines(clipped)[1]
    found = sorted((each.kind, each.line) for each in exported.report.branches)
    assert found == [("scripted if", line + 2), ("scripted loop", line + 4)]


class Nested(nn.Module):
    """A branch in a loop, one in a scan, and one in a map."""

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        y = hj.fori_loop(0, n, lambda i, carry: hj.cond(carry.sum() > 9, lambda: carry, lambda: carry + 1), x)
        last, rows = hj.scan(lambda c, r: (hj.cond(r.sum() > 3, lambda: c + 1, lambda: c), r), x.new_zeros(4), y)
        return rows + last + hj.map(lambda r: hj.cond(r.sum() > 3, lambda: r, lambda: -r), x)


def test_branches_in_loops() -> None:
    """Those in the bodies of loops are counted too."""
    few = torch.zeros(3, 4), torch.tensor(0)
    exported = hj.export(Nested().eval(), (X, N), format="pt2", check_inputs=[(X + 3, N), few], require_coverage=True)
    assert sorted(branch.kind for branch in exported.report.branches) == ["cond"] * 3 + ["loop"] + ["scan"] * 2


def test_nothing_of_it_is_in_the_file(tmp_path: Path) -> None:
    """The notes are taken off the program, and kept in the metadata, by which a loaded file counts as well."""
    model = Model().eval()
    exported = hj.export(model, (X, N), format="pt2", check_inputs=INPUTS)
    for module in exported.module.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            assert not any("hybridjit" in node.meta.get("custom", {}) for node in module.graph.nodes)
    exported.save(tmp_path / "model.pt2")
    extra = {"hybridjit.json": ""}
    torch.export.load(tmp_path / "model.pt2", extra_files=extra)
    (case,) = json.loads(extra["hybridjit.json"])["cases"]
    assert [each[0][0] for each in case["points"]] == ["cond", "if", "if", "loop", "switch", "switch"]
    assert told(hj.verify(hj.load(tmp_path / "model.pt2"), model, [(X, N), *INPUTS])) == wanted()
