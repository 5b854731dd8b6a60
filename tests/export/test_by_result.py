"""Results of another structure for inputs of one structure: entries of the file, of which the guards say which."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj


class Rows(nn.Module):
    """A list as long as the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.linear(row) for row in x.unbind()]


ONE, TWO, OTHER = torch.randn(1, 3), torch.randn(2, 3), torch.randn(2, 3)


def test_a_list_as_long_as_the_batch(tmp_path: Path) -> None:
    """Each length that was given is in the file, which picks it; another one is refused; weights are there once."""
    model = Rows().eval()
    exported = hj.export(model, ONE, check_inputs=[TWO, OTHER])
    assert [entry.method for entry in exported.report.entries] == ["forward", "forward_2"]
    exported.save(tmp_path / "rows.pt")
    for file in (exported, hj.load(tmp_path / "rows.pt")):
        for x in (ONE, TWO, OTHER, torch.randn(2, 3)):
            got, expected = file(x), model(x)
            assert len(got) == len(expected)
            torch.testing.assert_close(got, expected)
        with pytest.raises(hj.GuardError, match="for x in tensor, captured 1, got 5"):
            file(torch.randn(5, 3))
    assert len(list(exported.module.parameters())) == 2


def test_verified_later() -> None:
    """A call is compared on the entry whose result it gives."""
    model = Rows().eval()
    exported = hj.export(model, ONE, check_inputs=[TWO])
    report = hj.verify(exported, model, [ONE, OTHER])
    assert report.ok
    assert [check.entry for check in report.checks] == ["forward", "forward_2"]
    assert not hj.verify(exported, model, [torch.randn(4, 3)]).ok


class Numbers(nn.Module):
    """A list of Python's numbers as long as the batch."""

    def forward(self, x: Tensor) -> tuple[Tensor, list[int], str]:
        return x * 2, [int(each) for each in x.argmax(-1)], f"{tuple(x.shape)}"


def test_a_list_of_numbers_as_long_as_the_batch() -> None:
    """How many there are, and a text, are structure; which numbers, is computed. A size has the text of a number."""
    model = Numbers().eval()
    exported = hj.export(model, ONE, check_inputs=[TWO, OTHER])
    assert [entry.method for entry in exported.report.entries] == ["forward", "forward_2"]
    for x in (ONE, TWO, OTHER, TWO.flip(1), ONE.flip(1)):
        got, expected = exported(x), model(x)
        assert got[1:] == expected[1:]
        torch.testing.assert_close(got[0], expected[0])
    with pytest.raises(hj.GuardError, match="captured 1, got 4"):
        exported(torch.randn(4, 3))


class Parts(nn.Module):
    """One tensor or two, by a size."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x + 1] if x.shape[0] == 3 else [x, x]


def test_nothing_tells_them_apart() -> None:
    """Where no guard would stop the first entry on the second one's call, the export is refused."""
    model, inputs, other = Parts().eval(), torch.randn(3), torch.randn(4)
    assert len(hj.export(model, inputs, check_inputs=[other])(other)) == 2
    with pytest.raises(hj.CaptureError, match="that no value in the model tells apart"):
        hj.export(model, inputs, check_inputs=[other], on_frozen="ignore")
