"""`branches=`: submodules that can't be edited keep their ifs."""

from __future__ import annotations

import contextlib
import gc
import linecache
import re
from collections.abc import Callable
from types import FunctionType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit.export.branches import Branching, BranchingError, branching, helpers_at, matching, meeting, parent


class Halving(nn.Module):
    """Asks for a tensor's truth, in code that its user can't edit."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.abs().max() > 1:
            return self.linear(x) / 2
        return self.linear(x)


class Stack(nn.Module):
    """Three of them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Halving() for _ in range(3)])
        self.out = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.out(x)


SMALL, LARGE = torch.full((2, 3), 0.1), torch.full((2, 3), 50.0)


@pytest.mark.parametrize("branches", [["layers.*"], ["layers.0", "layers.1", "layers.2"], [""], "auto"])
@pytest.mark.parametrize("first", [SMALL, LARGE])
def test_ifs_stay(branches: list[str] | str, first: Tensor) -> None:
    """By name, by pattern, on the model itself or found: the file takes both sides, whichever was traced."""
    model = Stack().eval()
    exported = hj.export(model, first, branches=branches, check_inputs=[SMALL, LARGE])
    for x in (SMALL, LARGE, -LARGE, torch.randn(5, 3) * 3):
        torch.testing.assert_close(exported(x), model(x))
    assert {(branch.file, branch.raises) for branch in exported.report.branches} == {(__file__, ())}
    assert len({branch.line for branch in exported.report.branches}) == 1
    assert not any("forward" in vars(module) for module in model.modules())


def test_without_branches_it_fails() -> None:
    """The same model without them is refused on the other input; with guards its file takes both paths that were given,
    or raises on what it was not given."""
    model = Stack().eval()
    with pytest.raises(hj.VerificationError, match=r"frozen at .*test_branches.py"):
        hj.export(model, SMALL, check_inputs=[LARGE], on_frozen="ignore")
    both = hj.export(model, SMALL, check_inputs=[LARGE])
    torch.testing.assert_close(both(LARGE), model(LARGE))
    with pytest.raises(hj.GuardError, match=r"frozen at .*test_branches.py"):
        hj.export(model, SMALL)(LARGE)


def test_auto_says_what_it_did() -> None:
    """The report names each module that got branches, and a model without such ifs has none."""
    report = hj.export(Stack().eval(), SMALL, branches="auto").report
    notes = [finding for finding in report.findings if finding.code == "HJ003"]
    assert [note.module_path for note in notes] == ["layers.0", "layers.1", "layers.2"]
    assert {note.severity for note in notes} == {"note"}
    assert notes[0].message == "branches='auto': the ifs of layers.0 stay ifs in the file"
    plain = hj.export(nn.Linear(3, 2).eval(), SMALL, branches="auto").report
    assert (plain.findings, plain.branches) == ((), ())


class Pair(nn.Module):
    """Its result has another structure on each side."""

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return (x, x + 1) if x.sum() > 0 else x


class Outer(nn.Module):
    """Makes one structure of it again."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()

    def forward(self, x: Tensor) -> Tensor:
        result = self.pair(x)
        return result[0] * result[1] if isinstance(result, tuple) else result


def test_auto_goes_outwards() -> None:
    """A module whose sides differ in structure leaves its ifs to the module around it."""
    model = nn.Sequential(Outer()).eval()
    exported = hj.export(model, SMALL, branches="auto", check_inputs=[-SMALL])
    assert [f.module_path for f in exported.report.findings if f.code == "HJ003"] == ["0"]
    assert not [f for f in exported.report.findings if f.code == "HJ004"]


class Lending(nn.Module):
    """Is used by a method of its own, as CLIP's encoders and backbones are; its `forward` is not called."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Halving()

    def features(self, x: Tensor) -> Tensor:
        if (x == 50).all():  # of no probe
            return self.inner.linear(x)
        return self.inner(-x)

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class Borrowing(nn.Module):
    """Calls it so, within another module."""

    def __init__(self) -> None:
        super().__init__()
        self.lending = nn.Module()
        self.lending.inner = Lending()

    def forward(self, x: Tensor) -> Tensor:
        lent = self.lending.get_submodule("inner")
        assert isinstance(lent, Lending)
        return lent.features(x) + 1


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: nn.Sequential(model, nn.Linear(3, 3))])
def test_auto_goes_to_whose_forward_runs(wrap: Callable[[nn.Module], nn.Module]) -> None:
    """An `if` in another method of a submodule than its `forward` is a branch of the module that calls it."""
    model = wrap(Borrowing()).eval()
    exported = hj.export(model, SMALL, branches="auto")
    for x in (SMALL, LARGE, -LARGE, torch.randn(5, 3) * 3):
        torch.testing.assert_close(exported(x), model(x))


