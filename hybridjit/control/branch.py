"""`branch_if_tracing`: ordinary Python ``if``s on tensors stay ``if``s in the exported graph."""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Callable
from types import FunctionType
from typing import Any, ClassVar, TypeVar

from typing_extensions import ParamSpec

from .. import _torch
from .lower import capturing
from .lower_paths import lower_paths
from .paths import trace_paths
from .targets import check_function
from .wrapper import make_wrapper

P = ParamSpec("P")
R = TypeVar("R")
_keys = itertools.count()


def branch_if_tracing(fn: Callable[P, R]) -> Callable[P, R]:
    """Keeps the Python ``if``s of a function that ask for a tensor's truth, in a trace.

    In eager mode this is just ``fn``::

        def branch_if_tracing(fn):
            return fn

    While a trace records, ``fn`` runs again for each side of its ``if``s (``elif``, early
    returns, ``and``, ``or``, ``assert``, comparisons of sizes), and each is recorded into its
    side of a branch. The body may be any Python: methods, closures, submodules, helpers that are
    not decorated. What ran before an ``if`` is recorded once. A path that raises on the example's
    data becomes a raise with its message.

    Args:
        fn: A function or a method. It must do the same when it runs again on the same tensors, and
            its paths must return the same structure and leave the same behind, but for tensors and numbers.

    Returns:
        A function of the same signature.

    Raises:
        InputError: ``fn`` is no function (at decoration).
        CaptureError: More than 64 paths, a ``while`` over a tensor, paths that return or leave
            behind different things (in a trace).

    Example:
        >>> import torch, hybridjit as hj
        >>> @hj.branch_if_tracing
        ... def largest(x):
        ...     if x.numel() == 0:
        ...         return x.new_zeros(())
        ...     return x.max()
        >>> traced = torch.jit.trace(largest, torch.ones(3))
        >>> traced(torch.zeros(0))
        tensor(0.)
    """
    check_function("branch_if_tracing", fn)
    if _torch.dynamo_traces():  # a function in one that is rewritten itself, with all that is in it
        return fn
    assert isinstance(fn, FunctionType)
    twins = Twins(fn)

    def on_capture(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if _torch.tracing_state() is not None:
            return trace_paths(fn, args, kwargs)
        if _torch.dynamo_traces():
            from . import splits

            return splits.run(twins, args, kwargs)
        return lower_paths(fn, args, kwargs)

    wrapper = make_wrapper(fn, captures, on_capture)
    functools.update_wrapper(wrapper, fn)
    return wrapper


class Twins:
    """A function, and the one that Dynamo reads in its place.

    Attributes:
        fn: The function.
        made: The other one, once it is made.
        key: By which they are found: text, which Dynamo never takes for a number that varies.
    """

    known: ClassVar[weakref.WeakValueDictionary[str, Twins]] = weakref.WeakValueDictionary()

    def __init__(self, fn: FunctionType) -> None:
        self.fn = fn
        self.made = fn
        self.key: str = str(next(_keys))
        Twins.known[self.key] = self


def captures() -> bool | None:
    """``None`` where the function just runs."""
    if _torch.tracing_state() is not None:
        return True
    how = capturing()
    if how == "dynamo":
        from . import splits

        return splits.are_wanted()
    return True if how else None
