"""Loops that end by what a tensor holds: loops in the file, however many turns another input takes."""

from __future__ import annotations

import ast
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit.export.until import end_at, end_of
from tests.control.checks import kinds
from tests.export.call import Call

LINEAR = nn.Linear(4, 4).requires_grad_(False)
GATE = nn.Linear(4, 1).requires_grad_(False)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same layers whatever ran before."""
    torch.manual_seed(1)
    LINEAR.reset_parameters()
    GATE.reset_parameters()


def inputs() -> list[Tensor]:
    """What takes many turns, few and none, in other shapes, and an empty one."""
    shapes = [(3, 4), (3, 4), (3, 4), (5, 4), (1, 4), (40, 4), (3, 4), (0, 4)]
    scales = (2.0, 10.0, 0.01, 1.0, 3.0, 100.0, 0.0, 1.0)
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(*shape, generator=generator) * scale for shape, scale in zip(shapes, scales, strict=True)]


def outcomes(fn: Callable[[Tensor], Any]) -> tuple[hj.Exported, str]:
    """An export on the first input alone; for each: right, loud, wrong, or what the model refuses."""
    model = Call(fn).eval()
    first, *_ = given = inputs()
    exported, found = hj.export(model, first, branches="auto"), ""
    for x in given:
        try:
            wanted = model(x)
        except (RuntimeError, IndexError):
            found += "-"
            continue
        try:
            torch.testing.assert_close(exported(x), wanted, equal_nan=True)
            found += "."
        except hj.GuardError:
            found += "l"
        except AssertionError:
            found += "W"
    return exported, found


def halved(x: Tensor) -> Tensor:
    while x.abs().sum() > 1:
        x = x / 2
    return x


def in_place(x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone()
    view = x[:1]
    while x.abs().sum() > 1:
        x.mul_(0.5)
    return x, view


def by_slices(x: Tensor) -> Tensor:
    x = x.clone()
    while not x.abs().sum() <= 1:
        x[:1] = x[:1] * 0.5
        x[1:] = x[1:] * 0.3
    return x


def by_submodule(x: Tensor) -> tuple[Tensor, Tensor]:
    while x.abs().mean() > 0.2:
        x = torch.tanh(LINEAR(x)) * 0.5
    return x, x.sum()


def of_all_turns(x: Tensor) -> Tensor:
    rows = [x]
    while rows[-1].abs().sum() > 1:
        rows.append(rows[-1] / 2)
    return torch.stack(rows)


def of_what_turns_begin_with(x: Tensor) -> Tensor:
    rows = [x * 0]
    while x.abs().sum() > 1:
        rows.append(x)
        x = x / 2
    return torch.stack(rows)


def converges(x: Tensor) -> Tensor:
    while True:
        y = torch.cos(LINEAR(x))
        if (y - x).abs().sum() < 1e-3:
            break
        x = y
    return x


def changes_less(x: Tensor) -> tuple[Tensor, Tensor]:
    before = x * 0
    while (x - before).abs().sum() > 0.05:
        before, x = x, x * 0.5
    return x, before


def adaptive(x: Tensor) -> tuple[Tensor, Tensor]:
    halting, out, turns = x.new_zeros(x.shape[0]), torch.zeros_like(x), x.new_zeros(x.shape[0])
    while (halting < 0.99).any():
        running = (halting < 1.0).to(x.dtype)
        step = torch.sigmoid(GATE(x)).squeeze(-1) * running
        halting = halting + step
        out = out + x * step.unsqueeze(-1)
        turns = turns + running
        x = torch.tanh(LINEAR(x))
    return out, turns


def suppressed(x: Tensor) -> Tensor:
    order, kept = x[:, 0].argsort(descending=True), [x.new_zeros(1, dtype=torch.long)]
    while len(order) > 0:
        kept.append(order[:1])
        order = order[(x[order] - x[order[:1]]).abs().amax(1) > 0.7]
    return torch.cat(kept)


def by_a_number(x: Tensor) -> Tensor:
    error = x.abs().sum().item()
    while error > 1:
        x = x / 2
        error = x.abs().sum().item()
    return x * error


def by_a_flag(x: Tensor) -> Tensor:
    done = torch.zeros((), dtype=torch.bool)
    while not done:
        x = x / 2
        done = x.abs().sum() < 1
    return x


def one_in_another(x: Tensor) -> Tensor:
    while x.abs().sum() > 1:
        y = x
        while y.abs().sum() > 0.3:
            y = y * 0.6
        x = x * 0.5 + y * 0.1
    return x


def of_an_attribute(x: Tensor) -> Any:
    state = SimpleNamespace(x=x)
    while state.x.abs().sum() > 1:
        state.x = state.x / 2
    return state.x


def of_a_tuple(x: Tensor) -> tuple[Tensor, Tensor]:
    state = x, x * 0
    while state[0].abs().sum() > 1:
        state = state[0] / 2, state[1] + 1
    return state


def in_many_rounds(x: Tensor) -> Tensor:
    for _ in range(1000):
        y = torch.cos(LINEAR(x))
        if (y - x).abs().sum() < 1e-3:
            break
        x = y
    return x


ROLLED = [
    halved,
    in_place,
    by_slices,
    by_submodule,
    of_all_turns,
    of_what_turns_begin_with,
    converges,
    changes_less,
    adaptive,
    suppressed,
    by_a_number,
    by_a_flag,
    one_in_another,
    of_an_attribute,
    of_a_tuple,
    in_many_rounds,
]


@pytest.mark.parametrize("fn", ROLLED, ids=lambda fn: fn.__name__)
def test_rolled(fn: Callable[[Tensor], Any]) -> None:
    """Right for every number of turns, none among them."""
    exported, found = outcomes(fn)
    assert set(found) <= {".", "-"}, found
    assert kinds(exported.module.inlined_graph)["prim::Loop"] >= 1


def a_number_counts(x: Tensor) -> Tensor:
    turns = 0
    while x.abs().sum() > 1:
        x = x / 2
        turns += 1
    return x * turns


def an_iterator_differs(x: Tensor) -> Tensor:
    factors = iter([2.0] * 8 + [3.0] * 40)
    while x.abs().sum() > 1:
        x = x / next(factors)
    return x


COUNTS = {"turns": 0}


def a_global_counts(x: Tensor) -> Tensor:
    COUNTS["turns"] = 0
    while x.abs().sum() > 1:
        COUNTS["turns"] += 1
        x = x / (2 if COUNTS["turns"] < 8 else 3)
    return x


def two_truths(x: Tensor) -> Tensor:
    while x.abs().sum() > 1 and x.abs().max() > 0.2:
        x = x / 2
    return x


def of_several(x: Tensor) -> Tensor:
    while any([x.sum() > 4, x.abs().max() > 2]):
        x = x * 0.8
    return x


def a_number_of_turns(x: Tensor) -> tuple[Tensor, int]:
    seen = []
    while x.abs().sum() > 1:
        seen.append(x.sum())
        x = x / 2
    return x, len(seen)


LEFT = [a_number_counts, an_iterator_differs, a_global_counts, two_truths, of_several, a_number_of_turns]


@pytest.mark.parametrize("fn", LEFT, ids=lambda fn: fn.__name__)
def test_left(fn: Callable[[Tensor], Any]) -> None:
    """Turns that Python tells apart, and tests of several truths: guarded, never wrong."""
    _, found = outcomes(fn)
    assert "W" not in found and "l" in found, found


def of_what_is_not_carried(x: Tensor) -> Tensor:
    y, state = x * 0, x
    while state.abs().sum() > 1:
        y = state / 2
        state = y
    return y


def of_a_range(x: Tensor) -> Tensor:
    y = state = x.sum(0)
    y = y * 0
    for i in range(x.shape[0] - 1):
        y = torch.tanh(x[i] + state)
        state = y
    return y


@pytest.mark.parametrize("fn", [of_what_is_not_carried, of_a_range], ids=lambda fn: fn.__name__)
def test_no_turn_at_all(fn: Callable[[Tensor], Any]) -> None:
    """Two variables that have one value after a turn, and had others before: no turn is none that the file knows."""
    _, found = outcomes(fn)
    assert "W" not in found and found[:2] == "..", found


def goes_to_its_end(x: Tensor) -> Tensor:
    for _ in range(80):
        x = x * 0.9
        if x.abs().sum() < 0.1:
            break
    else:
        x = x * 100
    return x


def test_the_range_ends_first() -> None:
    """What comes after the last round of a range is not in the trace of a break: the file says so."""
    exported = hj.export(Call(goes_to_its_end).eval(), inputs()[0], branches="auto")
    x = inputs()[1]
    assert torch.equal(exported(x), goes_to_its_end(x))
    with pytest.raises(hj.GuardError, match=r"loop at .*test_until\.py:\d+: captured an end by a tensor"):
        exported(x * 1e6)


def asks_first(x: Tensor) -> Tensor:
    done = torch.zeros(())
    for _ in range(70):
        if done > 0:
            break
        x = x * 0.9
        done = (x.abs().sum() < 0.1).float()
    return x


def test_a_first_truth_that_is_always_the_same() -> None:
    """It is asked in the first round all the same: the range ends one round after as many rounds as it has."""
    exported = hj.export(Call(asks_first).eval(), inputs()[0], branches="auto")
    assert kinds(exported.module.inlined_graph)["prim::Loop"] == 1
    base = inputs()[0] / inputs()[0].abs().sum()
    for rounds in (2, 30, 67, 68, 69):
        x = base * 0.099 / 0.9**rounds
        assert torch.equal(exported(x), asks_first(x))
    for rounds in (70, 71, 90):  # and one round after them to see that it is done
        with pytest.raises(hj.GuardError, match="captured an end by a tensor"):
            exported(base * 0.099 / 0.9**rounds)


def test_in_the_report_and_in_a_file(tmp_path: Any) -> None:
    """The report has the loop and how often it went round; plain torch.jit.load has it, too."""
    exported = hj.export(Call(halved).eval(), inputs()[0], branches="auto", check_inputs=[torch.zeros(2, 4)])
    (branch,) = exported.report.branches
    assert branch.kind == "loop" and [side.name for side in branch.sides] == ["0 rounds", "1 round", "more rounds"]
    exported.save(tmp_path / "model.pt")
    jit: Any = torch.jit
    loaded = jit.load(tmp_path / "model.pt")
    for x in inputs():
        assert torch.equal(loaded(x), halved(x))


def grows(x: Tensor) -> Tensor:
    while x.shape[0] != 12:
        x = torch.cat([x, x[:1]])
    return x


def test_a_probe_without_end() -> None:
    """The model never ends on no rows, nor on more than twelve; nobody asked for those."""
    exported = hj.export(Call(grows).eval(), inputs()[0], branches="auto")
    assert torch.equal(exported(inputs()[0]), grows(inputs()[0]))


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("while x > 1:\n    x = x / 2", True),
        ("while not x > 1:\n    x = x / 2", False),
        ("while True:\n    x = x / 2\n    if x > 1: break", False),
        ("while 1:\n    x = x / 2\n    if not x > 1:\n        y = x\n        break\n    x = x + 1", True),
        ("for _ in y:\n    if x > 1:\n        break\n    x = x + 1", False),
        ("while x > 1:\n    for y in z:\n        break\n    x = x / 2", True),
        ("while x > 1:\n    def f(): return 1\n    x = f()", True),
    ],
)
def test_what_ends_a_loop(text: str, truth: bool) -> None:
    """A test at its head, or the only break of all."""
    (loop,) = ast.parse(text).body
    assert isinstance(loop, (ast.For, ast.While))
    end = end_of(loop)
    assert end is not None and end.truth is truth


@pytest.mark.parametrize(
    "text",
    [
        "while x > 1 and y > 1:\n    x = x / 2",
        "while 0 < x < 1:\n    x = x * 2",
        "while x > 1:\n    x = x / 2\n    if x: break",
        "while x > 1:\n    if x: return x\n    x = x / 2",
        "while x > 1: x = x / 2 if y else x",
        "while True:\n    if x > 1: break\n    if x < 1: break\n    x = x * 2",
        "while True:\n    if y:\n        if x > 1: break\n    x = x * 2",
        "while x > 1:\n    yield x\n    x = x / 2",
        "while x > 1:\n    for y in z: pass\n    else: break",
        "while all(y > 1 for y in x):\n    x = x / 2",
        "for y in z:\n    x = x + y",
    ],
)
def test_what_may_end_otherwise(text: str) -> None:
    """Several truths, other ways out, and what stands in the line of the test."""
    (loop,) = ast.parse(text).body
    assert isinstance(loop, (ast.For, ast.While))
    assert end_of(loop) is None


def test_in_a_try(tmp_path: Any) -> None:
    """An exception may end a loop that something catches."""
    path = tmp_path / "tried.py"
    path.write_text(
        "def f(x):\n    try:\n        while x > 1:\n            x = g(x)\n    except ValueError:\n        pass\n"
    )
    assert end_at((str(path), 3)) is None
    path = tmp_path / "untried.py"
    path.write_text("def f(x):\n    while (\n        x > 1\n    ):\n        x = g(x)\n")
    found = end_at((str(path), 3))
    assert found is not None and found[0] == (str(path), 3)