def test_auto_says_what_it_cannot_do() -> None:
    """Where no module around can branch either, the report says so; a probe may show the other path all the same."""
    model = Keeps().eval()
    model.register_forward_hook(lambda *called: None)  # which may look at what it left
    exported = hj.export(model, SMALL, branches="auto")
    report = exported.report
    (warning,) = [finding for finding in report.findings if finding.code == "HJ004"]
    assert warning.severity == "warning"
    assert warning.message.startswith("branches='auto': an if can't be a branch: the paths of a function leave")
    assert (warning.file, linecache.getline(warning.file, warning.line).strip()) == (__file__, "if x.sum() > 0:")
    assert [side.name for side in report.branches[0].sides] == ["as input", "as negative"]
    torch.testing.assert_close(exported(-SMALL), model(-SMALL))


class Keeps(nn.Module):
    """Leaves another list behind on each side."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            self.seen.append("positive")
            return x
        return x * 2


def test_a_named_module_that_cannot_is_refused() -> None:
    """Asked for by name, it is an error with the reason."""
    with pytest.raises(hj.CaptureError, match="leave different things behind") as caught:
        hj.export(nn.Sequential(Keeps()).eval(), SMALL, branches=["0"])
    assert isinstance(caught.value, BranchingError) and caught.value.path == "0"


class LeavesMuch(nn.Module):
    """Leaves another number, list and attribute on each side, and gives a number."""

    last: int | None = None

    def __init__(self, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.inner = inner
        self.seen: list[str] = []

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        turn = 0
        for turn in range(3):
            if x.sum() < 0:
                self.last = 0
                self.seen.append("below")
                break
            self.first = turn
            x = x - 1
        return x if self.inner is None else self.inner(x), turn


@pytest.mark.parametrize("inner", [None, Keeps()])
@pytest.mark.parametrize("told", [False, True])
def test_what_is_left_where_nothing_runs_after(inner: nn.Module | None, told: bool) -> None:
    """What the paths of the model itself leave different is nobody's, and no reason to do without branches."""
    model = LeavesMuch(inner).eval()
    inputs = [torch.full((2,), value) for value in (4.0, 0.5, -1.0, 1.5)]
    exported = hj.export(model, inputs[0], branches="auto", check_inputs=inputs[1:] if told else [])
    assert not exported.report.guards
    for x in inputs:
        y, turn = exported(x)
        wanted, turns = model(x)
        torch.testing.assert_close(y, wanted)
        assert turn == turns


class Validates(nn.Module):
    """Refuses an input itself."""

    def forward(self, x: Tensor) -> Tensor:
        if x.min() < 0:
            raise ValueError("negative values")
        return x.sqrt()


def test_a_side_that_raises() -> None:
    """A model's own validation stays in the file, with its message and line; found, it is guarded as it stands."""
    found = hj.export(Validates().eval(), SMALL, branches="auto")
    assert not found.report.branches
    with pytest.raises(hj.GuardError, match=r"test_branches.py:\d+: ValueError: negative values"):
        found(-SMALL)
    exported = hj.export(Validates().eval(), SMALL, branches=[""])
    assert exported.report.branches[0].raises == ("true",)
    with pytest.raises(hj.GuardError) as caught:
        exported(-SMALL)
    message, page = str(caught.value).splitlines()
    assert re.fullmatch(r"ValueError: negative values \(raised at .*test_branches.py:\d+\)", message)
    assert page == "  see docs/errors.md#guarderror"


@pytest.mark.parametrize("branches", [None, "auto"])
def test_a_side_that_the_example_contradicts(branches: str | None) -> None:
    """A side that can't be recorded on the first input is recorded on the check input that takes it, or raises."""
    model, empty = First().eval(), torch.zeros(0, 3)
    for first, other in ((empty, SMALL), (SMALL, empty)):
        both = hj.export(model, first, branches=branches, check_inputs=[other])
        for x in (empty, SMALL, torch.randn(7, 3)):
            torch.testing.assert_close(both(x), model(x))
    with pytest.raises(hj.GuardError, match="IndexError: index 0 is out of bounds"):
        hj.export(model, empty, branches=[""])(SMALL)


