"""What a call leaves behind besides its result is noted; of attributes, and of draws, in test_memory and test_state."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import hybridjit as hj


class Call(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, given: Any) -> Any:
        return self.function(given)


def appends(given: list[Any]) -> Any:
    given.append(given[0] + 1)
    return given[1]


def sets(given: dict[str, Any]) -> Any:
    given["x"] = given["x"] + 1
    given["y"] = given["x"] * 2
    return given["y"]


def replaces(given: dict[str, Any]) -> Any:
    given["x"], given["y"] = given["x"] + 1, given["y"] * 2
    return given["x"] + given["y"]


def keeps(given: list[Any]) -> Any:
    given.append(print)
    return given[0] + 1


CHANGES: list[tuple[Callable[..., Any], Any, str]] = [
    (appends, [torch.ones(2)], "given: was list of 1, is list of 2"),
    (sets, {"x": torch.ones(2)}, "given: was dict('x'), is dict('x', 'y')"),
    (replaces, {"x": torch.ones(2), "y": torch.ones(2)}, "given['x']: was a tensor, is another, and 1 more"),
    (keeps, [torch.ones(2)], "they hold now what no call can"),
]


@pytest.mark.parametrize(("function", "given", "says"), CHANGES)
def test_arguments_that_are_changed(function: Callable[..., Any], given: Any, says: str) -> None:
    """A note says what is not done to the caller's container, and it is not."""
    exported = hj.export(Call(function).eval(), (given,))
    (finding,) = (each for each in exported.report.findings if each.code == "HJ006")
    assert finding.severity == "note" and finding.message.endswith(says) and exported.report.ok
    before = list(given)
    exported(given)
    assert list(given) == before


def test_arguments_that_are_not() -> None:
    """A copy that is changed is none of the caller's, and a tensor that is written into is written by the file, too."""

    def copies(given: dict[str, Any]) -> Any:
        given = dict(given)
        given["y"] = given["x"] + 1
        return given["y"]

    def writes(given: dict[str, Any]) -> Any:
        given["x"].add_(1)
        return given["x"] * 2

    for function in (copies, writes):
        exported = hj.export(Call(function).eval(), ({"x": torch.ones(2)},))
        assert "HJ006" not in [each.code for each in exported.report.findings]
    given = {"x": torch.ones(2)}
    exported(given)
    assert given["x"].tolist() == [2, 2]
