"""What is captured, on which inputs, and in which way."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from .._errors import InputError, compose
from .._sites import Line
from ..adapters.inputs import Inputs
from .state import ModelState

ON_FROZEN = ("guard", "error", "ignore")


def check_on_frozen(on_frozen: str) -> None:
    """Refuses another word than those that ``on_frozen`` takes.

    Raises:
        InputError: It is another one.
    """
    if on_frozen not in ON_FROZEN:
        raise InputError(
            compose(
                "on_frozen takes one of three words",
                differences=[f"expected one of {', '.join(ON_FROZEN)}, got {on_frozen!r}"],
                instead='on_frozen="guard"',
                page="inputerror",
            )
        )


@dataclass(frozen=True)
class Task:
    """What is to be captured.

    Attributes:
        model: The model, ready.
        first: The call to trace.
        expected: What the model gives for it in eager mode.
        state: The model's state.
        others: Further calls of the same structure, by name.
        run: Runs the model in eager mode on a call; raises what it raises.
    """

    model: nn.Module
    first: Inputs
    expected: Any
    state: ModelState
    others: Mapping[str, Inputs]
    run: Callable[[Inputs, str], Any]


@dataclass
class Known:
    """An input, and what the model gives for it.

    Attributes:
        name: What it is called.
        inputs: The call.
        expected: What the model gives.
        told: Whether the user gave it.
        joins: Whether the file has a path for it, if it takes one of its own.
    """

    name: str
    inputs: Inputs
    expected: Any
    told: bool
    joins: bool = False

    def __post_init__(self) -> None:
        self.joins = self.told


@dataclass(frozen=True)
class Settings:
    """How a capture is made.

    Attributes:
        branches: Paths of submodules whose ``if``s become branches.
        parts: The lines where paths part in them; all lines if absent.
        meets: Lines of ``if``s whose paths meet again where the function around them ends, and not only in the end.
        merges: Lines of ``if``s whose paths meet again where they end themselves.
        within: Lines of ``if``s in turns of loops: each has paths of its own, which meet where it ends.
        most: How many paths there may be in all.
        dynamic: Source files whose code gets stand-ins for ``len``, ``int`` and the like.
        classes: Whether code that gives torch ``int`` for a dtype keeps Python's own, and gets no stand-in for it.
        plain: Source files whose code is given sizes as Python's numbers.
        rolls: Lines of loops over a traced range that become loops in the graph; a trace unrolls all others.
        few: Whether a check input that takes too few turns of such a loop has a path of its own.
        looking: Whether further inputs are captured though nothing left the first one's trace.
        examples: The inputs by which sides of branches are recorded that the traced one contradicts.
        base: The input that is traced: another one than the first where that takes but one turn of a loop.
        as_eager: Whether code that asks if it is traced is told that it is not.
        trusting: Whether evidence does away with guards.
        fixed: What of the inputs is guarded, for want of anything better; see `capture`.
        auto: Whether further submodules get branches where they need them.
    """

    auto: bool = False
    fixed: frozenset[str] = frozenset()
    branches: tuple[str, ...] = ()
    parts: frozenset[Line] | None = None
    meets: frozenset[Line] = frozenset()
    merges: frozenset[Line] = frozenset()
    within: frozenset[Line] = frozenset()
    most: float = math.inf
    dynamic: frozenset[str] = frozenset()
    classes: bool = False
    plain: frozenset[str] = frozenset()
    rolls: frozenset[Line] = frozenset()
    few: bool = False
    looking: bool = False
    examples: tuple[str, ...] = ()
    base: str = "input"
    as_eager: bool = False
    trusting: bool = True

    @property
    def observed(self) -> Settings:
        """What of them makes a difference to a capture without guards."""
        same = dataclasses.replace(self, trusting=True, fixed=frozenset(), auto=False, few=False, looking=False)
        return same if self.branches else dataclasses.replace(same, examples=())