class First(nn.Module):
    """The first row, if there is one."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] == 0:
            return x.new_zeros(3)
        return x[0]


class Expands(nn.Module):
    """Takes one row for all; expanding it only where there are more, so that the other side fails on those."""

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.arange(x.shape[1])[None]
        if x.shape[0] != rows.shape[0]:
            rows = rows.expand(x.shape[0], -1)
        return x + torch.stack([rows[index] for index in (0, -1)]).sum() * rows[x.shape[0] - 1]


def test_a_probe_takes_the_other_side() -> None:
    """Untold, a side that fails on the example is recorded from a probe that takes it."""
    model = Expands().eval()
    for branches in (None, "auto"):
        exported = hj.export(model, torch.ones(3, 4), branches=branches)
        for x in (torch.ones(3, 4), torch.ones(1, 4), torch.randn(1, 9), torch.randn(5, 2)):
            torch.testing.assert_close(exported(x), model(x))


def test_names() -> None:
    """Patterns mean paths; what means none is refused with paths that exist."""
    model = Stack()
    assert matching(model, ["layers.?.linear"]) == [f"layers.{n}.linear" for n in range(3)]
    assert matching(model, ["out", "*"])[0] == "out"
    assert parent("a.b.c") == "a.b" and parent("a") == "" and parent("") is None
    with pytest.raises(hj.InputError) as caught:
        hj.export(model.eval(), SMALL, branches=["layer.1"])
    assert str(caught.value).splitlines()[:2] == ["branches names no module: 'layer.1'", "  at Stack"]
    assert "layers.1" in str(caught.value)
    with pytest.raises(hj.InputError, match="branches takes a list of module names"):
        hj.export(model, SMALL, branches="layers.1")


def test_models_come_back() -> None:
    """The forward that a module had is there again, also one set on the instance, and after an error."""
    model = Stack()
    own = model.layers[0].forward
    vars(model.layers[0])["forward"] = own
    with pytest.raises(RuntimeError, match="stop"), branching(model, ["layers.0", "layers.1"]):
        assert isinstance(vars(model.layers[1])["forward"], Branching)
        torch.testing.assert_close(model(SMALL), model(SMALL))
        raise RuntimeError("stop")
    assert vars(model.layers[0])["forward"] is own
    assert "forward" not in vars(model.layers[1])


class OneByOne(nn.Module):
    """Takes a batch of one, and one step, in ways that others can't take."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] == 1:
            x = x.reshape(x.shape[1], 3)[None] * 2
        if x.shape[1] == 1:
            x = x.reshape(x.shape[0], 3)[:, None] + 1
        return x


def test_a_probe_of_a_probe() -> None:
    """A probe with paths of its own is tried at other sizes, which may have other paths again."""
    model = OneByOne().eval()
    exported = hj.export(model, torch.rand(2, 4, 3), branches="auto")
    for shape in ((2, 7), (1, 9), (1, 1), (3, 1), (1, 2), (5, 4)):
        x = torch.rand(*shape, 3)
        torch.testing.assert_close(exported(x), model(x), rtol=0, atol=0)


def stepped(x: Tensor, at: int, *, by: float = 0.5) -> Tensor:
    if x.sum() > at:
        return x * by
    return x + by


def named(x: Tensor) -> str:
    """What only Python reads: its paths can't meet."""
    return "low" if x.sum() < 0 else "high"


class ManySteps(nn.Module):
    """More paths than the limit, all but a few in helpers."""

    def __init__(self) -> None:
        super().__init__()
        self.closure = self.made(3.0)

    @staticmethod
    def made(scale: float) -> Callable[[Tensor], Tensor]:
        def scaled(x: Tensor) -> Tensor:
            return x * scale if x.max() > 1 else x - scale

        return scaled

    def forward(self, x: Tensor) -> Tensor:
        for at in range(8):
            x = self.closure(stepped(x, at, by=0.25))
        return x if named(x) == "low" else x + 1


def test_paths_meet_in_helpers() -> None:
    """Where a module has too many paths, those of the functions it calls meet where they return, if they can."""
    model, codes = ManySteps().eval(), [each.__code__ for each in (stepped, named, ManySteps().closure)]
    exported = hj.export(model, SMALL, branches="auto")
    for x in (SMALL, -SMALL, SMALL * 10, SMALL * 0, -SMALL * 10):
        torch.testing.assert_close(exported(x), model(x), rtol=0, atol=0)
    assert [each.__code__ for each in (stepped, named, model.closure)] == codes


def test_helpers_are_the_models_own() -> None:
    """A line's function is the model's, not what stood for it meanwhile and is still there."""
    line, name = (__file__, stepped.__code__.co_firstlineno + 1), stepped.__qualname__
    gc.collect()
    with meeting([line], []):
        functions = [each for each in gc.get_objects() if type(each) is FunctionType]
        left = [each for each in functions if each.__qualname__ == name and each is not stepped]
    assert left and helpers_at([line])[line] is stepped


