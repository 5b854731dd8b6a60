"""Which sides of branches the checks took, and what an export says of the others."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit import _torch
from hybridjit.export.coverage import Counting, Coverage, in_file, points_from_json, points_to_json
from hybridjit.export.report import Branch, Check, Report, Side

HERE = __file__
UP = torch.ones(2, 3)


def line_of(function: Any, text: str) -> int:
    """The line of a function's source that has a text in it."""
    lines = Path(HERE).read_text().splitlines()
    start = function.__code__.co_firstlineno
    return next(number for number in range(start, len(lines)) if text in lines[number - 1])


def sides(report: Report, kind: str) -> dict[str, int]:
    """The counts of the one branch point of a kind."""
    [branch] = [each for each in report.branches if each.kind == kind]
    return {side.name: side.checks for side in branch.sides}


class Conditional(nn.Module):
    """Has a `cond` in a submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.head = Head()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x * 2)
        return out


class Head(nn.Module):
    """Takes one of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return hj.cond(x.sum() > 0, lambda: self.linear(x), lambda: x)


def test_a_cond_counts_its_sides() -> None:
    """Each check counts for the side that it takes, at the line and in the module of the `cond`."""
    report = hj.export(Conditional().eval(), UP, check_inputs=[-UP, -UP * 2]).report
    [branch] = report.branches
    assert (branch.file, branch.line, branch.module_path) == (HERE, line_of(Head.forward, "hj.cond"), "head")
    assert branch.sides == (Side("true", 1), Side("false", 2))
    assert report.unverified == ()
    assert "2 of 2 branch sides taken" in str(report).splitlines()[0]


def test_a_side_that_no_check_took_is_unverified() -> None:
    """It is told by file and line: in the report's text and as a field; coverage that is required refuses it."""
    model = Conditional().eval()
    report = hj.export(model, UP).report
    line = line_of(Head.forward, "hj.cond")
    assert len(report.unverified) == 1
    assert report.unverified[0].endswith(f"test_coverage.py:{line} in head: false")
    assert "UNVERIFIED: sides that no check took" in str(report)
    assert "1 of 2 branch sides taken" in str(report)
    with pytest.raises(hj.VerificationError) as caught:
        hj.export(model, UP, require_coverage=True)
    lines = str(caught.value).splitlines()
    assert lines[0] == "1 side of branches that no check took, and no file was written"
    assert lines[2].endswith(f"test_coverage.py:{line} in head: false")
    assert lines[-1] == "  see docs/errors.md#verificationerror"
    assert caught.value.report is not None and not caught.value.report.ok
    assert hj.export(model, UP, check_inputs=[-UP], require_coverage=True).report.ok


class Chooses(nn.Module):
    """A `switch` of three."""

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        return hj.switch(index, [lambda x: x, lambda x: x * 2, lambda x: x * 4], (x,))


def test_a_switch_counts_by_number() -> None:
    """A switch is one branch point, whose sides are its functions."""
    one = torch.tensor(1)
    report = hj.export(Chooses().eval(), (UP, one), check_inputs=[(UP, one * 0), (UP, one * 7), (UP, one * 2)]).report
    assert sides(report, "switch") == {"0": 1, "1": 1, "2": 2}


class Loops(nn.Module):
    """A loop of as many rounds as there are rows, and one that stops by content."""

    def forward(self, x: Tensor) -> Tensor:
        y = hj.fori_loop(0, x.shape[0], lambda i, c: c + x[i].sum(), x.new_zeros(()))
        (z,) = hj.while_loop(lambda z: z > 8, lambda z: (z / 2,), (y,))
        for _ in range(2):
            z = z + 1
        return z


def test_loops_count_rounds() -> None:
    """None, one and more rounds count apart; a loop that never ran a round is unverified."""
    report = hj.export(Loops().eval(), UP, check_inputs=[UP[:0], UP[:1], torch.ones(5, 3)]).report
    counts = [{side.name: side.checks for side in branch.sides} for branch in report.branches]
    assert {"0 rounds": 1, "1 round": 1, "more rounds": 2} in counts
    assert {"0 rounds": 3, "1 round": 1, "more rounds": 0} in counts
    assert report.unverified == ()
    [missing] = hj.export(Loops().eval(), UP).report.unverified
    assert missing.endswith(f"test_coverage.py:{line_of(Loops.forward, 'hj.while_loop')}: any round")


