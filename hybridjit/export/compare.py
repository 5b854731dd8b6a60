"""Comparing what the file gives with what the model gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .._describe import describe


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
}
"""As `torch.testing.assert_close` documents them, for the count in a message; exact otherwise."""


def compare(
    paths: Sequence[str],
    expected: Sequence[Tensor],
    got: Sequence[Tensor],
    rtol: float | None = None,
    atol: float | None = None,
) -> Comparison:
    """Compares dtype, device, shape and then values of tensors in pairs.

    Values agree as `torch.testing.assert_close` has it: its tolerances by dtype unless given, NaN
    equal to NaN.

    Args:
        paths: Names each pair.
        expected: What the model gave.
        got: What the file gave.
        rtol: Relative tolerance; given together with ``atol`` or not at all.
        atol: Absolute tolerance.

    Returns:
        All differences, and the largest errors.
    """
    differences = []
    if len(expected) != len(got):
        differences.append(f"expected {len(expected)} tensors, got {len(got)}")
    absolute: list[float] = []
    relative: list[float] = []
    for path, a, b in zip(paths, expected, got, strict=False):
        if describe(a) != describe(b):
            differences.append(f"{path}: expected {describe(a)}, got {describe(b)}")
            continue
        if a.device.type == "meta":
            continue
        largest = _largest(a, b)
        absolute.append(largest[0])
        relative.append(largest[1])
        try:
            torch.testing.assert_close(b, a, rtol=rtol, atol=atol, equal_nan=True)
        except AssertionError:
            differences.append(f"{path}: {_spell_mismatch(a, b, largest, rtol, atol)}")
    return Comparison(tuple(differences), max(absolute, default=None), max(relative, default=None))


def _largest(expected: Tensor, got: Tensor) -> tuple[float, float]:
    """The largest absolute and relative difference; NaN against NaN, or equal infinities, are none."""
    if expected.numel() == 0:
        return 0.0, 0.0
    if torch.equal(expected, got):
        return 0.0, 0.0
    a, b = (_widened(t) for t in (expected, got))
    same = (a == b) | (a.isnan() & b.isnan())
    gap = torch.where(same, 0.0, (a - b).abs())
    gap = gap.nan_to_num(nan=float("inf"), posinf=float("inf"))  # NaN against a number
    share = torch.where(same, 0.0, gap / a.abs()).nan_to_num(nan=float("inf"), posinf=float("inf"))
    return float(gap.max()), float(share.max())


def _widened(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def _spell_mismatch(
    expected: Tensor, got: Tensor, largest: tuple[float, float], rtol: float | None, atol: float | None
) -> str:
    a, b = _widened(expected), _widened(got)
    if rtol is None or atol is None:
        rtol, atol = _TOLERANCES.get(expected.dtype, (0.0, 0.0))
    if expected.is_floating_point() or expected.is_complex() or expected.is_quantized:
        close = torch.isclose(b, a, rtol=rtol, atol=atol, equal_nan=True)
    else:  # float64 can't tell large integers apart
        close = (expected == got).to_dense()
    gap = torch.where(close, 0.0, (a - b).abs()).nan_to_num(nan=float("inf"))
    flat = int(gap.argmax())
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), a.shape)) if a.dim() else ()
    count = int((~close).sum())
    return (
        f"{count} of {a.numel()} values differ, most at {list(index)}: by {largest[0]:.3g} absolute, "
        f"{largest[1]:.3g} relative at most ({describe(expected)})"
    )
