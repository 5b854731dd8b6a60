"""Plain values go to JSON and back without losing a type."""

import enum
import json
import math
import subprocess
import sys
from typing import Any

import pytest
import torch

from hybridjit.adapters.plain import is_plain, pack, same, static_from_json, unpack


class Color(enum.IntEnum):
    RED = 1


VALUES: list[Any] = [
    None, True, False, 0, -1, 10**30, 1.0, -0.0, math.inf, -math.inf, "", "a\n'{}", "é", torch.float16,
    torch.device("cuda:1"), (), [], {}, (1, (2, [3.0])), {1: "a", "1": (None,), (1, 2): {}},
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_round_trip(value: Any) -> None:
    """What comes back from JSON has the value and the types."""
    back = unpack(json.loads(json.dumps(pack(value), allow_nan=False)))
    assert type(back) is type(value) and repr(back) == repr(value)


def test_nan_is_itself() -> None:
    """NaN is the same as NaN, and 1, 1.0 and True are three values."""
    assert math.isnan(unpack(json.loads(json.dumps(pack(math.nan), allow_nan=False))))
    assert same(math.nan, float("nan"))
    assert not same(1, 1.0) and not same(1, True) and not same(1, "1")


def test_a_subclass_is_its_base() -> None:
    """An IntEnum member is its number in the file."""
    assert pack(Color.RED) == {"type": "int", "value": 1}
    assert same(Color.RED, 1)


def test_others_are_not_plain() -> None:
    """Sets, objects and tensors are refused."""
    assert not any(is_plain(value) for value in ({1}, object(), torch.ones(1), [object()], {"a": int}))


def test_a_dtype_imports_nothing() -> None:
    """A dtype that is none is refused, and torch's lazily loaded modules stay unloaded."""
    with pytest.raises(ValueError, match="no dtype"):
        static_from_json({"type": "dtype", "value": "nn"})
    code = (
        "import sys, hybridjit.adapters.plain as p\n"
        "try: p.static_from_json({'type': 'dtype', 'value': '_dynamo'})\n"
        "except ValueError: print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
