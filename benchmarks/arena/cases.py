"""A model, the call it is exported from, and further calls; and the list of them all."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import hybridjit as hj


def as_it_is(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Case:
    """What a builder makes; the same each time it is called with the same seed.

    Attributes:
        model: In eval mode, with random weights.
        first: The call to export from.
        others: Further calls, by what is different about them; the eager model takes each.
        scripted: What torch.jit.script documents to give differently, put right.
    """

    model: Any
    first: hj.Inputs
    others: dict[str, hj.Inputs]
    scripted: Callable[[Any], Any] = as_it_is


Builder = Callable[[], Case]

CASES: dict[str, Builder] = {}
PACKAGES: dict[str, str] = {}
MODELS = (
    "models_text",
    "models_sequences",
    "models_vision",
    "models_detection",
    "models_audio",
    "models_graphs",
    "models_kornia",
    "models_others",
    "models_rows",
)


def case(package: str) -> Callable[[Builder], Builder]:
    """Puts a builder on the list, under its own name."""

    def note(builder: Builder) -> Builder:
        name = f"{package}.{builder.__name__}"
        assert name not in CASES, name
        CASES[name], PACKAGES[name] = builder, package
        return builder

    return note


def load_cases() -> dict[str, Builder]:
    """All of them."""
    for name in MODELS:
        import_module(f".{name}", __package__)
    return CASES
