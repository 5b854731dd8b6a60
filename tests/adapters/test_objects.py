"""Objects with attributes: taken apart by them and put together of them, where that is all that their class knows."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit.adapters.classes import find_type, is_open
from hybridjit.adapters.schema import node_from_json, node_to_json
from hybridjit.adapters.take import take
from hybridjit.adapters.tree import Container, TensorLeaf, build, differences, scan


class Found:
    """As detectors have them."""

    def __init__(self, boxes: Any, name: str = "found") -> None:
        self.name = name
        self.boxes = boxes
        self.made = True

    def __len__(self) -> int:
        return len(self.boxes)


class Guarded(Found):
    """Attributes by ways of its own, as detectron2's ``Instances`` have."""

    def __setattr__(self, name: str, value: object) -> None:
        vars(self)[f"_{name}"] = value

    def __getattr__(self, name: str) -> Any:
        return vars(self)[f"_{name}"]


class Slotted:
    __slots__ = ("x",)

    def __init__(self) -> None:
        self.x = torch.ones(1)


class Copied:
    def __init__(self) -> None:
        self.x = torch.ones(1)

    def __deepcopy__(self, memo: object) -> Copied:
        return self


class Deleted:
    def __del__(self) -> None:
        pass


class Numbers(dict[str, int]):
    pass


@pytest.mark.parametrize("cls", [Found, Guarded])
def test_round_trip(cls: type[Found]) -> None:
    """The attributes come again, and ``__init__`` is not run; what the class does with them is its own."""
    given = cls([torch.ones(2, 4), torch.zeros(1)], "a")
    tensors: list[Tensor] = []
    node = scan(given, tensors)
    assert isinstance(node, Container) and node.kind == "object" and len(tensors) == 2
    made = build(node, iter(tensors))
    assert type(made) is cls and vars(made).keys() == vars(given).keys()
    assert made.boxes[0] is given.boxes[0] and made.name == "a" and len(made) == 2
    again = node_from_json(json.loads(json.dumps(node_to_json(node))))
    assert differences(node, again) == []
    loaded = build(again, iter(tensors))  # this module is imported: its class is
    assert type(loaded) is cls and loaded.name == "a"


def test_the_order_of_attributes_is_no_structure() -> None:
    """An object that was given its attributes in another order is of the same structure; one with others is not."""
    one, other = Found(torch.ones(1)), Found(torch.ones(1))
    del other.name
    other.name = "found"
    node = scan(one, [])
    taken: list[Tensor] = []
    assert differences(node, scan(other, [])) == [] and take(node, other, taken) and taken == [other.boxes]
    other.name = "b"
    assert differences(node, scan(other, [])) == [".name: expected 'found', got 'b'"]
    assert not take(node, other, [])
    vars(other)["more"] = 1
    (said,) = differences(node, scan(other, []), "found")
    assert said.endswith("Found(boxes, made, more, name)") and not take(node, other, [])
    assert not take(node, torch.ones(1), [])


def test_closed_classes() -> None:
    """What has more than attributes, or says itself how it is copied, stays closed."""
    assert all(map(is_open, (Found, Guarded, torch.distributions.Normal)))
    for cls in (object, Slotted, Copied, Numbers, nn.Linear, Tensor, ModuleType, type, ValueError, range, Path):
        assert not is_open(cls)
    for value in (Slotted(), Copied(), lambda: 1):
        with pytest.raises(hj.InputError, match=r"at x\n.* or object with attributes, got "):
            scan(value, [], "x")
    with pytest.raises(hj.InputError, match=r"at x\.name\n.* got function"):
        scan(Found(torch.ones(1), name=lambda: 1), [], "x")  # type: ignore[arg-type]


