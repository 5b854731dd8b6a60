"""``torch.compile(model, backend="hybridjit")``: graphs as verified TorchScript modules, and what is told of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj

ROOT = Path(__file__).parents[1]


def compiled(model: nn.Module) -> nn.Module:
    torch._dynamo.reset()
    made: nn.Module = torch.compile(model, backend="hybridjit")  # type: ignore[assignment]
    return made


def made_since(before: int) -> list[tuple[str, int, int]]:
    """What became of the graphs since there were so many."""
    return [(each.result, each.calls, each.fallbacks) for each in hj.compile_report().graphs[before:]]


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).relu()
        y = hj.cond(y.sum() > 3, lambda: y / y.sum(), lambda: y * 2)
        y = hj.fori_loop(0, 2, lambda i, carry: carry * 0.5 + i, y)
        return self.second(y)


def test_training() -> None:
    """Training steps through the graphs are eager mode's, at other sizes and on the other side of a branch."""
    before = len(hj.compile_report().graphs)
    eager, model = Network(), Network()
    run = compiled(model)
    for rows, sign in ((4, 1.0), (4, -9.0), (6, 2.0), (9, -1.0)):
        x = sign * torch.rand(rows, 4, generator=torch.Generator().manual_seed(rows))
        for forward in (eager, run):
            loss = forward(x).square().mean()
            loss.backward()
        torch.testing.assert_close(loss, eager(x).square().mean())
        for ours, theirs in zip(model.parameters(), eager.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad)
            with torch.no_grad():
                for parameter in (ours, theirs):
                    assert parameter.grad is not None
                    parameter.sub_(0.1 * parameter.grad)
                    parameter.grad = None
    assert made_since(before) == [("torchscript", 2, 0), ("torchscript", 2, 0)]


class Counts(nn.Module):
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += x.sum()
        return x + self.count


def test_fallback() -> None:
    """A graph that writes to what it is given runs in eager mode, and the report says so."""
    before = len(hj.compile_report().graphs)
    eager, run = Counts(), compiled(Counts())
    for _ in range(2):
        torch.testing.assert_close(run(torch.ones(3)), eager(torch.ones(3)))
    graphs = hj.compile_report().graphs[before:]
    assert sum(graph.calls for graph in graphs) == sum(graph.fallbacks for graph in graphs) == 2
    for graph in graphs:
        assert graph.result == "eager" and graph in hj.compile_report().fallbacks
        assert graph.reason == "it changes its arguments in place" and graph.reason in str(hj.compile_report())


class Asks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        if y.sum() > 0:
            return y + 1
        return y - 1


def test_breaks() -> None:
    """A graph break makes graphs of its own, and is counted with its reason and line."""
    before = len(hj.compile_report().graphs)
    run = compiled(Asks())
    for x in (torch.ones(3), -torch.ones(3)):
        torch.testing.assert_close(run(x), Asks()(x))
    report = hj.compile_report()
    assert made_since(before) == [("torchscript", 2, 0), ("torchscript", 1, 0), ("torchscript", 1, 0)]
    (reason,) = [reason for reason in report.breaks if "test_backend.py" in reason]
    line = Asks.forward.__code__.co_firstlineno + 2
    assert reason.endswith(f"test_backend.py:{line}") and report.breaks[reason] == 1
    assert reason in str(report)


class Repeats(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return x * torch.arange(int(x[0])).sum()


def test_numbers() -> None:
    """A graph that makes a number of a tensor is not traced, which would keep the number."""
    with torch._dynamo.config.patch(capture_scalar_outputs=True):
        before = len(hj.compile_report().graphs)
        run = compiled(Repeats())
        for first in (3.0, 5.0, 3.0):
            x = torch.tensor([first, 1.0])
            torch.testing.assert_close(run(x), Repeats()(x))
    assert [(each.result, each.reason) for each in hj.compile_report().graphs[before:]] == [
        ("eager", "it makes a number of a tensor, by item")
    ]


SCRIPT = """
import sys
{first}
import hybridjit as hj
{second}
import torch
assert "torch._dynamo" not in sys.modules or {dynamo_first}
run = torch.compile(torch.nn.Linear(2, 1), backend="hybridjit")
assert run(torch.zeros(3, 2)).shape == (3, 1)
assert [graph.result for graph in hj.compile_report().graphs] == ["torchscript"]
"""


@pytest.mark.parametrize("dynamo_first", [False, True])
def test_found_when_imported(dynamo_first: bool) -> None:
    """The import of hybridjit is enough, before or after Dynamo's, and does not wait for Dynamo."""
    first = "import torch._dynamo" if dynamo_first else ""
    script = SCRIPT.format(first=first, second="", dynamo_first=dynamo_first)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd="/", env=environment, check=True)


def test_found_when_installed(tmp_path: Path) -> None:
    """The entry point is enough where hybridjit is installed and nobody has imported it."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        text = file.read().decode()
    row = text.partition("[project.entry-points.torch_dynamo_backends]\n")[2].partition("\n")[0]
    folder = tmp_path / "hybridjit-0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: hybridjit\nVersion: 0\n")
    (folder / "entry_points.txt").write_text(f"[torch_dynamo_backends]\n{row}\n".replace('"', ""))
    script = "import torch; run = torch.compile(torch.nn.Linear(2, 1), backend='hybridjit'); run(torch.zeros(3, 2))"
    script += "\nimport hybridjit as hj; assert hj.compile_report().graphs[0].result == 'torchscript'"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd="/", env=environment, check=True)
