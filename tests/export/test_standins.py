"""Stand-ins for `len`, `int` and the like, under which a traced number stays one."""

from __future__ import annotations

import builtins
import importlib
import math
import sys
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit.export.rolling import Rolling
from hybridjit.export.standins import standing_in
from tests.export.call import times


class Call(nn.Module):
    def __init__(self, fn: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Any:
        return self.fn(x)


KEPT: dict[str, Callable[[Tensor], Any]] = {
    "len": lambda x: x * len(x),
    "int": lambda x: x.reshape(int(x.shape[0]) * 3),
    "int of a share": lambda x: x[: int(len(x) * 0.29)],
    "int towards zero": lambda x: x * int(-x.shape[0] / 3),
    "float": lambda x: x / float(x.shape[0]),
    "round": lambda x: x * round(x.shape[0] / 2),  # to even, as Python does
    "ceil": lambda x: x.new_ones(math.ceil(x.shape[0] / 4)),
    "ceil, imported": lambda x: x.new_ones(ceil(x.shape[0] / 4)),
    "floor": lambda x: x.new_ones(math.floor(x.shape[0] / 4)),
    "sqrt": lambda x: x / math.sqrt(len(x)),
    "log": lambda x: x * int(math.log2(x.shape[0])),
    "log to a base": lambda x: x * int(math.log(x.shape[0] * 9, 3)),
    "sign": lambda x: x * math.copysign(1.0, 4 - x.shape[0]),
    "power": lambda x: x * math.pow(len(x), 1.5),
    "length": lambda x: x * math.hypot(x.shape[0], 3),
    "divisor": lambda x: x.reshape(math.gcd(x.shape[0], 6), -1),
    "no number": lambda x: x * 2 if math.isnan(x.shape[0] / 2) else x * 3,
    "sign of a key": lambda x: x * {(int, math.copysign(1.0, x.shape[0])): 2}.get((int, 1.0), 3),
    "quotient and rest": lambda x: x.new_ones(divmod(x.shape[0] * 3, 4)),
    "min": lambda x: x[: min(len(x), 5)],
    "max": lambda x: x.new_ones(max(8, x.shape[0])),
    "of values": lambda x: x * int(x.sum() * 10),
    "isinstance": lambda x: _only_integers(x, x.shape[0]),
    "isinstance of a fraction": lambda x: x * (2 if isinstance(x.shape[0] / 2, float) else 3),
    "is_integer": lambda x: x[: int(x.shape[0] // 2)] if (x.shape[0] / 2).is_integer() else x * 2,
    "isinstance in another file": lambda x: times(x, math.ceil(x.shape[0] / 4)),
    "torch.tensor of a fraction": lambda x: torch.tensor([[x.shape[0] * 0.5, 1.0]]) @ x.new_ones(2, 3),
    "torch.tensor of a size": lambda x: torch.tensor([x.shape[0] * 2, 1]),
    "numpy's product": lambda x: x.reshape(1, 3, np.prod(x.shape) // 3),
    "numpy's product, of sizes and numbers": lambda x: x.new_ones(int(np.prod([x.shape[0], 2]))),
    "range as an index": lambda x: x[range(len(x)), (x > 0).long()[:, 1]],
    "numpy": lambda x: x.new_ones(int(np.ceil(x.shape[0] / 4)) * 4),
    "numpy, of plain numbers": lambda x: x / np.sqrt(16) * np.log(3.0) + len(x) - np.exp(np.array([1.0]))[0],
    "numpy, of a size": lambda x: x * np.sqrt(x.shape[0]) - np.floor(x.shape[0] / 3),
}


def _only_integers(x: Tensor, n: object) -> Tensor:
    if not isinstance(n, int) or isinstance(n, Tensor):
        raise TypeError("expected a number")
    return x * n


@pytest.mark.parametrize("kind", KEPT)
def test_kept(kind: str) -> None:
    """What goes back into an operation is computed in the file, at sizes that were not traced and as Python does it."""
    model = Call(KEPT[kind]).eval()
    exported = hj.export(model, torch.rand(4, 3))
    for rows in (1, 2, 3, 5, 6, 10, 14, 100):
        x = torch.rand(rows, 3)
        torch.testing.assert_close(exported(x), model(x))


def in_chunks(x: Tensor) -> Tensor:
    rows, size = x.shape[0], min(4, x.shape[0])
    out = x.new_empty(rows, 3)
    for start in range(0, rows, size):
        end = min(start + size, rows)
        out[start:end] = x[start:end].cumsum(0)
    return out


def test_chunks_of_a_range() -> None:
    """What must be as captured of a range of one step is that it is one, not the size that it goes to."""
    model = Call(in_chunks).eval()
    exported = hj.export(model, torch.rand(3, 3), branches="auto")
    for rows in (1, 2, 3, 4):
        x = torch.rand(rows, 3)
        torch.testing.assert_close(exported(x), model(x))
    for rows in (5, 9):
        with pytest.raises(hj.GuardError, match=r"test_standins\.py:"):
            exported(torch.rand(rows, 3))


def test_names_are_put_back() -> None:
    """Within the body the code of the file sees stand-ins, whose classes tell the truth; afterwards what it had."""
    before, real = dict(vars(sys.modules[__name__])), {"math": math, "ceil": math.ceil}
    with standing_in([__file__], Rolling(())):
        space = vars(sys.modules[__name__])
        assert space["len"] is not builtins.len and all(space[name] is not real[name] for name in real)
        stand_in: Any = space["int"]
        assert isinstance(3, stand_in) and not isinstance("3", stand_in) and issubclass(bool, stand_in)
        assert stand_in == builtins.int and stand_in is not builtins.int
        assert stand_in("12") == 12 and space["len"]([1, 2]) == 2 and space["round"](2.567, 1) == 2.6
        assert 3 < space["math"].pi < 4 and space["max"]([3, 1], key=abs) == 3
    assert dict(vars(sys.modules[__name__])) == before


def test_names_are_put_back_after_an_error() -> None:
    """Also where the body raises."""
    with pytest.raises(KeyError), standing_in([__file__], Rolling(())):
        raise KeyError
    assert "len" not in vars(sys.modules[__name__])


def test_other_files_are_left_alone() -> None:
    """Only the code of the files that are named sees them."""
    with standing_in(["elsewhere.py"], Rolling(())):
        assert "len" not in vars(sys.modules[__name__])


def shadowed(x: Tensor) -> Tensor:
    return x * measure(x)


def measure(x: Tensor) -> int:
    return len(x) if isinstance(len(x), int) else -1


def test_a_question_for_the_type_is_no_silent_fork() -> None:
    """Code that asks whether a length is an int goes wrong under a stand-in: such a file is not handed out."""
    model = Call(shadowed).eval()
    exported = hj.export(model, torch.ones(4))
    assert torch.equal(exported(torch.ones(4)), model(torch.ones(4)))
    try:
        got = exported(torch.ones(6))
    except hj.GuardError:
        return
    assert torch.equal(got, model(torch.ones(6)))


def test_files_that_fail_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a size gives in a file that gets stand-ins may be what another file fails on: that gets them as well."""
    names = "rounds_half", "rounds_most", "rounds_more"
    for name, share in zip(names, (0.5, 0.8, 0.9), strict=True):
        text = f"def part(x):\n    return x[..., : round(x.shape[-1] * {share})]\n"
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    one, two, three = (importlib.import_module(name) for name in names)
    model = Call(lambda x: three.part(two.part(one.part(x)))).eval()
    exported = hj.export(model, torch.rand(2, 16))
    for sizes in ((2, 16), (3, 23), (1, 40), (1, 1)):
        x = torch.rand(sizes)
        torch.testing.assert_close(exported(x), model(x))