class Steps(nn.Module):
    """One if after another: as many paths as two to the number of them, if they met in the end only."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.calls: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for turn in range(8):
            size = x.shape[0] + turn
            if size > 5:
                y = y + self.linear(y) * size
                self.calls["last"] = y
            elif size > 3:
                y = y - 1
                self.calls["last"] = y * 2
            else:
                unread = y * 2
                y = y - unread.sum() * 0.1
                self.calls["last"] = y
            odd = size if size % 2 == 1 else size - 1
            y = y + odd
        if self.calls["last"].shape[0] > 20:
            return y * 2
        return y


@pytest.mark.parametrize("branches", ["auto", [""]])
def test_paths_meet_where_an_if_ends(branches: list[str] | str) -> None:
    """Sixteen ifs in a row are sixteen branches, right at all sizes, found or by name."""
    model = Steps().eval()
    exported = hj.export(model, torch.rand(3, 4), branches=branches)
    for size in (1, 2, 3, 4, 5, 6, 9, 20, 21, 30):
        x = torch.rand(size, 4)
        torch.testing.assert_close(exported(x), model(x), rtol=1e-3, atol=1e-3)
    assert not [finding for finding in exported.report.findings if finding.code in ("HJ004", "HJ101")]
    graph = str(exported.module.graph)
    assert graph.count("prim::If") <= 8 * 3 + 1


class Octaves(nn.Module):
    """As many results as the size says, and an if in each: a pyramid of pictures."""

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = [x]
        while True:
            y = levels[-1]
            if y.shape[-1] % 2 == 1:
                y = nn.functional.pad(y, (0, 1))
            if y.shape[-2] % 2 == 1:
                y = nn.functional.pad(y, (0, 0, 0, 1))
            if y.shape[-1] > y.shape[-2]:
                y = y * 2
            levels.append(nn.functional.avg_pool2d(y, 2))
            if min(levels[-1].shape[-1], levels[-1].shape[-2]) <= 2:
                return levels


def test_an_if_that_is_no_branch_leaves_the_others() -> None:
    """How many results there are is guarded at its line; the other ifs are branches."""
    model = Octaves().eval()
    exported = hj.export(model, torch.rand(1, 1, 16, 16), branches="auto")
    for size in ((16, 16), (13, 16), (16, 11), (15, 13), (9, 20)):
        x = torch.rand(2, 1, *size)
        torch.testing.assert_close(exported(x), model(x))
    with pytest.raises(hj.GuardError, match=r"test_branches.py:\d+: bool\(tensor\), captured"):
        exported(torch.rand(1, 1, 40, 40))
    (said,) = [finding for finding in exported.report.findings if finding.code == "HJ004"]
    assert "if min(levels" in linecache.getline(said.file, said.line)


class OneToken(nn.Module):
    """A layer's branch that the example contradicts, behind a mask that is there or not."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Attends() for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        mask = None if unmasked(x) else (x.sum(-1) > 0).unsqueeze(1)
        for layer in self.layers:
            x = layer(x, mask)
        return x


def unmasked(x: Tensor) -> bool:
    if x.shape[1] == 1:
        return True
    if x.shape[0] > 40:
        return True
    return bool((x.sum(-1) > 0).all())


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return attended(self.linear(x), mask)


def attended(x: Tensor, mask: Tensor | None) -> Tensor:
    if x.shape[1] == 1 and mask is None:
        return x.reshape(x.shape[0], 2, 2).transpose(1, 2).reshape(x.shape[0], 1, 4)
    if mask is None:
        return x - x.mean(1, keepdim=True)
    if x.shape[0] % 2 == 1:
        x = x + 1
    return torch.where(mask.transpose(1, 2), x, x * 2)


def test_paths_of_all_modules_meet() -> None:
    """What one module's paths hand on does not multiply those of the modules that get it."""
    torch.manual_seed(0)
    model = OneToken().eval()
    exported = hj.export(model, torch.randn(2, 6, 4), branches="auto")
    for shape in ((2, 6), (3, 5), (1, 1), (4, 1), (41, 3), (5, 9)):
        for x in (torch.randn(*shape, 4), torch.rand(*shape, 4)):
            torch.testing.assert_close(exported(x), model(x))


class Counts(nn.Module):
    """Numbers that ifs count up, in a variable and in a dictionary, whichever side the example takes."""

    def forward(self, x: Tensor) -> Any:
        found = {"sum": 0}
        best: Any = None
        count = 0
        for turn in range(9):
            if x.mean() > 0.1 * turn:
                found["sum"] = found["sum"] + turn
                count += 1
                best = x * turn
            elif x.shape[0] > turn:
                count -= 2
                best = x + turn
            else:
                best = x
        flag = False
        if x.shape[0] > 40:
            flag = True
        if flag:
            count = count * 2
        return best * found["sum"] + count


