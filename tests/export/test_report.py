"""The report as text, JSON, Markdown and a page."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit import _torch
from hybridjit.export.report import Check, Finding, Report


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
