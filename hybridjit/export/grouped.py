"""Convolutions of which a size says how many groups they have, such as one per row of a batch."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import _torch
from .._sites import user_frame
from .kinds import GIVEN

if TYPE_CHECKING:
    from .answers import See
    from .watch import Watch

_GROUPS = 6
"""Which argument of a convolution it is."""
_PLACE = 8
"""Which input of the operation that stands in a trace."""


def _see_grouped(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    """Gives the operation in the graph the traced number, of which torch takes the example's."""
    caller = user_frame() or sys._getframe()
    groups = args[_GROUPS] if len(args) > _GROUPS else kwargs.get("groups")
    if not isinstance(groups, Tensor) or not watch.varies(groups):
        return watch.called(func, args, kwargs, caller)
    with _torch.paused_tracing():
        number = int(groups)
    traced = _torch.insert_number(_torch.current_graph(), _torch.value_of(groups), "IntType")
    if len(args) > _GROUPS:
        args = *args[:_GROUPS], number, *args[_GROUPS + 1 :]
    else:
        kwargs = {**kwargs, "groups": number}
    result = watch.called(func, args, kwargs, caller)
    node = _torch.value_of(result).node()
    if node.kind() == "aten::_convolution":
        node.replaceInput(_PLACE, traced)
    else:
        watch.leak(GIVEN, groups, number)
    return result


_CONVOLUTIONS = [f"conv{kind}{dims}d" for kind in ("", "_transpose") for dims in (1, 2, 3)]
SEEN: dict[Any, See] = {getattr(torch, name): _see_grouped for name in _CONVOLUTIONS}
