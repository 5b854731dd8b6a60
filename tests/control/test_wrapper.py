"""The wrapper of a decorated function: its parameters, and what it calls when."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from types import FunctionType
from typing import Any

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

import hybridjit as hj
from hybridjit.control.wrapper import make_wrapper


def positional(a: int, b: int = 2, /) -> Any:
    return a, b


def variadic(a: int, *rest: int, flag: bool = False, **more: int) -> Any:
    return a, rest, flag, more


def keyword_only(*, first: int, second: int = 5) -> Any:
    return first, second


def stars_only(*args: int, **kwargs: int) -> Any:
    return args, kwargs


def nothing() -> Any:
    return ()


CALLS: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
    (positional, (1,), {}), (positional, (1, 7), {}), (variadic, (1, 2, 3), {"flag": True, "x": 4}),
    (variadic, (1,), {}), (keyword_only, (), {"first": 3}), (stars_only, (1, 2), {"a": 3}), (nothing, (), {}),
]  # fmt: skip


@pytest.mark.parametrize(("fn", "args", "kwargs"), CALLS)
@pytest.mark.parametrize("capturing", [None, object()], ids=["not captured", "captured"])
def test_arguments_reach_the_function(
    fn: FunctionType, args: tuple[Any, ...], kwargs: dict[str, Any], capturing: Any
) -> None:
    """Every kind of parameter, in eager mode directly, in a capture as a tuple and a dict; other modes are none."""
    seen: list[Any] = []
    asked: list[Any] = []

    def on_capture(given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        seen.append((given, named))
        return fn(*given, **named)

    def whether() -> Any:
        asked.append(None)
        return capturing

    wrapper = make_wrapper(fn, whether, on_capture)
    assert wrapper(*args, **kwargs) == fn(*args, **kwargs)
    assert not asked and not seen
    with TorchDispatchMode():
        assert wrapper(*args, **kwargs) == fn(*args, **kwargs)
    assert len(asked) == 1 and len(seen) == (capturing is not None)


@pytest.mark.parametrize("fn", [positional, variadic, keyword_only, stars_only, nothing])
def test_the_signature_is_the_functions(fn: FunctionType) -> None:
    """Parameters and defaults are the function's own."""
    wrapper = hj.branch_if_tracing(fn)
    assert inspect.signature(wrapper) == inspect.signature(fn)
    assert (wrapper.__name__, wrapper.__module__, wrapper.__defaults__) == (fn.__name__, __name__, fn.__defaults__)
    assert wrapper.__kwdefaults__ == fn.__kwdefaults__


@pytest.mark.parametrize("fn", [positional, keyword_only, nothing])
def test_a_wrong_call_is_the_functions_error(fn: FunctionType) -> None:
    """Too many arguments are Python's own TypeError, with the function's name."""
    with pytest.raises(TypeError, match=fn.__name__):
        hj.branch_if_tracing(fn)(1, 2, 3)


def make(n: int) -> Callable[[int], int]:
    @hj.branch_if_tracing
    def closed(x: int) -> int:
        return x * n + offset

    offset = 100
    return closed


def test_free_variables_are_shared() -> None:
    """A variable of an outer function that is set later is seen, and each wrapper has its own."""
    assert (make(2)(3), make(5)(3)) == (106, 115)


@hj.branch_if_tracing
def decorated(x: int) -> int:
    return x + 1


def test_a_decorated_function_pickles() -> None:
    """By its name, as functions do."""
    assert pickle.loads(pickle.dumps(decorated)) is decorated
