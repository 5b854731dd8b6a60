"""Structures: what is opened, put together again, and how two of them differ."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import register_pytree_node

from hybridjit import InputError
from hybridjit.adapters.tree import NumberLeaf, build, differences, leaves, scan, show, spell


class Shade(Enum):
    DARK = 1


class Pair(NamedTuple):
    a: Any
    b: Any


class Checked(NamedTuple("Checked", [("a", Tensor)])):
    def __new__(cls, values: list[Tensor]) -> Checked:
        return super().__new__(cls, values[0])


@dataclass
class Registered:
    boxes: Tensor
    note: str = "n"


torch.export.register_dataclass(Registered, serialized_type_name="tests.Registered")


@dataclass(frozen=True)
class Frozen:
    x: Tensor
    twice: Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "twice", self.x * 2)


@dataclass
class Doubling:
    x: Any

    def __post_init__(self) -> None:
        self.x = self.x * 2


@dataclass
class WithInit:
    x: Tensor
    size: dataclasses.InitVar[int]

    def __post_init__(self, size: int) -> None:
        self.x = self.x[:size]


@dataclass(slots=True)
class Slotted:
    x: Tensor


@dataclass
class Hiding:
    x: Tensor
    secret: object


register_pytree_node(Hiding, lambda h: ([h.x], h.secret), lambda c, s: Hiding(next(iter(c)), s))


class Boxes:
    def __init__(self, data: Tensor, size: tuple[int, int]) -> None:
        self.data, self.size = data, size


register_pytree_node(Boxes, lambda b: ([b.data], b.size), lambda c, s: Boxes(next(iter(c)), s))

X, Y = torch.ones(2), torch.zeros(3)


def again(value: Any) -> Any:
    """The value through its structure and its tensors."""
    tensors: list[Tensor] = []
    node = scan(value, tensors)
    assert all(isinstance(tensor, Tensor) for tensor in tensors)
    rest = iter(tensors)
    made = build(node, rest)
    assert next(rest, None) is None
    assert not differences(node, scan(made, []))
    return made


@pytest.mark.parametrize(
    "value",
    [
        X, None, 1, True, "a", 2.5, torch.float16, torch.device("cpu"), [], (), {}, [[]], [None, {"a": ()}],
        {"a": X, "b": [Y, (X,)]}, {2: X, "2": Y, True: None}, {(1, 2): X, None: Y, 1.5: X, "it's": {}},
        OrderedDict(b=X, a=Y), Pair(X, [Y]), Pair(None, Pair(1, "x")), [X, X], torch.Size([2, 3]),
        deque([X, Y], maxlen=3), {"a.b['c']": X, "": Y},
    ],
    ids=str,
)  # fmt: skip
def test_round_trip(value: Any) -> None:
    """Containers keep their class, their order and the very tensors."""
    made = again(value)
    assert type(made) is type(value) and repr(made) == repr(value)


def test_a_defaultdict_keeps_its_factory() -> None:
    """A missing key is still made."""
    made = again(defaultdict(list, a=X))
    assert isinstance(made, defaultdict) and made["b"] == []
    assert again(defaultdict(lambda: 7, {(1, 2): X}))["c"] == 7


def test_dataclasses() -> None:
    """Plain, registered, frozen, slotted ones, and those whose __init__ is not their fields."""
    registered = again(Registered(X, "m"))
    assert type(registered) is Registered and registered.boxes is X and registered.note == "m"
    assert again(Slotted(X)).x is X
    frozen = Frozen(X)
    assert again(frozen).twice is frozen.twice
    assert again(Doubling(1)).x == 2
    assert again(WithInit(Y, 2)).x.shape == (2,)


@dataclass
class Ordered(OrderedDict[str, Any]):
    """A result as transformers has them: a dict and a dataclass."""

    boxes: Tensor
    scores: Tensor | None = None


def test_a_dataclass_that_is_a_dict() -> None:
    """A dataclass that is made by a dict's constructor is made by its own."""
    assert again(Ordered(X)).boxes is X


def test_registered_classes() -> None:
    """A registered class comes back through its own functions, a dataclass that hides things too."""
    boxes = again(Boxes(X, (3, 4)))
    assert isinstance(boxes, Boxes) and boxes.data is X and boxes.size == (3, 4)
    secret = object()
    assert again(Hiding(X, secret)).secret is secret


