"""The command line: what it prints where, what it writes, how it ends."""

import contextlib
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import hybridjit as hj
from hybridjit import _torch
from hybridjit.cli import doctor
from hybridjit.cli.explain import page, sections_of
from hybridjit.cli.main import main
from hybridjit.cli.progress import Progress

ROOT = Path(__file__).parents[1]
ERRORS = (ROOT / "docs" / "errors.md").read_text()
MODELS = """
import time

import torch

import hybridjit as hj


class Head(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.large, self.small = torch.nn.Linear(4, 2), torch.nn.Linear(4, 2)

    @hj.branch_if_tracing
    def forward(self, x):
        return self.large(x) if x.mean() > 0 else self.small(x)


class Frozen(torch.nn.Module):
    def forward(self, x):
        return x * float(x.max())


class Lenient(torch.nn.Module):
    def forward(self, x):
        return x * 2 if x.max() > 3 else x


class Plain(torch.nn.Module):
    def forward(self, x, scale=1.0, twice=False):
        return {"y": x * scale * (2 if twice else 1)}


class Slow(torch.nn.Module):
    def forward(self, x):
        print("half a line", end="", flush=True)
        time.sleep(0.5)
        return x + 1


def head():
    print("noise of the model's own code")
    torch.manual_seed(0)
    return Head().eval(), torch.ones(3, 4), {"check_inputs": iter([(-torch.ones(2, 4),)]), "devices": ["cpu"]}


def other():
    torch.manual_seed(1)
    return Head().eval(), torch.ones(3, 4)


def frozen():
    return Frozen().eval(), torch.ones(3), {"check_inputs": [torch.full((3,), 5.0)], "on_frozen": "ignore"}


def lenient():
    return Lenient().eval(), torch.ones(3), {"on_frozen": "ignore"}


def plain():
    return Plain().eval(), torch.ones(3), {"flags": {"twice": (False, True)}, "kwargs": {"scale": torch.tensor(2.0)}}


def simple():
    return torch.nn.Linear(2, 1).eval(), torch.zeros(3, 2)


def slow():
    return Slow().eval(), torch.ones(2)


def training():
    return Head(), torch.ones(3, 4)


def raises():
    return 1 // 0


def lone():
    return Head()


def four():
    return 1, 2, 3, 4


def listed():
    return Head().eval(), torch.ones(3, 4), ["check_inputs"]


def misspelt():
    return Head().eval(), torch.ones(3, 4), {"check_input": []}


number = 3
"""


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs a command in this process, in a folder with `models.py`."""
    (tmp_path / "models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def command(*arguments: str) -> Ended:
        capsys.readouterr()
        try:
            status = main(arguments)
        except SystemExit as error:  # argparse
            assert isinstance(error.code, int)
            status = error.code
        return Ended(status, *capsys.readouterr())

    before = set(sys.modules)
    yield command
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def files(folder: str = ".") -> set[str]:
    return {path.name for path in Path(folder).iterdir() if path.name not in ("models.py", "__pycache__")}


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"}


# export


def test_export(run: Run) -> None:
    """The file is right on the other side of the branch; the report is on one stream, the stages on the other."""
    got = run("export", "models:head", "-o", "head.pt")
    assert got.status == 0
    assert got.out.startswith("models.Head as torchscript: verified, 2 checks") and got.out.count("\n") > 8
    rows = [re.sub(r"\[ *[\d.]+ s\] ", "", row) for row in got.err.splitlines()]
    assert rows[:6] == [
        "call models:head",
        "noise of the model's own code",
        "capture forward",
        "save, and load again",
        "check on cpu (2 calls)",
        "write",
    ]
    assert re.fullmatch(r"wrote head\.pt \([\d,]+ bytes\)", rows[6]) and len(rows) == 7
    torch.manual_seed(0)
    model = sys.modules["models"].Head().eval()
    for x in (torch.ones(1, 4), -torch.ones(1, 4)):
        assert torch.equal(hj.load("head.pt")(x), model(x))
    assert files() == {"head.pt"}


def test_json_is_all_there_is_on_the_standard_output(run: Run) -> None:
    """`--json` gives the report, whatever the model's code prints."""
    got = run("export", "models:head", "-o", "head.pt", "--json")
    report = hj.Report.from_json(got.out)
    assert report.ok and len(report.checks) == 2 and "noise" in got.err


