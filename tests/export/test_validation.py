"""Where a model only validates."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit._sites import Site
from hybridjit.export.validation import only_validates, own_words

SOURCE = """
def forward(x, y):
    assert x > 0, "positive"
    assert x > 0 or y > 0
    if x > 0:
        raise ValueError
    if x > 0 and y > 0:
        raise ValueError
    if x > 0:
        y = 1
    else:
        raise ValueError
    if x > 0 or y > 0:
        y = 1
    else:
        raise ValueError
    if x > 0:
        y = 2
    if (
        x
        > 0
    ):
        raise ValueError
    if not (x > 0 or y > 0):
        raise ValueError
    if not (x > 0 and y > 0):
        raise ValueError
    if not x > 0 or y > 0:
        raise ValueError
    if all(each > 0 for each in x):
        raise ValueError
    if any(each > 0 for each in x):
        raise ValueError
    assert 0 < x < y
    if 0 < x < y:
        raise ValueError
    if (x > 0 or y > 0) == z:
        raise ValueError
    assert x[0] if y > 0 else x[1]
"""
CASES = {
    3: (True, False),  # an assertion that holds
    4: (False, False),  # with or, one part may fail
    5: (False, True),  # a raise that is not taken
    7: (False, False),  # with and, one part may hold
    9: (True, False),  # an else that is not taken
    13: (False, False),
    17: (False, False),  # both ways go on
    20: (False, True),  # any line of the test
    24: (False, False),  # the other may hold
    26: (True, False),
    28: (True, True),  # each as it is when the test is over
    30: (False, False),  # another one may be below
    32: (False, True),
    34: (True, False),
    35: (False, False),
    37: (False, False),
    39: (False, False),
}


@pytest.mark.parametrize("line", CASES)
def test_lines(line: int, tmp_path: Path) -> None:
    """A test validates if the model raises as soon as it comes out otherwise."""
    file = tmp_path / "model.py"
    file.write_text(SOURCE)
    site = Site(str(file), line)
    assert (only_validates(site, True), only_validates(site, False)) == CASES[line]


def test_what_cannot_be_read(tmp_path: Path) -> None:
    """Source that is not there, or is none, validates nothing."""
    broken = tmp_path / "cell.py"
    broken.write_text("%matplotlib inline\nassert x")
    assert not only_validates(Site(str(broken), 2), True)
    assert not only_validates(Site("<unknown>", 0), True)


class Checked(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[0] < 100
        if (x < 0).any():
            raise ValueError("negative values")
        return x.sqrt()


@pytest.mark.parametrize("branches", [None, "auto"])
def test_validation_is_kept(branches: str | None) -> None:
    """Where the model raises the file does, and only there; no branch is made of it."""
    exported = hj.export(Checked().eval(), torch.ones(4), branches=branches)
    assert not exported.report.branches
    for rows in (1, 7, 99):
        assert torch.equal(exported(torch.full((rows,), 4.0)), torch.full((rows,), 2.0))
    for refused, says in ((-torch.ones(4), "ValueError: negative values"), (torch.ones(100), "AssertionError: x.sh")):
        with pytest.raises(hj.GuardError, match=rf"^\S*test_validation.py:\d+: {re.escape(says)}"):
            exported(refused)


def test_own_words(tmp_path: Path) -> None:
    """A guard says what the model says there, with what is put into the message as it is in the source."""
    file = tmp_path / "model.py"
    file.write_text(
        "assert n == 3, f'three {kind!r}, got {n:.2f}'\nassert n\nif n:\n    raise ValueError\n"
        "if n:\n    raise errors.Bad('no', n)\nif n:\n    raise error\nif n:\n    pass\nelse:\n    raise\n"
    )
    assert [own_words(Site(str(file), line), line in (1, 2, 9)) for line in (1, 2, 3, 5, 7, 9)] == [
        "AssertionError: three {kind}, got {n}",
        "AssertionError: n",
        "ValueError",
        "errors.Bad: no, {n}",
        "error",
        "the exception under way",
    ]
