"""Schemas: as JSON, in another process, and the flat side's names."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import register_pytree_node

import hybridjit as hj
from hybridjit.adapters.schema import CallSchema, ValueSchema
from hybridjit.adapters.tree import scan

X = torch.ones(2)


class Pair(NamedTuple):
    a: Any
    b: Any


@dataclass
class Out:
    boxes: Any
    count: int


class Plain:
    def __init__(self, data: Tensor, size: Any) -> None:
        self.data, self.size = data, size


class Told(Plain):
    pass


class Opaque(Plain):
    pass


register_pytree_node(Plain, lambda b: ([b.data], b.size), lambda c, s: Plain(next(iter(c)), s))
register_pytree_node(Opaque, lambda b: ([b.data], b.size), lambda c, s: Opaque(next(iter(c)), s))
register_pytree_node(
    Told,
    lambda b: ([b.data], b.size),
    lambda c, s: Told(next(iter(c)), s),
    serialized_type_name="tests.Told",
    to_dumpable_context=lambda size: list(size),
    from_dumpable_context=lambda size: tuple(size),
)


def schema_of(forward: Any, *args: Any, **kwargs: Any) -> CallSchema:
    return CallSchema.of(inspect.signature(forward), hj.Inputs(*args, **kwargs))[0]


def through_json(value: Any) -> tuple[ValueSchema, list[Tensor]]:
    tensors: list[Tensor] = []
    schema = ValueSchema(scan(value, tensors, "result"))
    text = json.dumps(schema.to_json(), allow_nan=False)
    assert json.loads(text) == schema.to_json()
    loaded = ValueSchema.from_json(json.loads(text))
    assert loaded.to_json() == schema.to_json()
    return loaded, tensors


def rebuilt(value: Any) -> Any:
    schema, tensors = through_json(value)
    return schema.unflatten(tuple(tensors))


@pytest.mark.parametrize(
    "value",
    [
        X, None, [X, [], {}, ()], {"a": X, 2: None, (1, 2): True, None: 1.5}, Pair(X, Pair("é", 1)),
        Out(X, 3), OrderedDict(b=X), [float("nan"), float("inf"), -float("inf")], torch.half,
        X.reshape(1, 2).max(0), torch.Size([1]),
    ],
    ids=str,
)  # fmt: skip
def test_values_survive_json(value: Any) -> None:
    """A schema from JSON gives the same value, and the class where it is imported."""
    made = rebuilt(value)
    assert type(made) is type(value) and repr(made) == repr(value)


def test_a_loaded_defaultdict() -> None:
    """A well-known factory comes back; any other is left out."""
    assert rebuilt(defaultdict(list, a=X))["b"] == []
    assert rebuilt(defaultdict(lambda: 1, a=X)).default_factory is None


@pytest.mark.parametrize("size", [(3, 4), [3, 4], {1: (2,)}, torch.float16, None, (float("nan"),)], ids=str)
def test_contexts_without_serializers(size: Any) -> None:
    """A registered class's context keeps its types through JSON."""
    made = rebuilt(Plain(X, size))
    assert type(made) is Plain and made.data is X and repr(made.size) == repr(size)


def test_contexts_with_serializers() -> None:
    """A class's own serializers are used."""
    assert rebuilt(Told(X, (3, 4))).size == (3, 4)


def test_contexts_that_are_no_data() -> None:
    """A context of objects is told, with the serializers to write, when the loaded schema is used."""
    schema, tensors = through_json(Opaque(X, object()))
    with pytest.raises(hj.InputError, match="to_dumpable_context"):
        schema.unflatten(tuple(tensors))


CHILD = """
import json, sys
from hybridjit.adapters.schema import ValueSchema
import torch
data = json.loads(sys.argv[1])
before = set(sys.modules)
made = ValueSchema.from_json(data).unflatten((torch.tensor(1), torch.tensor(2)))
after = set(sys.modules)
print(made)
print(made[0]._fields, sorted(vars(made[1])))
print(sorted(after - before))
"""


def test_a_fresh_process_needs_no_code() -> None:
    """Without the model's code a result looks the same, and nothing is imported."""
    value = [Pair(torch.tensor(1), "x"), Out(torch.tensor(2), 3)]
    text = json.dumps(ValueSchema(scan(value, [], "result")).to_json())
    command = [sys.executable, "-c", CHILD, text]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(hj.__file__).parents[1])
    rows = done.stdout.splitlines()
    assert rows[0] == "[Pair(a=tensor(1), b='x'), Out(boxes=tensor(2), count=3)]"
    assert rows[1] == "('a', 'b') ['boxes', 'count']"
    assert rows[2] == "[]"


def container(kind: str, type_name: str, names: list[str], context: str | None = None) -> dict[str, Any]:
    items = [{"kind": "static", "type": "int", "value": 1} for _ in names]
    keys = [f".{name}" for name in names]
    row = {"kind": kind, "type": type_name, "keys": keys, "names": names, "context": context}
    return {**row, "items": items}