@pytest.mark.parametrize("mean", [0.05, 0.43, 0.85])
def test_what_a_side_counts(mean: float) -> None:
    """What the other side leaves in a dictionary is in the file, though the example's memory is as it was."""
    model = Counts().eval()
    exported = hj.export(model, torch.full((3, 4), mean), branches="auto")
    for size in (1, 2, 5, 9, 50):
        for level in (-0.5, 0.05, 0.25, 0.55, 0.75, 2.0):
            x = torch.full((size, 4), level)
            torch.testing.assert_close(exported(x), model(x))


class Slots:
    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count: int = 0


def refusing(x: Tensor, kept: list[int]) -> Tensor:
    if x.mean() > 5:
        kept.append(1)  # a list of another length is no result of a branch
    return x


def swallows(x: Tensor, limit: float) -> Any:
    try:
        return refusing(x, []) if x.mean() > limit else [x][0]
    except RuntimeError:
        return x * 0


def ranks(x: Tensor, limit: float) -> Any:
    z = x
    if x.mean() > limit:
        z = x.unsqueeze(0)
    return z[0] + 1 if z.dim() == 3 else z * 2


def slots(x: Tensor, limit: float) -> Any:
    held = Slots()
    if x.mean() > limit:
        held.count = 3
    return x + held.count


def order(x: Tensor, limit: float) -> Any:
    found: dict[str, Tensor] = {}
    if x.mean() > limit:
        found["a"] = x * 2
        found["b"] = x + 1
    else:
        found["b"] = x + 2
        found["a"] = x * 3
    return next(iter(found.values()))


def before(x: Tensor, limit: float) -> Any:
    k = 1
    times = lambda: x * k  # noqa: E731
    if x.mean() > limit:
        k = 3
        x = times() + 1
    return x + k


def iterates(x: Tensor, limit: float) -> Any:
    turns = iter([1, 2, 3])
    if x.mean() > limit:
        x = x + next(turns)
    return x * next(turns)


def caught(x: Tensor, limit: float) -> Any:
    try:
        if x.mean() > limit:
            raise ValueError
        x = x + 1
    except ValueError:
        x = x * 2
    return x


class Eight(nn.Module):
    """Eight calls, of which no probe takes the far sides."""

    def __init__(self, step: Callable[[Tensor, float], Any]) -> None:
        super().__init__()
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for turn in range(8):
            y = y + 0.1 * self.step(x, 5 + 0.1 * turn)
        return y


@pytest.mark.parametrize("step", [swallows, ranks, slots, order, before, iterates, caught], ids=lambda fn: fn.__name__)
def test_paths_meet_only_where_that_changes_nothing(step: Callable[[Tensor, float], Any]) -> None:
    """What can't be seen to change, or be one result, is right or guarded on the sides that nothing took."""
    model = Eight(step).eval()
    exported = hj.export(model, torch.rand(3, 4), branches="auto")
    torch.testing.assert_close(exported(torch.ones(2, 4)), model(torch.ones(2, 4)))
    for level in (5.05, 5.35, 9.0):
        x = torch.full((2, 4), level)
        with contextlib.suppress(hj.GuardError, RuntimeError):
            torch.testing.assert_close(exported(x), model(x))


class Fits(nn.Module):
    """As libraries check that two tensors can be broadcast."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        for at in range(x.ndim - 1):
            n, m = x.size(at), y.size(at)
            if n == m or n == 1 or m == 1:
                continue
            raise ValueError("they do not fit")
        return x + y


class FitsNot(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        if not (x.size(0) == y.size(0) or y.size(0) == 1):
            raise ValueError("they do not fit")
        return x + y


@pytest.mark.parametrize("model", [Fits(), FitsNot()], ids=lambda model: type(model).__name__)
def test_one_of_several_reasons_not_to_raise(model: nn.Module) -> None:
    """A file raises where the model does, and not where another part of its test holds, which no input showed."""
    exported = hj.export(model.eval(), (torch.ones(2, 3), torch.ones(2, 3)), branches="auto")
    x = torch.ones(2, 3)
    for rows in (1, 2):
        torch.testing.assert_close(exported(x, torch.ones(rows, 3)), model(x, torch.ones(rows, 3)))
    for rows in (0, 3):
        with pytest.raises(hj.GuardError, match="ValueError: they do not fit"):
            exported(x, torch.ones(rows, 3))
