"""`Inputs`: a call's arguments, where a bare tuple won't do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._describe import describe
from .._errors import InputError, compose


class Inputs:
    """A call's positional and keyword arguments.

    ``model(*inputs.args, **inputs.kwargs)`` is the call it stands for.

    Args:
        *args: The positional arguments.
        **kwargs: The keyword arguments.

    Example:
        >>> import hybridjit as hj
        >>> hj.Inputs(1, scale=2.0)
        Inputs(int, scale=float)
    """

    __slots__ = ("args", "kwargs")

    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        self.args: tuple[Any, ...] = args
        self.kwargs: dict[str, Any] = kwargs

    def __repr__(self) -> str:
        parts = [describe(value) for value in self.args]
        parts += [f"{name}={describe(value)}" for name, value in self.kwargs.items()]
        return f"Inputs({', '.join(parts)})"


def as_inputs(inputs: Any, kwargs: Mapping[str, Any] | None = None) -> Inputs:
    """Reads what a user gave for a call's arguments.

    Args:
        inputs: `Inputs`, or a tuple of positional arguments, or one argument. A NamedTuple is one
            argument.
        kwargs: Keyword arguments; those of `Inputs` win.

    Returns:
        The call's arguments.

    Raises:
        InputError: ``kwargs`` is no dict of names.
    """
    names = kwargs is None or (isinstance(kwargs, Mapping) and all(isinstance(name, str) for name in kwargs))
    if not names:
        odd = [each for each in kwargs if not isinstance(each, str)] if isinstance(kwargs, Mapping) else []
        got = f"a name that is {describe(odd[0])}" if odd else describe(kwargs)
        raise InputError(
            compose(
                "kwargs takes the keyword arguments as a dict",
                differences=[f"expected a dict of names, got {got}"],
                instead='kwargs={"name": value}',
                page="inputerror",
            )
        )
    if isinstance(inputs, Inputs):
        return Inputs(*inputs.args, **{**(kwargs or {}), **inputs.kwargs})
    if type(inputs) is tuple:
        return Inputs(*inputs, **(kwargs or {}))
    return Inputs(inputs, **(kwargs or {}))
