"""ONNX files whose tensors lie beside them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj

onnxruntime = pytest.importorskip("onnxruntime")

X = torch.rand(3, 64, generator=torch.Generator().manual_seed(0))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(64, 64)

    def forward(self, x: Tensor, twice: bool = False) -> Tensor:
        return self.linear(x) * (2 if twice else 1)


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> hj.Exported:
    """As a model of more than 2 GB is, since a file may have no more than 10 kB here."""
    monkeypatch.setattr(importlib.import_module("hybridjit.export.onnx_file"), "MOST", 10_000)
    return hj.export(Model().eval(), X, format="onnx", flags={"twice": (False, True)})


def test_weights_beside_the_file(exported: hj.Exported, tmp_path: Path) -> None:
    """The file names the other by its checksum; hybridjit and onnxruntime read both, and a second save is the same."""
    model = Model().eval()
    exported.save(tmp_path / "model.onnx")
    (data,) = tmp_path.glob("hybridjit-*.data")
    assert data.stat().st_size >= 64 * 64 * 4 > (tmp_path / "model.onnx").stat().st_size - 20_000
    loaded = hj.load(tmp_path / "model.onnx")
    torch.testing.assert_close(loaded(X[:2], twice=True), model(X[:2], True))
    running: Any = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    torch.testing.assert_close(torch.from_numpy(running.run(None, {"x": X.numpy()})[0]), model(X))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    loaded.save(elsewhere / "other.onnx")
    assert (elsewhere / data.name).read_bytes() == data.read_bytes()
    torch.testing.assert_close(hj.load(elsewhere / "other.onnx")(X), model(X))


def test_through_a_link(exported: hj.Exported, tmp_path: Path) -> None:
    """A link is followed, by save and by load: the weights lie beside what it leads to."""
    real = tmp_path / "real"
    real.mkdir()
    exported.save(real / "model.onnx")
    (tmp_path / "link.onnx").symlink_to(real / "model.onnx")
    exported.save(tmp_path / "link.onnx")
    assert list(tmp_path.glob("*.data")) == [] and len(list(real.glob("*.data"))) == 1
    torch.testing.assert_close(hj.load(tmp_path / "link.onnx")(X), Model().eval()(X))


def test_missing_or_changed_weights(exported: hj.Exported, tmp_path: Path) -> None:
    """A file without the other, or beside one that is not as it was written, is refused by name."""
    exported.save(tmp_path / "model.onnx")
    (data,) = tmp_path.glob("hybridjit-*.data")
    whole = data.read_bytes()
    data.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(hj.ArchiveError, match=f"{data.name} beside it does not match its checksum"):
        hj.load(tmp_path / "model.onnx")
    data.unlink()
    with pytest.raises(hj.ArchiveError, match=f"the file {data.name}, which has its weights, is not beside it"):
        hj.load(tmp_path / "model.onnx")


def test_size_of_both(exported: hj.Exported, tmp_path: Path) -> None:
    """What a table of formats tells as the size is that of the file with the other."""
    exported.save(tmp_path / "model.onnx")
    assert exported._file.size == sum(each.stat().st_size for each in tmp_path.iterdir())


def test_a_file_is_the_message_that_was_written(tmp_path: Path) -> None:
    """A graph that is written tensor by tensor is read as it was, its properties without the rest of it."""
    onnx = pytest.importorskip("onnx")
    file = importlib.import_module("hybridjit.export.onnx_file")
    tensors = [onnx.numpy_helper.from_array(X.numpy(), f"x{index}") for index in range(3)]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x0"], ["y"])], "g", [], [], tensors)
    model = onnx.helper.make_model(graph, doc_string="what it is")
    wanted = onnx.ModelProto()
    wanted.CopyFrom(model)
    path = tmp_path / "whole.onnx"
    assert file.write(model, path) == {}
    assert onnx.load(path) == wanted
    file.append_metadata(path, {"version": 2})
    assert file.read_metadata(path)["version"] == 2


@pytest.mark.parametrize("data", [b"\xff" * 20, b"\x0a\x7f", b"\x0b", b"\x72\x02\xff\xff"])
def test_no_such_message(data: bytes, tmp_path: Path) -> None:
    """Bytes that are no message of protobuf's are refused as a file that is altered."""
    (tmp_path / "no.onnx").write_bytes(data)
    with pytest.raises(hj.ArchiveError, match=r"truncated, altered or no ONNX file"):
        hj.load(tmp_path / "no.onnx")