class Scans(nn.Module):
    """Sums up rows."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return hj.scan(lambda c, row: (c + row, c * row), x.new_zeros(3), x)


def test_a_scan_counts_slices() -> None:
    """The round on zeros that a scan of nothing makes is none; the branches that it consists of are not told."""
    report = hj.export(Scans().eval(), UP, check_inputs=[UP[:0], UP[:1]]).report
    assert [branch.kind for branch in report.branches] == ["scan"]
    assert sides(report, "scan") == {"0 rounds": 1, "1 round": 1, "more rounds": 1}


@hj.script_if_tracing
def settle(x: Tensor, n: int) -> Tensor:
    """A scripted piece."""
    if n > 50:
        raise ValueError("too many")
    for i in range(n):
        if x[i].sum() > 0:
            x = x / 2
        else:
            x = x + 1
            x = x * 1
    return x


class Settles(nn.Module):
    """Calls it."""

    def forward(self, x: Tensor) -> Tensor:
        return settle(x, x.shape[0])


def test_a_scripted_piece_counts_at_its_own_lines() -> None:
    """Its ifs and loops are where its source has them; a check that raises is no branch."""
    report = hj.export(Settles().eval(), UP, check_inputs=[-UP * 0.2]).report
    assert sides(report, "scripted if") == {"true": 2, "false": 1}
    assert sides(report, "scripted loop") == {"0 rounds": 0, "1 round": 0, "more rounds": 2}
    lines = {branch.kind: branch.line for branch in report.branches}
    start = Path(HERE).read_text().splitlines().index("def settle(x: Tensor, n: int) -> Tensor:") + 1
    assert lines == {"scripted loop": start + 4, "scripted if": start + 5}


def test_a_script_module_counts() -> None:
    """A model that TorchScript compiled as a whole has its branches in the report, too."""
    scripted = torch.jit.script(Compiled().eval())
    report = hj.export(scripted, UP, check_inputs=[-UP]).report
    assert sides(report, "scripted if") == {"true": 1, "false": 1}


class Compiled(nn.Module):
    """Can be scripted."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = x * 2
        return x + 1


class Validates(nn.Module):
    """Refuses an input, and branches."""

    def forward(self, x: Tensor) -> Tensor:
        if x.min() < -100:
            raise ValueError("too low")
        return x * 2 if x.sum() > 0 else x


def test_a_side_that_only_raises_needs_no_check() -> None:
    """The model's own validation counts for what it is; the other if is what coverage asks for."""
    exported = hj.export(Validates().eval(), UP, branches=[""], check_inputs=[-UP], require_coverage=True)
    first, second = exported.report.branches
    assert first.raises == ("true",) and first.unverified == ()
    assert second.sides == (Side("true", 1), Side("false", 1))


class Table(nn.Module):
    """Looks up a number by a tensor."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (0.5, 0.25, 3.0, 7.0)[x[0, 0].long()]


def test_paths_of_inputs_count_by_input() -> None:
    """Where inputs part, a side is named after the input that it was recorded on."""
    report = hj.export(Table().eval(), UP, check_inputs=[UP * 3, UP * 2, UP * 3]).report
    assert sides(report, "path") == {"as input": 1, "as check_inputs[0]": 2, "as check_inputs[1]": 1}
    guarded = hj.export(Table().eval(), UP).report
    assert guarded.branches == ()
    [guard] = guarded.guards
    assert (guard.code, guard.value, guard.count) == ("HJ104", "1", 1)
    assert (guard.file, guard.line) == (HERE, line_of(Table.forward, "3.0"))


class Flagged(nn.Module):
    """Branches under a flag."""

    def forward(self, x: Tensor, double: bool = False) -> Tensor:
        y = x * 2 if double else x
        return hj.cond(y.sum() > 3, lambda: y + 1, lambda: y)


def test_flags_and_structures_are_counted_together() -> None:
    """A line counts the checks of every entry, each as often as it is called."""
    report = hj.export(
        Flagged().eval(), UP * 0.3, flags={"double": (True, False)}, check_inputs=[-UP], devices=["cpu"]
    ).report
    assert len(report.checks) == 4
    assert sides(report, "cond") == {"true": 1, "false": 3}


class Remembers(nn.Module):
    """Counts in a buffer, and branches by it."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return hj.cond(self.calls > 1, lambda: x * 2, lambda: x)


