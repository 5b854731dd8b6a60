"""Torch's transformers ask what watches their tensors, and whether gradients are wanted, and go another way then."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from .. import _torch
from .leaks import as_traced

_overrides: Any = torch.overrides


@contextlib.contextmanager
def unnoticed() -> Iterator[None]:
    """Lets `torch.overrides.has_torch_function` say within the body what it says in eager mode.

    There only tensors of other classes are watched; the modes under which a trace is captured are nobody's business.
    An `nn.TransformerEncoder` that is given padding leaves zeros there, unless gradients are wanted: of what it asks
    about that, the file asks too.
    """
    watched, wanted = _overrides.has_torch_function, torch.is_grad_enabled

    def has_torch_function(relevant_args: Iterable[Any]) -> bool:
        others = [each for each in relevant_args if type(each) is not Tensor and not isinstance(each, nn.Parameter)]
        return any(hasattr(type(each), "__torch_function__") for each in others) and bool(watched(others))

    def is_grad_enabled() -> Any:
        asking = sys._getframe(1).f_locals.get("self")
        if not isinstance(asking, nn.TransformerEncoder) or _torch.tracing_state() is None:
            return wanted()
        if not any(each.requires_grad for each in asking.parameters()):
            return wanted()
        truth = _torch.type_named("BoolType")
        return as_traced(wanted(), _torch.insert(_torch.current_graph(), "aten::is_grad_enabled", [], truth))

    with (
        mock.patch.object(torch.overrides, "has_torch_function", has_torch_function),
        mock.patch.object(torch, "is_grad_enabled", is_grad_enabled),
    ):
        yield
