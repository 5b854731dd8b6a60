"""The turns of an unrolled loop side by side: whether they do the same, and what each takes from the one before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .. import _torch
from .programs import program_of
from .values import identical

if TYPE_CHECKING:
    from .rolled import Loop

FREE = ("prim::Constant", "prim::GetAttr")
"""Operations that may as well stand before the loop."""

PURE = (
    "prim::Constant",
    "prim::ListConstruct",
    "prim::TupleConstruct",
    "prim::ListUnpack",
    "prim::TupleUnpack",
    "prim::NumToTensor",
)
"""Operations besides torch's own that torch takes out of a trace where nothing uses what they give."""

ONE_EACH = ("aten::Int", "aten::Float", "aten::ScalarImplicit", "aten::IntImplicit", "aten::FloatImplicit")
"""Operations that the tracer writes for each use of a tensor anew, where the tensor was made."""


class Unlike(Exception):
    """The turns of a loop can't be made one."""


@dataclass
class Turn:
    """One turn of an unrolled loop.

    Attributes:
        mark: The mark before it.
        nodes: Its operations.
        numbers: The number of each value that it computes, in order, by the value's own.
        values: The values, by that number.
    """

    mark: Any
    nodes: list[Any]
    numbers: dict[int, int] = field(default_factory=dict)
    values: dict[int, Any] = field(default_factory=dict)

    def merge(self) -> None:
        """Makes one of what the tracer wrote for each use anew, which a turn with fewer uses has fewer of."""
        kept: dict[tuple[str, int], Any] = {}
        for node in list(self.nodes):
            if node.kind() not in ONE_EACH:
                kept.clear()  # between two there may be a write
                continue
            one = kept.setdefault((node.kind(), node.inputsAt(0).unique()), node)
            if one is not node:
                node.output().replaceAllUsesWith(one.output())
                self.nodes.remove(node)
                node.destroy()

    def count(self, nodes: Sequence[Any]) -> None:
        """Numbers the values that operations compute, in their blocks too."""
        for node in nodes:
            for block in node.blocks():
                self._own(block.inputs())
                self.count(list(block.nodes()))
            self._own(node.outputs())

    def _own(self, values: Any) -> None:
        for value in values:
            self.numbers[value.unique()] = len(self.values)
            self.values[len(self.values)] = value


