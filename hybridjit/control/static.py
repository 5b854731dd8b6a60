"""`static`: a value frozen into the export on purpose."""

from __future__ import annotations

import weakref
from typing import TypeVar, overload

from torch import Tensor, nn

from .. import _torch
from .._describe import describe
from .._errors import InputError, compose
from .._sites import user_site
from . import record

T = TypeVar("T")

_modules: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()


@overload
def static(value: Tensor, *, reason: str) -> int | float | bool: ...
@overload
def static(value: T, *, reason: str) -> T: ...
def static(value: object, *, reason: str) -> object:
    """Says that a value is frozen into the export on purpose.

    In eager mode this is::

        def static(value, *, reason):
            return value.item() if isinstance(value, Tensor) else value

    In a trace, a tensor's value is taken as a Python number and a check goes into the graph: where
    the tensor has another value at run time, the file raises, with the line and the reason. Around
    a module it says that its training mode is meant, and `export` takes it as it is.

    Args:
        value: A tensor of one element (a traced size, say), a Python value, or a module.
        reason: Why it may be frozen; goes into the report.

    Returns:
        The number, or ``value`` itself.

    Raises:
        InputError: The tensor has more than one element, or the reason is empty.

    Example:
        >>> import torch, hybridjit as hj
        >>> def heads(x):
        ...     channels = hj.static(x.shape[-1], reason="the model's width")
        ...     return x.reshape(-1, 2, channels // 2)
        >>> heads(torch.zeros(3, 8)).shape
        torch.Size([3, 2, 4])
    """
    if not isinstance(reason, str) or not reason.strip():
        raise InputError(
            compose(
                "static needs a reason",
                differences=[f"reason: expected text, got {'none' if reason == '' else describe(reason)}"],
                instead='static(value, reason="why it never changes")',
                page="inputerror",
            )
        )
    if _torch.dynamo_traces():  # which has guards of its own, and does not know what a record is kept in
        return value.item() if isinstance(value, Tensor) else value
    if isinstance(value, nn.Module):
        _modules[value] = reason
        return value
    seen = record.current()
    site = user_site(seen.names)
    if not isinstance(value, Tensor):
        seen.statics.append(record.StaticValue(repr(value), reason, site))
        return value
    tracing = _torch.tracing_state() is not None
    with _torch.paused_tracing():
        if value.numel() != 1:
            raise InputError(
                compose(
                    "static takes a tensor of one element",
                    where=str(site),
                    differences=[f"expected one element, got {describe(value)}"],
                    instead="static(x.shape[0], reason=...) for a size, or keep the tensor a tensor",
                    page="inputerror",
                )
            )
        number = value.item()
        if isinstance(number, complex):
            raise InputError(
                compose(
                    "static takes a bool, an integer or a floating-point number",
                    where=str(site),
                    differences=[f"expected a real number, got {describe(value)}"],
                    instead="static(x.real, reason=...) and static(x.imag, reason=...)",
                    page="inputerror",
                )
            )
    seen.statics.append(record.StaticValue(repr(number), reason, site))
    if tracing:
        _guard(value, number, f"value frozen at {site}: static ({reason}), captured {number}")
    return number


def _guard(value: Tensor, number: object, message: str) -> None:
    """Puts a check of a static value into the running trace."""
    graph = _torch.current_graph()
    traced = _torch.value_of(value)
    kind = {bool: "BoolType", int: "IntType"}.get(type(number), "FloatType")
    operator = {"BoolType": "aten::Bool", "IntType": "aten::Int", "FloatType": "aten::Float"}[kind]
    actual = _torch.insert(graph, operator, [traced], _torch.type_named(kind))
    expected = _torch.insert_constant(graph, number)
    # NaN is no value's equal, its own neither.
    operator, inputs = ("aten::isnan", [actual]) if number != number else ("aten::eq", [actual, expected])
    holds = _torch.insert(graph, operator, inputs, _torch.type_named("BoolType"))
    # TorchScript's format knows no escape for {}, so text that may hold one is an argument.
    head = _torch.insert_constant(graph, f"hybridjit: {message}")
    template = "{}, got {}; write it without static to keep it dynamic"
    _torch.insert_raise_unless(graph, holds, template, [head, actual])


def static_modules(model: nn.Module) -> dict[nn.Module, str]:
    """The modules of a model that `static` was called on, with the reason."""
    return {module: _modules[module] for module in model.modules() if module in _modules}
