"""Comparing what the file gives with what the model gives."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import _torch
from .._describe import describe
from .._errors import HybridJitError, UnsupportedError, compose
from ..adapters.tree import scan
from .values import aligned, identical, same


@dataclass(frozen=True)
class Comparison:
    """How two lists of tensors compare.

    Attributes:
        differences: What differs, by path; empty if nothing does.
        max_abs_error: The largest absolute difference, ``None`` if no values were compared.
        max_rel_error: The largest relative difference, likewise.
    """

    differences: tuple[str, ...]
    max_abs_error: float | None
    max_rel_error: float | None


_TOLERANCES = {
    torch.float16: (1e-3, 1e-5),
    torch.bfloat16: (1.6e-2, 1e-5),
    torch.float32: (1.3e-6, 1e-5),
    torch.float64: (1e-7, 1e-7),
    torch.complex32: (1e-3, 1e-5),
    torch.complex64: (1.3e-6, 1e-5),
    torch.complex128: (1e-7, 1e-7),
    torch.quint8: (1.3e-6, 1e-5),
    torch.qint8: (1.3e-6, 1e-5),
    torch.qint32: (1.3e-6, 1e-5),
}
"""As `torch.testing.assert_close` documents them; exact otherwise."""


NEAR = (1e-3, 1e-4)
"""Relative and absolute: what results for an input that nobody gave may differ by; its values are not the user's."""
_NUDGE, _NUDGES = 1e-6, 6
"""Relative: about ten rounding errors of float32; and how often one is tried."""
Flat = tuple[Tensor, ...]


def compare(
    paths: Sequence[str],
    expected: Sequence[Tensor],
    got: Sequence[Tensor],
    rtol: float | None = None,
    atol: float | None = None,
) -> Comparison:
    """Compares dtype, device, layout, shape and then values of tensors in pairs.

    Values agree as `torch.testing.assert_close` has it: its tolerances by dtype unless given, NaN
    equal to NaN. A quantized tensor's values are those it stands for, a sparse one's those of all
    its places.

    Args:
        paths: Names each pair.
        expected: What the model gave.
        got: What the file gave.
        rtol: Relative tolerance; given together with ``atol`` or not at all.
        atol: Absolute tolerance.

    Returns:
        All differences, and the largest errors.

    Raises:
        UnsupportedError: Torch can't compare the values of such tensors.
    """
    differences = []
    if len(expected) != len(got):
        differences.append(f"expected {len(expected)} tensors, got {len(got)}")
    absolute: list[float] = []
    relative: list[float] = []
    for path, a, b in zip(paths, expected, got, strict=False):
        wanted, had = _kind(a), _kind(b)
        if wanted != had:
            differences.append(f"{path}: expected {wanted}, got {had}")
            continue
        if a.device.type == "meta":
            continue
        try:
            largest, mismatch = _compare_values(a, b, rtol, atol)
        except (NotImplementedError, RuntimeError) as error:
            raise _incomparable(path, wanted, error) from error
        absolute.append(largest[0])
        relative.append(largest[1])
        if mismatch:
            differences.append(f"{path}: {mismatch} ({wanted})")
    return Comparison(tuple(differences), max(absolute, default=None), max(relative, default=None))


def _kind(tensor: Tensor) -> str:
    """What must agree before values do."""
    return describe(tensor) + (f" {tensor.qscheme()}" if tensor.is_quantized else "")


