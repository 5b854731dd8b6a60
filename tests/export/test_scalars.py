"""Arithmetic on sizes, which a trace has as tensors, as TorchScript's numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import hybridjit as hj
from hybridjit import _torch

from .call import Call


def rounded(n: int) -> int:
    return math.ceil(n * 0.6) + math.floor(n / 4) * 3 + int(n * 0.35)


def divided(n: int) -> int:
    return (n + 6) // 7 * 7 + n % 3 - n // 2 + -n


def compared(n: int) -> int:
    return max(n, 5) + min(2 * n, 9) + (3 if n > 7 and n != 11 else 1)


def counted(n: int) -> int:
    for step in range(5):
        n = n * 2 - step
    return n % 1000


RULES: dict[str, Callable[[int], int]] = {
    "rounded": rounded,
    "divided": divided,
    "compared": compared,
    "counted": counted,
    "constants alone": lambda n: 7 // 2 + 3 % 2 + n * 0,
    "truths": lambda n: n * 2 if (n > 3) & (n < 9) | (n == 20) else n,
    "subtracted": lambda n: 100 - n + (20 - n),
}


@pytest.mark.parametrize("name", RULES)
def test_no_tensors_for_sizes(name: str) -> None:
    """What is made of sizes alone is computed without tensors, and is what Python makes of them."""
    model = Call(lambda x: torch.arange(abs(RULES[name](x.shape[0])) + 1) + x.sum()).eval()
    exported = hj.export(model, torch.rand(5, 2), branches="auto")
    for rows in (1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 20, 33, 64, 130):
        x = torch.rand(rows, 2)
        torch.testing.assert_close(exported(x), model(x), rtol=0, atol=0)
    kinds = [node.kind() for node in _torch.every_node(_torch.inlined(exported.module, "forward"))]
    assert "prim::NumToTensor" not in kinds and not any(kind in kinds for kind in ("aten::floor_divide", "aten::Bool"))


def test_what_is_a_tensor_for_the_model_stays_one() -> None:
    """A size in a tensor of single precision, or of a rule that TorchScript has otherwise, stays a tensor."""

    def mixed(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n = x.shape[0]
        share = torch.tensor(n) * 0.1
        ratio = torch.tensor([n, 2 * n]).float() / 3
        return share * x, ratio, x[: n // max(1, n - 4)]

    exported = hj.export(Call(mixed).eval(), torch.rand(5, 2), branches="auto")
    for rows in (1, 3, 4, 5, 6, 8, 40):
        x = torch.rand(rows, 2)
        torch.testing.assert_close(exported(x), mixed(x), rtol=0, atol=0)
    with pytest.raises((hj.GuardError, RuntimeError)):
        hj.export(Call(lambda x: x[: 8 // (x.shape[0] - 4)]).eval(), torch.rand(5, 2))(torch.rand(4, 2))


def test_what_is_written_to_is_no_number() -> None:
    """A tensor of a size that is changed in place has the new number, whatever else is made of it before and after."""

    def changed(x: Tensor) -> tuple[Tensor, Tensor]:
        n = torch.tensor(x.shape[0])
        before = int(n) * 2
        n.clamp_(max=6)
        return torch.zeros(int(n)), torch.zeros(before)

    exported = hj.export(Call(changed).eval(), torch.rand(5, 2), branches="auto")
    for rows in (1, 5, 8):
        x = torch.rand(rows, 2)
        got, expected = exported(x), changed(x)
        assert [each.shape for each in got] == [each.shape for each in expected]


def test_in_branches_and_submodules() -> None:
    """Sizes that a branch's side, or a submodule, goes on with; the submodule twice."""

    class Pads(torch.nn.Module):
        def forward(self, x: Tensor, size: int) -> Tensor:
            more = (size - x.shape[0] % size) % size
            return torch.nn.functional.pad(x, (0, 0, 0, more))

    class Windows(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pads = Pads()

        def forward(self, x: Tensor) -> Tensor:
            size = 4 if x.shape[0] > 9 else 3
            x = self.pads(x, size)
            y = x.reshape(x.shape[0] // size, size, -1).sum(1)
            return self.pads(y, 2) if y.shape[0] > 2 else y * (x.shape[0] // 2)

    model = Windows().eval()
    exported = hj.export(model, torch.rand(5, 2), branches="auto")
    for rows in (1, 2, 3, 5, 8, 9, 10, 13, 40):
        x = torch.rand(rows, 2)
        try:
            got = exported(x)
        except hj.GuardError as error:
            assert "value frozen at" in str(error), error
        else:
            torch.testing.assert_close(got, model(x), rtol=0, atol=0)
    torch.testing.assert_close(exported(torch.ones(7, 2)), model(torch.ones(7, 2)))


def into_a_slice(x: Tensor) -> Tensor:
    rows = torch.zeros_like(x)
    torch.add(x[:2], 1, out=rows[:2])
    return rows


def into_parts_in_turn(x: Tensor) -> Tensor:
    mask = x.new_empty(x.shape, dtype=torch.bool)
    for start in range(0, x.shape[0], 2):
        torch.gt(x[start : start + 2] * 2, 0.0, out=mask[start : start + 2])
    return mask


def into_what_a_view_shares(x: Tensor) -> Tensor:
    rows = torch.zeros_like(x)
    seen = rows[1:]
    if x.sum() > 0:
        torch.mul(x, 2, out=rows)
    return seen + 1


@pytest.mark.parametrize("write", [into_a_slice, into_parts_in_turn, into_what_a_view_shares])
def test_out_writes(write: Callable[[Tensor], Tensor]) -> None:
    """Arithmetic whose result is only used where ``out=`` puts it stays in the file."""
    exported = hj.export(Call(write).eval(), torch.ones(4, 3), branches="auto")
    for rows in (4, 2, 5, 7):
        for sign in (1, -1):
            x = torch.randn(rows, 3).abs() * sign
            torch.testing.assert_close(exported(x), write(x))
