"""Tensors made of values in `forward`, and copies that lead nowhere."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .entry import floats, leak

UP, DOWN = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([-1.0, -2.0, -4.0])


@leak(UP, DOWN, does="right")
def tensor_of_values(x: Tensor) -> Tensor:
    return torch.tensor([x.sum(), x.max(), 1.0]) * x


@tensor_of_values.fixed
def _(x: Tensor) -> Tensor:
    return torch.stack([x.sum(), x.max(), torch.ones(())]) * x


@leak(UP, DOWN, does="right")
def as_tensor_of_values(x: Tensor) -> Tensor:
    return torch.as_tensor([x.min(), x.max(), 0.0]) + x


@as_tensor_of_values.fixed
def _(x: Tensor) -> Tensor:
    return torch.stack([x.min(), x.max(), torch.zeros(())]) + x


@leak(UP, DOWN, does="right")
def asarray_of_values(x: Tensor) -> Tensor:
    return torch.asarray([x.min(), x.max(), 0.0]) + x


@asarray_of_values.fixed
def _(x: Tensor) -> Tensor:
    return torch.stack([x.min(), x.max(), torch.zeros(())]) + x


@leak(UP, DOWN)
def tensor_of_items(x: Tensor) -> Tensor:
    return torch.tensor([each.item() for each in (x.min(), x.max(), x.sum())]) + x


@tensor_of_items.fixed
def _(x: Tensor) -> Tensor:
    return torch.stack([x.min(), x.max(), x.sum()]) + x


@leak(UP, DOWN, does="refused")
def legacy_tensor(x: Tensor) -> Tensor:
    return torch.Tensor([x.min(), x.max(), x.sum()]) + x


@legacy_tensor.fixed
def _(x: Tensor) -> Tensor:
    return torch.stack([x.min(), x.max(), x.sum()]) + x


@leak(UP, DOWN, does="right")
def filled(x: Tensor) -> Tensor:
    return torch.full((3,), float(x.mean())) * x


@filled.fixed
def _(x: Tensor) -> Tensor:
    return x.mean().expand(3) * x


@leak(UP, DOWN)
def array(x: Tensor) -> Tensor:
    return x + float(x.numpy().max())


@array.fixed
def _(x: Tensor) -> Tensor:
    return x + x.max()


@leak(UP, DOWN)
def array_and_back(x: Tensor) -> Tensor:
    return torch.from_numpy(np.flip(x.numpy()).copy())


@array_and_back.fixed
def _(x: Tensor) -> Tensor:
    return x.flip(0)


@leak(UP, DOWN)
def numpy_function(x: Tensor) -> Tensor:
    return x * float(np.median(x))


@numpy_function.fixed
def _(x: Tensor) -> Tensor:
    return x * x.median()


@leak(UP, DOWN)
def numpy_array_of_tensor(x: Tensor) -> Tensor:
    return torch.as_tensor(np.array(x)) * 2


@numpy_array_of_tensor.fixed
def _(x: Tensor) -> Tensor:
    return x * 2


@leak(UP, DOWN)
def numpy_ufunc(x: Tensor) -> Tensor:
    return torch.as_tensor(np.exp(x)) + x


@numpy_ufunc.fixed
def _(x: Tensor) -> Tensor:
    return x.exp() + x


@leak(UP, DOWN, does="refused")
def written_through_numpy(x: Tensor) -> Tensor:
    held = x.clone()
    held.numpy()[0] = 7.0
    return held * 2


@written_through_numpy.fixed
def _(x: Tensor) -> Tensor:
    return torch.cat([torch.full((1,), 14.0), x[1:] * 2])


@leak(UP, DOWN)
def through_dlpack(x: Tensor) -> Tensor:
    return torch.from_dlpack(x) * 2  # type: ignore[attr-defined]


@through_dlpack.fixed
def _(x: Tensor) -> Tensor:
    return x * 2


@leak(UP, UP * 9)
def decided_through_dlpack(x: Tensor) -> Tensor:
    return x * 2 if np.from_dlpack(x)[-1] < 7.5 else x  # no probe is as large


@decided_through_dlpack.fixed
def _(x: Tensor) -> Tensor:
    return torch.where(x[-1] < 7.5, x * 2, x)


@leak(UP, DOWN, does="refused")
def deep_copy(x: Tensor) -> Tensor:
    return copy.deepcopy(x) * 2


@deep_copy.fixed
def _(x: Tensor) -> Tensor:
    return x.clone() * 2


@leak(UP, DOWN, does="refused")
def function_per_element(x: Tensor) -> Tensor:
    return x.clone().apply_(lambda value: value * value)


@function_per_element.fixed
def _(x: Tensor) -> Tensor:
    return x * x


@leak(UP, DOWN, does="refused")
def other_thread(x: Tensor) -> Tensor:
    with ThreadPoolExecutor(1) as pool:  # the tracer sees its own thread only
        return pool.submit(lambda: x * x).result() + x


@other_thread.fixed
def _(x: Tensor) -> Tensor:
    return x * x + x


@leak(UP, DOWN, does="refused")
def written_by_other_thread(x: Tensor) -> Tensor:
    held = torch.zeros_like(x)
    thread = threading.Thread(target=lambda: held.add_(x))
    thread.start()
    thread.join()
    return held + x


@written_by_other_thread.fixed
def _(x: Tensor) -> Tensor:
    return x + x


@leak(UP, DOWN, does="refused")
def number_for_a_double(x: Tensor) -> Tensor:
    return F.layer_norm(x, (3,), eps=x.abs().sum())  # type: ignore[arg-type]


@number_for_a_double.fixed
def _(x: Tensor) -> Tensor:
    return (x - x.mean()) / (x.var(correction=0) + x.abs().sum()).sqrt()


@leak(torch.tensor([1.0, float("nan")]), torch.tensor([5.0, float("nan")]), does="refused")
def number_for_nan(x: Tensor) -> Tensor:
    return torch.nan_to_num(x, nan=x[0])  # type: ignore[arg-type]


@number_for_nan.fixed
def _(x: Tensor) -> Tensor:
    return torch.where(x.isnan(), x[0], x)


@leak(floats(4, 2), floats(6, 2))
def scripted_piece(x: Tensor) -> Tensor:
    return SCRIPTED(x, x.shape[0])


@scripted_piece.fixed
def _(x: Tensor) -> Tensor:
    return x * x.shape[0]


@leak(floats(4, 2), floats(6, 2))
def scripted_while_tracing(x: Tensor) -> Tensor:
    return SCRIPTED_IF_TRACING(x, x.shape[0])


@scripted_while_tracing.fixed
def _(x: Tensor) -> Tensor:
    return x * x.shape[0]


def times(x: Tensor, n: int) -> Tensor:
    for _ in range(n):
        x = x + 1
    return x * n


SCRIPTED = torch.jit.script(times)
SCRIPTED_IF_TRACING = torch.jit.script_if_tracing(times)