def test_a_loaded_class_with_a_finalizer_is_a_likeness() -> None:
    """A file can't choose the attributes that code goes by when the object is gone."""
    assert is_open(Deleted)
    node = Container("object", (".x",), ("x",), (TensorLeaf(),), f"{__name__}.Deleted")
    made = build(node, iter([torch.ones(1)]))
    assert find_type(node) is not Deleted and type(made).__name__ == "Deleted" and made.x.item() == 1


class Detector(nn.Module):
    def forward(self, x: Tensor, before: Found | None = None) -> dict[str, Any]:
        rows = x if before is None else torch.cat([before.boxes, x])
        return {"found": Found(rows * 2), "how": torch.distributions.Normal(rows, rows.exp(), validate_args=False)}


@pytest.mark.parametrize("format", ["torchscript", "pt2"])
def test_in_and_out_of_a_model(format: str, tmp_path: Path) -> None:
    """Results and arguments that are objects, at other sizes, after loading too, and in another process a likeness."""
    model = Detector().eval()
    x = torch.ones(2, 3)
    batch = torch.export.Dim.AUTO
    more: dict[str, Any] = {"dynamic_shapes": {"x": {0: batch}}} if format == "pt2" else {}
    if not more:
        more = {"check_inputs": [(x, Found(torch.zeros(4, 3)))]}
    exported: Any = hj.export(model, x, format=format, **more)
    exported.save(tmp_path / "model")
    for file in (exported, hj.load(tmp_path / "model")):
        for rows in (2, 5):
            given = torch.rand(rows, 3)
            result, expected = file(given), model(given)
            assert type(result["found"]) is Found and len(result["found"]) == rows
            torch.testing.assert_close(result["found"].boxes, expected["found"].boxes)
            torch.testing.assert_close(result["how"].mean, given)
            assert result["how"].log_prob(given).shape == (rows, 3)
        if format == "torchscript":
            found = file(x, Found(torch.zeros(7, 3)))["found"]
            torch.testing.assert_close(found.boxes, torch.cat([torch.zeros(7, 3), x * 2]))
            with pytest.raises(hj.InputError, match=r"before\.name: expected 'found', got 'other'"):
                file(x, Found(torch.zeros(7, 3), "other"))
    script = f"""
        import torch, hybridjit as hj
        found = hj.load({str(tmp_path / "model")!r})(torch.ones(3, 3))["found"]
        assert type(found).__name__ == "Found" and found.boxes.shape == (3, 3) and found.name == "found"
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)], check=True)


def test_sides_of_a_branch() -> None:
    """What one side sets besides is on the path of the inputs that take it."""

    class Model(nn.Module):
        def forward(self, x: Tensor) -> Found:
            found = Found(x + 1 if x.sum() > 0 else x - 1)
            if x.shape[0] > 2:
                found.first = x[:1]  # type: ignore[attr-defined]
            return found

    model = Model().eval()
    few, many = torch.ones(2), torch.ones(4)
    exported = hj.export(model, few, branches="auto", check_inputs=[many, -few])
    for x in (few, many, -few, -many, torch.ones(1), torch.ones(6)):
        result, expected = exported(x), model(x)
        assert vars(result).keys() == vars(expected).keys()
        torch.testing.assert_close(result.boxes, expected.boxes)


def test_the_callers_object_is_left_alone() -> None:
    """What a model changes of an object that it is given, the file does not; that is noted, and once."""

    class Handed(nn.Module):
        def forward(self, x: Tensor, found: Found) -> Found:
            found.boxes = torch.cat([found.boxes, x])
            found.made = False
            return found

    given = Found(torch.ones(2))
    exported = hj.export(Handed().eval(), (torch.zeros(1), given))
    assert len(given.boxes) == 2 and given.made
    (finding,) = (each for each in exported.report.findings if each.code == "HJ006")
    assert finding.message.endswith("found.made: was True, is False") and finding.severity == "note"
    kept = copy.copy(given)
    assert len(exported(torch.zeros(3), given).boxes) == 5
    assert vars(given) == vars(kept)