def test_counting_changes_neither_module_nor_bytes(tmp_path: Path) -> None:
    """What is handed out and saved has no counters in it, keeps its state, and says what it said when it was loaded."""
    model = Remembers().eval()
    exported = hj.export(model, UP)
    assert "counts" not in exported.code and "_set_item" not in str(exported.module.inlined_graph)
    assert "hybridjit" not in str(exported.module.inlined_graph).replace("hybridjit.adapters", "")
    assert (
        exported.module.state_dict()["model.calls" if "model.calls" in exported.module.state_dict() else "calls"] == 0
    )
    exported.save(tmp_path / "a.pt")
    loaded = hj.load(tmp_path / "a.pt")
    assert loaded.report == exported.report
    later = hj.verify(loaded, model, [UP])
    assert sides(later, "cond") == {"true": 0, "false": 1}
    assert later.unverified and later.modules == exported.report.modules


def test_counted_calls_give_the_same_bits() -> None:
    """A method that counts computes what the method itself does."""
    exported = hj.export(Loops().eval(), UP, check_inputs=[UP[:0]])
    coverage = Coverage(exported._points)
    counting = Counting(coverage, exported.module)
    checks = []
    for rows in (0, 1, 4, 9):
        x = torch.randn(rows, 3)
        assert torch.equal(counting.method("forward")(x), exported.module(x))
        checks.append(Check("cpu", str(rows), "", True, 0.0, 0.0, 0.0))
        counting.keep(checks[-1])
    assert [side.checks for side in coverage.branches(checks)[0].sides] == [1, 1, 2]
    assert [side.checks for side in coverage.branches(checks[:3])[0].sides] == [1, 1, 1]


def test_points_survive_json_and_another_graph() -> None:
    """They come back from the file's JSON; of a graph that has other branches nothing is said."""
    exported = hj.export(Conditional().eval(), UP)
    points = exported._points
    assert {method: list(every) for method, every in points.items()} == points_from_json(points_to_json(points))
    coverage = Coverage({"forward": [None, None]})
    counting = Counting(coverage, exported.module)
    assert torch.equal(counting.method("forward")(UP), exported.module(UP))
    assert coverage.branches(()) == ()


def test_branches_that_torch_drops_are_told_apart() -> None:
    """A branch that is constant is gone from the file; those after it keep their places."""
    exported = hj.export(Conditional().eval(), UP)
    traced = torch.jit.script(TwoIfs().eval())
    dropped = torch.jit.script(OneIf().eval())
    assert isinstance(traced, _torch.ScriptModule) and isinstance(dropped, _torch.ScriptModule)
    found = in_file(dropped, traced, ["forward"])["forward"]
    assert [point.line for point in found if point] == [line_of(TwoIfs.forward, "x.max()")]
    assert in_file(exported.module, exported.module, ["forward"])["forward"] == [None]  # no file has what was noted
    loaded = hj.export(dropped, UP).module  # but lines of what TorchScript compiled
    [point] = [each for each in in_file(loaded, loaded, ["forward"])["forward"] if each]
    assert (point.file, point.line) == (HERE, line_of(OneIf.forward, "x.max()"))


class TwoIfs(nn.Module):
    """Two branches, the outer one without results."""

    def forward(self, x: Tensor) -> Tensor:
        if x.min() > 0:
            print("positive")
        if x.max() > 0:
            x = x * 2
        return x


class OneIf(nn.Module):
    """The second of them."""

    def forward(self, x: Tensor) -> Tensor:
        if x.max() > 0:
            x = x * 2
        return x


def test_what_counts_as_unverified() -> None:
    """Of a branch every side that does not raise; of a loop its body."""
    taken, never, raises = Side("true", 1), Side("false", 0), Side("false", 0, True)
    assert Branch("f.py", 1, "", "if", (taken, never)).unverified == ("false",)
    assert Branch("f.py", 1, "", "if", (taken, raises)).unverified == ()
    rounds = [Side("0 rounds", 3), Side("1 round", 0), Side("more rounds", 0)]
    assert Branch("f.py", 1, "", "loop", tuple(rounds)).unverified == ("any round",)
    assert Branch("f.py", 1, "", "loop", (*rounds[:1], Side("1 round", 1), rounds[2])).unverified == ()
