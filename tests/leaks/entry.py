"""An entry of the gallery: a small model that a plain trace gets wrong, and the same model as it should be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

Call: TypeAlias = tuple[Any, ...]
"""The arguments of a call."""
Does: TypeAlias = Literal["right", "guard", "refused"]
"""What hybridjit does, from the first input alone: the file is right on the others, it raises on some, or there is
none."""
Forward: TypeAlias = Callable[..., Any] | type[nn.Module]


class Model(nn.Module):
    """A function as a model."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, *args: Any) -> Any:
        return self.fn(*args)


@dataclass
class Entry:
    """A leak.

    Attributes:
        name: What leaks.
        wrong: The function, or the class of the model, that leaks.
        first: The call that is traced.
        others: Further calls, on which the plain trace goes wrong or raises.
        does: What `hybridjit.export` does, untold.
        auto: The same with ``branches="auto"``.
    """

    name: str
    wrong: Forward
    first: Call
    others: tuple[Call, ...]
    does: Does
    auto: Does
    right: Forward | None = field(default=None)

    def fixed(self, forward: Forward) -> Forward:
        """Decorates the model as it should be."""
        self.right = forward
        return forward

    @property
    def calls(self) -> list[Call]:
        """One after the other on one model: the first, then the others, twice."""
        return [self.first, *self.others, *self.others]

    def model(self) -> nn.Module:
        """The model that leaks, new."""
        return made(self.wrong)

    def fixed_model(self) -> nn.Module:
        """The model that doesn't, new."""
        assert self.right is not None, f"{self.name} has no fixed model"
        return made(self.right)


def made(forward: Forward) -> nn.Module:
    """A model, with the same weights each time."""
    torch.manual_seed(0)
    if isinstance(forward, type):
        return forward().eval()
    return Model(forward).eval()


GALLERY: dict[str, Entry] = {}


def leak(first: Any, *others: Any, does: Does = "guard", auto: Does | None = None) -> Callable[[Forward], Entry]:
    """Adds a model to the gallery.

    Args:
        first: The arguments of the traced call; a lone one as it is.
        *others: Those of the others.
        does: What hybridjit does.
        auto: The same with ``branches="auto"``, if that is something else.
    """

    def register(forward: Forward) -> Entry:
        name = forward.__name__
        assert name not in GALLERY, name
        entry = Entry(name, forward, call(first), tuple(map(call, others)), does, auto or does)
        GALLERY[name] = entry
        return entry

    return register


def call(arguments: Any) -> Call:
    """The arguments of a call, of which a lone one may go without its tuple."""
    return arguments if isinstance(arguments, tuple) else (arguments,)


def floats(*sizes: int, seed: int = 0) -> Tensor:
    """Values of some size, the same each time."""
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed))
