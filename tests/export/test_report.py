"""The report as text, JSON, Markdown and a page."""

import dataclasses
import importlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit import _torch
from hybridjit._sites import Site
from hybridjit.export.findings import found
from hybridjit.export.kinds import BOOL, INT
from hybridjit.export.leaks import Leak
from hybridjit.export.outline import by_line, guards_of, sources_of
from hybridjit.export.report import (
    Branch,
    Check,
    EntryPoint,
    Finding,
    Guard,
    Part,
    Report,
    Scripted,
    Side,
    Source,
    Static,
)


class Noisy(nn.Module):
    """Gives 0 in eager mode and something small in the file."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (0.5 if _torch.tracing_state() is not None else 0.0)


def test_forms() -> None:
    """JSON gives the report back; the page is self-contained and escaped; text is a table."""
    check = Check("cpu", "input", "x float32[2]", False, 1.0, float("inf"), 0.5, ("result: <b>",))
    report = Report("m.<Model>", "torchscript", (check,), (Finding("HJ101", "warning", "a | b", "f.py", 3),))
    assert Report.from_json(report.to_json()) == report
    strict = json.loads(report.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert strict["checks"][0]["max_rel_error"] == "inf"
    page = report.to_html()
    assert "m.&lt;Model&gt;" in page and "<Model>" not in page
    assert "http" not in page and "<script" not in page
    assert "a \\| b" in report.to_markdown()
    lines = str(report).splitlines()
    assert lines[0] == "m.<Model> as torchscript: NOT verified, 1 check"
    assert "  cpu input: result: <b>" in lines
    assert not Report("m", "torchscript", ()).ok


def test_real_report() -> None:
    """A good export's report says verified."""
    report = hj.export(nn.Linear(2, 1).eval(), torch.ones(1, 2)).report
    assert report.operations == 1
    assert "verified, 1 check, 1 operation\n" in str(report)
    assert Report.from_json(report.to_json()) == report


def test_errors_that_are_no_numbers() -> None:
    """NaN and infinities come back from JSON as they were; absent errors stay absent."""
    for error in (float("nan"), float("inf"), -float("inf"), 0.5, None):
        check = Check("cpu", "input", "x float32[2]", True, error, error, 0.5)
        text = Report("m", "torchscript", (check,)).to_json()
        json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        back = Report.from_json(text).checks[0]
        assert repr((back.max_abs_error, back.max_rel_error)) == repr((error, error))


def test_infinite_error_travels_in_the_file(tmp_path: Path) -> None:
    """An export whose relative error is infinite, though within tolerance, saves and loads its report."""
    exported = hj.export(Noisy().eval(), torch.ones(2), rtol=0.1, atol=10.0)
    assert exported.report.checks[0].max_rel_error == float("inf")
    exported.save(tmp_path / "a.pt")
    assert hj.load(tmp_path / "a.pt").report == exported.report


REPORT = importlib.import_module("hybridjit.export.report")  # the function hides the package of that name
SCHEMA: dict[str, Any] = json.loads((Path(str(REPORT.__file__)).parent / "report.schema.json").read_text())


def errors(value: Any, schema: dict[str, Any], at: str = "report") -> list[str]:
    """What in a value is not as a JSON schema says, for the words that ours has."""
    known = {"$schema", "$defs", "title", "description", "type", "properties", "required", "additionalProperties"}
    unknown = set(schema) - known - {"items", "enum", "anyOf", "$ref"}
    assert not unknown
    if "$ref" in schema:
        return errors(value, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], at)
    if "anyOf" in schema:
        each = [errors(value, one, at) for one in schema["anyOf"]]
        return [] if [] in each else each[0]
    if "enum" in schema:
        return [] if value in schema["enum"] else [f"{at}: {value!r} is none of {schema['enum']}"]
    types = {"string": str, "boolean": bool, "number": (int, float), "object": dict, "array": list, "null": type(None)}
    expected = int if schema["type"] == "integer" else types[schema["type"]]
    if not isinstance(value, expected) or (isinstance(value, bool) and schema["type"] != "boolean"):  # type: ignore[arg-type]
        return [f"{at}: expected {schema['type']}, got {value!r}"]
    wrong = []
    if isinstance(value, list):
        wrong += [row for index, each in enumerate(value) for row in errors(each, schema["items"], f"{at}[{index}]")]
    if isinstance(value, dict):
        wrong += [f"{at}.{name}: is absent" for name in schema["required"] if name not in value]
        wrong += [f"{at}.{name}: is unknown" for name in value if name not in schema["properties"]]
        for name, part in schema["properties"].items():
            wrong += errors(value[name], part, f"{at}.{name}") if name in value else []
    return wrong