def _incomparable(path: str, kind: str, error: Exception) -> UnsupportedError:
    return UnsupportedError(
        compose(
            f"torch can't compare the values of {path}",
            differences=[kind, f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"],
            instead="a result of another dtype or layout: tensor.to_dense(), or tensor.float()",
            page="unsupportederror",
        )
    )


def _compare_values(
    expected: Tensor, got: Tensor, rtol: float | None, atol: float | None
) -> tuple[tuple[float, float], str]:
    """The largest absolute and relative difference, and how many values differ where, if too far."""
    if expected.numel() == 0 or identical(expected, got):
        return (0.0, 0.0), ""
    a, b, places = aligned(expected, got)
    exact = same(a, b)
    if bool(exact.all()):
        return (0.0, 0.0), ""
    wide = torch.complex128 if a.is_complex() else torch.float64
    inexact = a.is_floating_point() or a.is_complex()
    given = rtol is not None and atol is not None
    a, b = a.to(wide), b.to(wide)
    gap = torch.where(exact, 0.0, (a - b).abs())
    gap = gap.nan_to_num(nan=float("inf"), posinf=float("inf"))  # NaN against a number
    share = torch.where(exact, 0.0, gap / a.abs()).nan_to_num(nan=float("inf"), posinf=float("inf"))
    largest = float(gap.max()), float(share.max())
    close = exact  # float64 can't tell large integers apart
    if inexact or (given and expected.dtype != torch.bool):
        near = (rtol, atol) if rtol is not None and atol is not None else _TOLERANCES.get(expected.dtype, (0.0, 0.0))
        close = exact | torch.isclose(b, a, rtol=near[0], atol=near[1], equal_nan=True)
    count = int((~close).sum())
    if not count:
        return largest, ""
    worst = int(torch.where(close, -1.0, gap).argmax())
    index: list[int] = []
    for size in reversed(a.shape):  # torch.unravel_index imports sympy
        worst, here = divmod(worst, size)
        index.insert(0, here)
    if places is not None:  # the first dimension counts the places of a sparse tensor
        index = [*places[:, index[0]].tolist(), *index[1:]]
    text = f"{count} of {expected.numel()} values differ, most at {index}: by {largest[0]:.3g} absolute, "
    return largest, text + f"{largest[1]:.3g} relative at most"


def is_chaotic(flat: Flat, expected: Any, run: Callable[[Flat], Any], extreme: bool = False) -> bool:
    """Whether the model itself gives something else when its input changes by a rounding error.

    Args:
        flat: The input's tensors.
        expected: What the model gives for it.
        run: Runs the model on the tensors of an input; raises a `HybridJitError` if it raises.
        extreme: Whether rounding errors of what it computes count as well: of a single row all scores may be one.
    """
    for turn in range(_NUDGES + 2 * extreme):
        made = {id(each): _nudged(each, turn) if each.is_floating_point() else each for each in flat}
        nudged = tuple(made[id(each)] for each in flat)  # what is one tensor stays one
        try:
            with contextlib.nullcontext() if turn < _NUDGES else _rounding(turn):
                result = run(nudged if turn < _NUDGES else flat)
        except HybridJitError:
            return True
        if not alike(expected, result, *NEAR):
            return True
    return False


def _rounding(seed: int) -> Any:
    """Has sums of products rounded otherwise, whose order is a kernel's own affair: the input may be too far from them.

    Whole numbers stay: those of counts and of what one-hot rows pick are exact in any order.
    """
    generator = torch.Generator().manual_seed(seed)

    def rounded(mode: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func not in _SUMS or not result.is_floating_point():
            return result
        apart = torch.rand(result.shape, generator=generator).to(result.device, result.dtype)
        return torch.where(result == result.round(), result, result * (1 + _NUDGE * (2 * apart - 1)))

    return type("Rounding", (_torch.TorchDispatchMode,), {"__torch_dispatch__": rounded})()


_aten = torch.ops.aten
_SUMS = tuple(getattr(_aten, name).default for name in ("convolution", "mm", "addmm", "bmm", "baddbmm"))


def _nudged(tensor: Tensor, turn: int) -> Tensor:
    """The tensor by a factor, or each of its elements by one of its own: scores that are nearly equal change places."""
    if not turn:
        return tensor * (1 + _NUDGE)
    generator = torch.Generator().manual_seed(turn)
    apart = torch.rand(tensor.shape, generator=generator).to(tensor.device, tensor.dtype)
    return tensor * (1 + _NUDGE * (2 * apart - 1))


def changed_places(expected: Sequence[Tensor], got: Sequence[Tensor]) -> bool:
    """Whether rows with nearly equal scores have changed places, and nothing else is another.

    Args:
        expected: Tensors of one row each for what was found; among them the scores, by which the rows are sorted.
        got: Those of the file.
    """
    plain = all(tensor.layout is torch.strided for tensor in (*expected, *got))
    rows = {tensor.shape[:1] for tensor in (*expected, *got)}
    if not plain or len(rows) != 1 or len(expected) != len(got) or any(map(torch.is_complex, (*expected, *got))):
        return False
    scores = [index for index, each in enumerate(expected) if each.dim() == 1 and each.is_floating_point()]
    if not any(bool((expected[at].diff() <= 0).all()) and alike(expected[at], got[at], *NEAR) for at in scores):
        return False
    one, other = (torch.cat([each.flatten(1).double() for each in map(_as_rows, many)], 1) for many in (expected, got))
    if one.shape != other.shape:
        return False
    order = torch.cdist(one, other).argmin(1)
    paths = list(map(str, range(len(expected))))
    moved = [each[order] for each in got]
    return len(torch.unique(order)) == len(order) and not compare(paths, expected, moved, *NEAR).differences


def _as_rows(tensor: Tensor) -> Tensor:
    return tensor.unsqueeze(1) if tensor.dim() == 1 else tensor


def alike(expected: Any, got: Any, rtol: float | None = None, atol: float | None = None) -> bool:
    """Whether two results agree."""
    one: list[Tensor] = []
    other: list[Tensor] = []
    scan(expected, one, "result")
    scan(got, other, "result")
    return not compare([str(index) for index in range(len(one))], one, other, rtol, atol).differences
