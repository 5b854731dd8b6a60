"""The models whose path depends on the data: every path is the same from the loaded file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import hybridjit as hj
from examples.routing import __main__ as program
from examples.routing.cases import CASES, Case, compare

SIZES = {
    "experts": [(0, 3), (3, 0), (1, 1), (1, 2), (8, 32)],
    "depth": [(0, 2), (1, 1), (1, 12), (16, 3)],
    "decode": [(0, 1), (1, 1), (1, 9), (16, 3)],
}
COUNTED = {"experts": "aten::gelu", "depth": "aten::mean", "decode": "aten::argmax"}
"""What runs once for each expert, layer or word."""


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    return {case.name: case.build() for case in CASES}


@pytest.fixture(scope="module")
def loaded(models: dict[str, nn.Module], tmp_path_factory: pytest.TempPathFactory) -> dict[str, hj.Exported]:
    folder = tmp_path_factory.mktemp("routing")
    for case in CASES:
        case.export(models[case.name]).save(folder / f"{case.name}.pt")
    return {case.name: hj.load(folder / f"{case.name}.pt") for case in CASES}


def calls(model: Any, given: torch.Tensor, operation: str) -> int:
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as recorded:
        model(given)
    return sum(event.name == operation for event in recorded.events() or ())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_path_is_verified(case: Case, models: dict[str, nn.Module], loaded: dict[str, hj.Exported]) -> None:
    """The export compares the file with the model on an input for each path, and freezes none of the model's values."""
    report = loaded[case.name].report
    assert report.ok and len(report.checks) == len(case.paths)
    assert tuple(case.inputs(models[case.name])) == case.paths
    assert not [finding for finding in report.findings if finding.severity == "warning"]
    assert not [branch for branch in report.branches if branch.raises]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_other_inputs(case: Case, models: dict[str, nn.Module], loaded: dict[str, hj.Exported]) -> None:
    """The loaded file agrees on every path at sizes that the export has not seen."""
    rows = compare(case, models[case.name], loaded[case.name], 80)
    assert tuple(row.path for row in rows) == case.paths
    assert all(row.inputs > 0 and row.sizes > 1 for row in rows)


@pytest.mark.parametrize(("name", "size"), [(name, size) for name, sizes in SIZES.items() for size in sizes])
def test_sizes(name: str, size: tuple[int, int], models: dict[str, nn.Module], loaded: dict[str, hj.Exported]) -> None:
    """The loaded file agrees at the smallest sizes and at larger ones than were traced."""
    given = torch.randn(*size, 16) if name == "experts" else torch.randint(0, 12, size)
    torch.testing.assert_close(loaded[name](given), models[name](given))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_skipped_does_not_run(case: Case, models: dict[str, nn.Module], loaded: dict[str, hj.Exported]) -> None:
    """Experts without tokens, layers after the exit and words after the end cost nothing in the file."""
    counts = []
    for given in case.inputs(models[case.name]).values():
        counts.append(calls(loaded[case.name], given, COUNTED[case.name]))
        assert counts[-1] == calls(models[case.name], given, COUNTED[case.name])
    assert len(set(counts)) > 2


def test_each_expert_is_used_and_unused(models: dict[str, nn.Module], loaded: dict[str, hj.Exported]) -> None:
    """Among the inputs every expert gets tokens in one, and none in another."""
    few = [torch.randn(1, 1, 16) for _ in range(40)]
    loads = torch.stack([loaded["experts"](each).load for each in few])
    assert torch.equal(loads, torch.stack([models["experts"](each).load for each in few]))
    assert (loads > 0).any(0).all() and (loads == 0).any(0).all()


def test_sentences_of_a_batch_end_apart(models: dict[str, nn.Module], loaded: dict[str, hj.Exported]) -> None:
    """A sentence that has ended is filled up while others of its batch go on, as if it were alone."""
    prompts = torch.randint(1, 12, (12, 3))
    together = loaded["decode"](prompts)
    lengths = set()
    for prompt, said in zip(prompts, together, strict=True):
        alone = loaded["decode"](prompt[None])[0]
        lengths.add(len(alone))
        assert torch.equal(said[: len(alone)], alone) and not said[len(alone) :].any()
    assert len(lengths) > 2


def test_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The program writes a file for each model, and prints a row for each path."""
    monkeypatch.setattr("sys.argv", ["routing", "--out", str(tmp_path), "--inputs", "40"])
    program.main()
    printed = capsys.readouterr().out
    for case in CASES:
        assert hj.load(tmp_path / f"{case.name}.pt").report.ok
        assert all(f"{case.name:9}  {path}" in printed for path in case.paths)
