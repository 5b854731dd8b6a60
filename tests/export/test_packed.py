"""Flags, methods and structures in each format: one set of weights, the same call, and torch's own loaders."""

from __future__ import annotations

import contextlib
import importlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import hybridjit as hj
from hybridjit.export.formats import SUFFIXES

X = torch.rand(3, 64, generator=torch.Generator().manual_seed(0)) - 0.4
OTHER = torch.rand(7, 64, generator=torch.Generator().manual_seed(1)) - 0.6


class Found(NamedTuple):
    boxes: Tensor
    points: Tensor


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.narrow = False


class Model(nn.Module):
    """Two flags of its own and one of a submodule, a further method, and lists of several lengths."""

    part: Tensor
    far: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.tied, self.head = nn.Linear(64, 64), nn.Linear(64, 64), Head()
        self.tied.weight = self.linear.weight
        self.register_buffer("part", torch.rand(10, 64)[2:3])  # of a larger memory
        self.register_buffer("far", torch.rand(64), persistent=False)
        self.plain = torch.rand(64)

    def forward(self, x: Tensor, points: bool = True, mode: str = "fast") -> Found | Tensor:
        y = self.tied(self.linear(x)) + self.part + self.far + self.plain
        y = hj.cond(x.sum() > 0, lambda: y, lambda: -y)
        y = y * 2 if mode == "full" else y
        y = y[:, :8] if self.head.narrow else y
        return Found(y, y + 1) if points else y

    def refine(self, x: Tensor, every: list[Tensor]) -> Tensor:
        return self.linear(x) + sum(every, start=torch.zeros(()))


FLAGS: dict[str, Any] = {"points": (True, False), "mode": ("fast", "full"), "head.narrow": (False, True)}
METHODS = {"refine": [(X, [X]), (X, [X, X[0]])]}


@pytest.fixture(scope="module", params=("pt2", "onnx"))
def made(request: pytest.FixtureRequest) -> Iterator[tuple[str, Model, hj.Exported]]:
    pytest.importorskip("onnxruntime") if request.param == "onnx" else None
    model = Model().eval()
    given: dict[str, Any] = {"format": request.param, "flags": FLAGS, "methods": METHODS, "check_inputs": [OTHER]}
    yield request.param, model, hj.export(model, X, **given)


def check(exported: hj.Exported, model: Model) -> None:
    """Every combination on both sides of the branch, at a size that no check had, and both structures."""
    for x in (X, OTHER[:6]):
        for points in (True, False):
            for mode in ("fast", "full"):
                for model.head.narrow in (False, True):
                    got = exported(x, points=points, mode=mode, narrow=model.head.narrow)
                    wanted = model(x, points, mode)
                    assert type(got).__name__ == type(wanted).__name__
                    torch.testing.assert_close(tuple(got), tuple(wanted))
        model.head.narrow = False
        torch.testing.assert_close(exported(x)[0], model(x)[0])
        torch.testing.assert_close(exported.refine(x, [x]), model.refine(x, [x]))
        torch.testing.assert_close(exported.refine(x, every=[x, x[0]]), model.refine(x, [x, x[0]]))


def test_every_combination(made: tuple[str, Model, hj.Exported], tmp_path: Path) -> None:
    """Flags of the method and of a submodule, methods and structures choose what the model does, also once loaded."""
    format, model, exported = made
    check(exported, model)
    path = tmp_path / f"model{SUFFIXES[format][0]}"
    exported.save(path)
    loaded = hj.load(path)
    check(loaded, model)
    assert loaded.report == exported.report and "narrow=True" in loaded.code + str(loaded.report)
    assert len(loaded.report.entries) == 8 + 4 and loaded.report.entries[0].flags == (
        "points=True, mode='fast', narrow=False"
    )


def test_each_combination_is_checked(made: tuple[str, Model, hj.Exported]) -> None:
    """Every combination, on every input and at the sizes that were found, is a check with its name."""
    _, _, exported = made
    named = {check.entry for check in exported.report.checks}
    assert len(named) == 12 and "refine_2(narrow=True)" in named
    inputs = {check.input for check in exported.report.checks if check.entry.startswith("forward(points=False")}
    assert {"input", "check_inputs[0]", "x[0]=0", "x[0]=24"} <= inputs


