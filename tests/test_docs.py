"""Every Python block and every terminal session of the docs runs, page by page, and so does every doctest."""

import contextlib
import doctest
import importlib
import io
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import hybridjit
from hybridjit.cli.main import main
from hybridjit.export import report

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = [
    module.name
    for module in pkgutil.walk_packages(hybridjit.__path__, "hybridjit.")
    if not module.name.endswith("__main__")  # importing it would run it
]

FENCE = re.compile(r"(?P<indent> *)(?P<ticks>```+) *(?P<info>.*)")
# A fence of another spelling would not run, and nobody would notice.
MISSPELT = re.compile(r"(py|python\d*|pycon|ipython|console)\b", re.IGNORECASE)
FILE = re.compile(r"python (\w+\.py)")
"""A block that is a file of the reader's, for later blocks and commands."""


def program(page: str) -> str:
    """The Python blocks and the terminal sessions of a page as one program, each line where it is on the page.

    Raises:
        ValueError: A fence is not closed, misspelt, or is not to be run without a reason.
    """
    lines = page.splitlines()
    made = [""] * len(lines)
    number = 0
    while number < len(lines):
        fence = FENCE.fullmatch(lines[number])
        number += 1
        if fence is None:
            continue
        start, info = number, fence["info"].strip()
        while number < len(lines) and lines[number].strip() != fence["ticks"]:
            number += 1
        if number == len(lines):
            raise ValueError(f"line {start}: the block is not closed")
        indent = len(fence["indent"])
        block = [line[indent:] for line in lines[start:number]]
        file = FILE.fullmatch(info)
        if info == "python":
            made[start:number] = block
        elif file:
            made[start - 1] = f"keep({file[1]!r}, {chr(10).join([*block, ''])!r})"
            if not re.search(rf"\b{Path(file[1]).stem}\b", "\n".join(lines[number:])):
                raise ValueError(f"line {start}: nothing imports or runs {file[1]}")
        elif info in ("console", "console fails"):
            made[start - 1] = f"session({chr(10).join(block)!r}, fails={info != 'console'})"
        elif info == "python no-run":
            above = next((line for line in reversed(lines[: start - 1]) if line.strip()), "")
            if not re.fullmatch(r"\s*<!-- no-run: \S.* -->\s*", above):
                raise ValueError(f"line {start}: no-run needs <!-- no-run: the reason --> above it")
        elif MISSPELT.match(info):
            raise ValueError(f"line {start}: ```{info} is none of ```python, ```python no-run, ```console")
        number += 1
    return "\n".join(made) + "\n"


def session(block: str, fails: bool = False) -> None:
    """Runs the commands of a terminal session, each after a ``$``, and compares what they print.

    Numbers and widths may be others, and ``...`` stands for anything.
    """
    checker = doctest.OutputChecker()
    for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, wanted = step.partition("\n")
        status, got = run_command(command)
        # What torch 2.12 says where there is no triton.
        got = re.sub(r"^W\d+ .*\] triton not found.*\n", "", got, flags=re.MULTILINE)
        assert bool(status) == fails, f"{command}: exit status {status}\n{got}"
        assert checker.check_output(numberless(wanted), numberless(got), doctest.ELLIPSIS), f"$ {command}\n{got}"


def numberless(text: str) -> str:
    rows = re.sub(r"\d+([.,]\d+)*(e[-+]?\d+)?", "0", text).splitlines()
    return "\n".join(" ".join(row.split()) for row in rows).strip() + "\n"


def run_command(command: str) -> tuple[int, str]:
    """Runs one command of a session: hybridjit's in this process, so that torch is imported once."""
    words = shlex.split(command)
    if words[0] == "hybridjit":
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
            return main(words[1:]), out.getvalue()
    if words[0] == "python":
        words[0] = sys.executable
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=300)
    return done.returncode, done.stdout + done.stderr