def test_quiet(run: Run) -> None:
    """`--quiet` prints nothing of its own, and the file and the page are written."""
    got = run("export", "models:simple", "-o", "simple.pt", "--quiet", "--html", "report.html")
    assert got == Ended(0, "", "")
    assert files() == {"simple.pt", "report.html"}
    assert "<title>torch.nn.modules.linear.Linear · hybridjit</title>" in Path("report.html").read_text()


def test_a_refused_export(run: Run) -> None:
    """The message is on the standard error without a traceback, JSON and page have the report, and there is no file."""
    got = run("export", "models:frozen", "-o", "frozen.pt", "--json", "--html", "why.html")
    assert got.status == 1 and files() == {"why.html"}
    assert not hj.Report.from_json(got.out).ok
    assert "hybridjit: VerificationError: " in got.err and "Traceback" not in got.err
    assert "not verified" in Path("why.html").read_text()


def test_a_refused_export_leaves_the_old_file(run: Run) -> None:
    """What was there before stays."""
    Path("frozen.pt").write_bytes(b"old")
    assert run("export", "models:frozen", "-o", "frozen.pt", "--quiet").out == ""
    assert Path("frozen.pt").read_bytes() == b"old"


def test_the_command_line_goes_before_the_function(run: Run) -> None:
    """`--on-frozen error` refuses what the function's own options let pass; the rest of them stay."""
    got = run("export", "models:lenient", "-o", "lenient.pt", "--on-frozen", "error")
    assert got.status == 1 and "hybridjit: CaptureError: " in got.err and files() == set()
    got = run("export", "models:other", "-o", "other.pt", "--require-coverage")
    assert got.status == 1 and "hybridjit: VerificationError: " in got.err and "models.py:16" in got.err
    assert "is as in a plain trace" in run("export", "models:lenient", "-o", "lenient.pt").out
    assert "check on meta (1 call)" in run("export", "models:simple", "-o", "simple.pt", "--device", "meta").err


def test_branches_and_optimize_reach_the_export(run: Run) -> None:
    """A pattern that fits nothing is refused by name, and a frozen file has no parameters."""
    got = run("export", "models:simple", "-o", "simple.pt", "--branches", "head.*", "auto")
    assert got.status == 1 and "'head.*'" in got.err
    assert run("export", "models:simple", "-o", "simple.pt", "--branches", "auto", "--optimize", "freeze").status == 0
    assert list(hj.load("simple.pt").module.parameters()) == []


def test_several_formats(run: Run) -> None:
    """The first is written under the name given, the other beside it, and the report compares them."""
    got = run("export", "models:simple", "-o", "simple.bin", "--format", "torchscript", "pt2")
    assert got.status == 0 and files() == {"simple.bin", "simple.pt2"}
    assert "formats\n" in got.out and "capture for pt2, by torch.export" in got.err
    assert hj.load("simple.pt2").format == "pt2"


def test_auto_gives_the_file_a_suffix_of_its_format(run: Run) -> None:
    """Where what comes out has another suffix than the one given, that is put there, and said."""
    got = run("export", "models:simple", "-o", "simple.onnx", "--format", "auto")
    assert got.status == 0 and files() == {"simple.pt"} and "wrote simple.pt " in got.err


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("-o", "simple.onnx"), 1, "simple.onnx has the suffix of another format"),
        (("-o", "missing/simple.pt"), 1, "simple.pt could not be written: there is no such folder"),
        (("-o", "simple.pt", "--html", "missing/x.html"), 1, "x.html could not be written: there is no such folder"),
        (("-o", "simple.pt2", "--format", "pt2", "aoti"), 2, "two of the formats have files of one name"),
        (("-o", "simple.pt", "--device", "nowhere"), 1, "expected a device that is here, got 'nowhere'"),
        (("-o", "simple.pt", "--format", "caffe"), 2, "invalid choice: 'caffe'"),
        ((), 2, "the following arguments are required: -o/--output"),
    ],
)
def test_refused_before_the_work(run: Run, arguments: tuple[str, ...], status: int, said: str) -> None:
    """What can't come to a file is refused before the model is captured."""
    got = run("export", "models:simple", *arguments)
    assert (got.status, got.out) == (status, "") and said in got.err
    assert "capture" not in got.err and "Traceback" not in got.err and files() == set()


