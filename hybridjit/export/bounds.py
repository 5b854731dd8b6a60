"""Bounds that torch leaves unchecked, checked where a model runs on inputs that nobody gave."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from .. import _torch


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Has kernels raise, within the body, where an index lies outside and they would read or write there.

    A probe with fewer rows keeps the row numbers of the input it is made of: no user does that, and memory written
    to outside of a tensor ends the process.
    """
    before = {each.__name__: each for each in _NUMBERED}
    invariants: Any = torch.sparse.check_sparse_tensor_invariants
    with invariants():
        try:
            for name, operation in before.items():
                setattr(torch, name, _bounded(operation, *_NUMBERED[operation]))
            yield
        finally:
            for name, operation in before.items():
                setattr(torch, name, operation)


def _bounded(operation: Callable[..., Any], index: int, count: Callable[[Any], int]) -> Callable[..., Any]:
    @functools.wraps(operation)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if len(args) > index and isinstance(args[index], Tensor) and args[index].numel():
            low, high = (int(each) for each in args[index].aminmax())
            if low < 0 or high >= count(args):
                raise IndexError(f"{operation.__name__}: an index is out of bounds")
        return operation(*args, **kwargs)

    return checked


_NUMBERED: dict[Callable[..., Any], tuple[int, Callable[[Any], int]]] = {
    _torch.coo_to_csr: (0, lambda args: int(args[1])),
    torch.ctc_loss: (1, lambda args: int(args[0].shape[-1])),
}
"""Where their indices are, and what is above them all."""