def run_page(page: str, stem: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Runs a page's blocks in one namespace.

    The program lies in a file, since TorchScript reads the source of what it compiles.
    """
    path = folder / f"page_{stem}.py"  # by no name that a block imports
    path.write_text(program(page))
    module = ModuleType(f"page_{stem}")
    module.__file__ = str(path)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    module.__dict__.update(session=session, keep=lambda name, text: (folder / name).write_text(text))
    before = set(sys.modules)
    try:
        exec(compile(path.read_text(), path, "exec"), module.__dict__)
    finally:
        for name in set(sys.modules) - before:  # the page's own files: another page may have others of that name
            if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
                del sys.modules[name]
    return module


def run_doctests(module: ModuleType) -> doctest.TestResults:
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module):
        runner.run(test)
    return runner.summarize(verbose=False)


# Pages show where torch.jit.trace goes wrong, and it warns there.
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_of_the_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks run in order, in an empty folder, sharing their names."""
    text = page.read_text()
    if re.search(r"format.*\bonnx\b|onnxruntime", program(text)):
        pytest.importorskip("onnxruntime")  # the extra onnx
    monkeypatch.setattr(importlib.import_module("hybridjit.export.compile_report"), "_graphs", [])  # of other tests
    run_page(text, page.stem.replace("-", "_"), tmp_path, monkeypatch)


def test_the_map_has_every_file() -> None:
    """docs/design.md tells what each file of the package is for, and of none that is not there."""
    text = (ROOT / "docs" / "design.md").read_text()
    _, *parts = re.split(r"^### (.*)$", text[text.index("## The map") :], flags=re.MULTILINE)
    for heading, part in zip(parts[::2], parts[1::2], strict=True):
        folder, slash, _ = heading.partition("/")
        files = (ROOT / "hybridjit" / (folder if slash else "")).glob("*.py")
        there = {path.name for path in files if not (slash and path.name == "__init__.py")}
        assert set(re.findall(r"`(\w+\.py)`", part)) == there, heading


def test_the_reference_has_every_public_name() -> None:
    """docs/api.md lists what `hybridjit` exports, and what a report is made of."""
    text = (ROOT / "docs" / "api.md").read_text()
    listed = set(re.findall(r"^   (\w+)$", text, re.MULTILINE))
    public = {name for name, value in vars(hybridjit).items() if name[0] != "_" and not isinstance(value, ModuleType)}
    assert public <= listed
    assert all(hasattr(hybridjit, name) or hasattr(report, name) for name in listed)


def test_readme_has_blocks() -> None:
    """There is something to run."""
    assert "import hybridjit" in program((ROOT / "README.md").read_text())


@pytest.mark.parametrize("name", ["hybridjit", *MODULES])
def test_doctests(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples in docstrings give what they say."""
    monkeypatch.chdir(tmp_path)
    assert run_doctests(importlib.import_module(name)).failed == 0


def test_there_are_doctests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search finds the examples of a decorator and of a class."""
    monkeypatch.chdir(tmp_path)
    for name in ("hybridjit.control.script", "hybridjit.adapters.flatten"):
        assert run_doctests(importlib.import_module(name)).attempted > 0


def test_names_are_shared_within_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block sees what an earlier block of its page made; text and other languages are passed over."""
    page = "```python\nx = 1\n```\ntext\n```sh\nexit 1\n```\n- item\n  ```python\n  y = x + 1\n  ```\n"
    assert run_page(page, "page", tmp_path, monkeypatch).y == 2


def test_a_failing_block_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in a block comes through, with the line of the page."""
    with pytest.raises(ZeroDivisionError) as error:
        run_page("# Page\n\n```python\nx = 1\nx / 0\n```\n", "page", tmp_path, monkeypatch)
    assert error.traceback[-1].lineno + 1 == 5


def test_a_file_can_be_imported_and_its_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block with a file's name is that file, for later blocks and for the commands of a session."""
    page = "```python one.py\nx = 1\nprint('made', x)\n```\n```python\nimport one\n```\n"
    page += "```console\n$ python one.py\nmade 12.5\n```\n```console fails\n$ hybridjit explain nonsense\n...\n```\n"
    assert run_page(page, "page", tmp_path, monkeypatch).one.x == 1
    assert "one" not in sys.modules


@pytest.mark.parametrize("block", ["console\n$ python one.py\nMADE 1", "console fails\n$ python one.py\nmade 1"])
def test_a_session_that_prints_something_else_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: str
) -> None:
    """Other words are an error, and so is another way to end."""
    with pytest.raises(AssertionError, match="made 1"):
        run_page(f"```python one.py\nprint('made 1')\n```\n```{block}\n```\n", "page", tmp_path, monkeypatch)


def test_a_block_is_skipped_with_a_reason_only() -> None:
    """A no-run block is left out if the comment above it says why, and refused otherwise."""
    block = "```python no-run\n1 / 0\n```\n"
    assert program(f"<!-- no-run: needs a server -->\n\n{block}").strip() == ""
    for above in ("", "text\n", "<!-- no-run: -->\n"):
        with pytest.raises(ValueError, match="no-run needs"):
            program(above + block)


@pytest.mark.parametrize("info", ["py", "python3", "Python", "python norun", "pycon", "console maybe"])
def test_a_misspelt_fence_is_refused(info: str) -> None:
    """A block that would silently not run is an error."""
    with pytest.raises(ValueError, match="is none of"):
        program(f"```{info}\nx = 1\n```\n")


def test_a_file_is_for_something() -> None:
    """A file that no later block or command names would not run."""
    with pytest.raises(ValueError, match=r"line 1: nothing imports or runs one\.py"):
        program("```python one.py\nx = 1\n```\n")


def test_an_open_fence_is_refused() -> None:
    """A block that is never closed is an error."""
    with pytest.raises(ValueError, match="not closed"):
        program("```python\nx = 1\n")


def test_a_false_doctest_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """An example that gives something else is counted."""
    module = ModuleType("false")
    module.__doc__ = ">>> 1 + 1\n3\n"
    assert run_doctests(module).failed == 1
    assert "Expected" in capsys.readouterr().out