def full() -> Report:
    """A report with a row of everything."""
    check = Check("cpu", "input", "x float32[2]", False, float("nan"), None, 0.5, ("result: other",), "forward(a=True)")
    return Report(
        "m.Model",
        "torchscript",
        (check,),
        (Finding("HJ101", "warning", "bool(tensor): kept", "f.py", 3, "head", "write this", 2),),
        (Static("3", "because", "f.py", 4),),
        (Scripted("m.piece", "f.py", 5, ""),),
        (Branch("f.py", 6, "head", "cond", (Side("true", 1), Side("false", 0))),),
        12,
        "2.13.0",
        (EntryPoint("forward", "a=True", ("x",), ("result",)),),
        "on 1 call",
        (Guard("HJ101", "bool(tensor)", "True", "f.py", 3, "head", 2),),
        (Part("", "Model"), Part("head", "Head", True)),
        (Source("f.py", 3, ("if x:", "    y")),),
        "refused",
    )


@pytest.mark.parametrize("which", ["full", "empty", "exported", "refused"])
def test_json_is_as_its_schema_says(which: str) -> None:
    """Reports of all kinds have the fields and types that the schema that comes with the package describes."""
    if which == "refused":
        with pytest.raises(hj.CaptureError) as caught:
            hj.export(nn.Linear(2, 1).eval(), torch.ones(1, 3))
        report = caught.value.report
        assert report is not None
    else:
        made = {"full": full, "empty": lambda: Report("m", "torchscript", ())}
        report = made[which]() if which in made else hj.export(nn.Linear(2, 1).eval(), torch.ones(1, 2)).report
    assert errors(json.loads(report.to_json()), SCHEMA) == []
    assert repr(Report.from_json(report.to_json())) == repr(report)


def test_the_schema_is_complete() -> None:
    """It describes every field of every row, and nothing else; a wrong value does not pass."""
    described = {"Report": SCHEMA, **SCHEMA["$defs"]}
    for name, part in described.items():
        fields = {field.name for field in dataclasses.fields(getattr(REPORT, name))}
        assert set(part["properties"]) == fields | ({"ok", "unverified"} if name == "Report" else set())
        assert set(part["required"]) == set(part["properties"]) and part["additionalProperties"] is False
        assert all(each["description"] for each in part["properties"].values())
    data = json.loads(full().to_json())
    data["checks"][0]["passed"], data["operations"], data["more"] = "yes", 1.5, 1
    del data["branches"][0]["sides"][0]["name"]
    assert len(errors(data, SCHEMA)) == 4


def test_another_version_of_the_report_is_read() -> None:
    """What this version does not know is passed over, and what it misses has its default."""
    data = json.loads(full().to_json())
    data["later"], data["findings"][0]["later"] = 1, 2
    del data["guards"], data["branches"][0]["kind"]
    report = Report.from_json(json.dumps(data))
    assert report.guards == () and report.branches[0].kind == "if"
    assert report.findings == full().findings


