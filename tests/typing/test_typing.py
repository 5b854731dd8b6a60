"""Type checkers see exact signatures through hybridjit's decorators."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ACCEPTED, REFUSED = HERE / "accepted.py", HERE / "refused.py"


def mypy(path: Path) -> list[tuple[int, str]]:
    """The errors that `mypy --strict` finds in one file: line and code."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-pretty", "--show-error-codes", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = re.findall(r"^(\S+?):(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.MULTILINE)
    assert (done.returncode == 1) == bool(found), done.stdout
    return [(int(line), code) for file, line, code in found if Path(file).name == path.name]


def pyright(path: Path) -> list[tuple[int, str]]:
    """The errors that pyright finds in one file: line and rule."""
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    errors = [each for each in json.loads(done.stdout)["generalDiagnostics"] if each["severity"] == "error"]
    return [(each["range"]["start"]["line"] + 1, each.get("rule", "")) for each in errors]


@pytest.fixture(scope="module")
def pyright_runs() -> None:
    """Skips where pyright can't run: not installed, or no Node and no network to get it from."""
    command = [sys.executable, "-m", "pyright", "--version"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    except subprocess.TimeoutExpired:
        pytest.skip("pyright does not start: no Node here, and none to be had")
    if done.returncode:
        pytest.skip(f"pyright does not start: {done.stderr.strip().splitlines()[-1]}")


def expected(path: Path, mark: str) -> list[tuple[int, str]]:
    """Line and code of each comment that silences an error."""
    return [
        (number, code.strip())
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for codes in re.findall(rf"# {mark}: ignore\[([\w, -]+)\]", line)
        for code in codes.split(",")
    ]


def unsilenced(path: Path, mark: str) -> Path:
    """A copy of a file, beside it, without the comments; the caller removes it."""
    copy = path.with_name(f"unsilenced_{mark}_{path.name}")
    copy.write_text(re.sub(rf"  # {mark}: ignore\[[\w, -]+\]", "", path.read_text()))
    return copy


def test_mypy_accepts() -> None:
    """mypy finds the exact types, and every error where one is expected and nowhere else."""
    assert mypy(ACCEPTED) == []
    assert mypy(REFUSED) == []


def test_mypy_refuses() -> None:
    """Without the comments, mypy reports exactly the errors that they name."""
    copy = unsilenced(REFUSED, "type")
    try:
        assert sorted(set(mypy(copy))) == sorted(expected(REFUSED, "type"))
    finally:
        copy.unlink()


@pytest.mark.usefixtures("pyright_runs")
def test_pyright_accepts() -> None:
    """pyright finds the same exact types, and the expected errors only."""
    assert pyright(ACCEPTED) == []
    assert pyright(REFUSED) == []


@pytest.mark.usefixtures("pyright_runs")
def test_pyright_refuses() -> None:
    """Without the comments, pyright reports an error on each of their lines."""
    copy = unsilenced(REFUSED, "pyright")
    try:
        assert sorted(set(pyright(copy))) == sorted(expected(REFUSED, "pyright"))
    finally:
        copy.unlink()


def test_every_public_type_is_known(pyright_runs: None) -> None:
    """Pyright infers nothing of the public interface: its score of completeness is 100 %."""
    command = [sys.executable, "-m", "pyright", "--ignoreexternal", "--verifytypes", "hybridjit", "--outputjson"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
    )
    found = json.loads(done.stdout)
    unknown = [
        each["name"] for each in found["typeCompleteness"]["symbols"] if each["isExported"] and not each["isTypeKnown"]
    ]
    assert unknown == [] and found["typeCompleteness"]["completenessScore"] == 1.0


def test_mypy_is_told_to_ignore_next_to_nothing() -> None:
    """Outside of `_torch.py` the defaults of a TypeVarTuple and a dtype in TorchScript, a number there: no more."""
    found = [
        path.name
        for path in (ROOT / "hybridjit").rglob("*.py")
        for line in path.read_text().splitlines()
        if "type: ignore" in line and path.name != "_torch.py"
    ]
    assert sorted(found) == ["cond.py", "cond.py", "onnx_types.py"]
