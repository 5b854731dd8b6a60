"""What the docs quote is in the committed results."""

import json
import re

from benchmarks.arena.plot import NAMES, PICTURE, RESULTS, ROOT, counts, draw

MODELS = json.loads(RESULTS.read_text())["models"]


def test_the_table_of_the_arena() -> None:
    """docs/why.md has, for each export, the counts of the results."""
    page = (ROOT / "docs" / "why.md").read_text()
    page = page[page.index("](../benchmarks/results/arena.json)") :]
    for column, name in NAMES.items():
        row = re.search(rf"^\| `?{re.escape(name)}`?[^|]*\| (\d+) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
        assert row is not None, name
        assert [int(count) for count in row.groups()] == list(counts(MODELS, column).values()), name


def test_the_picture_of_the_arena() -> None:
    """docs/arena.svg is drawn from the results; `python -m benchmarks.arena.plot` draws it anew."""
    assert PICTURE.read_text() == draw(MODELS)