def test_text_of_everything() -> None:
    """Each part has a title, its rows and what is unverified; the refusal comes first."""
    text = str(full())
    lines = text.splitlines()
    assert lines[:3] == [
        "m.Model as torchscript: REFUSED, 1 check, 12 operations, 1 of 2 branch sides taken",
        "",
        "  refused",
    ]
    for title in ("entries", "checks", "findings", "static on purpose", "scripted, with control flow", "branches"):
        assert title in lines
    assert "  HJ101  warning  f.py:3 in head  2 times" in lines
    assert "      write instead: write this" in lines
    assert "  cond  f.py:6 in head  1             true 1, false 0" in lines
    assert lines[lines.index("UNVERIFIED: sides that no check took") + 2] == "  f.py:6 in head  false"
    assert full().to_markdown().count("\n## ") == 9


def test_branches_of_many_modules_are_one_row() -> None:
    """A line that is the same in twelve layers is told once in the text, and by module in the field."""
    sides = (Side("true", 1), Side("false", 0))
    branches = tuple(Branch("f.py", 6, f"layers.{index}", "if", sides) for index in range(12))
    report = Report("m", "torchscript", (), branches=branches)
    assert str(report).count("f.py:6 in layers.0, layers.1 and 10 more") == 2
    assert len(report.unverified) == 12


def leaks(count: int, lines: int) -> list[Leak]:
    kinds = (BOOL, INT)
    return [Leak(kinds[i % 2], Site("model.py", i % lines + 1, f"layers.{i % 7}"), i) for i in range(count)]


def test_ten_thousand_leaks_are_grouped_by_line() -> None:
    """A row for each kind and line, with the count; the text stays a page, and none of it takes long."""
    started = time.perf_counter()
    every = leaks(10_000, 10)
    findings, guards = by_line(found(every)), guards_of(every)
    report = Report("m", "torchscript", (), findings, guards=guards)
    texts = [str(report), report.to_markdown(), report.to_json(), report.to_html()]
    assert time.perf_counter() - started < 2
    assert [(each.line, each.count) for each in findings] == [(line, 1000) for line in range(1, 11)]
    assert {guard.count for guard in guards} == {1000}
    assert texts[0].count("1,000 times") == 10
    assert len(texts[0].splitlines()) < 60 and max(map(len, texts[0].splitlines())) < 200


def test_ten_thousand_lines_are_cut() -> None:
    """Where the lines differ as well, the text shows the first and says how many more; Markdown and JSON have all."""
    report = Report("m", "torchscript", (), by_line(found(leaks(10_000, 10_000))))
    assert len(report.findings) == 10_000
    text = str(report).splitlines()
    assert len(text) < 130 and text[-1] == "  … and 9,960 more lines"
    assert report.to_markdown().count("\n| HJ10") == 10_000
    assert len(sources_of(report)) <= 400


def test_findings_of_several_entries_are_joined() -> None:
    """A line that several combinations of flags pass is told once; a warning wins over a note."""
    note = Finding("HJ101", "note", "bool(tensor): kept (True); it does not matter", "f.py", 3, count=2)
    warning = Finding("HJ101", "warning", "bool(tensor): kept (False)", "f.py", 3, count=3)
    other = Finding("HJ001", "note", "taken off")
    assert by_line([note, other, warning, other]) == (
        dataclasses.replace(warning, count=5),
        dataclasses.replace(other, count=2),
    )


class Many(nn.Module):
    """Takes two hundred numbers out of its input."""

    def forward(self, x: Tensor) -> Tensor:
        table = [0.5, 0.25]
        total = x.sum()
        for i in range(200):
            total = total + table[x[i]]
        return total


def test_a_model_with_hundreds_of_leaks() -> None:
    """Its report has one finding and one guard for the line, with the count."""
    report = hj.export(Many().eval(), torch.zeros(200, dtype=torch.int64), devices=["cpu"]).report
    [finding] = [each for each in report.findings if each.severity == "warning"]
    [guard] = report.guards
    assert finding.count == guard.count == 200
    assert len(str(report).splitlines()) < 20
