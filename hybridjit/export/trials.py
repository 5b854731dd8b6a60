"""Whether what was captured gives what the model gives, on all inputs that are known."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _torch
from ..adapters.tree import scan
from ..control.guards import said_by_guard
from .capture import Captured
from .compare import NEAR, changed_places, compare, is_chaotic
from .devices import moved
from .probes import BESIDE, SCATTERED, SHARED, of_kind
from .state import SEED
from .task import Known, Task


class Trials:
    """Runs captures of one model on the inputs of a study.

    Args:
        task: What is captured.
        known: The inputs, by name, to which more may be added.

    Attributes:
        unsaid: The inputs that some capture ended on with torch's own text, and no guard's.
        recalled: Those on which the model goes by what the first one left: no file does.
    """

    def __init__(self, task: Task, known: Mapping[str, Known]) -> None:
        self.unsaid: set[str] = set()
        self.recalled: list[str] = []
        self._task = task
        self._known = known
        self._chaos: dict[str, bool] = {}
        self._ran: tuple[Captured | None, dict[str, bool | None]] = None, {}

    def wrong(self, captured: Captured) -> tuple[list[str], list[str]]:
        """The inputs on which what was captured gives something else than the model, and those on which it raises.

        Raising is wrong on the first one alone.
        """
        if captured is not self._ran[0]:
            self._ran = captured, {}
        same, run = self._ran[1], _torch.apart(captured.module)
        # Scattered ones tell of what code does in a trace alone, of which there is none where it is told of none.
        asked = [name for name in self._known if not (captured.as_eager and name.startswith(SCATTERED))]
        for name in asked:
            if name not in same:
                same[name] = self._same(captured, run, name)
        stopped = [name for name in asked if same[name] is None]
        wrong = [name for name in asked if same[name] is False or (same[name] is None and name == "input")]
        wrong += [name for name in self.recalled if same.get(name)]
        return self._confirmed(captured, wrong), stopped

    def _confirmed(self, captured: Captured, wrong: Sequence[str]) -> list[str]:
        """Those that are wrong by more than rounding, as far as anything goes by them, since to tell takes runs.

        Those that were given; without them one that nobody gave, or, without one, all of another kind, each of which
        tells what is to be guarded.
        """
        given = [name for name in wrong if self._known[name].told]
        if given:
            return given
        others = (name for name in wrong if not is_special(name) and not self._is_chaotic(captured, name))
        if one := next(others, None):
            return [one]
        return [name for name in wrong if is_special(name) and not self._is_chaotic(captured, name)]

    def _is_chaotic(self, captured: Captured, name: str) -> bool:
        known = self._known[name]
        if name not in self._chaos:
            schema = captured.adapter.input_schema
            flat = schema.flatten(moved(known.inputs, None, name))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._chaos[name] = is_chaotic(
                    flat,
                    known.expected,
                    lambda flat: self._task.run(schema.unflatten(flat), name),
                    extreme=name.startswith(BESIDE),
                )
        return self._chaos[name]

    def _same(self, captured: Captured, run: Callable[..., Any], name: str) -> bool | None:
        """Whether it gives what the model gives; ``None`` if it raises."""
        known, adapter = self._known[name], captured.adapter
        own = moved(known.inputs, None, name)
        flat = adapter.input_schema.flatten(own)
        torch.manual_seed(SEED)
        try:
            with torch.no_grad(), _torch.unoptimized(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the checks that follow tell of those that are the user's
                got = run(*flat)
        except (_torch.JitError, RuntimeError) as error:
            if of_kind(name):
                # Torch's own words tell of another rank well enough; the model's, which takes it, would be false.
                return False if _RAISED.search(str(error)) else None
            if not said_by_guard(str(error)):
                self.unsaid.add(name)
            return None
        finally:
            self._task.state.restore()
        expected: list[Tensor] = []
        scan(known.expected, expected, "result", adapter.output_schema.node)
        got_flat = [got] if isinstance(got, Tensor) else list(got)
        paths = [str(index) for index in range(len(expected))]
        same = not compare(paths, expected, got_flat, *NEAR).differences
        return same or (not known.told and changed_places(expected, got_flat))


_RAISED = re.compile(r"\(raised at [^()]+\)\s*$")
"""At the end of what a model's own error says in a file."""


def is_special(name: str) -> bool:
    """Whether an input is one of another dtype or rank, or of one tensor twice."""
    return of_kind(name) or name == SHARED
