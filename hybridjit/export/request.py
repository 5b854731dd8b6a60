"""What `export` was asked for, on its way to the format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Request:
    """What `export` was asked for; see there."""

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
