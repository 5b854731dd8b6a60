"""The report as text, JSON, Markdown and a page."""

import torch
from torch import nn

import hybridjit as hj
from hybridjit.export.report import Check, Finding, Report


def test_forms() -> None:
    """JSON gives the report back; the page is self-contained and escaped; text is a table."""
    check = Check("cpu", "input", "x float32[2]", False, 1.0, float("inf"), 0.5, ("result: <b>",))
    report = Report("m.<Model>", "torchscript", (check,), (Finding("HJ101", "warning", "a | b", "f.py", 3),))
    assert Report.from_json(report.to_json()) == report
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
    assert "verified, 1 check" in str(report)
    assert Report.from_json(report.to_json()) == report
