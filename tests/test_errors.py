"""The error classes, their messages, and the page that explains them."""

import re
from pathlib import Path

import pytest

import hybridjit as hj
from hybridjit._errors import compose
from hybridjit.export import kinds

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "errors.md").read_text()
ROWS = [row[3:].lower().replace(" ", "-") for row in PAGE.splitlines() if row.startswith("## ")]
HEADINGS = {re.sub(r"[^a-z0-9-]", "", row) for row in ROWS}


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (hj.InputError, TypeError),
        (hj.CaptureError, RuntimeError),
        (hj.GuardError, RuntimeError),
        (hj.VerificationError, AssertionError),
        (hj.ArchiveError, OSError),
        (hj.UnsupportedError, NotImplementedError),
    ],
)
def test_classes(error: type[Exception], builtin: type[Exception]) -> None:
    """Each class is hybridjit's and Python's own, and has a section."""
    assert issubclass(error, hj.HybridJitError) and issubclass(error, builtin)
    assert error.__name__.lower() in HEADINGS


def test_compose() -> None:
    """A message has its parts in order, and counts what it leaves out."""
    rows = [str(i) for i in range(14)]
    text = compose("what", where="here", differences=rows, instead="a\nb", page="inputerror").splitlines()
    assert text[:3] == ["what", "  at here", "  - 0"]
    assert text[14:] == ["  - … and 2 more", "  write instead: a", "    b", "  see docs/errors.md#inputerror"]


def test_every_anchor_and_code_has_a_section() -> None:
    """What a message or a report points to is on the page."""
    sources = (path.read_text() for path in (ROOT / "hybridjit").rglob("*.py"))
    assert {page for text in sources for page in re.findall(r'page="([^"]+)"', text)} <= HEADINGS
    leaks = {kind.code for kind in vars(kinds).values() if isinstance(kind, kinds.Kind)}
    for code in {"HJ001", "HJ002", "HJ003", "HJ004", "HJ005", "HJ006", "HJ199", *leaks}:
        assert code.lower() in HEADINGS
