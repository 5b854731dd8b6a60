"""Calls of what torch has scripted: what they give is not what they were given, also where it is one tensor."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor

from .. import _torch
from .._errors import CaptureError, compose
from .._sites import user_site
from ..control.recorder import renamed
from ..control.structure import tensors_of


@contextlib.contextmanager
def naming_results() -> Iterator[None]:
    """Within the body, an argument that a scripted function gives back goes on with a name of its own.

    The tracer has values by tensor: where the example comes back as it is, what follows about the argument would
    be about the result, which is another tensor on other paths of the function.
    """
    calls = {each: each.__call__ for each in (_torch.ScriptFunction, _torch.ScriptMethod)}
    for each, call in calls.items():
        setattr(each, "__call__", _naming(call))  # noqa: B010
    try:
        yield
    finally:
        for each, call in calls.items():
            setattr(each, "__call__", call)  # noqa: B010


def _naming(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def named(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        if _torch.tracing_state() is None:
            return call(self, *args, **kwargs)
        seen: set[int] = set()
        args, kwargs = _torch.tree_map(functools.partial(_once, seen=seen), (args, kwargs))
        given = [(each, _torch.known_value(each)) for each in tensors_of((args, kwargs))]
        result = call(self, *args, **kwargs)
        results = tensors_of(result)
        back = {id(each) for each, _ in given}
        if not any(id(each) in back for each in results):
            return result
        names = iter([renamed(each, value) for each, value in zip(results, _values(results), strict=True)])
        for each, value in given:
            if value is not None:
                _torch.bind_value(each, value)
        return _torch.tree_map(lambda leaf: next(names) if isinstance(leaf, Tensor) else leaf, result)

    return named


def _once(leaf: Any, seen: set[int]) -> Any:
    """An argument that is given twice, the second time under another name: either may come back."""
    if not isinstance(leaf, Tensor):
        return leaf
    if id(leaf) in seen and (value := _torch.known_value(leaf)) is not None:
        leaf = renamed(leaf, value)
    seen.add(id(leaf))
    return leaf


def _values(results: Sequence[Tensor]) -> list[_torch.Value]:
    """What the graph has for each result; one that is given back twice has but the last of its two there."""
    values = [_torch.value_of(each) for each in results]
    if len({value.unique() for value in values}) == len(values):
        return values
    unpacked = list(values[-1].node().outputs())
    if len(unpacked) != len(values):
        raise CaptureError(
            compose(
                "a scripted function gives one tensor back in several places of a nested result",
                where=str(user_site()),
                instead="return a flat tuple of tensors, or y.clone() for one of them",
                page="captureerror",
            )
        )
    return unpacked
