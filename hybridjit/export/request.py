"""What `export` was asked for, on its way to the format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from .checks import Expectation


@dataclass(frozen=True)
class Request:
    """What `export` was asked for; see there.

    Attributes:
        eager: What the model gave for the calls asked for, by the titles of entry and call: every format and every
            step of one asks, and the model runs once for each.
    """

    model: Any
    inputs: Any
    kwargs: Mapping[str, Any] | None = None
    branches: Sequence[str] | str | None = None
    flags: Any = None
    methods: Mapping[str, Any] | None = None
    dynamic_shapes: Any = None
    check_inputs: Iterable[Any] = ()
    devices: Sequence[torch.device | str] | None = None
    on_frozen: str = "guard"
    rtol: float | None = None
    atol: float | None = None
    require_coverage: bool = False
    optimize: str | None = None
    eager: dict[tuple[str, str], Expectation] = field(default_factory=dict)
