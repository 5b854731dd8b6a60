"""Why a check differs: which operation's value parts first, and whether it is the export's doing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .._errors import HybridJitError
from ..adapters.tree import scan
from .compare import compare

NEAR = (1e-3, 1e-4)
"""Relative and absolute: what results for an input that nobody gave may differ by; its values are not the user's."""
_NUDGE = 1e-6
"""Relative: about ten rounding errors of float32."""


def is_chaotic(flat: tuple[Tensor, ...], expected: Any, run: Callable[[tuple[Tensor, ...]], Any]) -> bool:
    """Whether the model itself gives something else when its input changes by a rounding error.

    Args:
        flat: The input's tensors.
        expected: What the model gives for it.
        run: Runs the model on the tensors of an input; raises a `HybridJitError` if it raises.
    """
    made = {id(each): each * (1 + _NUDGE) if each.is_floating_point() else each for each in flat}
    nudged = tuple(made[id(each)] for each in flat)  # what is one tensor stays one
    try:
        result = run(nudged)
    except HybridJitError:
        return True
    one: list[Tensor] = []
    other: list[Tensor] = []
    scan(expected, one, "result")
    scan(result, other, "result")
    return bool(compare([str(index) for index in range(len(one))], one, other, *NEAR).differences)
