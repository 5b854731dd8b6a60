"""What a decorator may stand above, and what the message says of the rest."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import hybridjit as hj
from hybridjit import InputError
from hybridjit.control.targets import check_function
from tests.control.checks import lines

A_DEF = "  write instead: a def statement with @{} above it"
METHOD = "  write instead: decorate the method with the control flow: @{} above def forward(self, x)"


class Callable_:
    def __call__(self) -> None: ...


CASES: dict[str, tuple[Any, str, list[str]]] = {
    "module": (nn.Linear(1, 1), "the module Linear", [METHOD]),
    "class": (nn.Linear, "the class Linear", [METHOD]),
    "builtin": (len, "builtin_function_or_method", [A_DEF]),
    "partial": (partial(max, 1), "partial", [A_DEF]),
    "bound method": (nn.Linear(1, 1).forward, "method", [A_DEF]),
    "object": (Callable_(), "Callable_", [A_DEF]),
    "torch function": (torch.add, "builtin_function_or_method", [A_DEF]),
    "static method": (staticmethod(check_function), "staticmethod", [
        "  write instead: @staticmethod", "    @{}", "    def check_function(...): ...",
    ]),
}  # fmt: skip


@pytest.mark.parametrize("decorator", [hj.script_if_tracing, hj.branch_if_tracing], ids=lambda d: str(d.__name__))
@pytest.mark.parametrize("name", CASES)
def test_messages(name: str, decorator: Callable[..., Any]) -> None:
    """Each is refused at decoration, with what it is and what to decorate instead."""
    target, spelled, instead = CASES[name]
    with pytest.raises(InputError) as error:
        decorator(target)
    what, _, *rest = lines(error)
    assert what == f"{decorator.__name__} takes a Python function"
    assert rest == [
        f"  - expected a function, got {spelled}",
        *(line.format(decorator.__name__) for line in instead),
        "  see docs/errors.md#inputerror",
    ]


def test_functions_and_lambdas_pass() -> None:
    """Anything with a def or a lambda behind it is taken."""
    check_function("decorator", lambda: None)
    check_function("decorator", test_functions_and_lambdas_pass)
    check_function("decorator", nn.Linear.forward)
