"""Every Python block of the docs runs, page by page, and so does every doctest."""

import doctest
import importlib
import pkgutil
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

import hybridjit

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = [
    module.name
    for module in pkgutil.walk_packages(hybridjit.__path__, "hybridjit.")
    if not module.name.endswith("__main__")  # importing it would run it
]

FENCE = re.compile(r"(?P<indent> *)```+ *(?P<info>.*)")
# A fence of another spelling would not run, and nobody would notice.
MISSPELT = re.compile(r"(py|python\d*|pycon|ipython)\b", re.IGNORECASE)


def program(page: str) -> str:
    """The Python blocks of a page as one program, each line where it is on the page.

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
        while number < len(lines) and lines[number].strip() != "```":
            number += 1
        if number == len(lines):
            raise ValueError(f"line {start}: the block is not closed")
        if info == "python":
            indent = len(fence["indent"])
            made[start:number] = [line[indent:] for line in lines[start:number]]
        elif info == "python no-run":
            above = next((line for line in reversed(lines[: start - 1]) if line.strip()), "")
            if not re.fullmatch(r"\s*<!-- no-run: \S.* -->\s*", above):
                raise ValueError(f"line {start}: no-run needs <!-- no-run: the reason --> above it")
        elif MISSPELT.match(info):
            raise ValueError(f"line {start}: ```{info} is neither ```python nor ```python no-run")
        number += 1
    return "\n".join(made) + "\n"


def run_page(page: str, stem: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Runs a page's blocks in one namespace.

    The program lies in a file, since TorchScript reads the source of what it compiles.
    """
    path = folder / f"{stem}.py"
    path.write_text(program(page))
    module = ModuleType(f"page_{stem}")
    module.__file__ = str(path)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.chdir(folder)
    exec(compile(path.read_text(), path, "exec"), module.__dict__)
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
    run_page(page.read_text(), page.stem.replace("-", "_"), tmp_path, monkeypatch)


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


def test_a_block_is_skipped_with_a_reason_only() -> None:
    """A no-run block is left out if the comment above it says why, and refused otherwise."""
    block = "```python no-run\n1 / 0\n```\n"
    assert program(f"<!-- no-run: needs a server -->\n\n{block}").strip() == ""
    for above in ("", "text\n", "<!-- no-run: -->\n"):
        with pytest.raises(ValueError, match="no-run needs"):
            program(above + block)


@pytest.mark.parametrize("info", ["py", "python3", "Python", "python norun", "pycon"])
def test_a_misspelt_fence_is_refused(info: str) -> None:
    """A block that would silently not run is an error."""
    with pytest.raises(ValueError, match="neither"):
        program(f"```{info}\nx = 1\n```\n")


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
