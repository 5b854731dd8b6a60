"""Files of ill will: what torch's loader of pt2 archives would run as Python is refused before it is asked."""

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj

Change = Callable[[str, bytes, Path], bytes | None]


class Sliced(nn.Module):
    """Has weights, a buffer, sizes that are computed, and a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.register_buffer("shift", torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)[: x.shape[0] - 1] + self.shift
        return hj.cond(y.sum() > 0, lambda: y, lambda: -y)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "good.pt2"
    hj.export(Sliced().eval(), torch.ones(5, 4), format="pt2").save(path)
    return path


class Makes:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def code(folder: Path) -> str:
    return f"__import__('os').mkdir({str(folder)!r})"


def edited(data: bytes, key: str, text: str) -> bytes:
    """The JSON with the first value under a key replaced."""
    done = False

    def edit(node: Any) -> Any:
        nonlocal done
        if isinstance(node, dict):
            for name, child in node.items():
                if name == key and isinstance(child, str) and not done:
                    node[name], done = text, True
                else:
                    edit(child)
        elif isinstance(node, list):
            for child in node:
                edit(child)

    made = json.loads(data)
    edit(made)
    assert done
    return json.dumps(made).encode()


def sample_inputs(name: str, data: bytes, folder: Path) -> bytes | None:
    return pickled(((Makes(folder),), {})) if "sample_inputs" in name else None


def weight(name: str, data: bytes, folder: Path) -> bytes | None:
    if name.endswith("weights_config.json"):
        config = json.loads(data)["config"]
        return json.dumps({"config": {key: {**row, "use_pickle": True} for key, row in config.items()}}).encode()
    return pickled(Makes(folder)) if "/data/weights/weight" in name else None


def opaque(name: str, data: bytes, folder: Path) -> bytes | None:
    held = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    return json.dumps({"config": {"evil": held}}).encode() if name.endswith("constants_config.json") else None


def program(key: str, text: Callable[[Path], str]) -> Change:
    def change(name: str, data: bytes, folder: Path) -> bytes | None:
        return edited(data, key, text(folder)) if "/models/" in name else None

    return change


CHANGES: dict[str, tuple[Change, str]] = {
    "sample inputs": (sample_inputs, "data/sample_inputs/model.pt holds pickled objects that are no tensors"),
    "a weight": (weight, "data/weights/weight_0 holds pickled objects that are no tensors"),
    "an object": (opaque, "data/constants/opaque_obj_0 is no tensor"),
    "an expression": (program("expr_str", code), "expr_str"),
    "a function": (program("expr_str", lambda folder: "eval(chr(49))"), "expr_str 'eval(chr(49))'"),
    "a text": (program("expr_str", lambda folder: "Max('1', 2) + Function('print(1)')"), "expr_str"),
    "a text for a number": (program("expr_str", lambda folder: "Float('print(1)')"), "expr_str"),
    "an attribute": (program("expr_str", lambda folder: "Integer(1).func"), "expr_str 'Integer(1).func'"),
    "a name": (program("name", lambda folder: f"x={code(folder)}"), 'name "x=__import__'),
    "a target": (program("target", lambda folder: "torch.ops.load_library"), "target 'torch.ops.load_library'"),
    "another target": (program("target", lambda folder: "torch.serialization.os.system"), "target 'torch.serial"),
    "a class": (program("in_spec", lambda folder: '[1, {"type": "os.x", "context": "null"}]'), "in_spec"),
    "an enum": (program("in_spec", lambda folder: '[1, {"type": null, "context": "{__enum__}"}]'), "in_spec"),
}


@pytest.mark.parametrize("change, says", CHANGES.values(), ids=CHANGES)
def test_what_torch_would_run_is_refused(good: Path, tmp_path: Path, change: Change, says: str) -> None:
    """By record, with nothing run; the archive is whole by its checksums."""
    folder, bad = tmp_path / "made", tmp_path / "bad.pt2"
    rewritten(good, bad, lambda name, data: change(name, data, folder))
    with pytest.raises(hj.ArchiveError) as error:
        hj.load(bad)
    assert says in str(error.value)
    assert not folder.exists()


def rewritten(good: Path, bad: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as out:
        for name in source.namelist():
            data = source.read(name)
            made = change(name, data)
            out.writestr(name, data if made is None else made)


@pytest.mark.parametrize("name", ["sample inputs", "an expression"])
@pytest.mark.filterwarnings("ignore")
def test_torch_would_have_run_it(good: Path, tmp_path: Path, name: str) -> None:
    """What is refused is no false alarm: torch's own loader makes the folder."""
    folder, bad = tmp_path / "made", tmp_path / "bad.pt2"
    change, _ = CHANGES[name]
    rewritten(good, bad, lambda record, data: change(record, data, folder))
    try:
        torch.export.load(bad)
    except Exception as error:  # it may fail afterwards, in any way
        assert folder.exists(), error
    assert folder.exists()


@pytest.mark.parametrize(
    "format, says",
    [("aoti", "of format 'aoti', whose suffix is another"), ("archive", "of format 'archive', which there is not")],
)
def test_what_a_file_says_it_is(tmp_path: Path, format: str, says: str) -> None:
    """Machine code does not come as a .pt, and a format is one of those there are."""
    hj.export(nn.Linear(4, 2).eval(), torch.ones(3, 4)).save(tmp_path / "good.pt")

    def say(name: str, data: bytes) -> bytes | None:
        return json.dumps({**json.loads(data), "format": format}).encode() if name.endswith("hybridjit.json") else None

    rewritten(tmp_path / "good.pt", tmp_path / "bad.pt", say)
    with pytest.raises(hj.ArchiveError, match=says):
        hj.load(tmp_path / "bad.pt")


def test_a_file_that_is_as_it_was_written_loads(good: Path, tmp_path: Path) -> None:
    """Also with each record written anew."""
    rewritten(good, tmp_path / "same.pt2", lambda name, data: None)
    x = torch.rand(7, 4)
    assert torch.equal(hj.load(tmp_path / "same.pt2")(x), hj.load(good)(x))
