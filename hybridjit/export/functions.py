"""Custom autograd functions: a trace has what their ``forward`` does, not the call, which no file can hold."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from .. import _torch
from .._sites import Site, user_site
from .report import Finding


@contextlib.contextmanager
def inlined(names: Mapping[int, str]) -> Iterator[list[Finding]]:
    """Runs, within the body, the ``forward`` of an autograd function where a trace would record its call.

    The result is the same; the gradient in the file is that of the operations, so each is noted.

    Args:
        names: ``id(module)`` to module path.

    Yields:
        The notes, one per function and line; complete once the body has ended.
    """
    called: dict[tuple[str, Site], None] = {}
    found: list[Finding] = []

    def run(cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        called[cls.__qualname__, user_site(names)] = None
        if _torch.has_setup_context(cls):
            return cls.forward(*args, **kwargs)  # what it keeps for the backward pass is made elsewhere
        context = torch.autograd.function.FunctionCtx()
        vars(context)["needs_input_grad"] = (False,) * len(args)
        return cls.forward(context, *args)

    with _torch.applying(run):
        yield found
    found += [
        Finding(
            "HJ308",
            "note",
            f"{name}: the file has the operations of its forward, and their gradient, not that of its backward",
            site.file,
            site.line,
            site.module_path,
        )
        for name, site in called
    ]
