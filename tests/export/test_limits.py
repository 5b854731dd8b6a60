"""Counters that end a loop beside a tensor's truth: the file counts, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import hybridjit as hj
from hybridjit.export.limits import unread
from hybridjit.export.until import end_at
from tests.control.checks import kinds
from tests.export.call import Call
from tests.export.test_until import inputs, outcomes


class Settings:
    """What a loop is compared with."""

    most = 6


SETTINGS = Settings()


def beside(x: Tensor) -> Tensor:
    k = 0
    while x.abs().sum() > 1 and k < 6:
        x = x / 2
        k += 1
    return x


def before(x: Tensor) -> Tensor:
    k, y = 0, x
    while k <= SETTINGS.most and not y.abs().sum() <= 1:
        y = y / 2
        k = k + 2
    return y


def downwards(x: Tensor) -> Tensor:
    left = 7
    while left != 0 and x.abs().sum() > 1:
        left -= 1
        x = x / 2
    return x


def of_all_turns(x: Tensor) -> Tensor:
    k, rows = 0, [x]
    while x.abs().sum() > 1 and k < 6:
        x = x / 2
        rows.append(x)
        k += 1
    return torch.stack(rows)


def of_no_matter(x: Tensor) -> Tensor:
    turns = 0
    while x.abs().sum() > 1:
        x = x / 2
        turns += 1
    return x


@pytest.mark.parametrize("fn", [beside, before, downwards, of_all_turns, of_no_matter])
def test_right_for_any_number_of_turns(fn: Callable[[Tensor], object]) -> None:
    """Whichever of the two ends the loop, for a turn, for none and for all that the counter lets be."""
    exported, found = outcomes(fn)
    assert set(found) <= {".", "-"} and kinds(exported.module.inlined_graph)["prim::Loop"] == 1
    model = Call(fn).eval()
    for scale in (1e-6, 0.3, 3.0, 1e6):
        x = inputs()[0] * scale
        torch.testing.assert_close(exported(x), model(x))


def test_turns_of_rows_that_are_counted_for_nobody() -> None:
    """Of a loop over rows, too."""

    def rows(x: Tensor) -> Tensor:
        seen, out = 0, []
        for row in x:
            out.append(row.cumsum(0))
            seen = seen + 1
        return torch.stack(out)

    exported, _ = outcomes(rows)
    x = torch.randn(40, 4)
    torch.testing.assert_close(exported(x), rows(x))


def breaks(x: Tensor) -> Tensor:
    k = 0
    while x.abs().sum() > 1:
        x = x / 2
        k += 1
        if k >= 12:
            break
    return x


def breaks_first(x: Tensor) -> Tensor:
    k = 0
    while True:
        if k == 12:
            break
        x = x / 2
        k += 1
        if x.abs().sum() < 1:
            break
        x = x * 0.9
    return x


@pytest.mark.parametrize("fn", [breaks, breaks_first])
def test_ends_within_a_turn(fn: Callable[[Tensor], Tensor]) -> None:
    """Where a counter ends the loop elsewhere in the turn, the file stops there; an input that comes there tells it."""
    first, few, many = inputs()[0], inputs()[1], inputs()[0] * 1e6
    exported = hj.export(Call(fn).eval(), first, branches="auto")
    assert torch.equal(exported(few), fn(few))
    with pytest.raises(hj.GuardError, match=r"loop at .*test_limits\.py:\d+: captured an end by a tensor, got all"):
        exported(many)
    exported = hj.export(Call(fn).eval(), first, branches="auto", check_inputs=[(many,)])
    assert torch.equal(exported(many), fn(many)) and torch.equal(exported(few), fn(few))


def test_where_a_file_cannot_raise() -> None:
    """In ONNX, the turns that a loop must not take are a precondition, with the line."""
    exported = hj.export(Call(breaks).eval(), inputs()[0], branches="auto", format="onnx")
    torch.testing.assert_close(exported(inputs()[1]), breaks(inputs()[1]))
    said = [each.message for each in exported.report.findings if each.code == "HJ307"]
    assert len(said) == 1 and "loop at " in said[0] and said[0].endswith("captured an end by a tensor"), said


def read_after(x: Tensor) -> Tensor:
    k = 0
    while x.abs().sum() > 1 and k < 6:
        x = x / 2
        k += 1
    return x * k


def read_within(x: Tensor) -> Tensor:
    k = 0
    while x.abs().sum() > 1 and k < 8:
        x = x / 2
        if k % 2:
            x = x + 0.01
        k += 1
    return x


def passed(x: Tensor) -> Tensor:
    k = 0
    while x.abs().sum() > 1 and k < 6:
        x = x / 2
        if x.max() > 3:
            continue
        k += 1
    return x


def not_begun_anew(x: Tensor) -> Tensor:
    out, k = [], 0
    for row in x:
        while k < 9 and row.abs().sum() > 1:
            row = row / 2
            k += 1
        out.append(row)
    return torch.stack(out)


def runs_again(x: Tensor) -> Tensor:
    for most in (1, 2, 3):
        k = 0
        while k < most and x.abs().sum() > 1:
            x = x / 2
            k += 1
    return x


def in_two_loops(x: Tensor) -> Tensor:
    k = 0
    while k < 3 and x.abs().sum() > 1:
        x = x / 2
        k += 1
    while k < 9 and x.abs().sum() > 0.5:
        x = x / 2
        k += 1
    return x


def by_a_name(x: Tensor) -> Tensor:
    k = 0
    while x.abs().sum() > 1:
        x = x / 2
        k += 1
    return x * locals()["k"]


def up_to_data(x: Tensor) -> Tensor:
    k, most = 0, int(x.abs().max())
    while k < most and x.abs().sum() > 1:
        x = x / 2
        k += 1
    return x


def a_tensor(x: Tensor) -> tuple[Tensor, Tensor]:
    y = x.sum()
    while y > 1 and x.abs().sum() > 1:
        x = x / 2
        y = y - 1
    return x, y


@pytest.mark.parametrize(
    "fn",
    [read_after, read_within, passed, not_begun_anew, runs_again, in_two_loops, by_a_name, up_to_data, a_tensor],
)
@pytest.mark.parametrize("example", [0, 1, 3])
def test_counters_that_matter_elsewhere(fn: Callable[[Tensor], object], example: int) -> None:
    """What something else goes by, or what is counted otherwise, is right or loud, whichever input is the example."""
    exported = hj.export(Call(fn).eval(), inputs()[example], branches="auto")
    loud = 0
    for x in [*inputs()[:7], inputs()[0] * 3, inputs()[0] * 1e6]:
        try:
            torch.testing.assert_close(exported(x), fn(x), equal_nan=True)
        except hj.GuardError:
            loud += 1
    assert loud < 9


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("k = 0\nwhile k < 5 and x > 1:\n    x = g(x)\n    k += 1", 1),
        ("k = 0\nwhile x > 1 and k < 5 and k != n:\n    x = g(x)\n    k += 1", 2),
        ("k, n = 0, 5\nwhile x > 1:\n    x = g(x)\n    k += 1\n    if k > n: break", 1),
        ("k = 0\nwhile k < n and x > 1:\n    x = g(x)\n    k += 1\n    n = 4", None),
        ("k = 0\nwhile k < 5 and x > 1:\n    x = g(x)\n    k *= 2", None),
        ("k = 0\nwhile k < 5 and x > 1:\n    x = g(x)\n    k += 0", None),
        ("k = 0\nwhile k < 5 and x > 1:\n    x = g(x)\n    if y:\n        k += 1", None),
        ("k = 0\nwhile k < 5 and x > 1:\n    x = g(x)\n    k += 1\n    k += 1", None),
        ("k = 0\nwhile k < 5 or x > 1:\n    x = g(x)\n    k += 1", None),
        ("k = n\nwhile k < 5 and x > 1:\n    x = g(x)\n    k += 1", None),
        ("k = 0\nif x:\n    k = 3\nwhile k < 5 and x > 1:\n    x = g(x)\n    k += 1", None),
        ("while k < 5 and x > 1:\n    x = g(x)\n    k += 1", None),
        ("global k\nk = 0\nwhile k < 5 and x > 1:\n    x = g(x)\n    k += 1", None),
        ("k = 0\nh = lambda: k\nwhile k < 5 and x > 1:\n    x = g(x)\n    k += 1", None),
    ],
)
def test_what_counts(text: str, limits: int | None, tmp_path: Any) -> None:
    """A counter has one step a turn, a constant to begin with, and is compared with what stays."""
    path = tmp_path / "counts.py"
    path.write_text("def f(x, y, n):\n" + "".join(f"    {line}\n" for line in text.splitlines()))
    (line,) = (at for at, each in enumerate(text.splitlines(), 2) if each.startswith("while"))
    found = end_at((str(path), line))
    assert (None if found is None else len(found[1].limits)) == limits


def test_unread(tmp_path: Any) -> None:
    """What is only counted with, in the function that has it."""
    path = tmp_path / "unread.py"
    path.write_text("def f(x):\n    a = b = c = 0\n    a += 1\n    b = b + 1\n    c = b\n    return lambda: c\n")
    assert unread((str(path), 3)) == {"a"}