class Comparison:
    """One turn beside the first of those that become the body.

    Args:
        loop: The loop.
        index: Which turn.
    """

    def __init__(self, loop: Loop, index: int) -> None:
        self.loop = loop
        self.index = index
        self.place: int = 0 if loop.ends is None else 1

    def compare(self) -> None:
        """Finds what the turn takes from the one before it.

        Raises:
            Unlike: It does something else than the first.
        """
        turns, first = self.loop.turns, self.loop.first
        one, other = turns[first], turns[self.index]
        if len(one.nodes) > len(other.nodes) and self.index > first + 1:
            self._needed(one, other)
        else:
            self._nodes(one.nodes, other.nodes)
        if not self.loop.ends_alike(self.index):
            raise Unlike

    def _needed(self, one: Turn, other: Turn) -> None:
        """The same for a turn that lacks what only a further one would use, which torch takes out of a trace."""
        left = list(other.nodes)
        other.numbers, other.values = {}, {}
        for node in one.nodes:
            place, mine, its = self.place, Turn(node, []), Turn(node, [])
            mine.count([node])
            if left:
                its.count(left[:1])
                numbers = [one.numbers[value.unique()] for value in mine.values.values()]
                pairs = dict(zip(numbers, its.values.values(), strict=False))
                known = dict(other.numbers)
                other.numbers |= {value.unique(): number for number, value in pairs.items()}
                try:
                    self._nodes([node], left[:1])
                    other.values |= pairs
                    del left[0]
                    continue
                except Unlike:
                    other.numbers = known
            if not is_pure(node):
                raise Unlike
            self.place = place + node.inputsSize()
        if left:
            raise Unlike

    def _nodes(self, one: Sequence[Any], other: Sequence[Any]) -> None:
        if len(one) != len(other):
            raise Unlike
        for a, b in zip(one, other, strict=True):
            if a.kind() != b.kind() or a.inputsSize() != b.inputsSize() or a.outputsSize() != b.outputsSize():
                raise Unlike
            blocks = list(zip(a.blocks(), b.blocks(), strict=True))
            if not blocks and not self._same_attributes(a, b):
                raise Unlike
            for at in range(a.inputsSize()):
                self._input(a, b, at)
            for mine, its in blocks:
                ends = [mine.returnNode()], [its.returnNode()]
                self._nodes([*mine.nodes()], [*its.nodes()])
                self._nodes(*ends)

    def _input(self, a: Any, b: Any, at: int) -> None:
        place, self.place = self.place, self.place + 1
        if not place:
            return  # the number of the turn
        loop = self.loop
        one, other = a.inputsAt(at), b.inputsAt(at)
        mine, its = loop.turn_of(one), loop.turn_of(other)
        if its is None:
            if mine is not None or place in loop.slots or place in loop.late:
                raise Unlike
            if not same(one, other):
                self._outside(a, at, place, other)
            return
        turn, number = its
        if place in loop.late:
            node, at, second, known = loop.late[place]
            if (
                turn != self.index - 2
                or known not in (None, number)
                or (known is None and self.index != loop.first + 2)
            ):
                raise Unlike
            loop.late[place] = node, at, second, number
        elif turn == self.index:
            if mine != (loop.first, number):
                raise Unlike
        elif turn != self.index - 1 or mine is not None or _torch.kind(one.type()) != "TensorType":
            raise Unlike
        elif self.index == loop.first + 1:
            loop.slots[place] = a, at, number
        elif place not in loop.slots or loop.slots[place][2] != number:
            raise Unlike
        if turn == self.index and place in loop.slots:
            raise Unlike

    def _outside(self, node: Any, at: int, place: int, other: Any) -> None:
        """Takes what the second turn has from before the loop for what the third one takes from the first."""
        if self.index != self.loop.first + 1 or _torch.kind(other.type()) != "TensorType":
            raise Unlike
        self.loop.late[place] = node, at, other, None

    def _same_attributes(self, a: Any, b: Any) -> bool:
        if a.kind() == b.kind() == "prim::CallMethod" and a.s("name") != b.s("name"):
            return self._same_calls(a, b)
        names = list(a.attributeNames())
        return names == list(b.attributeNames()) and all(_attribute(a, name) == _attribute(b, name) for name in names)

    def _same_calls(self, a: Any, b: Any) -> bool:
        """Whether two calls of a submodule, of which a trace makes two methods, do the same."""
        if self.loop.owner is None or not same(a.inputsAt(0), b.inputsAt(0)):
            return False
        path: list[str] = []
        value = a.inputsAt(0)
        while value.node().kind() == "prim::GetAttr":
            path.insert(0, value.node().s("name"))
            value = value.node().inputsAt(0)
        module = self.loop.owner
        for name in path:
            module = getattr(module, name)
        return program_of(_torch.inlined(module, a.s("name"))) == program_of(_torch.inlined(module, b.s("name")))


def is_pure(node: Any) -> bool:
    """Whether an operation is one that torch takes out of a trace where nothing uses what it gives."""
    return node.kind() in PURE or (node.kind().startswith("aten::") and "!" not in node.schema())


def _attribute(node: Any, name: str) -> str:
    return repr(getattr(node, node.kindOf(name))(name))


def same(one: Any, other: Any) -> bool:
    """Whether two values from before a loop are one."""
    if one.unique() == other.unique():
        return True
    a, b = one.node(), other.node()
    if a.kind() == b.kind() and a.kind() in ONE_EACH:
        return same(a.inputsAt(0), b.inputsAt(0))
    if a.kind() != b.kind() or a.kind() not in FREE:
        return False
    if a.kind() == "prim::GetAttr":
        return bool(a.s("name") == b.s("name")) and same(a.inputsAt(0), b.inputsAt(0))
    if one.type() != other.type() and _torch.kind(one.type()) != "TensorType":
        return False
    held, its = one.toIValue(), other.toIValue()
    if isinstance(held, Tensor) and isinstance(its, Tensor):
        return held is its or identical(held, its)
    return type(held) is type(its) and repr(held) == repr(its)
