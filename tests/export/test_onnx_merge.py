"""Several entries as one ONNX model, run by onnxruntime alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import hybridjit as hj

onnx = pytest.importorskip("onnx")
numpy = pytest.importorskip("numpy")
onnxruntime = pytest.importorskip("onnxruntime")

X = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, deep: bool = True, mode: str = "fast", times: int = 1) -> dict[str, Tensor] | Tensor:
        y = hj.cond(x.sum() > 0, lambda: self.linear(x), lambda: x) * times
        y = y + 1 if mode == "full" else y
        return {"y": y, "deep": y.argmax()} if deep else y.sum()

    def refine(self, x: Tensor, scale: Tensor, more: Tensor) -> Tensor:
        return self.linear(x) * scale + more


def session(exported: hj.Exported, path: Path) -> Any:
    exported.save(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options)


def flag(value: bool | int | str) -> Any:
    return numpy.array(value, dtype=object if isinstance(value, str) else None)


def test_flags_are_inputs_with_defaults(tmp_path: Path) -> None:
    """Flags of each kind are scalar inputs that a call may leave out; a result of the same name gives way."""
    model = Model().eval()
    flags: dict[str, Any] = {"deep": (True, False), "mode": ("fast", "full"), "times": (1, 3)}
    running = session(hj.export(model, X, format="onnx", flags=flags), tmp_path / "model.onnx")
    assert [each.name for each in running.get_inputs()] == ["x"]
    kinds = {each.name: each.type for each in running.get_overridable_initializers()}
    assert kinds == {"deep": "tensor(bool)", "mode": "tensor(string)", "times": "tensor(int64)"}
    assert [each.name for each in running.get_outputs()] == ["y", "deep_2", "result"]
    x = -X[:2]
    y, best, none = running.run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), model(x)["y"])
    assert best == model(x)["deep"] and none.size == 0
    given: dict[str, Any] = {"deep": False, "mode": "full", "times": 3}
    feed = {"x": x.numpy(), **{name: flag(value) for name, value in given.items()}}
    (total,) = running.run(["result"], feed)
    torch.testing.assert_close(torch.from_numpy(numpy.array(total)), model(x, False, "full", 3))


def test_a_combination_that_is_none_raises(tmp_path: Path) -> None:
    """The file itself fails at flags that it has not, and says which it has; so does one of a single combination."""
    some = [{"deep": True, "times": 1}, {"deep": False, "times": 3}]
    running = session(hj.export(Model().eval(), X, format="onnx", flags=some), tmp_path / "model.onnx")
    with pytest.raises(
        Exception, match=r"no such combination; there is \(deep=True, times=1\), \(deep=False, times=3\)"
    ):
        running.run(None, {"x": X.numpy(), "times": flag(3)})
    running = session(hj.export(Model().eval(), X, format="onnx", flags=some[1:]), tmp_path / "one.onnx")
    running.run(None, {"x": X.numpy(), "times": flag(3), "deep": flag(False)})
    with pytest.raises(Exception, match=r"there is \(deep=False, times=3\)"):
        running.run(None, {"x": X.numpy()})


def test_methods_are_chosen_by_an_input(tmp_path: Path) -> None:
    """`method` chooses; an argument that only another method has may be left out, and one that is forgotten raises."""
    model = Model().eval()
    scale, more = torch.tensor(2.0), torch.rand(3, 4)
    exported = hj.export(model, X, format="onnx", methods={"refine": (X, scale, more)})
    running = session(exported, tmp_path / "model.onnx")
    assert [each.name for each in running.get_inputs()] == ["x"]
    refine = {"x": X.numpy(), "method": flag("refine"), "scale": scale.numpy(), "more": more.numpy()}
    (got,) = running.run(["result"], refine)
    torch.testing.assert_close(torch.from_numpy(got), model.refine(X, scale, more))
    torch.testing.assert_close(torch.from_numpy(running.run(None, {"x": X.numpy()})[0]), model(X)["y"])
    for name in ("scale", "more"):
        forgotten = {key: value for key, value in refine.items() if key != name}
        with pytest.raises(Exception, match=rf"hybridjit: {name}\.dim\(\) == {refine[name].ndim}"):
            running.run(None, forgotten)
    with pytest.raises(Exception, match=r"there is \(method='forward'\), \(method='refine'\)"):
        running.run(None, {"x": X.numpy(), "method": flag("forget")})


class Widths(nn.Module):
    """Takes other sizes, and other dtypes, for other methods."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2

    def wide(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], 6) + 1

    def whole(self, x: Tensor) -> Tensor:
        return x + 1


def test_sizes_of_one_entry_are_checked_in_it(tmp_path: Path) -> None:
    """Where entries fix other sizes of one input, each fails at others; dtypes are two inputs."""
    rows = {"x": {0: Dim("rows")}}
    methods = {"wide": torch.ones(3, 6), "whole": torch.ones(3, 4, dtype=torch.int64)}
    exported = hj.export(Widths().eval(), torch.ones(3, 4), format="onnx", methods=methods, dynamic_shapes=rows)
    torch.testing.assert_close(exported.wide(torch.ones(5, 6)), torch.full((5, 6), 2.0))
    with pytest.raises(hj.GuardError, match=r"Guard failed: x\.size\(\)\[1\] == 6"):
        exported.wide(torch.ones(6, 4))
    with pytest.raises(hj.GuardError, match=r"Guard failed: x\.size\(\)\[1\] == 4"):
        exported(torch.ones(4, 6))
    running = session(exported, tmp_path / "model.onnx")
    names = [each.name for each in (*running.get_inputs(), *running.get_overridable_initializers())]
    assert sorted(names) == ["method", "whole_x", "x"]


def test_by_the_trace() -> None:
    """Entries that torch.export refuses go by the trace, all of them, and say so."""
    exported = hj.export(Asks().eval(), X, format="onnx", flags={"twice": (False, True)}, check_inputs=[-X])
    assert any(each.code == "HJ306" and "by the trace" in each.message for each in exported.report.findings)
    for twice in (False, True):
        torch.testing.assert_close(exported(-2 * X, twice=twice), -2 * X - (2 if twice else 1))
    (branch,) = exported.report.branches  # of both combinations, by its line
    assert branch.count == 2 and [side.checks for side in branch.sides] == [2, 2]


class Asks(nn.Module):
    def forward(self, x: Tensor, twice: bool = False) -> Tensor:
        if x.sum() > 0:
            return x * 2
        return x - (2 if twice else 1)


def test_weights_are_there_once() -> None:
    """The merged model has each initializer once, those of branches in branches as well."""
    one = hj.export(Model().eval(), X, format="onnx", flags=[{"deep": True}])
    both = hj.export(Model().eval(), X, format="onnx", flags={"deep": (True, False)})
    for exported in (one, both):
        held = [each for each in exported.module.graph.initializer if each.dims[:1] == [4]]
        assert sorted(tuple(each.dims) for each in held) == [(4,), (4, 4)]