def test_a_namedtuple_with_its_own_new() -> None:
    """A NamedTuple is made of its fields, whatever its __new__ takes."""
    assert again(Checked([X])).a is X


def test_torch_return_types() -> None:
    """What ``max`` along a dimension returns is a container too."""
    result = torch.arange(6.0).reshape(2, 3).max(0)
    made = again(result)
    assert type(made) is type(result) and made.values is result.values


@pytest.mark.parametrize(
    ("value", "fix"),
    [
        (torch.ones(2).numpy(), "torch.from_numpy"),
        (torch.ones(2).numpy()[0], ".item()"),
        (object(), "register_pytree_node(object"),
        ({1, 2}, "a list"),
        (slice(3), "a tuple of them"),
        (Shade.DARK, "member.value"),
    ],
)
def test_unsupported_leaves(value: Any, fix: str) -> None:
    """A leaf that is nothing we know is refused, with its path and the fix."""
    with pytest.raises(InputError) as error:
        scan({"a": [X, value]}, [], "targets")
    assert "at targets['a'][1]" in str(error.value) and fix in str(error.value)


def test_cycles_are_refused() -> None:
    """A list that contains itself is no structure."""
    cycle: list[Any] = [X]
    cycle.append(cycle)
    with pytest.raises(InputError, match="contains itself"):
        scan(cycle, [])
    looped = Doubling(1)
    looped.x = looped
    with pytest.raises(InputError, match="contains itself"):
        scan(looped, [])


def test_numbers_of() -> None:
    """Where eager mode has a number and a trace a tensor of no dimensions, it is a carried number."""
    tensors: list[Tensor] = []
    before = scan({"n": 3, "f": 0.5, "b": True, "s": "x", "t": 1}, [])
    zero = torch.tensor(0)
    node = scan({"n": zero, "f": zero, "b": zero, "s": zero, "t": Y}, tensors, "", before)
    kinds = [leaf for _, leaf in leaves(node)]
    assert kinds[:3] == [NumberLeaf("int"), NumberLeaf("float"), NumberLeaf("bool")]
    assert len(differences(before, node)) == 2  # the text, and the tensor that is no number


def test_differences_list_every_path() -> None:
    """All differences are told, by path, with what was expected."""
    a = scan({"x": [X, 1], "y": "a", "z": None, "w": True}, [])
    b = scan({"x": [X, 2], "y": "b", "z": X, "w": 1}, [])
    assert differences(a, b, "t") == [
        "t['x'][1]: expected 1, got 2",
        "t['y']: expected 'a', got 'b'",
        "t['z']: expected None, got tensor",
        "t['w']: expected True, got 1",
    ]
    assert not differences(scan(float("nan"), []), scan(float("nan"), []))


def test_differences_between_containers() -> None:
    """Length, keys, their order, class and a registered class's context all count."""

    def rows(a: Any, b: Any) -> list[str]:
        return differences(scan(a, []), scan(b, []), "v")

    assert rows([X], [X, X]) == ["v: expected list of 1, got list of 2"]
    assert rows([X], (X,)) == ["v: expected list of 1, got tuple of 1"]
    assert rows({"a": X}, {"b": X}) == ["v: expected dict('a'), got dict('b')"]
    assert rows({"a": X, "b": X}, {"b": X, "a": X}) == ["v: expected dict('a', 'b'), got dict('b', 'a')"]
    assert rows({1: X}, {"1": X}) == ["v: expected dict(1), got dict('1')"]
    assert rows(Boxes(X, (3, 4)), Boxes(X, (3, 5))) == ["v: expected the context (3, 4), got (3, 5)"]
    assert rows([], ()) == ["v: expected list of 0, got tuple of 0"]


def test_show_has_every_leaf_and_empty_container() -> None:
    """Nothing of a structure is left out."""
    node = scan({"a": [], "b": [X, None], "n": Pair(1, {})}, [])
    assert show(node, "r") == [
        "r['a']: list of 0", "r['b'][0]: tensor", "r['b'][1]: None", "r['n'].a: 1", "r['n'].b: dict()",
    ]  # fmt: skip
    assert show(scan(X, [])) == ["the value: tensor"]
    assert spell(scan(Pair(1, 2), [])).endswith("Pair(a, b)")
