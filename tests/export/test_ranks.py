"""Tensors whose number of dimensions hangs on sizes or data."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from tests.export import call


class Call(call.Call):
    """In this file, as a model beside the script functions that it calls."""


def batched(x: Tensor) -> Tensor:
    """What code does that knows what `squeeze` leaves of a batch of one."""
    return x.unsqueeze(0) if x.dim() == 1 else x


def found(x: Tensor) -> Tensor:
    """The same for a single thing that was found."""
    return x.unsqueeze(0) if x.ndim == 0 else x


@torch.jit.script
def scripted(x: Tensor) -> Tensor:
    if x.size(0) == 1:
        return x[0]
    return x


@hj.script_if_tracing
def piece(x: Tensor) -> Tensor:
    if x.size(0) == 1:
        return x[0]
    return x


KINDS: dict[str, tuple[Callable[[Tensor], Tensor], Tensor, Tensor]] = {
    "squeeze": (lambda x: batched(x.squeeze()), torch.rand(2, 1, 5), torch.rand(1, 1, 5)),
    "of a dimension": (lambda x: batched(x.squeeze(0)), torch.rand(2, 5), torch.rand(1, 5)),
    "of two": (lambda x: batched(torch.squeeze(x, (0, 1))), torch.rand(2, 1, 5), torch.rand(1, 1, 5)),
    "in place": (lambda x: batched(x.clone().squeeze_(0)), torch.rand(2, 5), torch.rand(1, 5)),
    "later": (lambda x: batched((x.squeeze() * 2).relu()), torch.rand(2, 5), torch.rand(1, 5)),
    "found": (lambda x: found((x > 0.5).nonzero().squeeze()), torch.tensor([0.9, 0.8]), torch.tensor([0.9, 0.1])),
    "a number": (lambda x: x.squeeze() * x.squeeze().dim(), torch.rand(2, 5), torch.rand(1, 5)),
    "a script function": (lambda x: batched(scripted(x)), torch.rand(2, 5), torch.rand(1, 5)),
    "a scripted piece": (lambda x: batched(piece(x)), torch.rand(2, 5), torch.rand(1, 5)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_rank_decides(kind: str) -> None:
    """An `if` that asks how many dimensions there are has both sides in the file."""
    fn, first, other = KINDS[kind]
    model = Call(fn).eval()
    exported = hj.export(model, first, branches="auto")
    for x in (first, other):
        torch.testing.assert_close(exported(x), model(x))


def test_the_rank_is_guarded() -> None:
    """Where Python goes on with it, another one raises."""
    model = Call(lambda x: x.squeeze() * len(x.squeeze().shape)).eval()
    exported = hj.export(model, torch.rand(2, 5), branches="auto")
    torch.testing.assert_close(exported(torch.ones(3, 5)), model(torch.ones(3, 5)))
    with pytest.raises(hj.GuardError, match="the number of dimensions of a tensor, captured 2, got 1; write"):
        exported(torch.rand(1, 5))


def test_a_rank_that_nobody_asks_for() -> None:
    """Without a question there is no guard: the result of a batch of one has one dimension less."""
    model = nn.Sequential(nn.Linear(3, 1), Call(lambda x: x.squeeze())).eval()
    exported = hj.export(model, torch.rand(2, 3))
    for rows in (1, 2, 5):
        x = torch.rand(rows, 3)
        torch.testing.assert_close(exported(x), model(x))


@torch.jit.script
def doubles(x: Tensor) -> Tensor:
    if bool(x.sum() > 0):
        return x.double()
    return x


def test_the_dtype_of_a_scripted_function() -> None:
    """Code that asks for it goes on with the example's; another one raises."""
    model = Call(lambda x: doubles(x) * (2 if doubles(x).dtype == torch.float32 else 3)).eval()
    exported = hj.export(model, -torch.ones(2, 5))
    torch.testing.assert_close(exported(-torch.ones(3, 5)), model(-torch.ones(3, 5)))
    with pytest.raises(hj.GuardError, match="what a scripted function gives: captured float32"):
        exported(torch.ones(2, 5))


WHOLE: dict[str, Callable[[Tensor], Tensor]] = {
    "view": lambda x: x.flatten().cumsum(0).view(x.shape),
    "reshape": lambda x: (x.reshape(-1, x.shape[-1]) * 2).reshape(x.size()),
    "unpacked": lambda x: x.flatten().cumsum(0).reshape(*x.shape),
    "numel": lambda x: x.sum() / x.shape.numel(),
    "numel of some": lambda x: x.sum() / x.shape[1:].numel(),
    "last": lambda x: (x * 2).reshape(-1, x.shape[-1]).sum(0),
}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("sizes", [(2, 4, 1), (2, 4, 3), (1, 2, 4), (3, 2, 4), (4,)])
def test_the_shape_as_a_whole(name: str, sizes: tuple[int, ...]) -> None:
    """Its length, which a trace freezes, is the rank: another one is right, or raises."""
    model = Call(WHOLE[name]).eval()
    exported = hj.export(model, torch.arange(8.0).view(2, 4))
    x = torch.arange(float(torch.Size(sizes).numel())).view(sizes)
    try:
        found = exported(x)
    except (hj.GuardError, RuntimeError):
        return
    torch.testing.assert_close(found, model(x))


class Flat(nn.Module):
    """Takes two or three dimensions, and asks about a size besides."""

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 2:
            x = x[:, None]
        if x.shape[2] > 40:
            raise ValueError("too long")
        return x.cumsum(2)


@pytest.mark.parametrize("checks", [[(2, 5, 4)], [(1, 24), (2, 5, 4)]])
def test_check_inputs_of_another_rank(checks: list[tuple[int, ...]]) -> None:
    """They have a path of their own, at all sizes; a rank that nobody gave raises."""
    model = Flat().eval()
    exported = hj.export(
        model, torch.randn(2, 16), branches="auto", check_inputs=[torch.randn(*each) for each in checks]
    )
    for sizes in ((2, 16), (1, 24), (3, 8), (2, 5, 4), (1, 7, 4), (1, 1, 1)):
        x = torch.randn(*sizes)
        torch.testing.assert_close(exported(x), model(x))
    with pytest.raises(hj.GuardError, match="captured inputs of 2 or 3 dimensions; export the model with"):
        exported(torch.randn(2, 2, 3, 3))
    with pytest.raises(hj.GuardError):
        exported(torch.randn(1, 41))
