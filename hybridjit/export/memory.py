"""Models that remember in attributes what a file does not: a call that depends on the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .._errors import CaptureError, compose
from ..adapters.inputs import Inputs
from ..adapters.tree import scan
from .compare import compare
from .devices import moved
from .state import SEED, ModelState, kept_random_state

_NEAR = (1e-3, 1e-4)
"""Relative and absolute: what results may differ by."""
_SECOND = 4
"""How many inputs are tried after the first, besides itself; all if one of them is another call then."""


def recalled(model: nn.Module, state: ModelState, calls: Mapping[str, Inputs]) -> list[str]:
    """The calls that give something else after the first one than alone: attributes that it set, and the file does not.

    Args:
        model: The model; it comes back as it was.
        state: Its state.
        calls: What to call it on, the traced call first.
    """
    first = next(iter(calls))
    found: list[str] = []
    for at, name in enumerate(calls):
        if at > _SECOND and not found:
            break
        try:
            alone = _results(model, calls[name], name)
            if name != first:
                state.restore(thorough=True)
                _results(model, calls[first], first)
            state.restore_tensors()  # the file has buffers too, and writes to them
            after = _results(model, calls[name], name)
        except Exception:  # what the model raises when it is called again is its own affair
            continue
        finally:
            state.restore(thorough=True)
        if not _alike(alone, after) and not _in_step(model, state, calls[first], calls[name], alone):
            found.append(name)
    return found


def _in_step(model: nn.Module, state: ModelState, first: Inputs, second: Inputs, alone: Sequence[Tensor]) -> bool:
    """Whether the second call gives what it gives alone: by attributes and buffers together, and by buffers alone.

    A number may say up to where a buffer is filled, as in a cache of angles. With one and without the other the model
    would go wrong, but never is; the file has the buffers, and fills them anew.
    """
    try:
        for forgets in (False, True):
            _results(model, first, "first")
            if forgets:
                state.restore_attributes()
            if not _alike(alone, _results(model, second, "second")):
                return False
            state.restore(thorough=True)
    except Exception:  # by the buffers alone it can't go on
        return False
    finally:
        state.restore(thorough=True)
    return True


def _alike(results: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    if len(results) != len(others):
        return False
    return not compare(list(map(str, range(len(results)))), results, others, *_NEAR).differences


def memory_error(model: nn.Module, remembers: Sequence[str], name: str) -> CaptureError:
    """The refusal of a model whose second call depends on attributes that the first one set.

    Args:
        model: The model.
        remembers: What it sets.
        name: The call that is another one after the first.
    """
    return CaptureError(
        compose(
            "the model's second call gives something else than its first: it remembers in attributes",
            where=type(model).__qualname__,
            differences=[*remembers, f"first on input, then on {name}"],
            instead='self.register_buffer("name", tensor) for what calls share, and only tensors in it',
            page="captureerror",
        )
    )


def _results(model: nn.Module, inputs: Inputs, name: str) -> list[Tensor]:
    own = moved(inputs, None, name)
    with torch.no_grad(), kept_random_state():
        torch.manual_seed(SEED)
        result = model(*own.args, **own.kwargs)
    tensors: list[Tensor] = []
    scan(result, tensors, "result")
    return [tensor.clone() for tensor in tensors]
