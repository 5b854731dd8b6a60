"""The gallery: a plain trace gets each model wrong, hybridjit none without saying so."""

from __future__ import annotations

import pytest

from . import measure
from .entry import Entry
from .gallery import GALLERY
from .measure import verdicts

RANKS = {"right": 0, "guard": 1, "refused": 2}


def entries() -> list[object]:
    """The entries, by name."""
    return [pytest.param(entry, id=name) for name, entry in GALLERY.items()]


def test_the_gallery_is_complete() -> None:
    """There are at least eighty entries, each with a model as it should be."""
    assert len(GALLERY) >= 80
    assert not [name for name, entry in GALLERY.items() if entry.right is None]


@pytest.mark.parametrize("entry", entries())
def test_plain_trace_goes_wrong(entry: Entry) -> None:
    """A plain trace is wrong or raises on a further input, or the entry would not be here."""
    assert set(verdicts(entry, measure.plain_trace(entry), entry.model)) != {"right"}


@pytest.mark.filterwarnings("ignore")  # what torch warns of in these models is not the point
@pytest.mark.parametrize("branches", [None, "auto"])
@pytest.mark.parametrize("entry", entries())
def test_never_silently_wrong(entry: Entry, branches: str | None) -> None:
    """From the first input alone: right on the others or raising, in Python and plain torch, as the entry says."""
    python = verdicts(entry, measure.untold(entry, branches), entry.model)
    assert "wrong" not in python
    plain = verdicts(entry, measure.loaded(entry, branches), entry.model)
    assert plain == python
    got = "refused" if python[0] != "right" else "guard" if "loud" in python else "right"
    assert RANKS[got] <= RANKS[entry.auto if branches else entry.does], got


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("entry", entries())
def test_fixed_models_are_right(entry: Entry) -> None:
    """The model as it should be is right on every input."""
    assert set(verdicts(entry, measure.fixed(entry), entry.fixed_model)) == {"right"}
