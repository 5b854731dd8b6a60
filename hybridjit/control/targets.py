"""What a decorator may stand above."""

from __future__ import annotations

from types import FunctionType

from torch import nn

from .._describe import qualified
from .._errors import InputError, compose


def check_function(decorator: str, fn: object) -> None:
    """Refuses to decorate what is no Python function.

    Raises:
        InputError: With what to write instead.
    """
    if not isinstance(fn, FunctionType):
        raise InputError(
            compose(
                f"{decorator} takes a Python function",
                where=qualified(fn),
                differences=[f"expected a function, got {_spell(fn)}"],
                instead=_suggest(decorator, fn),
                page="inputerror",
            )
        )


def _spell(fn: object) -> str:
    if isinstance(fn, nn.Module):
        return f"the module {type(fn).__name__}"
    return f"the class {fn.__name__}" if isinstance(fn, type) else type(fn).__name__


def _suggest(decorator: str, fn: object) -> str:
    if isinstance(fn, (staticmethod, classmethod)):
        name = type(fn).__name__
        return f"@{name}\n@{decorator}\ndef {getattr(fn, '__name__', 'fn')}(...): ..."
    if isinstance(fn, (type, nn.Module)):
        return f"decorate the method with the control flow: @{decorator} above def forward(self, x)"
    return f"a def statement with @{decorator} above it"
