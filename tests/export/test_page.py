"""The report as a page: it parses, needs no network, escapes what it shows, and shows what there is."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit.export.report import Branch, Check, Finding, Guard, Part, Report, Side, Source, Static

VOID = {"meta", "br", "hr", "img", "link", "input"}
EVIL = "<script>alert('x')</script>\"&"


class Page(HTMLParser):
    """Reads a page, and refuses one whose tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def classes(self) -> list[str]:
        return [each for _, attrs in self.tags for each in (attrs.get("class") or "").split()]


class Block(nn.Module):
    """Branches on its data, and keeps a number."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = hj.cond(x.sum() > 0, lambda: self.linear(x), lambda: x)
        return x * [0.5, 0.25, 3.0][x.shape[0]]


@hj.script_if_tracing
def at_most(x: Tensor, n: int) -> Tensor:
    """A scripted piece."""
    return x[:n] if x.shape[0] > n else x


class Model(nn.Module):
    """Has all there is to show."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(3, 3) for _ in range(12)))
        self.block = Block()

    def forward(self, x: Tensor, double: bool = False) -> Tensor:
        x = self.layers(x) * hj.static(x.shape[1], reason="three channels")
        x = at_most(x, 4)
        return self.block(x * 2 if double else x)


@pytest.fixture(scope="module")
def report() -> Report:
    torch.manual_seed(0)
    return hj.export(
        Model().eval(), torch.ones(2, 3), flags={"double": (True, False)}, check_inputs=[torch.zeros(2, 3)]
    ).report


def test_the_page_is_whole(report: Report) -> None:
    """Its tags nest, it has a title, and both color schemes."""
    page = Page(report.to_html())
    assert [tag for tag, _ in page.tags].count("h1") == 1
    assert report.to_html().startswith("<!doctype html>")
    assert "prefers-color-scheme: dark" in report.to_html() and "color-scheme: light dark" in report.to_html()


def test_the_page_needs_nothing_else(report: Report) -> None:
    """No script, no image, no link, no address of another place: the page is one file."""
    text = report.to_html()
    page = Page(text)
    assert {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "base"} == set()
    assert not re.search(r"https?:|//\w|@import|url\(|\bsrc=|\bhref=|\bon\w+=", text)


def test_the_page_shows_checks_by_device_input_and_flag(report: Report) -> None:
    """A row for each input under each combination of flags, a column for each device."""
    page = Page(report.to_html())
    for entry in ("forward(double=True)", "forward(double=False)"):
        assert page.text.count(entry) >= 1
    assert page.text.count("check_inputs[0]") == 2
    assert page.text.count(" same ") == 4 + 1  # and in the hint
    two = tuple(Check(device, "input", "x", True, 0.0, 0.0, 0.1) for device in ("cpu", "cuda:0"))
    assert "input cpu cuda:0 input x same bit for bit · 100 ms same" in Page(Report("m", "f", two).to_html()).text


def test_the_page_shows_the_module_tree(report: Report) -> None:
    """Each module with its class and what is in it; those in a row that are alike as one."""
    page = Page(report.to_html())
    assert "layers Sequential" in page.text and "0 … 11 Linear × 12" in page.text
    assert "block Block guarded branching" in page.text.replace("branching guarded", "guarded branching")
    colors = page.classes()
    for color in ("traced", "scripted", "branching", "guarded"):
        assert color in colors


def test_the_page_shows_findings_beside_their_source(report: Report) -> None:
    """The line is there, marked, with its number, what to write instead, and that it is guarded."""
    [finding] = [each for each in report.findings if each.code == "HJ104"]
    text = report.to_html()
    line = Path(__file__).read_text().splitlines()[finding.line - 1]
    assert f'<span class="hit"><i>{finding.line}</i>{line}</span>' in text
    assert "write instead" in text
    assert '<span class="tag guarded">guarded</span>' in text


def test_the_page_shows_coverage(report: Report) -> None:
    """How many checks took each side, and which sides nobody took, with their code."""
    page = Page(report.to_html())
    missing = [name for branch in report.branches for name in branch.unverified]
    assert missing and "Unverified" in page.text
    assert page.classes().count("missing") == len(missing)
    assert "x = hj.cond(x.sum() &gt; 0" in report.to_html()


def test_a_loaded_report_has_the_same_page(tmp_path: Path) -> None:
    """Nothing of the page depends on the source still being there."""
    exported = hj.export(Block().eval(), torch.ones(2, 3))
    exported.save(tmp_path / "a.pt")
    loaded = hj.load(tmp_path / "a.pt").report
    assert loaded.to_html() == exported.report.to_html()
    assert any("hj.cond" in line for source in loaded.sources for line in source.text)


def test_names_are_escaped() -> None:
    """Markup in names, messages, sources and values is text on the page."""
    report = Report(
        EVIL,
        EVIL,
        (Check(EVIL, EVIL, EVIL, False, None, 1.0, 2.0, (EVIL,), EVIL),),
        (Finding("HJ101", "warning", EVIL, EVIL, 1, EVIL, EVIL), Finding("HJ001", "note", EVIL)),
        (Static(EVIL, EVIL, EVIL, 1, EVIL),),
        (),
        (Branch(EVIL, 1, EVIL, EVIL, (Side(EVIL, 0), Side("b", 1))),),
        guards=(Guard("HJ101", EVIL, EVIL, EVIL, 1),),
        modules=(Part("", EVIL), Part(EVIL, EVIL)),
        sources=(Source(EVIL, 1, (EVIL,)),),
        refused=EVIL,
    )
    page = Page(report.to_html())
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count("alert('x')") > 15


def test_refused_models_have_a_page() -> None:
    """The errors of an export carry the report: of results that differ, of values that may not freeze, of a failure."""
    model = Block().eval()
    with pytest.raises(hj.CaptureError) as frozen:
        hj.export(model, torch.ones(2, 3), on_frozen="error")
    assert frozen.value.report is not None
    page = Page(frozen.value.report.to_html())
    assert "refused" in page.text and "Why there is no file" in page.text and "block Block" not in page.text
    assert [each.code for each in frozen.value.report.findings] == ["HJ104"]
    assert "frozen" in page.classes() or "guarded" in page.classes()
    with pytest.raises(hj.VerificationError) as differs:
        hj.export(model, torch.ones(2, 3), check_inputs=[torch.ones(1, 3)], on_frozen="ignore")
    assert differs.value.report is not None
    assert "What differs" in Page(differs.value.report.to_html()).text
    with pytest.raises(hj.CaptureError) as fails:
        hj.export(model, torch.ones(2, 4))
    assert fails.value.report is not None and not fails.value.report.ok
    assert "the model itself raises on input" in str(fails.value.report)
    assert fails.value.report.modules


def test_a_page_of_very_much_is_short() -> None:
    """Of ten thousand findings, branches and modules the page shows some, and says how many more there are."""
    findings = tuple(Finding("HJ101", "warning", "bool(tensor)", "f.py", line) for line in range(10_000))
    branches = tuple(Branch("f.py", line, "", "if", (Side("true", 0), Side("false", 1))) for line in range(10_000))
    modules = (Part("", "M"), *(Part(f"m{index}", f"C{index}") for index in range(10_000)))
    text = Report("m", "torchscript", (), findings, branches=branches, modules=modules).to_html()
    assert len(text) < 600_000
    assert "9,900 more lines" in text and "9,900 more" in text
