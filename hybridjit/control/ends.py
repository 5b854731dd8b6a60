"""What the sides of a branch leave behind, as one: attributes and lists hold what the branch gives for both."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from . import record
from .effects import Contents, Effects, alike, same
from .objects import put_together, taken_apart
from .structure import Flat, can_join, flatten, tensors_of


class Ends:
    """What the sides of a branch left in the containers; tensors and numbers that differ become those of the branch.

    Args:
        effects: The containers.
        names: What the sides are called.
        where: Where they part.
        before: What the containers held before either ran.
        last: Whether nothing runs afterwards, so that it does not matter what else they left different.
    """

    def __init__(
        self, effects: Effects, names: tuple[str, str], where: str, before: Contents, last: bool = False
    ) -> None:
        self.effects = effects
        self.last = last
        self.before = before
        self._known = {id(container) for container in effects.containers}
        self.names = names
        self.where = where
        self._left: dict[bool, Contents] = {}
        self._differing: list[tuple[int, Any, Flat, Flat]] = []

    def note(self, holds: bool) -> None:
        """Notes what the side that ran has left; what an attempt at it left that was none counts no more."""
        self._left[holds] = self.effects.take()

    def forget(self, holds: bool) -> None:
        """Forgets what an attempt at a side left."""
        self._left.pop(holds, None)

    @property
    def left(self) -> list[Contents]:
        """What each side left that did not raise, in order."""
        return [self._left[holds] for holds in (True, False) if holds in self._left]

    def pairs(self) -> list[tuple[Any, Any]]:
        """The tensors and numbers that they left different, of the one side and of the other.

        Raises:
            CaptureError: They left something else different, too.
        """
        seen = record.current()
        for module, key in self.effects.written(self.before, self.left):
            seen.written.add(f"{seen.names.get(id(module), '')}.{key}".lstrip("."))
        if len(self.left) < 2:  # the other one raises
            return self._of_one()
        for index, (first, second) in enumerate(zip(*self.left, strict=True)):
            if alike(first, second, exactly=True):
                continue
            keys = _keys(first)
            if isinstance(first, set) or [*keys] != [*_keys(second)]:
                if self.last:
                    continue
                self.effects.check_same(self.left, self.names, self.where)
            for key in keys:
                if not same(first[key], second[key], exactly=True):
                    one, other = (flatten(taken_apart(each[key], self._known)) for each in (first, second))
                    self._differing.append((index, key, one, other))
        if self.last:
            self._differing = [each for each in self._differing if can_join(*each[2:])]
        if not all(can_join(one, other) for *_, one, other in self._differing):
            self.effects.check_same(self.left, self.names, self.where)
        return [pair for *_, one, other in self._differing for pair in zip(one.leaves, other.leaves, strict=True)]

    def _of_one(self) -> list[tuple[Any, Any]]:
        """The tensors that one side left which were not there before; they are in its block, and nobody's after it."""
        for index, (was, held) in enumerate(zip(self.before, *self.left, strict=True)):
            if isinstance(held, set) or alike(was, held, exactly=True):
                continue
            had = {id(each) for each in tensors_of(was)}
            for key in _keys(held):
                flat = flatten(taken_apart(held[key], self._known))
                if any(isinstance(leaf, Tensor) and id(leaf) not in had for leaf in flat.leaves):
                    self._differing.append((index, key, flat, flat))
        return [(leaf, leaf) for *_, flat, _ in self._differing for leaf in flat.leaves]

    def join(self, values: list[Any]) -> None:
        """Puts what the branch gives for each pair in their place."""
        following = iter(values)
        for index, key, one, _ in self._differing:
            self.left[-1][index][key] = put_together(one.rebuild([next(following) for _ in one.leaves]))


def _keys(contents: Any) -> Any:
    return contents.keys() if isinstance(contents, dict) else range(len(contents))
