"""The classes of a loaded structure: those at hand, or ones that look like them."""

import dataclasses
import sys
import types
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from torch.utils._pytree import register_pytree_node

import hybridjit as hj
from hybridjit.adapters.classes import find_type
from hybridjit.adapters.tree import Container, Kind, TensorLeaf


class Pair(NamedTuple):
    a: Any
    b: Any


@dataclass
class Out:
    a: Any
    b: Any


class Outer:
    class Inner(NamedTuple):
        a: Any
        b: Any


class Box:
    def __init__(self, data: Any) -> None:
        self.data = data


register_pytree_node(Box, lambda b: ([b.data], object()), lambda c, s: Box(next(iter(c))))


def container(kind: Kind, type_name: str, names: tuple[str, ...] = ("a", "b"), dumped: str | None = None) -> Container:
    keys = tuple(f".{name}" for name in names)
    return Container(kind, keys, names, (TensorLeaf(),) * len(names), type_name, dumped)


def own(name: str) -> str:
    return f"{__name__}.{name}"


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [("namedtuple", "Pair", Pair), ("dataclass", "Out", Out), ("namedtuple", "Outer.Inner", Outer.Inner)],
)
def test_imported_classes_are_used(kind: Kind, name: str, expected: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that is imported already and has the fields is the one, nested in another or not."""
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or types.ModuleType(__name__))
    monkeypatch.setattr(sys.modules[__name__], name.partition(".")[0], globals()[name.partition(".")[0]], raising=False)
    assert find_type(container(kind, own(name))) is expected


@pytest.mark.parametrize(
    ("kind", "name", "names"),
    [
        ("namedtuple", "Pair", ("a", "c")),  # other fields
        ("dataclass", "Out", ("b", "a")),  # in another order
        ("namedtuple", "Out", ("a", "b")),  # another kind
        ("dataclass", "Pair", ("a", "b")),
        ("namedtuple", "Gone", ("a", "b")),
        ("namedtuple", "pytest", ("a", "b")),  # no class
    ],
)
def test_others_are_stood_in_for(kind: Kind, name: str, names: tuple[str, ...]) -> None:
    """Where the class is another one by now, one of the name and fields takes its place, the same each time."""
    made = find_type(container(kind, own(name), names))
    assert made not in (Pair, Out)
    assert made.__name__ == name and find_type(container(kind, own(name), names)) is made
    value: Any = made(1, 2)
    assert (getattr(value, names[0]), getattr(value, names[1])) == (1, 2)
    assert issubclass(made, tuple) is (kind == "namedtuple")
    assert dataclasses.is_dataclass(made) is (kind == "dataclass")


def test_nothing_is_imported(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that a file names is not imported, neither by its name nor by its parent's ``__getattr__``."""
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    lazy = types.ModuleType("lazy")
    lazy.__getattr__ = lambda name: pytest.fail(f"lazy loads {name}")  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "lazy", lazy)
    for name in ("trap.Pair", "lazy.Pair", "lazy.trap.Pair"):
        made = find_type(container("namedtuple", name))
        assert made.__name__ == "Pair" and "trap" not in sys.modules


def test_a_property_of_a_class_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for a class runs no descriptor on the way."""

    class Meta(type):
        @property
        def Inner(cls) -> type:
            return pytest.fail("the property ran")

    module = types.ModuleType("described")
    module.Holder = Meta("Holder", (), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "described", module)
    assert find_type(container("namedtuple", "described.Holder.Inner")).__name__ == "Inner"


def test_containers_of_pytree() -> None:
    """A registered container is found by its name; unregistered, or without plain context, it says what to write."""
    with pytest.raises(hj.InputError, match="which is not registered in this process") as absent:
        find_type(container("node", "models.boxes.Boxes", ("0",), "null"))
    assert "write instead: import models.boxes  # before the call" in str(absent.value)
    name = f"{Box.__module__}.{Box.__qualname__}"
    assert find_type(container("node", name, ("0",), "3")) is Box
    with pytest.raises(hj.InputError, match="whose context is no plain data") as opaque:
        find_type(container("node", name, ("0",), None))
    assert f'serialized_type_name="{name}"' in str(opaque.value)


@pytest.mark.parametrize("type_", [dict, OrderedDict])
def test_a_dict_is_no_registered_class(type_: type) -> None:
    """torch's pytree registers dicts too, which have a kind of their own: a file can't name them so."""
    with pytest.raises(hj.InputError, match="not registered"):
        find_type(container("node", f"{type_.__module__}.{type_.__qualname__}", ("0",), "[]"))
