"""What the benchmarks make of their tables: pictures, and what got worse."""

import dataclasses
import itertools
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import __main__ as main
from benchmarks.plot import picture
from benchmarks.table import Row, Table, paired, worse, write


def table(ratio: float, spread: float = 0.01, most: float = 1.5, unit: str = "s") -> Table:
    row = Row("a <call>", ratio * 1e-6, 1e-6, ratio, spread)
    return Table("a title", "a peer", (row,), f"at most {most}", most, unit)


def test_pairs_tell_how_far_they_vary() -> None:
    """The spread of a row is the median distance from its median ratio."""
    row = paired("x", [(1.0, 1.0), (2.0, 1.0), (4.0, 1.0)])
    assert (row.ratio, row.spread) == (2.0, 1.0)
    assert paired("x", [(3.0, 1.0)], lambda our, other: our - other).ratio == 2.0


@pytest.mark.parametrize(
    ("before", "now", "found"),
    [
        (table(1.0), table(1.05), []),
        (table(1.0), table(1.2), ["a title, a <call>: 1.00 before, 1.20 now"]),
        (table(1.0, 0.05), table(1.2, 0.05), []),
        (table(1.0, 0.0), table(1.2, 0.0), []),
        (table(1.0, 0.0), table(1.4, 0.0), ["a title, a <call>: 1.00 before, 1.40 now"]),
        (table(1.0, 0.0, unit="B"), table(1.2, 0.0, unit="B"), ["a title, a <call>: 1.00 before, 1.20 now"]),
        (table(1.2), table(1.0), []),
    ],
)
def test_a_ratio_is_worse_by_more_than_its_noise(tmp_path: Path, before: Table, now: Table, found: list[str]) -> None:
    """Than a tenth, and than four times what both runs vary by; of a time that was taken once, than a third."""
    write([before], tmp_path / "x.json")
    assert worse([now], tmp_path / "x.json") == found


def test_tables_of_one_title_are_told_apart_by_their_peers(tmp_path: Path) -> None:
    """One run is compared with several."""
    both = [dataclasses.replace(table(ratio), peer=peer) for ratio, peer in ((1.0, "trace"), (0.4, "by hand"))]
    write(both, tmp_path / "x.json")
    assert worse(both, tmp_path / "x.json") == []
    assert worse([dataclasses.replace(table(1.0), peer="by hand")], tmp_path / "x.json") != []


def test_results_of_elsewhere_are_not_compared(tmp_path: Path) -> None:
    """Nor where there are none."""
    write([table(1.0)], tmp_path / "x.json")
    other = (tmp_path / "x.json").read_text().replace('"cpus"', '"cores"')
    (tmp_path / "y.json").write_text(other)
    assert worse([table(9.0)], tmp_path / "y.json") == worse([table(9.0)], tmp_path / "none.json") == []


def test_a_picture_has_a_bar_for_each_row_and_says_what_does_not_hold() -> None:
    """In red, where a claim fails; names are escaped."""
    held, failed = (ElementTree.fromstring(picture([table(ratio)])) for ratio in (1.0, 2.0))
    space = "{http://www.w3.org/2000/svg}"
    widths = [float(each.attrib["width"]) for each in failed.iter(f"{space}rect") if "%" not in each.attrib["width"]]
    texts = ["".join(each.itertext()) for each in failed.iter(f"{space}text")]
    assert len(widths) == 1 and widths[0] > 300
    assert "a <call>" in texts and "claim: at most 1.5: NOT held" in texts
    assert "claim: at most 1.5: held" in ["".join(each.itertext()) for each in held.iter(f"{space}text")]


@pytest.mark.parametrize(("ratio", "status"), [(1.0, 0), (1.3, 1), (1.6, 1)])
def test_the_command_fails_where_a_ratio_is_worse(
    ratio: float, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Than the results that it is given, though the claim holds; results and picture are written all the same."""
    write([table(1.0)], tmp_path / "before" / "one.json")
    monkeypatch.setattr(main, "BENCHMARKS", {"one": lambda: (table(ratio),)})
    monkeypatch.setattr(sys, "argv", ["", "one", "--out", str(tmp_path), "--against", str(tmp_path / "before")])
    assert main.main() == status
    assert ("worse: a title, a <call>: 1.00 before" in capsys.readouterr().out) == (status == 1)
    assert (tmp_path / "one.json").exists() and (tmp_path / "one.svg").exists()


def test_all_of_them_run_side_by_side() -> None:
    """Each in one of the two processes."""
    assert sorted(itertools.chain(*main.SIDE_BY_SIDE)) == sorted(main.BENCHMARKS)


@pytest.mark.parametrize("codes", [(0, 0), (0, 1), (2, 0)])
def test_side_by_side(
    codes: tuple[int, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What each process printed comes in order, and one that fails makes all fail."""
    program = "import sys; print(*sys.argv[3:]); sys.exit(int(sys.argv[3]))"
    (tmp_path / "python").write_text(f"#!/bin/sh\nexec {sys.executable} -c '{program}' \"$@\"\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(main, "SIDE_BY_SIDE", tuple((str(code),) for code in codes))
    assert main.side_by_side(["--out", "there"]) == max(codes)
    assert capsys.readouterr().out.splitlines() == [f"{code} --out there" for code in codes]
