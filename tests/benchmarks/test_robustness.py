"""A few of the cases of `python -m benchmarks.robustness`; the whole tally is in benchmarks/results."""

import json
import os
import sys
from pathlib import Path

import pytest

from benchmarks import large, robustness

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes that it starts import this package."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_every_kind_of_damage_differs_from_the_file() -> None:
    """Flips, truncations, swaps, overwritten and missing pieces: each is one, and drawn the same way every time."""
    data = bytes(range(256)) * 8
    cases = [robustness.damaged(data, number) for number in range(50)]
    assert cases == [robustness.damaged(data, number) for number in range(50)]
    assert {kind for kind, _ in cases} == {"flipped", "truncated", "swapped", "overwritten", "cut out"}
    assert sum(case != data for _, case in cases) >= 48


def test_damaged_files_are_refused_or_right() -> None:
    """In processes of their own: nothing wrong, no crash, no hang."""
    found = robustness.damage(20)
    outcomes = {what for each in found.values() for what in each}
    assert outcomes <= {"refused", "right"} and "refused" in outcomes
    assert {key.partition(",")[0] for key in found} == {"torchscript", "pt2", "onnx"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="what is killed is forked")
def test_killed_writers_leave_the_old_file_or_the_new_one() -> None:
    """Whatever the moment."""
    assert robustness.killed(5)["old or new"] == 5


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells what memory of a process is in no file")
def test_the_memory_of_a_large_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 130 MB of weights what each stage takes is within what is stated; a limit that it must exceed is told."""
    monkeypatch.setitem(large.STATED, "load", 0.5)
    found = large.large(0.13)
    told = {"gigabytes of weights": 0.13, "right": True, "load: OVER 0.5": True}
    assert found == told | {each: found[each] for each in large.STATED}


def test_a_large_model_without_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room for it, what it needs is told, and nothing is run."""
    monkeypatch.setattr(large, "watched", None)
    found = large.large(1e6)
    assert found["left out, it needs"] == "2200000.0 GB of disk and 1300000.0 GB of memory"


def test_the_committed_tally_is_whole() -> None:
    """Ten thousand TorchScript files, two hundred kills, a crowd, 8 GB: none wrong, torn, hung or too large."""
    tallies = json.loads((ROOT / "benchmarks" / "results" / "robustness.json").read_text())["tallies"]
    of_script = [each for key, each in tallies["damage"].items() if key.startswith("torchscript")]
    assert sum(sum(each.values()) for each in of_script) == 10_000
    assert {what for each in tallies["damage"].values() for what in each} == {"refused", "right"}
    assert tallies["killed"]["old or new"] == 200 and "TORN" not in tallies["killed"]
    assert tallies["crowd"] == {"threads: right": 64, "processes: right": 64}
    assert tallies["large"]["gigabytes of weights"] >= 7.9 and tallies["large"]["right"] is True
    assert all(tallies["large"][stage] <= most for stage, most in large.STATED.items())
