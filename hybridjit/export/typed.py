"""What a type checker knows of an export: the type that the model's `forward` returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from typing_extensions import TypeVar

Result = TypeVar("Result", covariant=True, default=Any)


class Model(Protocol[Result]):
    """An ``nn.Module`` by what its ``forward`` returns.

    ``nn.Module.__call__`` is ``Callable[..., Any]`` to type checkers, and Python has no type for "a module whose
    ``forward`` returns this"; a protocol that only modules satisfy says it.
    """

    training: bool

    @property
    def forward(self) -> Callable[..., Result]:
        """What a call of the model runs."""

    def state_dict(self) -> dict[str, Any]:
        """Its parameters and buffers."""
