"""`branches=`: `branch_if_tracing` for submodules whose code can't be edited, by name or found."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from .. import _torch
from .._describe import describe, listed
from .._errors import CaptureError, InputError, compose
from .._sites import Site
from ..control.paths import trace_paths


class Branching:
    """A module's ``forward`` while it is captured with its ``if``s as branches.

    An object, not a function: ``torch.jit`` tries to compile functions that it finds on a module.
    """

    def __init__(self, path: str, forward: Callable[..., Any], parts: Callable[[Site], bool]) -> None:
        self.path = path
        self.forward = forward
        self.parts = parts

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Runs the module; in a trace, with its ``if``s as branches."""
        if _torch.tracing_state() is None:
            return self.forward(*args, **kwargs)
        try:
            return trace_paths(self.forward, args, kwargs, self.parts)
        except CaptureError as error:
            raise BranchingError(error, self.path) from error


class BranchingError(CaptureError):
    """A module can't be captured with its ``if``s as branches.

    Attributes:
        error: Why.
        path: The module, by its path; the innermost that was to branch.
    """

    def __init__(self, error: CaptureError, path: str) -> None:
        inner = error if isinstance(error, BranchingError) else None
        super().__init__(str(error))
        self.error: CaptureError = inner.error if inner else error
        self.path: str = inner.path if inner else path


@contextlib.contextmanager
def branching(
    model: nn.Module, paths: Sequence[str], parts: Callable[[Site], bool] = lambda site: True
) -> Iterator[None]:
    """Gives the submodules at these paths a `Branching` forward within the body.

    Args:
        model: The model.
        paths: The submodules' paths.
        parts: Whether an ``if`` at a line becomes a branch.
    """
    changed: list[tuple[nn.Module, Any]] = []
    try:
        for path in paths:
            module = model.get_submodule(path)
            if isinstance(vars(module).get("forward"), Branching):  # one module by two names
                continue
            changed.append((module, vars(module).get("forward")))
            vars(module)["forward"] = Branching(path, module.forward, parts)
        yield
    finally:
        for module, before in reversed(changed):
            if before is None:
                del vars(module)["forward"]
            else:
                vars(module)["forward"] = before


def matching(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """The submodules that names or patterns (``layers.*.attn``) mean; ``""`` is the model itself.

    Raises:
        InputError: A pattern is no text, or means no module that can branch.
    """
    if not isinstance(patterns, (list, tuple, set, frozenset)) or not all(isinstance(each, str) for each in patterns):
        raise InputError(
            compose(
                "branches takes a list of module names or patterns, or 'auto'",
                differences=[f"expected a list of text, got {describe(patterns)}"],
                instead='branches=["roi_heads", "layers.*.attn"]',
                page="inputerror",
            )
        )
    names = {name: module for name, module in model.named_modules() if not isinstance(module, _torch.ScriptModule)}
    found: list[str] = []
    for pattern in patterns:
        hits = [name for name in names if fnmatchcase(name, pattern)]
        if not hits:
            near = difflib.get_close_matches(pattern, names, n=3) or list(names)[1:4]
            there = f"expected a module's path, such as {listed(near)}" if near else "the model has no submodules"
            raise InputError(
                compose(
                    f"branches names no module: {pattern!r}",
                    where=type(model).__qualname__,
                    differences=[there],
                    instead=f"branches={near[:1]!r}" if near else 'branches="auto"',
                    page="inputerror",
                )
            )
        found += [name for name in hits if name not in found]
    return found


def parent(path: str) -> str | None:
    """The module around one; ``None`` around the model itself."""
    return path.rpartition(".")[0] if path else None
