"""Traced sizes as numbers: as keys, counted up, far from the input."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj

X, LONGER = torch.tensor([3.0, 1.0]), torch.ones(5)


class Table(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * {6: 2.0}.get(x.shape[0], 1.0)


class Cached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] not in self.tables:
            self.tables[x.shape[0]] = torch.arange(x.shape[0]).float()
        return x * self.tables[x.shape[0]]


@functools.lru_cache
def table(size: int) -> Tensor:
    return torch.arange(size).float()


class CachedFunction(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * table(x.shape[0])


@functools.lru_cache
def ones(shape: tuple[int, ...]) -> Tensor:
    return torch.ones(shape).cumsum(0)


class CachedByShape(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[: int(x.shape[0])] * ones(x.shape[:1])


class CachedMethod(nn.Module):
    @functools.lru_cache  # noqa: B019 - the very thing
    def table(self, size: int) -> Tensor:
        return torch.arange(size).float()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.table(x.shape[0])


def remembered(fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A decorator that has its cache in a closure, as libraries write them."""
    cached = functools.lru_cache(fn)

    @functools.wraps(fn)
    def call(*args: int) -> Tensor:
        return cached(*args)

    return call


@remembered
def grid(height: int, width: int) -> Tensor:
    return torch.arange(height)[:, None] * 1.0 + torch.arange(width)


