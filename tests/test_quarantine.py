"""The rules on where code may be: private torch in one file, imports one way, short files."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = sorted((ROOT / "hybridjit").rglob("*.py"))
SHOWN = [path for folder in ("examples", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
EVERYTHING = [*PACKAGE, *SHOWN, *sorted((ROOT / "tests").rglob("*.py"))]
QUARANTINE = ROOT / "hybridjit" / "_torch.py"
MOST_LINES = 400
# Folder of the package to the folders it must not import.
NOT_BACK = {"control": ("adapters", "export"), "adapters": ("export",)}


def is_private(path: str) -> bool:
    """Whether a dotted path leads through torch's private parts."""
    root, *rest = path.split(".")
    return root == "torch" and any(part.startswith("_") and not part.startswith("__") for part in rest)


def is_jit(path: str) -> bool:
    return path == "torch.jit" or path.startswith("torch.jit.")


def torch_paths(source: str) -> Iterator[tuple[int, str]]:
    """Every dotted path below torch that code names, with its line; text and comments do not count.

    Text that is nothing but such a path does: that is how ``import_module`` is called.
    """
    tree = ast.parse(source)
    known: dict[str, str] = {}  # what a name at hand stands for
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
                known[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            path = spelled(node, known)
            if path is not None:
                yield node.lineno, path
        elif isinstance(node, ast.Constant) and re.fullmatch(r"torch(\.\w+)+", str(node.value)):
            yield node.lineno, str(node.value)


def spelled(node: ast.expr, known: dict[str, str]) -> str | None:
    """The full path of ``a.b.c``, if ``a`` was imported."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Attribute):
        base = spelled(node.value, known)
        return None if base is None else f"{base}.{node.attr}"
    return None


def imported_folders(source: str, folder: str) -> set[str]:
    """The folders of the package that a file in one of them imports from, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        paths: list[str] = []
        if isinstance(node, ast.Import):
            paths = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ["hybridjit", folder][: 3 - node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            paths = [f"{module}.{alias.name}" for alias in node.names]
        for path in paths:
            root, *rest = path.split(".")
            if root == "hybridjit" and rest:
                found.add(rest[0])
    return found


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [path for path in PACKAGE if path != QUARANTINE], ids=name)
def test_package_touches_private_torch_in_one_file(path: Path) -> None:
    """Only `_torch.py` names torch's private parts or `torch.jit`."""
    paths = torch_paths(path.read_text())
    assert [(line, found) for line, found in paths if is_private(found) or is_jit(found)] == []


@pytest.mark.parametrize("path", SHOWN, ids=name)
def test_what_users_copy_has_no_private_torch(path: Path) -> None:
    """Examples and benchmarks compare with `torch.jit`, but name no private part of torch."""
    # One runs programs, the others compare with packages and compilers, that torch keeps among its private parts.
    if name(path) in {f"benchmarks/{each}.py" for each in ("cases", "flags", "export_formats", "run_time")}:
        return
    assert [(line, found) for line, found in torch_paths(path.read_text()) if is_private(found)] == []


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch._C.Graph",
        "import torch._dynamo",
        "import torch\ntorch.jit._trace",
        "import torch\ntorch.jit.trace",
        "import torch.jit as j",
        "from torch import jit",
        "from torch import _C",
        "from torch._C import Graph",
        "from torch.utils import _pytree",
        "import torch.utils as u\nu._pytree.tree_map",
        "def f():\n    import torch as t\n    return t.nn.modules._functions",
        "import importlib\nimportlib.import_module('torch._inductor')",
    ],
)
def test_strays_are_found(source: str) -> None:
    """Each way to reach a private part, or `torch.jit`, is seen."""
    assert any(is_private(found) or is_jit(found) for _, found in torch_paths(source))


@pytest.mark.parametrize(
    "source",
    [
        '"""``torch._C`` in text."""\n# torch.jit.trace\nx = 1',
        "import torch\ntorch.__version__",
        "from . import _torch\n_torch.trace",
        "raise ValueError('torch.jit is switched off')",
    ],
)
def test_text_is_no_stray(source: str) -> None:
    """Docstrings, comments, messages, dunder names and hybridjit's own `_torch` are let be."""
    assert not any(is_private(found) or is_jit(found) for _, found in torch_paths(source))


def test_quarantine_holds_something() -> None:
    """The search does find what `_torch.py` names."""
    assert sum(is_private(found) for _, found in torch_paths(QUARANTINE.read_text())) > 10


@pytest.mark.parametrize("folder", NOT_BACK)
def test_imports_go_one_way(folder: str) -> None:
    """`control` imports neither `adapters` nor `export`, and `adapters` not `export`."""
    backwards = {
        name(path): wrong
        for path in (ROOT / "hybridjit" / folder).rglob("*.py")
        if (wrong := imported_folders(path.read_text(), folder) & set(NOT_BACK[folder]))
    }
    assert backwards == {}


@pytest.mark.parametrize(
    "source",
    [
        "from ..export import report",
        "from .. import export",
        "from ..export.report import Report",
        "import hybridjit.export.report",
        "from hybridjit import export",
        "def f():\n    from ..export.report import Report",
    ],
)
def test_an_import_backwards_is_found(source: str) -> None:
    """Each way to import `export` is seen, also inside a function."""
    assert "export" in imported_folders(source, "control")


def test_own_folder_is_no_import_backwards() -> None:
    """What a file imports of its own folder and of the root is known for what it is."""
    source = "from . import record\nfrom .export_x import y\nfrom .._errors import z\nimport torch.export"
    assert imported_folders(source, "control") == {"control", "_errors"}


def test_files_are_short() -> None:
    """No Python file outside the tests is longer than 400 lines: past that it holds two ideas."""
    counts = {name(path): line_count(path) for path in EVERYTHING}
    long = {file: n for file, n in counts.items() if n > MOST_LINES and not file.startswith("tests/")}
    # What is private to torch stays in one file, however much of it there is: when torch changes, one file changes.
    assert long.pop("hybridjit/_torch.py", 0) <= 1650
    assert long == {}


def test_a_long_file_is_found(tmp_path: Path) -> None:
    """The count is of lines."""
    (tmp_path / "long.py").write_text("x = 1\n" * 401)
    assert line_count(tmp_path / "long.py") == 401


def line_count(path: Path) -> int:
    return len(path.read_text().splitlines())
