"""A method of a model as a model, so that it is captured as ``forward`` is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from .. import _torch
from .._describe import qualified
from .._errors import InputError, compose

RESULT = "result"


class _Forward:
    """``forward`` with the signature of the method that it stands for."""

    def __get__(self, view: Any, owner: type) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            model, method, replaced = vars(view)["_view"]
            result = method_of(model, method)(*args, **kwargs)
            return (
                with_buffers(result, dict(model.named_buffers(remove_duplicate=False)), replaced)
                if replaced
                else result
            )

        model, method, _ = vars(view)["_view"]
        # As a method has it: what branches leave behind is looked for in what it is bound to.
        vars(forward).update(__signature__=signature_of(model, method), __self__=view)
        return forward


def view_of(model: nn.Module, method: str, replaced: Sequence[str] = ()) -> nn.Module:
    """A module with the parameters, buffers and submodules of a model that computes one method of it.

    Args:
        model: The model.
        method: The method.
        replaced: Buffers that the method replaces: their values are in the result, see `with_buffers`.

    Returns:
        The model itself where it would do.
    """
    if method == "forward" and not replaced:
        return model
    base = type(model)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)  # without the model's hooks, which run on the model itself

    names = {"forward": _Forward(), "__call__": call, "__module__": base.__module__, "__qualname__": base.__qualname__}
    view: nn.Module = object.__new__(type(base.__name__, (nn.Module,), names))
    held = {name: value for name, value in vars(model).items() if name != "forward"}
    vars(view).update(held, _view=(model, method, tuple(replaced)))
    return view


def with_buffers(result: Any, buffers: Mapping[str, Tensor], replaced: Sequence[str]) -> dict[str, Any]:
    """A result beside what the buffers are after the call that gave it."""
    return {RESULT: result, "buffers": {name: _traced(buffers[name]) for name in replaced}}


def _traced(tensor: Tensor) -> Tensor:
    """A tensor that a trace can return: one that was made before it is copied."""
    known = _torch.tracing_state() is None or _torch.known_value(tensor) is not None
    return tensor if known else tensor.clone()


def method_of(model: nn.Module, method: str) -> Callable[..., Any]:
    """What a caller of a method calls: for ``forward`` the model, with its hooks."""
    found: Callable[..., Any] = model if method == "forward" else getattr(model, method)
    return found


def signature_of(model: nn.Module, method: str) -> inspect.Signature:
    """The signature of a method.

    Raises:
        InputError: Python can't read it.
    """
    try:
        return _torch.signature_of(getattr(model, method))
    except (ValueError, TypeError) as error:
        raise InputError(
            compose(
                f"the model's {method} has no signature that Python can read",
                where=qualified(type(model)),
                differences=[str(error)],
                instead=f"def {method}(self, x): return function(x)",
                page="inputerror",
            )
        ) from None