class CachedInAClosure(nn.Module):
    """Asks for two tables, which are one for a square."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.expand(len(x), len(x)) if x.dim() == 1 else x
        return x + grid(x.shape[0], x.shape[1]) + grid(x.shape[1], x.shape[0]).T


def test_a_square_is_no_proof() -> None:
    """Two sizes that are equal in the example are two keys all the same."""
    model = CachedInAClosure().eval()
    exported = hj.export(model, torch.ones(3, 3))
    torch.testing.assert_close(exported(torch.ones(2, 5)), model(torch.ones(2, 5)))


def test_a_size_finds_its_key() -> None:
    """A dictionary has for a traced size what it has for the number; a size that was not seen raises."""
    six = hj.export(Table().eval(), torch.ones(6))
    assert six(torch.ones(6)).tolist() == [2.0] * 6
    four = hj.export(Table().eval(), torch.ones(4))
    assert four(torch.ones(4)).tolist() == [1.0] * 4
    with pytest.raises(hj.GuardError, match=r"a size as a key, captured .*4.*, got 6; write torch.where"):
        four(torch.ones(6))
    assert "HJ111" in [finding.code for finding in four.report.findings]


@pytest.mark.parametrize("model", [Cached, CachedFunction, CachedByShape, CachedMethod, CachedInAClosure])
def test_caches_are_for_every_size(model: type[nn.Module]) -> None:
    """What a cache keeps by size is computed in the file, whatever eager mode left in the cache."""
    model()(X)
    exported = hj.export(model().eval(), X)
    assert torch.equal(exported(LONGER), model()(LONGER))


def test_tensors_are_their_own_keys() -> None:
    """A tensor that is no number is found by identity in a trace, as in eager mode."""

    class Named(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            scale = x.sum()
            return x * {scale: 3.0, x: 2.0}[scale]

    exported = hj.export(Named().eval(), X)
    assert torch.equal(exported(LONGER), LONGER * 3)
    assert not exported.report.findings


def test_the_hash_is_torchs_again() -> None:
    """After an export a tensor's hash is its identity."""
    before = Tensor.__hash__
    hj.export(Table().eval(), X)
    assert Tensor.__hash__ is before and hash(X) == id(X)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_integers_and_a_python_float(dtype: torch.dtype) -> None:
    """What Python's float makes of integers has the default dtype in the file too, not double precision."""

    class Positions(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            at = torch.arange(x.shape[0])
            half = x.shape[0] * 0.5  # a Python float in eager mode
            made = [at * 2.0, 1.5 - at, torch.div(at, 2.0), at**0.5, 3.0 / (at + 1), at.mul(2.0).add(1), at + x * 0.5]
            return [*made, at + half, half - at, (x > 0) * half]

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        model, x = Positions().eval(), torch.ones(3)
        exported = hj.export(model, x)
        for each in (x, torch.ones(7)):
            torch.testing.assert_close(exported(each), model(each), rtol=0, atol=0)
    finally:
        torch.set_default_dtype(before)


def test_a_tensor_and_a_python_truth() -> None:
    """`x * True` and `x ^ True`, on which torch's own trace ends, are in the file."""

    class Truths(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            return [
                x * True,
                True * x,
                (x > 2) ^ True,
                (x > 2) & False,
                x.long() | True,
                x.add(False),
                True + x.long(),
            ]

    model = Truths().eval()
    exported = hj.export(model, X)
    torch.testing.assert_close(exported(LONGER), model(LONGER), rtol=0, atol=0)


def test_operations_given_a_python_truth() -> None:
    """What is filled, compared or chosen with `True` is in the file with the dtype that it has."""

    class Filled(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            mask, at = x > 2, torch.tensor([1])
            kept = mask.clone()
            kept |= True
            return [
                mask.clone().fill_(False),
                torch.zeros(x.shape[0]).fill_(True),
                x.masked_fill(mask, True),
                mask.masked_fill(mask, value=False),
                torch.full((x.shape[0],), True),
                torch.full(x.shape, fill_value=False, dtype=torch.int32),
                torch.full_like(mask, True),
                x.new_full((2,), False),
                mask == True,  # noqa: E712
                mask.ne(False),
                torch.where(mask, True, False),
                torch.where(mask, True, x),
                mask.scatter(0, at, True),
                mask.index_fill(0, at, False),
                kept,
                x.clamp(min=True),
            ]

    model = Filled().eval()
    exported = hj.export(model, X)
    torch.testing.assert_close(exported(LONGER), model(LONGER), rtol=0, atol=0)


def test_masks_are_counted() -> None:
    """`sum(masks)` counts, though TorchScript takes `mask + 0` and `mask * 1` for the mask."""

    class Counting(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            low, high = x < 3, x > 1
            counted: Any = sum([low, high])
            return [counted.float(), (1 * low + high).float(), (low.add(0) + high).sqrt()]

    model, none, both = Counting().eval(), torch.tensor([0.0, 5.0]), torch.tensor([2.0, 2.0])
    exported = hj.export(model, none)
    assert torch.equal(exported(both)[0], torch.tensor([2.0, 2.0]))
    torch.testing.assert_close(exported(both), model(both), rtol=0, atol=0)


def test_a_number_far_from_the_input() -> None:
    """Thousands of operations may lie between an input and the number taken from what they make of it."""

    class Deep(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(2000):
                x = x + 1
            return x * int(x.sum())

    exported = hj.export(Deep().eval(), torch.zeros(3))
    assert torch.equal(exported(torch.ones(3)), Deep()(torch.ones(3)))


class Counts(nn.Module):
    """Counts up from sizes that have other names, too, as Python's numbers let it."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.shape[0]
        after = rows
        after += 1
        after *= 2
        shape = x.shape
        columns = shape[1]
        columns -= 1
        padded = list(shape)
        padded[0] += 3
        half = rows
        half //= 2
        ratio: float = rows
        ratio /= 4
        return x.new_zeros(padded).sum() + x * rows + after * 10 + columns * 100 + shape[1] * 1000 + half + ratio


@pytest.mark.parametrize("branches", [None, "auto"])
def test_counting_up_changes_no_other_number(branches: str | None) -> None:
    """``n += 1`` on a size is another number; the tensor that a trace has for it would be the same one changed."""
    model = Counts().eval()
    exported = hj.export(model, torch.ones(2, 3), branches=branches)
    for shape in ((2, 3), (5, 3), (1, 7), (4, 1)):
        x = torch.rand(*shape)
        torch.testing.assert_close(exported(x), model(x))


class ByFactor(nn.Module):
    """Fits an image into sizes, as detectors do, by the quotient of a number and a size."""

    def __init__(self, resizes: bool) -> None:
        super().__init__()
        self.resizes = resizes

    def forward(self, x: Tensor) -> Tensor:
        if self.resizes:
            factor = 80 / x.shape[0]
            return nn.functional.interpolate(x[None, None], scale_factor=factor, recompute_scale_factor=True)
        factor = min(48 / x.shape[0], 80 / x.shape[1])
        return x.new_zeros(int(x.shape[0] * factor), int(x.shape[1] * factor))


@pytest.mark.parametrize("resizes", [False, True])
def test_a_number_by_a_size(resizes: bool) -> None:
    """A number divided by a size has all of Python's digits: with one less, sizes made of it are one off at some."""
    model = ByFactor(resizes).eval()
    exported = hj.export(model, torch.rand(60, 70))
    for size in (7, 25, 28, 31, 41, 68, 103, 107):
        x = torch.rand(size, 65)
        torch.testing.assert_close(exported(x), model(x))


class AsksKind(nn.Module):
    """Code for a number and code for a tensor, as a library has it."""

    def forward(self, x: Tensor, factor: Tensor) -> Tensor:
        by = factor.max().item()
        by = by if isinstance(by, (int, float)) else by.view(-1) + 1
        return x * by if type(by) is float else x + round(by)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_what_is_taken_out_is_a_number(dtype: torch.dtype) -> None:
    """Questions for the type of what ``item`` gives are answered as in eager mode."""
    model = AsksKind().eval()
    exported = hj.export(model, (torch.rand(4, 3), torch.tensor([2, 5], dtype=dtype)), branches="auto")
    for last in (7, 1):
        given = torch.rand(4, 3), torch.tensor([0, last], dtype=dtype)
        torch.testing.assert_close(exported(*given), model(*given))
