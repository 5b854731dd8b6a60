"""Numbers where torch takes lists of them, as in ``max_pool1d(x, n)``: of a traced one alone it keeps the value."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_POOLED = {1: "kernel_size", 2: "stride", 3: "padding"}
_INDICES = ("", "_with_indices")
_PLACES: dict[Any, tuple[dict[int, str], int]] = {
    **{getattr(F, f"max_pool{n}d{also}"): (_POOLED | {4: "dilation"}, 1) for n in (1, 2, 3) for also in _INDICES},
    **{getattr(F, f"avg_pool{n}d"): (_POOLED, 1) for n in (1, 2, 3)},
    **{getattr(F, f"adaptive_avg_pool{n}d"): ({1: "output_size"}, n) for n in (1, 2, 3)},
    **{getattr(F, f"adaptive_max_pool{n}d{also}"): ({1: "output_size"}, n) for n in (1, 2, 3) for also in _INDICES},
    F.unfold: ({1: "kernel_size", 2: "dilation", 3: "padding", 4: "stride"}, 2),
    F.fold: ({1: "output_size", 2: "kernel_size", 3: "dilation", 4: "padding", 5: "stride"}, 2),
    **dict.fromkeys((Tensor.roll, torch.roll), ({1: "shifts"}, 1)),
}
"""Functions, with the places and names of such parameters, and how many numbers a list there has."""


def listed(func: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The arguments of an operation with a list for each tensor that stands where one of numbers is taken.

    Args:
        func: The operation.
        args: What it is given.
        kwargs: Likewise, by name.
    """
    if func not in _PLACES:
        return args, kwargs
    places, count = _PLACES[func]
    names = places.values()

    def each(value: Any) -> Any:
        return (value,) * count if isinstance(value, Tensor) else value

    args = tuple(each(value) if place in places else value for place, value in enumerate(args))
    return args, {name: each(value) if name in names else value for name, value in kwargs.items()}
