"""`device_dependent`: one function per device, chosen by where the operands are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor
from typing_extensions import TypeVarTuple, Unpack

from .. import _torch
from .._describe import describe
from .._errors import InputError, UnsupportedError, compose
from .._sites import user_site
from . import record
from .cond import cond
from .functions import check_functions
from .recorder import as_one_operation
from .structure import tensors_of

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


def device_dependent(
    *operands: Unpack[Ts],
    default: Callable[[Unpack[Ts]], R] | None = None,
    **devices: Callable[[Unpack[Ts]], R],
) -> R:
    """Runs the function for the device that the operands are on; a trace keeps them all.

    In eager mode this is::

        def device_dependent(*operands, default=None, **devices):
            return devices.get(operands[0].device.type, default)(*operands)

    In a trace each function runs on the example and is recorded, and the file chooses when it runs, by the
    device of the same operand. A function that raises on the example's device becomes a raise with its
    message there. Under `torch.export` and `torch.compile` the function for the current device is taken,
    since what they make is for one device.

    Args:
        *operands: What the functions are given; the first tensor among them decides.
        default: The function for every other device.
        **devices: A function per device type: ``cpu=``, ``cuda=``, ``mps=``, or any other that torch knows.

    Returns:
        What the function returned. In a trace all of them return the same structure and dtypes, as the
        sides of `cond` do.

    Raises:
        InputError: There is no tensor among the operands, or no function.
        UnsupportedError: There is neither a function for the device nor a default.
        CaptureError: As for `cond`.

    Source:
        ``jax.lax.platform_dependent``.

    Example:
        >>> import torch, hybridjit as hj
        >>> x = torch.ones(2)
        >>> hj.device_dependent(x, cpu=lambda x: x * 2, default=lambda x: x + x)
        tensor([2., 2.])
    """
    named = {**devices, **({} if default is None else {"default": default})}
    check_functions("device_dependent", named, "hj.device_dependent(x, cpu=slow, cuda=fast, default=slow)")
    tensor = _deciding(operands, devices, default)
    if _torch.tracing_state() is None:
        taken = devices.get(tensor.device.type, default)
        return taken(*operands) if taken is not None else _refuse(tensor.device.type, devices)

    def choose(left: list[str]) -> R:
        if left:
            return cond(_is_on(tensor, left[0]), devices[left[0]], lambda *_: choose(left[1:]), operands)
        if default is not None:
            return default(*operands)
        raise RuntimeError(f"device_dependent has nothing for this device, only for {', '.join(devices)}")

    with _torch.paused_tracing():
        here = tensor.device.type
    if here not in devices and default is None:
        _refuse(here, devices)
    result: R = as_one_operation(device_dependent, (tensor,), lambda: choose(list(devices)))
    return result


def _deciding(operands: Any, devices: Any, default: Any) -> Tensor:
    """The tensor whose device decides."""
    found = tensors_of(operands)
    rows = []
    if not found:
        rows.append(f"operands: expected a tensor among them, got {', '.join(map(describe, operands)) or 'none'}")
    if not devices and default is None:
        rows.append("functions: expected one at least, got none")
    if rows:
        raise InputError(
            compose(
                "device_dependent takes tensors and a function per device",
                where=str(user_site(record.current().names)),
                differences=rows,
                instead="hj.device_dependent(x, cpu=slow, cuda=fast, default=slow)",
                page="inputerror",
            )
        )
    return found[0]


def _refuse(device: str, devices: Any) -> NoReturn:
    raise UnsupportedError(
        compose(
            f"device_dependent has no function for {device}",
            where=str(user_site(record.current().names)),
            differences=[f"expected one of {', '.join(devices)}, got {device}"],
            instead=f"hj.device_dependent(x, {device}=..., default=...)",
            page="unsupportederror",
        )
    )


def _is_on(tensor: Tensor, device: str) -> Tensor:
    """Whether a tensor is on a device, as the file finds it."""
    with _torch.paused_tracing():
        answer = torch.tensor(tensor.device.type == device)
    _torch.bind_value(answer, _torch.insert_is_on(_torch.current_graph(), _torch.value_of(tensor), device))
    return answer