def test_a_page_that_is_a_folder(run: Run) -> None:
    """What is found out at the writing of the page is a message as well."""
    Path("page").mkdir()
    got = run("export", "models:simple", "-o", "simple.pt", "--html", "page")
    assert got.status == 1 and "hybridjit: ArchiveError: page could not be written: Is a directory" in got.err


# package.module:build


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("models", ["is named as package.module:build", "got models\n", "write instead: models:build"]),
        ("./models.py", ["is named as package.module:build", "write instead: models:build"]),
        ("sub/models.py:head", ["got sub/models.py:head", "write instead: sub.models:build"]),
        ("models:", ["got models:\n"]),
        ("nowhere:build", ["there is no module nowhere", "in the folder that holds nowhere"]),
        ("models.sub:build", ["there is no module models.sub"]),
        ("models:haed", ["models has no function haed", "models.py", "it has head", "write instead: models:head"]),
        ("models:zzz", ["models has no function zzz", "it has head, other, frozen"]),
        ("models:number", ["models:number is no function", "got int"]),
    ],
)
def test_a_target_that_is_not_there(run: Run, target: str, said: list[str]) -> None:
    """It is wrong usage, and the message has what there is."""
    got = run("export", target, "-o", "x.pt")
    assert got.status == 2 and got.out == "" and "Traceback" not in got.err and files() == set()
    assert [text for text in said if text not in got.err] == []


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("models:lone", ["expected (model, inputs) or (model, inputs, options), got Head"]),
        ("models:four", ["got a tuple of 4"]),
        ("models:listed", ["expected keywords of hybridjit.export in a dict, got list"]),
        ("models:misspelt", ["options['check_input']: is none of kwargs, format, branches", "optimize"]),
        ("models:training", ["training mode"]),
    ],
)
def test_a_function_that_returns_something_else(run: Run, target: str, said: list[str]) -> None:
    """It is an `InputError`, which says what is expected."""
    got = run("export", target, "-o", "x.pt")
    assert got.status == 1 and "hybridjit: InputError: " in got.err and "Traceback" not in got.err
    assert [text for text in said if text not in got.err] == [] and files() == set()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "def build():\n    return 1 // 0\n",
            ["mine:build raised\nTraceback (most", 'mine.py", line 2, in build', "ZeroDivisionError"],
        ),
        (
            "import absent\n",
            ["mine could not be imported", 'mine.py", line 1, in <module>', "No module named 'absent'"],
        ),
        ("x = \n", ["mine could not be imported", 'mine.py", line 1', "SyntaxError"]),
        ("raise OSError('no checkpoint')\n", ["mine could not be imported", "OSError: no checkpoint"]),
    ],
)
def test_code_that_raises(run: Run, source: str, said: list[str]) -> None:
    """The traceback is the user's own, from his first line on."""
    Path("mine.py").write_text(source)
    got = run("export", "mine:build", "-o", "x.pt")
    assert got.status == 1
    assert [text for text in said if text not in got.err] == []
    assert str(ROOT / "hybridjit") not in got.err and "importlib" not in got.err and files() == {"mine.py"}


# verify


def test_verify(run: Run) -> None:
    """The same model passes on every call of the function; one with other weights is told, and fails."""
    assert run("export", "models:head", "-o", "head.pt", "--quiet").status == 0
    got = run("verify", "head.pt", "models:head", "--html", "page.html")
    assert got.status == 0 and "verified, 2 checks" in got.out and "check on cpu (2 calls)" in got.err
    assert Path("page.html").exists()
    got = run("verify", "head.pt", "models:other", "--json")
    assert got.status == 1 and not hj.Report.from_json(got.out).ok
    assert "hybridjit: VerificationError: head.pt gives something else than the model of models:other" in got.err
    got = run("verify", "head.pt", "models:other", "--quiet")
    assert got.status == 1 and got.out == "" and "VerificationError" in got.err


def test_verify_with_keywords_and_flags(run: Run) -> None:
    """`kwargs` of the options go with every call, every combination of flags is compared, on the device asked for."""
    assert run("export", "models:plain", "-o", "plain.pt", "--quiet").status == 0
    got = run("verify", "plain.pt", "models:plain", "--device", "meta", "--json")
    checks = hj.Report.from_json(got.out).checks
    assert [(c.device, c.entry) for c in checks] == [
        ("meta", "forward(twice=False)"),
        ("meta", "forward(twice=True)"),
    ]