def test_what_a_file_names_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that could be imported, torch's lazy ones, and a defaultdict's factory, stay out."""
    (tmp_path / "planted.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for kind in ("namedtuple", "dataclass"):
        data = container(kind, "planted.Out", ["a"])
        assert repr(ValueSchema.from_json(data).unflatten(())) == "Out(a=1)"
    factory = '{"default_factory_module": "planted", "default_factory_name": "x", "dict_context": []}'
    for type_name in ("planted.Out", "collections.defaultdict"):
        with pytest.raises(hj.InputError, match="not registered"):
            ValueSchema.from_json(container("node", type_name, [], factory)).unflatten(())
    assert "planted" not in sys.modules
    lazy = ModuleWithGetattr("lazy_module")
    monkeypatch.setitem(sys.modules, "lazy_module", lazy)
    ValueSchema.from_json(container("dataclass", "lazy_module.Out", ["a"])).unflatten(())


class ModuleWithGetattr(type(sys)):  # type: ignore[misc]
    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"asked for {name}")


def test_another_class_of_the_name_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """An imported class of the same name counts only with the same fields."""
    for kind in ("namedtuple", "dataclass"):
        made = ValueSchema.from_json(container(kind, f"{__name__}.Out", ["other"])).unflatten(())
        assert type(made) is not Out and made.other == 1


@pytest.mark.parametrize("count", [0, 2])
def test_tensors_are_counted(count: int) -> None:
    """Too few or too many flat tensors are an InputError, on both sides."""
    schema, _ = through_json({"a": X})
    with pytest.raises(hj.InputError, match=f"1 tensors on the flat side, got {count}"):
        schema.unflatten((X,) * count)
    with pytest.raises(hj.InputError, match=f"1 tensors on the flat side, got {count}"):
        schema_of(lambda a: a, X).unflatten((X,) * count)


def test_call_schemas_survive_json() -> None:
    """A call schema from JSON is the same, defaults of any plain kind included."""

    def forward(
        a: Any,
        b: Any = (1, [2.0]),
        /,
        c: Any = float("nan"),
        *d: Any,
        e: Any = torch.half,
        f: Any = X,
        **g: Any,
    ) -> None: ...

    schema = schema_of(forward, X, None, 1, X, X, e=torch.half, z=[X])
    text = json.dumps(schema.to_json(), allow_nan=False)
    assert json.loads(text) == schema.to_json()
    loaded = CallSchema.from_json(json.loads(text))
    assert loaded.to_json() == schema.to_json() and loaded.names() == ["a", "d_0", "d_1", "g_z_0"]
    assert len(loaded.flatten(hj.Inputs(X, None, 1, X, X, z=[X]))) == 4


def test_defaults() -> None:
    """What was left to its default may be given as that default, and the other way round."""

    def forward(x: Any, by: Any = (1, 2), nan: Any = float("nan"), other: Any = X) -> None: ...

    short, long = schema_of(forward, X), schema_of(forward, X, (1, 2), float("nan"))
    for schema in (short, long, CallSchema.from_json(long.to_json()), CallSchema.from_json(short.to_json())):
        for inputs in (hj.Inputs(X), hj.Inputs(X, (1, 2)), hj.Inputs(X, nan=float("nan"))):
            assert len(schema.flatten(inputs)) == 1
        with pytest.raises(hj.InputError, match="by"):
            schema.flatten(hj.Inputs(X, (1, 2.0)))
        with pytest.raises(hj.InputError, match="other: was left to its default"):
            schema.flatten(hj.Inputs(X, other=torch.ones(2)))


def test_names() -> None:
    """Flat names are the real ones, unique, identifiers, and never a keyword or self."""

    def forward(image: Any, targets: Any, input_: Any, _x: Any, *args: Any, **kwargs: Any) -> None: ...

    schema = schema_of(
        forward, X, {"boxes": X, "class": X, "a b": X, "a-b": X, 3: X, "é": X, "": X}, X, X, [X], Pair(X, X),
        **{"self": X, "lambda": X},
    )  # fmt: skip
    names = schema.names()
    assert names[:5] == ["image", "targets_boxes", "targets_class", "targets_a_b", "targets_a_b_2"]
    assert names[5] == "targets_3" and names[8:10] == ["input_", "_x"]
    assert names[10:13] == ["args_0_0", "args_1_a", "args_1_b"]
    assert len(set(names)) == len(names) and all(name.isidentifier() and name.isascii() for name in names)
    inspect.Signature([inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in names])


def test_colliding_names() -> None:
    """A parameter keeps its name, whatever the others come to."""

    def forward(a: Any, a_0: Any, a_0_2: Any, self: Any, _self: Any) -> None: ...

    names = schema_of(forward, [X, {"": X, "_": X}], X, X, X, X).names()
    assert names[-4:] == ["a_0", "a_0_2", "_self_2", "_self"]
    assert names[0] == "a_0_3" and len(set(names)) == 7


def test_wrong_arguments() -> None:
    """A call that does not fit the signature is an InputError that shows both."""

    def forward(x: Any, *, by: Any) -> None: ...

    for inputs in (hj.Inputs(), hj.Inputs(X, 1), hj.Inputs(X, by=1, other=2), hj.Inputs(X)):
        with pytest.raises(hj.InputError, match=r"forward\(x: "):
            schema_of(forward, *inputs.args, **inputs.kwargs)
        with pytest.raises(hj.InputError, match="the arguments don't fit"):
            schema_of(forward, X, by=1).flatten(inputs)


def test_every_difference_is_listed() -> None:
    """A call of another structure is told what differs, all of it, by path."""

    def forward(x: Any, mode: Any, *rest: Any, **more: Any) -> None: ...

    schema = schema_of(forward, {"a": X, "n": 1}, "fast", X)
    with pytest.raises(hj.InputError) as error:
        schema.flatten(hj.Inputs({"a": None, "n": 2}, "slow", X, more=X))
    rows = [line.strip() for line in str(error.value).splitlines()]
    assert rows[1:6] == [
        "- x['a']: expected tensor, got None",
        "- x['n']: expected 1, got 2",
        "- mode: expected 'fast', got 'slow'",
        "- more: expected nothing, got dict",
        "write instead: a call of the captured structure, or export the model with these inputs",
    ]
    with pytest.raises(hj.InputError, match="rest: expected tuple of 1, got nothing"):
        schema.flatten(hj.Inputs({"a": X, "n": 1}, "fast"))
