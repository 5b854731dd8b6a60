"""What bounds a model where it runs on inputs that nobody gave: indices that torch leaves unchecked, and time."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
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


class EndlessError(BaseException):  # no Exception: it passes what the model catches
    """A model runs for so long that it may have no end."""


@contextlib.contextmanager
def ending(seconds: float) -> Iterator[None]:
    """Ends the body after a while, whatever Python code it is in, as Ctrl-C would.

    ``while x.shape[0] != 1:`` has an end for what a user gives, and none for no rows.

    Args:
        seconds: After how long, in seconds.

    Raises:
        EndlessError: It had not ended by then.
    """
    thread, lock, over, sent = threading.get_ident(), threading.Lock(), False, False

    def end() -> None:
        nonlocal sent
        with lock:
            if not over:
                sent = True
                _raise_in(ctypes.c_ulong(thread), ctypes.py_object(EndlessError))

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        try:
            with lock:
                over = True
            # It may be on its way, and arrives where Python jumps back. To take it back instead would leave Python 3.11
            # in wait of it: slower, and without an end under a profiler or debugger.
            for _ in range(1000 if sent else 0):
                pass
        except EndlessError:
            over = True
        timer.cancel()
        timer.join()  # it ends at once, and no thread is left


_raise_in: Any = ctypes.pythonapi.PyThreadState_SetAsyncExc


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