def test_a_file_that_is_none(run: Run) -> None:
    """It is an `ArchiveError` for every command that reads one."""
    Path("cut.pt").write_bytes(b"PK\x03\x04cut")
    for arguments in (("verify", "cut.pt", "models:head"), ("inspect", "cut.pt"), ("inspect", "missing.pt", "--code")):
        got = run(*arguments)
        assert got.status == 1 and "hybridjit: ArchiveError: " in got.err and "Traceback" not in got.err


# inspect


def test_inspect(run: Run) -> None:
    """All is told from the file alone: the model's module is gone."""
    assert run("export", "models:plain", "-o", "plain.pt", "--quiet").status == 0
    del sys.modules["models"]
    Path("models.py").unlink()
    got = run("inspect", "plain.pt", "--html", "page.html")
    assert got.status == 0 and got.err == "" and Path("page.html").exists()
    first, _, *rows = got.out.splitlines()
    assert re.fullmatch(rf"plain\.pt: torchscript, [\d,]+ bytes, made with torch {re.escape(torch.__version__)}", first)
    assert rows[:8] == [
        "forward(x, scale=1.0, twice=False)",
        "  in the file forward with twice=False",
        "  takes",
        "    x: tensor",
        "    scale: tensor",
        "    twice: False",
        "    as tensors: x, scale",
        "  returns",
    ]
    assert rows[8] == "    result['y']: tensor" and "models.Plain as torchscript: verified" in got.out
    assert "def forward(" not in got.out


def test_inspect_as_json_and_with_code(run: Run) -> None:
    """JSON has the entries with their schemas, the report, and the code where asked for."""
    assert run("export", "models:plain", "-o", "plain.pt", "--quiet").status == 0
    told = json.loads(run("inspect", "plain.pt", "--json").out)
    assert told["format"] == "torchscript" and told["bytes"] == Path("plain.pt").stat().st_size and "code" not in told
    assert [entry["flags"][0]["value"] for entry in told["entries"]] == [False, True]
    assert told["entries"][0]["tensors"] == ["x", "scale"] and told["report"]["ok"] is True
    assert "def forward(" in json.loads(run("inspect", "plain.pt", "--json", "--code").out)["code"]
    assert "\ncode\ndef forward(" in run("inspect", "plain.pt", "--code").out