def test_what_was_not_captured(made: tuple[str, Model, hj.Exported]) -> None:
    """Another value of a flag, and another structure, are refused with those that the file has."""
    _, _, exported = made
    with pytest.raises(hj.InputError, match="there is points=True, mode='full', narrow=False"):
        exported(X, mode="slow")
    with pytest.raises(hj.InputError, match="another structure than the 2 captured ones"):
        exported.refine(X, [X, X, X])


def test_verify(made: tuple[str, Model, hj.Exported]) -> None:
    """`verify` compares each combination later, and finds the one in which the model is another."""
    _, model, exported = made
    assert hj.verify(exported, model, [OTHER[:5]], methods={"refine": (X, [X])}).ok
    other = Model().eval()
    other.forward = lambda x, points=True, mode="fast": (  # type: ignore[assignment, method-assign]
        model(x, points, mode) if points or mode == "fast" else model(x, points, mode) + 1
    )
    report = hj.verify(exported, other, [X])
    assert {check.entry for check in report.checks if not check.passed} == {
        "forward(points=False, mode='full', narrow=False)",
    } | {check.entry for check in report.checks if "narrow=True" in check.entry}


def test_a_program_that_fails_names_its_flags() -> None:
    """Where one combination can't be captured, or is wrong, the error says which."""
    with pytest.raises(hj.CaptureError, match=r"for forward\(asks=True\)"):
        hj.export(Asks().eval(), X, format="pt2", flags={"asks": (False, True)})
    with pytest.raises(hj.VerificationError, match=r"cpu, forward\(wrong=True\), input") as caught:
        hj.export(Wrong().eval(), X, format="pt2", flags={"wrong": (False, True)})
    assert "forward(wrong=False), input" not in str(caught.value)


class Asks(nn.Module):
    def forward(self, x: Tensor, asks: bool = False) -> Tensor:
        return x * 2 if asks and x.sum() > 0 else x


class Wrong(nn.Module):
    def forward(self, x: Tensor, wrong: bool = False) -> Tensor:
        return x * 3 if wrong and torch.compiler.is_exporting() else x


def test_sizes_are_fixed_for_the_entry_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A size at which one combination is wrong is fixed in that one; declared sizes are those of `forward`."""
    monkeypatch.setattr("hybridjit._torch.sizes_from_zero", contextlib.nullcontext)  # as torch.export is by itself
    exported = hj.export(One().eval(), X, format="pt2", flags={"asks": (False, True)})
    torch.testing.assert_close(exported(OTHER), OTHER * 2)
    with pytest.raises(hj.GuardError, match="Guard failed"):
        exported(OTHER, asks=True)
    (said,) = [each.message for each in exported.report.findings if each.code == "HJ306"]
    assert "forward(asks=True): wrong at x[0]=1" in said
    told = [each.message for each in exported.report.findings if each.code == "HJ304"]
    assert [text.partition(":")[0] for text in told] == ["forward(asks=False)", "forward(asks=True)"]
    declared = {"x": {0: Dim("rows", min=2)}}
    scope = hj.export(Model().eval(), X, format="pt2", dynamic_shapes=declared, methods=METHODS).report.scope
    assert "rows 2, 3" in scope and "x[0] 0, 1" in scope


class One(nn.Module):
    def forward(self, x: Tensor, asks: bool = False) -> Tensor:
        return x * 3 if asks and x.shape[0] == 1 else x * 2


def test_programs_share_their_weights(tmp_path: Path) -> None:
    """A file has each weight once, torch's own loader opens every program, and loaded ones have one tensor for all."""
    model = Model().eval()
    hj.export(model, X, format="pt2", flags=FLAGS, methods=METHODS).save(tmp_path / "many.pt2")
    hj.export(model, X, format="pt2").save(tmp_path / "one.pt2")
    sizes = {name: weights_in(tmp_path / f"{name}.pt2") for name in ("one", "many")}
    assert sizes["many"] == sizes["one"] > 64 * 64 * 4
    programs = hj.load(tmp_path / "many.pt2").module
    assert list(programs)[:2] == ["model", "forward-points=True-mode=fast-narrow=True"] and len(programs) == 12
    for name in ("model.linear.weight", "model.tied.bias", "model.part"):
        assert len({program.state_dict[name].untyped_storage().data_ptr() for program in programs.values()}) == 1
    for name in ("model.far", "model.plain"):
        assert (
            len({program.constants[name].data_ptr() for program in programs.values() if name in program.constants}) == 1
        )
    first = programs["model"].state_dict
    assert first["model.linear.weight"].data_ptr() == first["model.tied.weight"].data_ptr()
    torch.testing.assert_close(torch.export.load(tmp_path / "many.pt2").module()(X)[1], model(X).points)
    opened = importlib.import_module("torch.export.pt2_archive._package").load_pt2(tmp_path / "many.pt2")
    assert set(opened.exported_programs) == set(programs)
    torch.testing.assert_close(opened.exported_programs["refine-narrow=True"].module()(X, X), model.refine(X, [X]))


