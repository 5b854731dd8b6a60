"""What the docs quote is in the committed results."""

import json
import re
from collections import Counter
from typing import Any

import pytest

from benchmarks.arena.plot import NAMES, PICTURE, RESULTS, ROOT, counts, draw

MODELS = json.loads(RESULTS.read_text())["models"]
PAGE = (ROOT / "docs" / "why.md").read_text()


def results(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def test_the_table_of_the_arena() -> None:
    """For each export the counts of the results."""
    page = PAGE[PAGE.index("](../benchmarks/results/arena.json)") :]
    for column, name in NAMES.items():
        row = re.search(rf"^\| `?{re.escape(name)}`?[^|]*\| (\d+) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
        assert row is not None, name
        assert [int(count) for count in row.groups()] == list(counts(MODELS, column).values()), name


def test_the_picture_of_the_arena() -> None:
    """docs/arena.svg is drawn from the results; `python -m benchmarks.arena.plot` draws it anew."""
    assert PICTURE.read_text() == draw(MODELS)


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("eager", "eager"),
        ("trace", "`hj.export`"),
        ("pt2", '`hj.export`, `format="pt2"`'),
        ("onnx", '`hj.export`, `format="onnx"`'),
        ("export", "`torch.export`, not strict"),
        ("strict", "`torch.export`, strict"),
        ("compile", "`torch.compile(fullgraph=True)`"),
        ("plain trace", "as they are, `torch.jit.trace`"),
        ("plain export", "as they are, `torch.export`"),
        ("plain onnx", "as they are, `torch.onnx.export`"),
    ],
)
def test_the_table_of_the_programs(mode: str, name: str) -> None:
    """For each mode how many programs were right, refused and wrong."""
    found = Counter(case[mode].split(":")[0] for case in results("cases")["cases"])
    assert f"\n| {name} | {found['right']} | {found['refused']} | {found['wrong']} |\n" in PAGE


@pytest.mark.parametrize(
    ("name", "title", "peer", "row"),
    [
        ("eager", "overhead of a decorated call", "torch.jit.script_if_tracing", "a decorated call in eager mode"),
        ("export_time", "hybridjit.export", "torch.jit.trace", "`hj.export`: trace, save, load, compare"),
        ("control", "a run of the exported file", "torch.jit.script", "a run of the exported file"),
    ],
)
def test_the_costs(name: str, title: str, peer: str, row: str) -> None:
    """The least and the greatest ratio of a table."""
    (table,) = [t for t in results(name)["tables"] if t["title"].startswith(title) and t["peer"] == peer]
    ratios = [each["ratio"] for each in table["rows"]]
    line = next(line for line in PAGE.splitlines() if line.startswith(f"| {row}"))
    assert f"| {min(ratios):.2f} to {max(ratios):.2f} of its" in line


def test_the_tallies_of_damaged_files() -> None:
    """docs/security.md counts what became of damaged files and killed writers, none of it worse than refused."""
    page = " ".join((ROOT / "docs" / "security.md").read_text().split())
    tallies = results("robustness")["tallies"]
    kinds = [found for name, found in tallies["damage"].items() if not name.endswith("as it was")]
    total = sum(map(Counter, kinds), Counter[str]())
    assert set(total) == {"refused", "right"}
    assert f"of {total.total():,} files with" in page
    assert (
        f"{total['refused']:,} were refused with an `ArchiveError`, and {total['right']} gave the right result" in page
    )
    assert f"Of {tallies['killed']['old or new']} writers that were killed" in page
    assert f"what {tallies['killed']['killed while they wrote']} had begun" in page
    assert tallies["killed"]["left in the end"] == 0
