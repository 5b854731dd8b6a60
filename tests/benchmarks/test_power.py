"""Files that were broken on purpose: the rules of `verify` must go on finding them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.power.judge import Judge, Outcome
from benchmarks.power.models import SUBJECTS
from benchmarks.power.run import outcomes_of, table_of

SLICE = 4
"""Mutants of each kind and model; the benchmark itself takes more, on another device too."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    made = []
    for subject in SUBJECTS:
        if subject.name in ("grid", "signals"):
            path = tmp_path_factory.mktemp("power") / "file.pt"
            subject.export(subject.build()).save(path)
            judge = Judge(subject, path, ["cpu"], SLICE)
            made += [judge.outcome(index, judge.found_by_trace(index)) for index in judge.chosen]
    return made


def test_a_right_file_is_right(tmp_path: Path) -> None:
    """Without a change the file passes, on further inputs too: what is found is found for its change."""
    for subject in SUBJECTS:
        if subject.name == "grid":
            path = tmp_path / "file.pt"
            subject.export(subject.build()).save(path)
            judge = Judge(subject, path, ["cpu"], 0)
            assert len(judge.further) >= 25 and judge.chosen == []


def test_verify_finds_what_is_broken(outcomes: list[Outcome]) -> None:
    """Of each kind that shows on one device every mutant is found, or computes the same; and there are some."""
    found = {each.kind for each in outcomes if each.verify}
    missed = [each for each in outcomes if not each.verify and not each.equivalent]
    assert [each for each in missed if each.kind != "freeze a device"] == []
    assert all(each.how == "missed: there is no other device that the model runs on" for each in missed)
    assert found == {
        "freeze a size",
        "freeze a dtype",
        "drop a branch",
        "swap a branch",
        "change a constant",
        "change an axis",
        "change an order",
        "stop a loop early",
        "swap weights",
        "drop an output",
        "reorder outputs",
    }


def test_the_check_of_a_plain_trace_finds_less(outcomes: list[Outcome]) -> None:
    """A dropped branch is nothing to a check on the traced input."""
    of_kind = [each for each in outcomes if each.kind == "drop a branch" and not each.equivalent]
    assert of_kind and not any(each.trace for each in of_kind)


def test_survivors_have_a_reason(outcomes: list[Outcome]) -> None:
    """What is not found says why."""
    assert all(each.how for each in outcomes)
    assert {each.how for each in outcomes if each.equivalent} >= {"its operands commute"}


def test_the_claim() -> None:
    """One miss in two breaks the claim, and is listed."""
    right = Outcome("grid", "swap weights", "a and b", True, True, "found")
    missed = Outcome("grid", "swap weights", "a and c", False, False, "missed: differs at x")
    same = Outcome("grid", "change an order", "add", False, False, "its operands commute", True)
    assert table_of((right, same)).held and not table_of((right, missed)).held
    assert "missed: grid, a and c: missed: differs at x" in str(table_of((right, missed, same))).splitlines()
    assert "NOT held" in str(table_of((right, missed)))


def test_a_process_that_ends_is_noticed(tmp_path: Path) -> None:
    """A subject whose process ends before the first mutant is no result."""
    with pytest.raises(RuntimeError, match="nobody: the process ended at the mutant 0"):
        list(outcomes_of("nobody", tmp_path))
