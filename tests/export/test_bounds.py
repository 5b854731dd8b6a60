"""Inputs that nobody gave do not make torch's kernels read or write outside of a tensor, nor run without end."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit import _torch
from hybridjit.export.bounds import EndlessError, bounded, ending


def edges(count: int) -> tuple[Tensor, Tensor]:
    """A complete graph: a number for each node, and the nodes of each edge in order."""
    nodes = torch.arange(count)
    return torch.rand(count, 3), torch.stack([nodes.repeat_interleave(count), nodes.repeat(count)])


def to_csr() -> Any:
    """The operation as code of a model finds it."""
    return getattr(torch, _torch.coo_to_csr.__name__)


class Rows(nn.Module):
    """Where each row's entries begin, of as many rows as there are nodes."""

    def forward(self, x: Tensor, ends: Tensor) -> Tensor:
        starts: Tensor = to_csr()(ends[0], x.shape[0])
        return starts


def test_fewer_rows_than_numbered() -> None:
    """A probe with fewer rows keeps the row numbers; torch would write beyond its result (and end the process)."""
    exported = hj.export(Rows().eval(), hj.Inputs(*edges(40)))
    for count in (3, 9, 50):
        assert torch.equal(exported(*edges(count)), Rows()(*edges(count)))


def test_raises_within() -> None:
    """An index that lies outside raises within the body, and only there."""
    rows, labels = torch.tensor([0, 1, 5]), torch.tensor([[1, 7]])
    scores = torch.zeros(4, 1, 3).log_softmax(2)
    crow, col = torch.tensor([0, 1]), torch.tensor([4])
    with bounded():
        with pytest.raises(IndexError, match="_convert_indices_from_coo_to_csr"):
            to_csr()(rows, 3)
        with pytest.raises(IndexError, match="ctc_loss"):
            nn.functional.ctc_loss(scores, labels, torch.tensor([4]), torch.tensor([2]))
        with pytest.raises(RuntimeError, match="col_indices"):
            torch.sparse_csr_tensor(crow, col, torch.ones(1), (1, 2))
        assert to_csr()(rows, 6).tolist() == [0, 1, 2, 2, 2, 2, 3]
    assert to_csr() is _torch.coo_to_csr and not hasattr(torch.ctc_loss, "__wrapped__")
    assert not torch.sparse.check_sparse_tensor_invariants.is_enabled()


def test_ending() -> None:
    """What takes longer ends, in Python code that calls nothing; what does not goes on, and so does what follows."""
    with pytest.raises(EndlessError), ending(0.05):
        while True:
            pass
    with ending(60):
        done = sum(range(1000))
    assert done == 499500
    assert not [
        each for each in threading.enumerate() if isinstance(each, threading.Timer) and not each.finished.is_set()
    ]


PROFILED = """
import sys, time
from hybridjit.export.bounds import EndlessError, ending

with ending(60):
    pass
try:
    with ending(0.01):
        time.sleep(0.1)
except EndlessError:
    pass
sys.setprofile(lambda *each: None)
print(sorted([3, 1, 2], key=lambda each: -each))
"""


def test_profilers_go_on_afterwards() -> None:
    """Nothing is left to arrive: on Python 3.11, code under a profiler or debugger would wait for it for ever."""
    done = subprocess.run([sys.executable, "-c", PROFILED], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[3, 2, 1]\n"
