"""What the docs quote is in the committed results."""

import json
import re
from collections import Counter
from typing import Any

import pytest

from benchmarks.__main__ import BENCHMARKS
from benchmarks.arena.plot import NAMES, PICTURE, RESULTS, ROOT, counts, draw
from benchmarks.large import STATED
from benchmarks.plot import picture
from benchmarks.power.judge import Outcome
from benchmarks.power.run import table_of
from benchmarks.table import Table, read

MODELS = json.loads(RESULTS.read_text())["models"]
PAGE = (ROOT / "docs" / "why.md").read_text()
FORMATS = (ROOT / "docs" / "export" / "formats.md").read_text()


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


COSTS = [
    ("eager", "overhead of a decorated call", "torch.jit.script_if_tracing", "a decorated call in eager mode"),
    ("export_time", "hybridjit.export", "torch.jit.trace", "`hj.export`: trace"),
    ("export_formats", "export to pt2", "torch.export, save", '`format="pt2"`'),
    ("export_formats", "export to onnx", "torch.onnx.export", '`format="onnx"`'),
    ("export_formats", "export to aoti", "torch.export, AOTInductor", '`format="aoti"`'),
    ("wrappers", "export, compare and save", "wrapper, torch.jit.trace", "export, compare and save a detector"),
    ("wrappers", "files for a flag", "a file each", "the file for a flag with two values"),
    ("wrappers", "a call with the model's own", "wrapper, torch.jit.trace", "a call with lists and dicts in and out"),
    ("costs", "load, every record", "torch.jit.load", "`hj.load`, which reads every byte"),
    ("costs", "load, against one", "torch.jit.load, zipfile.testzip", "`hj.load`, likewise"),
    ("control", "a run of the exported file", "torch.jit.script", "a run of the exported file"),
]


@pytest.mark.parametrize("page", ["README.md", "docs/why.md"])
@pytest.mark.parametrize(("name", "title", "peer", "row"), COSTS)
def test_the_costs(page: str, name: str, title: str, peer: str, row: str) -> None:
    """The least and the greatest ratio of a table; the README has some of them, the page has all."""
    (table,) = [t for t in results(name)["tables"] if t["title"].startswith(title) and t["peer"] == peer]
    ratios = sorted(each["ratio"] for each in table["rows"])
    found = sorted({f"{ratios[0]:.2f}", f"{ratios[-1]:.2f}"})
    lines = [line for line in (ROOT / page).read_text().splitlines() if line.startswith(f"| {row}")]
    assert len(lines) == 1 or (page == "README.md" and name in ("export_time", "costs"))
    assert all(f"| {' to '.join(found)} of " in line for line in lines)


def test_what_guards_cost() -> None:
    """The medians over the models of the arena, and the worst run."""
    running, middle, worst, exporting, whole = results("guards")["tables"]
    ratios = [table["rows"][0]["ratio"] for table in (whole, middle, worst)]
    assert f"| {ratios[0]:.2f} of its time, the median of {len(exporting['rows'])} |" in PAGE
    assert f"| {ratios[1]:.2f} of its time, the median of {len(running['rows'])}; at most {ratios[2]:.2f} |" in PAGE
    [row] = [row for row in running["rows"] if row["ratio"] == ratios[2]]
    assert f"{row['ours'] * 1e3:.2f} ms with them, and {row['peer'] * 1e3:.2f} ms in a file" in PAGE


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_table_has_its_picture(name: str) -> None:
    """Drawn from the results; that of the broken files has a table of its own kind."""
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    tables: tuple[Table, ...] = read(path)
    if name == "power":
        tables = (table_of(tuple(Outcome(**each) for each in results(name)["tables"][0]["mutants"])),)
    assert path.with_suffix(".svg").read_text() == picture(tables)


def test_what_the_readme_says_of_the_checks() -> None:
    """How many broken files each finds."""
    (table,) = results("power")["tables"]
    real = [each for each in table["mutants"] if not each["equivalent"]]
    ours, theirs = (sum(each[name] for each in real) for name in ("verify", "trace"))
    said = f"Of {len(real)} files broken on purpose `hybridjit.verify` finds {ours}, the check of `torch.jit.trace` "
    assert f"{said}{theirs}" in " ".join((ROOT / "README.md").read_text().split())


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


def test_the_memory_of_a_large_model() -> None:
    """docs/export/flags.md quotes what was stated and what was measured."""
    page = " ".join((ROOT / "docs" / "export" / "flags.md").read_text().split())
    found = results("robustness")["tallies"]["large"]
    assert f"at most {STATED['export']} times the weights beside the model" in page
    assert f"`load` takes {STATED['load']} times" in page
    assert f"measures it with {found['gigabytes of weights']} GB of weights" in page
    assert f"found {found['export']:.3f}, {found['save']:.3f} and {found['load']:.3f}." in page


def test_the_table_of_the_formats() -> None:
    """For each model what became of it in each format: those of the table, and eleven that all formats hold."""
    told = {
        "faces": "a face detector",
        "experts": "a mixture of experts",
        "depth": "depth that depends on the input",
        "decode": "decoding until a word",
        "decoder": "a decoder with a cache that grows",
        "cache": "the same, its cache of fixed size",
        "recurrent": "a recurrent cell",
    }
    found = {(cell["model"], cell["format"]): cell["result"] for cell in results("formats")["cells"]}
    rows = {model: [found[model, format] for format in ("torchscript", "pt2", "onnx", "aoti")] for model, _ in found}
    for model, name in told.items():
        assert f"\n| {name} | {' | '.join(rows.pop(model))} |\n" in FORMATS
    assert len(rows) == 11 and {each for row in rows.values() for each in row} == {"right"}


def test_the_table_of_the_run_time() -> None:
    """For each model the time of the fastest format and of the fastest peer over eager mode, and their ratio."""
    each, best = results("run_time")["tables"]
    over_eager = {row["name"]: row["ratio"] for row in each["rows"]}
    assert len(best["rows"]) == 6 and best["held"]
    for row in best["rows"]:
        model, our, peer = re.fullmatch(r"(\w+): (.+) over (.+)", row["name"]).groups()  # type: ignore[union-attr]
        times = over_eager[f"{model}: hybridjit, {our}"], over_eager[f"{model}: {peer}"], row["ratio"]
        told = [f"{our} {times[0]:.2f}", f"{peer} {times[1]:.2f}", f"{times[2]:.2f}"]
        assert f"\n| {model} | {' | '.join(told)} |\n" in FORMATS