def weights_in(path: Path) -> int:
    with zipfile.ZipFile(path) as archive:
        records = [each for each in archive.infolist() if "/data/weights/" in each.filename]
        return sum(each.file_size for each in records if not each.filename.endswith(".json"))


class Counts(nn.Module):
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor, twice: bool = False) -> Tensor:
        self.count.add_(2 if twice else 1)
        return x + self.count

    def total(self, x: Tensor) -> Tensor:
        return x * self.count


def test_state_is_shared() -> None:
    """What one program writes into a buffer the others see; `export` checks calls in a row."""
    exported = hj.export(Counts().eval(), X, format="pt2", flags={"twice": (False, True)}, methods={"total": (X,)})
    exported(X)
    exported(X, twice=True)
    torch.testing.assert_close(exported.total(X), X * 3)
    assert any("in a row" in check.input for check in exported.report.checks)
    with pytest.raises(hj.UnsupportedError, match="keeps no state: the model changes count"):
        hj.export(Counts().eval(), X, format="aoti", flags={"twice": (False, True)})


class Scaled(nn.Module):
    part: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 64)
        self.register_buffer("part", torch.rand(10, 64)[2:3])

    def forward(self, x: Tensor, twice: bool = False) -> Tensor:
        return (self.linear(x) + self.part) * (2 if twice else 1)


def test_moved_programs_share_their_weights() -> None:
    """On another device, too, they have one set of weights."""
    flags = {"twice": (False, True)}
    exported = hj.export(Scaled().eval(), X, format="pt2", flags=flags, devices=["cpu", "meta"])
    assert {check.device for check in exported.report.checks} == {"cpu", "meta"} and exported.report.ok
    packed = importlib.import_module("hybridjit.export.packed")
    moved = packed.moved_programs(exported.module, torch.device("meta"))
    assert len({id(program.state_dict["model.linear.weight"]) for program in moved.values()}) == 1
    part = moved["model"].state_dict["model.part"]
    assert part.device.type == "meta" and part.storage_offset() == 128


def test_a_package_of_several_models(tmp_path: Path) -> None:
    """AOTInductor's package has each weight once, outside of the code, and torch's own loader runs its models."""
    model = Model().eval()
    flags: list[dict[str, Any]] = [{"points": True, "mode": "fast"}, {"points": False, "mode": "fast"}]
    exported: hj.Exported = hj.export(model, X, format="aoti", flags=flags, check_inputs=[OTHER])
    exported.save(tmp_path / "model.pt2")
    loaded = hj.load(tmp_path / "model.pt2")
    for each in (exported, loaded):
        torch.testing.assert_close(each(OTHER, points=False), model(OTHER, False))
        torch.testing.assert_close(each(X).points, model(X).points)
    held = 64 * 64 + 3 * 64 + 640 + 64
    assert held * 4 <= weights_in(tmp_path / "model.pt2") < held * 4 + 6 * 2000
    opened = importlib.import_module("torch.export.pt2_archive._package").load_pt2(
        tmp_path / "model.pt2", load_weights_from_disk=True
    )
    torch.testing.assert_close(opened.aoti_runners["forward-points=False-mode=fast"](OTHER), model(OTHER, False))
    with pytest.raises(hj.GuardError, match=r"Guard failed: x.size\(\)\[1\] == 64"):
        loaded(X[:, :63], points=False)
