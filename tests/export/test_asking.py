"""Code that asks what kind of number a size is."""

from __future__ import annotations

import numbers
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import hybridjit as hj

from .call import Call

ASKING: dict[str, Callable[[Tensor], Tensor]] = {
    "isinstance": lambda x: x * 2 if isinstance(x.shape[0], int) and x.shape[0] > 60 else x,
    "no tensor": lambda x: x * 2 if not isinstance(x.shape[0], Tensor) and x.shape[0] > 60 else x,
    "integral": lambda x: x * 2 if isinstance(x.shape[0], numbers.Integral) and x.shape[0] > 60 else x,
    "a float": lambda x: x * 2 if isinstance(x.shape[0] / 2, float) and x.shape[0] > 60 else x,
    "type": lambda x: x * 2 if type(x.shape[0]) is int and x.shape[0] > 60 else x,
    "equal types": lambda x: x * 2 if type(x.shape[0]) == int and x.shape[0] > 60 else x,  # noqa: E721
    "one of types": lambda x: x * 2 if type(x.shape[0]) in (int, float) and x.shape[0] > 60 else x,
    "subclass": lambda x: x * 2 if issubclass(type(x.shape[0]), int) and x.shape[0] > 60 else x,
    "is_tensor": lambda x: x * 2 if not torch.is_tensor(x.shape[0]) and x.shape[0] > 60 else x,
    "plain numbers": lambda x: x * 2 if int is int and float is not int and len(x) > 60 else x,
}


@pytest.mark.parametrize("name", ASKING)
def test_answers_of_eager_mode(name: str) -> None:
    """A size is the number that eager mode has, also where the example and its probes can't tell the difference."""
    model = Call(ASKING[name]).eval()
    before, is_tensor = set(globals()), torch.is_tensor
    exported = hj.export(model, torch.rand(4, 3), branches="auto")
    for rows in (1, 4, 60, 61):
        x = torch.rand(rows, 3)
        torch.testing.assert_close(exported(x), model(x), rtol=0, atol=0)
    assert set(globals()) == before and torch.is_tensor is is_tensor


def test_what_is_a_tensor_stays_one() -> None:
    """Only of sizes the answer is another one than the trace has."""
    model = Call(lambda x: x * 2 if isinstance(x.sum(), Tensor) and type(x) is Tensor else x).eval()
    exported = hj.export(model, torch.rand(4, 3))
    assert torch.equal(exported(torch.ones(9, 3)), torch.full((9, 3), 2.0))
    assert not exported.report.findings


def test_at_a_prompt() -> None:
    """Code that is in no file, as a notebook's cells are, is given the same answers, and sizes that stay computed."""
    code = """
import torch, hybridjit as hj
class Asks(torch.nn.Module):
    def forward(self, x):
        n = int(len(x) * 0.5)
        return x[:n] * 2 if isinstance(x.shape[0], int) and x.shape[0] > 60 else x[:n]
model = Asks().eval()
exported = hj.export(model, torch.rand(8, 2), branches="auto")
for rows in (8, 3, 61):
    x = torch.rand(rows, 2)
    torch.testing.assert_close(exported(x), model(x))
print("right", "isinstance" in globals())
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stdout.split() == ["right", "False"], ran.stderr


class Unpools(nn.Module):
    """A segmentation network in small: torch checks the size that it unpools to."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        pooled, indices = self.pool(self.conv(x))
        unpooled: Tensor = self.unpool(pooled, indices)
        return unpooled * 2


@pytest.mark.parametrize("branches", [None, "auto"])
def test_what_torch_checks(branches: str | None) -> None:
    """A check of torch asks for a truth, where it would refuse a traced one; all sizes that pass it are right."""
    torch.manual_seed(0)
    model = Unpools().eval()
    exported = hj.export(model, torch.rand(1, 3, 8, 8), branches=branches)
    for size in ((2, 3, 6, 10), (5, 3, 2, 32), (1, 3, 8, 8)):
        x = torch.rand(size)
        with torch.no_grad():
            torch.testing.assert_close(exported(x), model(x))


class Recurrent(nn.Module):
    def __init__(self, cls: Callable[..., nn.RNNBase], packed: bool) -> None:
        super().__init__()
        self.layer = cls(4, 5, batch_first=True)
        self.packed = packed

    def forward(self, x: Tensor, lengths: Tensor, state: Tensor | None = None) -> Tensor:
        given: Any = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False) if self.packed else x
        begun = state if state is None or not isinstance(self.layer, nn.LSTM) else (state, state)
        out, _ = self.layer(given, begun)
        return pad_packed_sequence(out, batch_first=True)[0] if self.packed else out


@pytest.mark.parametrize("with_state", [True, False])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("cls", [nn.GRU, nn.LSTM, nn.RNN])
def test_recurrent_layers(cls: type[nn.RNNBase], packed: bool, with_state: bool) -> None:
    """Batches of every size, packed or not; a state of another batch is refused as the layer itself refuses it."""
    before = {name: getattr(cls, name) for name in ("get_expected_hidden_size", "check_hidden_size")}
    model = Recurrent(cls, packed).eval()

    def inputs(*lengths: int) -> tuple[Tensor, ...]:
        state = (torch.randn(1, len(lengths), 5),) if with_state else ()
        return torch.randn(len(lengths), 7, 4), torch.tensor(lengths), *state

    exported = hj.export(model, inputs(7, 4))
    assert {name: getattr(cls, name) for name in before} == before
    for lengths in ((7, 4), (3, 5, 2), (6,)):
        call = inputs(*lengths)
        torch.testing.assert_close(exported(*call), model(*call))
    if with_state and not packed:
        with pytest.raises(
            hj.GuardError, match=r"test_asking\.py:\d+.*: RuntimeError: a hidden state has another size"
        ):
            exported(torch.randn(2, 7, 4), torch.tensor([7, 4]), torch.randn(1, 3, 5))