def test_inspect_does_not_open_the_program(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of a format that nothing here can run is told of all the same."""
    assert run("export", "models:simple", "-o", "simple.pt2", "--format", "pt2", "--quiet").status == 0
    monkeypatch.setattr(_torch, "load_programs", None)
    assert run("inspect", "simple.pt2").out.startswith("simple.pt2: pt2, ")
    with pytest.raises(TypeError):
        run("inspect", "simple.pt2", "--code")


# doctor


def test_doctor(run: Run) -> None:
    """What is here and what works is told, and the self-test passes."""
    got = run("doctor")
    assert got.status == 0 and got.err == ""
    for name in (
        "hybridjit ",
        "Python ",
        "torch ",
        "devices ",
        "C++ compiler",
        "torchscript  yes",
        "  passed: both sides",
    ):
        assert f"  {name}" in got.out or name in got.out
    told = json.loads(run("doctor", "--json").out)
    assert told["environment"]["torch"].startswith(str(torch.__version__)) and told["self_test"]["ok"] is True
    assert [row["name"] for row in told["formats"]] == ["torchscript", "pt2", "onnx", "aoti"]


def test_doctor_says_what_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages that are not there are named with the command, and are no failure."""
    monkeypatch.setattr(doctor, "_EXTRA", ("onnx", "no_such_package"))
    monkeypatch.setenv("PATH", "")
    got = run("doctor")
    assert got.status == 0 and "without no_such_package: pip install hybridjit[onnx]" in got.out
    assert "aoti         no   needs a C++ compiler" in got.out


def test_doctor_fails_with_the_self_test(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether an export raises or a file is wrong, the reason is told."""
    with monkeypatch.context() as patch:
        patch.setattr(doctor, "load", lambda path: lambda x: x.new_zeros(len(x), 2))
        got = run("doctor")
    assert got.status == 1 and "FAILED: the loaded file differs from the model on 2 of 2 inputs" in got.out
    command = [sys.executable, "-m", "hybridjit", "doctor"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0 and "  passed: both sides" in done.stdout
    done = subprocess.run(command, env={**environment(), "PYTHONIOENCODING": "ascii"}, capture_output=True, text=True)
    assert done.returncode == 0 and "comparing \\u2026" in done.stdout
    done = subprocess.run(command, env={**environment(), "PYTORCH_JIT": "0"}, capture_output=True, text=True)
    assert done.returncode == 1 and "torchscript  no   torch.jit is switched off" in done.stdout
    assert "FAILED: UnsupportedError: format 'torchscript' needs torch.jit" in done.stdout
    assert "it is switched off by PYTORCH_JIT=0" in done.stdout


# explain


@pytest.mark.parametrize("code", ["HJ101", "hj101", "docs/errors.md#hj101", "VerificationError", "loops-over-tensors"])
def test_explain(run: Run, code: str) -> None:
    """A code, a class and an anchor as messages write it give the very section of the page."""
    got = run("explain", code)
    heading, _, rest = got.out.partition("\n")
    assert got.status == 0 and heading[3:].lower() == code.rpartition("#")[2].lower()
    assert len(rest) > 40 and got.out in ERRORS + "\n" and "\n## " not in rest


def test_explain_has_every_section(run: Run) -> None:
    """Alone it lists them; a heading within a block of code is none."""
    names = run("explain").out.splitlines()
    assert names == re.findall(r"^## (.+)$", ERRORS, re.MULTILINE) and {"HJ101", "ArchiveError"} <= set(names)
    assert list(sections_of("# A\n## B\n```sh\n## C\n```\n## D")) == ["B", "D"]


def test_explain_something_unknown(run: Run) -> None:
    """What is spelled almost so is proposed, and else everything."""
    got = run("explain", "VerifyError")
    assert got.status == 2 and "nothing is known of VerifyError" in got.err
    assert "write instead: hybridjit explain VerificationError" in got.err
    assert all(name in run("explain", "???").err for name in ("InputError", "HJ307"))


def test_an_installed_package_has_the_page(tmp_path: Path) -> None:
    """The wheel holds the page as it is in docs, and `explain` reads it there."""
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    assert (tmp_path / "installed" / "hybridjit" / "errors.md").read_text() == ERRORS == page()
    (points,) = (tmp_path / "installed").glob("*.dist-info/entry_points.txt")
    assert "hybridjit = hybridjit.cli.main:main" in points.read_text()
    done = subprocess.run(
        [sys.executable, "-m", "hybridjit", "explain", "HJ101"],
        cwd=tmp_path,
        env={**environment(), "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "## HJ101")


# the program as a whole


def test_as_a_process(tmp_path: Path) -> None:
    """`python -m hybridjit` finds the module in the current folder, and its report names no line but the user's."""
    (tmp_path / "models.py").write_text(MODELS)

    def process(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "hybridjit", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)

    done = process("export", "models:head", "-o", "head.pt", "--json")
    report = hj.Report.from_json(done.stdout)
    assert done.returncode == 0 and report.ok and (tmp_path / "head.pt").exists()
    assert (report.findings, report.guards) == ((), ())
    done = process("exprot")
    assert done.returncode == 2 and "invalid choice: 'exprot'" in done.stderr
    done = process("verify", "missing.pt", "models:head")
    assert done.returncode == 1 and "ArchiveError: missing.pt is no file" in done.stderr


def test_interrupted_in_a_capture(tmp_path: Path) -> None:
    """A signal that comes while the model is traced ends the program with 130, and there is no file."""
    (tmp_path / "models.py").write_text(MODELS.replace("time.sleep(0.5)", "time.sleep(30)"))
    process = subprocess.Popen(
        [sys.executable, "-m", "hybridjit", "export", "models:slow", "-o", "slow.pt"],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )
    assert process.stderr is not None
    told = ""
    while "half a line" not in told:
        told += process.stderr.read(1)
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate()
    assert process.returncode == 130 and rest.endswith("capture forward: interrupted\nhybridjit: interrupted\n")
    assert "Traceback" not in told + rest and not (tmp_path / "slow.pt").exists()


def test_a_reader_that_has_seen_enough() -> None:
    """A pipe that is closed early ends the program without a traceback."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "hybridjit", "explain"]
    done = subprocess.run(command, env=environment(), stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def heed_interrupts() -> None:
    """Undoes what a shell does to programs in the background: they ignore Ctrl-C, and so does what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass
class Terminal:
    """A program in a pseudo-terminal.

    Attributes:
        shown: What it has drawn.
        status: How it ended.
    """

    shown: str
    status: int


def in_a_terminal(folder: Path, *arguments: str, interrupt_at: str = "") -> Terminal:
    """Runs the program in a terminal of its own; presses Ctrl-C once it has drawn some text."""
    process, terminal = pty.fork()
    if not process:
        heed_interrupts()
        os.chdir(folder)
        os.execve(sys.executable, [sys.executable, "-m", "hybridjit", *arguments], environment())
    shown = b""
    end = time.monotonic() + 300
    while time.monotonic() < end and select.select([terminal], [], [], 300)[0]:
        try:
            chunk = os.read(terminal, 4096)
        except OSError:  # Linux's way of saying that the program has closed it
            break
        if not chunk:
            break
        shown += chunk
        if interrupt_at and interrupt_at.encode() in shown:
            os.write(terminal, b"\x03")
            interrupt_at = ""
    os.close(terminal)
    return Terminal(shown.decode(), os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))


# The program replaces the child at once, which is safe among threads.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_progress_in_a_terminal(tmp_path: Path) -> None:
    """The running stage is redrawn in place with its time; what the model prints is on lines of its own."""
    (tmp_path / "models.py").write_text(MODELS)
    got = in_a_terminal(tmp_path, "export", "models:slow", "-o", "slow.pt")
    assert got.status == 0 and (tmp_path / "slow.pt").exists()
    drawings = re.findall(r"\r\x1b\[2K +([\d.]+) s  capture forward …", got.shown)
    assert drawings
    lines = [line.rpartition("\r\x1b[2K")[2].rstrip("\r") for line in got.shown.split("\n")]
    assert [re.sub(r"^ +[\d.]+ s  ", "", line) for line in lines if re.match(r" +[\d.]+ s  ", line)][:5] == [
        "call models:slow",
        "capture forward",
        "save, and load again",
        "check on cpu (1 call)",
        "write",
    ]
    assert any(line.startswith("half a line") for line in lines)
    assert "models.Slow as torchscript: verified" in got.shown


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_long_stage_is_redrawn(tmp_path: Path) -> None:
    """While a stage runs its time goes on; Ctrl-C ends it with 130, one line, and no file."""
    (tmp_path / "models.py").write_text("import time\n\n\ndef build():\n    time.sleep(600)\n")
    got = in_a_terminal(tmp_path, "export", "models:build", "-o", "x.pt", interrupt_at=" 0.5 s  call models:build …")
    assert got.status == 130
    times = re.findall(r"\r\x1b\[2K +([\d.]+) s  call models:build …", got.shown)
    assert len(set(times)) > 2 and times == sorted(times)
    *_, last, told, _ = got.shown.split("\r\n")
    assert last.endswith("call models:build: interrupted") and told == "hybridjit: interrupted"
    assert "Traceback" not in got.shown and {path.name for path in tmp_path.iterdir()} <= {"models.py", "__pycache__"}


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_quiet_in_a_terminal(tmp_path: Path) -> None:
    """There too nothing is drawn."""
    (tmp_path / "models.py").write_text(MODELS)
    assert in_a_terminal(tmp_path, "export", "models:simple", "-o", "simple.pt", "--quiet") == Terminal("", 0)


def test_progress_leaves_nothing_behind(capsys: pytest.CaptureFixture[str]) -> None:
    """An error is told with its stage; streams, listener and threads are as before."""
    streams, threads = (sys.stdout, sys.stderr), threading.active_count()
    with contextlib.suppress(ZeroDivisionError), Progress() as progress:
        progress.stage("divide")
        raise ZeroDivisionError
    assert capsys.readouterr().err.splitlines()[-1].endswith("] divide: failed")
    assert (sys.stdout, sys.stderr) == streams and threading.active_count() == threads
    hj.export(torch.nn.Linear(2, 1).eval(), torch.zeros(3, 2))
    assert capsys.readouterr() == ("", "")


def test_the_program_is_found_by_its_name() -> None:
    """Where the package is installed, so is the script."""
    script = shutil.which("hybridjit", path=str(Path(sys.executable).parent))
    if script is None:
        pytest.skip("the package is not installed here")
    done = subprocess.run([script, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: hybridjit ")
