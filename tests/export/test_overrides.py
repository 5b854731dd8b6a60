"""Torch's transformers, which go another way in eager mode than under a watch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit.export.overrides import unnoticed

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        result: Tensor = self.layers(x, src_key_padding_mask=padding)
        return result


def texts(length: int, *padded: int) -> tuple[Tensor, Tensor]:
    """Texts of so many tokens, of which the last ones are padding; the first ones where the number is negative."""
    mask = torch.zeros(len(padded), length, dtype=torch.bool)
    for row, count in zip(mask, padded, strict=True):
        row[length - count if count > 0 else 0 : length if count > 0 else -count] = True
    return torch.randn(len(padded), length, 16), mask


CALLS = [texts(5, 0, 0), texts(5, 0, 2), texts(7, 0, 2, 3), texts(4, 1), texts(5, -2, 0)]


@pytest.mark.parametrize("first", CALLS[:2], ids=["whole", "padded"])
def test_padding_of_an_encoder(first: tuple[Tensor, Tensor]) -> None:
    """Eager mode leaves zeros where a text is padded, unless gradients are wanted; the file does the same."""
    model = Encoder().eval()
    exported = hj.export(model, first, branches="auto")
    for wanted in (False, True):
        with torch.set_grad_enabled(wanted):
            for call in CALLS:
                torch.testing.assert_close(exported(*call), model(*call), rtol=1e-4, atol=1e-5)


def test_an_encoder_without_branches() -> None:
    """The file is for calls without gradients, as it is verified, and says so on others."""
    model = Encoder().eval()
    exported = hj.export(model, CALLS[1])
    with torch.no_grad():
        torch.testing.assert_close(exported(*CALLS[2]), model(*CALLS[2]), rtol=1e-4, atol=1e-5)
    with pytest.raises(hj.GuardError, match=r"torch\.is_grad_enabled\(\), captured False, got True; write with"):
        exported(*CALLS[1])


def test_put_back() -> None:
    """Torch's functions are its own again, also after an error."""
    before = torch.overrides.has_torch_function, torch.is_grad_enabled
    with pytest.raises(ZeroDivisionError), unnoticed():
        assert torch.overrides.has_torch_function is not before[0]
        raise ZeroDivisionError
    assert (torch.overrides.has_torch_function, torch.is_grad_enabled) == before
