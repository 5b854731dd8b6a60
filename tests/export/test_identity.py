"""Truths of sizes where Python's truths are no tensors: asked by `is`, for their class, and in arithmetic."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import hybridjit as hj
from hybridjit.export.identity import _kept

from .call import Call

FAR = 40
"""Beyond what any probe of five rows has."""


def kept(x: Tensor) -> Tensor:
    big = x.shape[0] > FAR
    return x * 2 if big is True else x


def not_false(x: Tensor) -> Tensor:
    big = x.shape[0] > FAR
    return x * 2 if big is not False else x


def matched(x: Tensor) -> Tensor:
    big = x.shape[0] > FAR
    match big:
        case True:
            return x * 2
        case _:
            return x


def given(x: Tensor) -> Tensor:
    return doubled(x, big=x.shape[0] > FAR)


def doubled(x: Tensor, big: bool) -> Tensor:
    return x * 2 if big is True else x


def returned(x: Tensor) -> Tensor:
    big = is_big(x)
    return x * 2 if big is True else x


def is_big(x: Tensor) -> bool:
    return x.shape[0] > FAR


def both(x: Tensor) -> Tensor:
    big = x.shape[1] > 1 and x.shape[0] > FAR
    return x * 2 if big is True else x


@pytest.mark.parametrize("function", [kept, not_false, matched, given, returned, both])
@pytest.mark.parametrize("branches", ["auto", ()])
def test_asked_by_is(function: Callable[[Tensor], Tensor], branches: str) -> None:
    """`flag is True` goes by Python's truth: at sizes that no probe has the file is right, or says where it is not."""
    exported = hj.export(Call(function).eval(), torch.rand(5, 2), branches=branches)
    for rows in (5, 1, 7, FAR, FAR + 1, 90):
        x = torch.rand(rows, 2)
        if rows <= FAR:
            torch.testing.assert_close(exported(x), function(x))
        else:
            with pytest.raises(hj.GuardError, match=r"test_identity\.py:\d+.*captured False, got True"):
                exported(x)


def only_asked(x: Tensor) -> Tensor:
    other = x.shape[0] > FAR
    return x * 2 if other else x * 3 if x.shape[0] > 2 and bool(x.shape[1] > 1) else x


def test_other_names_are_kept_as_branches() -> None:
    """In a file with `big is True`, a comparison that is but tested stays a branch, and so does one by another name."""
    exported = hj.export(Call(only_asked).eval(), torch.rand(5, 2), branches="auto")
    for rows in (5, 1, 2, FAR, FAR + 1, 90):
        x = torch.rand(rows, 2)
        torch.testing.assert_close(exported(x), only_asked(x))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("big = n > 3", True),
        ("self.big = n > 3", True),
        ("other = n > 3", False),
        ("f(big=n > 3)", True),
        ("f(other=n > 3)", False),
        ("f(n > 3)", True),
        ("bool(n > 3)", False),
        ("if n > 3: pass", False),
        ("a, b = n > 3, 1", False),
        ("a, big = 1, n > 3", True),
        ("both = n > 3, 1", True),
        ("big = m and n > 3", True),
        ("other = not n > 3", False),
        ("other = (big := n > 3) + 1", True),
        ("x = (n > 3) is True", True),
        ("x = (n > 3) + 1", False),
    ],
)
def test_what_is_kept(line: str, expected: bool, tmp_path: Path) -> None:
    """A comparison counts where what comes of it goes on under a name that is asked, or under none that is known."""
    asking, other = tmp_path / "asking.py", tmp_path / "other.py"
    asking.write_text(f"{line}\ny = 1 if big is True else 0\n")
    assert (1 in _kept(str(asking))) == expected
    other.write_text(f"{line}\ny = 1 if big else 0  # big is True\n")
    assert not _kept(str(other)) or "is True" in line


def test_arithmetic_of_truths() -> None:
    """Python's truths are the integers 0 and 1: two of them are 2, where torch has one truth."""

    def counted(x: Tensor) -> Tensor:
        far, some = x.shape[0] > FAR, x.shape[0] > 3
        count = far + some
        return x * count + (some - far) * 3 - (-some) + far * some + (True + some) + (far / (some + 1))

    exported = hj.export(Call(counted).eval(), torch.rand(5, 2), branches="auto")
    for rows in (5, 1, FAR, FAR + 1, 90):
        x = torch.rand(rows, 2)
        torch.testing.assert_close(exported(x), counted(x))


def test_the_class_of_a_truth(tmp_path: Path) -> None:
    """A comparison of sizes is a `bool` where code asks for that, as in eager mode."""
    source = "def asked(x):\n    big = x.shape[0] > 40\n    return x * 2 if isinstance(big, bool) and big else x\n"
    (tmp_path / "asked_for_bool.py").write_text(source)
    sys.path.insert(0, str(tmp_path))
    try:
        asked = importlib.import_module("asked_for_bool").asked
    finally:
        sys.path.remove(str(tmp_path))
    exported = hj.export(Call(asked).eval(), torch.rand(5, 2), branches="auto")
    for rows in (5, 1, FAR, FAR + 1, 90):
        x = torch.rand(rows, 2)
        torch.testing.assert_close(exported(x), asked(x))
