"""How values and places are spelled in messages."""

import os
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from hybridjit._describe import describe, listed, place, qualified, short_path


class Outer:
    class Inner:
        def method(self) -> None: ...


def test_tensors() -> None:
    """A tensor is its dtype, shape, layout and device, never its values."""
    assert describe(torch.ones(2, 3)) == "float32[2, 3] cpu"
    assert describe(torch.tensor(True)) == "bool[] cpu"
    assert describe(torch.ones(0, 1, dtype=torch.complex64, device="meta")) == "complex64[0, 1] meta"
    assert describe(torch.ones(2, 2).to_sparse()) == "float32[2, 2] sparse_coo cpu"
    assert describe(nn.Parameter(torch.ones(1))) == "float32[1] cpu"


def test_other_values() -> None:
    """Anything else is its type."""
    assert [describe(value) for value in (None, 3, "secret", [1], nn.ReLU())] == [
        "None", "int", "str", "list", "ReLU",
    ]  # fmt: skip


def test_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file below the current folder is spelled from there, another one in full."""
    monkeypatch.chdir(tmp_path)
    assert place(str(tmp_path / "models" / "head.py"), 41) == f"models{os.sep}head.py:41"
    assert short_path(str(tmp_path.parent / "other.py")) == str(tmp_path.parent / "other.py")
    assert place("<string>", 3) == "<string>:3"


def test_qualified_names() -> None:
    """Functions and classes are spelled with their module; an object by its class."""
    assert qualified(Outer.Inner.method) == f"{__name__}.Outer.Inner.method"
    assert qualified(nn.ReLU) == "torch.nn.modules.activation.ReLU"
    assert qualified(partial(print)).endswith("partial")


def test_listed() -> None:
    """Names past the most are counted."""
    assert listed([]) == "" and listed("ab") == "a, b"
    assert listed("abcd", most=2) == "a, b and 2 more"
