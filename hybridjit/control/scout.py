"""What a branch or loop body takes from outside of it, found by running it on stand-ins."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from types import FrameType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .. import _torch
from .._describe import describe
from .._errors import CaptureError, compose
from .._sites import user_site
from . import record

T = TypeVar("T")

SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


class Scout(TorchFunctionMode):
    """Runs functions on stand-ins for what they capture, and writes down what that was.

    A stand-in has its own memory, so that what aliases a captured tensor can be told, and a write
    to it does no harm.

    Attributes:
        captured: The tensors from outside that an operation took, in order.
        sizes: The sizes from outside that an operation took, and that no captured tensor has.
        tracer: What records the graph around.
        modes: The modes that are on around, besides those of torch's own tracing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.captured: list[Tensor] = []
        self._numbers: list[Any] = []
        self._stand_ins: dict[int, Tensor] = {}
        self._made: dict[int, Tensor] = {}
        self._inner: set[Any] = set()
        self._versions: dict[int, int] = {}
        self._working = False
        self.tracer: Any = _torch.current_tracer()
        self.modes: list[Any] = [mode for mode in _torch.function_modes() if not isinstance(mode, (Scout, Swap))]

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Watches what the body runs."""
        if self._working:
            yield
            return
        self._working = True
        try:
            with self:
                yield
        finally:
            self._working = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = swap(args, self.inside), swap(kwargs or {}, self.inside)
        result = func(*args, **kwargs)
        self._refuse_writes(func)
        if isinstance(result, Iterator):  # of a tensor's rows: they are made now
            rows = list(result)
            self.make(rows)
            return iter(rows)
        self.make(result)
        return result

    def inside(self, value: Any) -> Any:
        """Gives what stands inside for a tensor, and notes tensors and sizes from outside."""
        if isinstance(value, SYMBOLIC):
            self._numbers.append(value)
            return value
        if not isinstance(value, Tensor) or id(value) in self._made:
            return value
        if id(value) not in self._stand_ins:
            self.captured.append(value)
            stand_in = imitate(value)
            self._stand_ins[id(value)] = self._made[id(stand_in)] = stand_in
            self._versions[id(value)] = _version(stand_in)
        return self._stand_ins[id(value)]

    def make(self, value: T) -> T:
        """Takes the tensors and sizes of a value for made inside."""

        def note(item: Any) -> Any:
            if isinstance(item, Tensor):
                self._made[id(item)] = item
                self._inner |= _unbacked(item.shape) - self._outer()
            elif isinstance(item, SYMBOLIC):
                self._inner |= _unbacked([item]) - self._outer()
            return item

        swap(value, note)
        return value

    def is_inner(self, number: Any) -> bool:
        """Whether a size is known inside only."""
        return bool(_unbacked([number]) & self._inner)

    def stand_ins(self) -> list[Tensor]:
        """The stand-ins, in the order of `captured`."""
        return [self._stand_ins[id(tensor)] for tensor in self.captured]

    @property
    def sizes(self) -> list[Any]:
        """The sizes from outside that no captured tensor has."""
        shapes: list[Any] = [size for tensor in self.captured for size in tensor.shape]
        known = {size.node.expr for size in shapes if isinstance(size, SYMBOLIC)}
        found = {}
        for number in self._numbers:
            for symbol in _symbols([number]) - self._inner - known:
                found[symbol] = number.node.shape_env.create_symintnode(symbol, hint=None)
        return list(found.values())

    def _outer(self) -> set[Any]:
        return _unbacked(self._numbers) | {s for tensor in self.captured for s in _unbacked(tensor.shape)}

    def _refuse_writes(self, func: Any) -> None:
        for tensor, stand_in in zip(self.captured, self.stand_ins(), strict=True):
            if self._versions[id(tensor)] != _version(stand_in):
                operation = getattr(func, "__name__", str(func))
                raise CaptureError(
                    compose(
                        "a branch or loop body changes a tensor in place that was made outside of it",
                        where=str(user_site(record.current().names)),
                        differences=[f"{operation} changes {_name(tensor)}{describe(tensor)}"],
                        instead="a branch or loop body that returns the new value, and only reads from outside:\n"
                        "y = hj.cond(p, lambda: y + 1, lambda: y)",
                        page="branches-that-write",
                    )
                )


class Swap(TorchFunctionMode):
    """Puts what an operator hands to a function in the place of what it captured, in every operation.

    Args:
        scout: What found that out.
        others: What stands for each captured tensor, in order; more may follow.
    """

    def __init__(self, scout: Scout, others: Sequence[Any]) -> None:
        super().__init__()
        self._captured = scout.captured  # keeps their identities theirs
        self._others = {id(one): other for one, other in zip(scout.captured, others, strict=False)}
        self._modes = scout.modes
        self._entered = contextlib.ExitStack()
        _torch.lend_modules(scout.tracer)

    def __enter__(self) -> Swap:
        # An operator runs functions without the modes that were on when it was called.
        for mode in self._modes:
            self._entered.enter_context(mode)
        enter: Any = super().__enter__
        enter()
        return self

    def __exit__(self, *error: Any) -> None:
        leave: Any = super().__exit__
        leave(*error)
        self._entered.__exit__(*error)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*swap(args, self.inside), **swap(kwargs or {}, self.inside))

    def inside(self, value: Any) -> Any:
        """Gives what stands for a tensor."""
        return self._others.get(id(value), value)


def swap(value: Any, give: Callable[[Any], Any]) -> Any:
    """Puts something else in the place of each tensor and size among an operation's arguments."""
    if isinstance(value, (Tensor, *SYMBOLIC)):
        return give(value)
    if isinstance(value, (tuple, list)):
        items = [swap(item, give) for item in value]
        if all(one is other for one, other in zip(items, value, strict=True)):
            return value
        return value._make(items) if hasattr(value, "_make") else type(value)(items)
    if isinstance(value, dict):
        return {key: swap(item, give) for key, item in value.items()}
    if isinstance(value, slice):
        return slice(swap(value.start, give), swap(value.stop, give), swap(value.step, give))
    return value


def imitate(tensor: Tensor, row: bool = False) -> Tensor:
    """A tensor of the same kind, or of a row's, with memory of its own and no known value."""
    if tensor.layout != torch.strided:
        return tensor.detach().clone()
    shape, strides = tensor.shape[row:], tensor.stride()[row:]
    made = torch.empty_strided(shape, strides, dtype=tensor.dtype, device=tensor.device)
    return made.requires_grad_(tensor.requires_grad)


def own_memory(tensors: Sequence[Any], known: Sequence[Tensor] = ()) -> list[Any]:
    """Copies each tensor that shares memory with one before it: the operators refuse two names for one tensor."""
    keys = {_torch.storage_key(tensor) for tensor in known}
    given = []
    for tensor in tensors:
        shared = isinstance(tensor, Tensor) and _torch.storage_key(tensor) in keys
        if isinstance(tensor, Tensor):
            keys.add(_torch.storage_key(tensor))
        given.append(tensor.clone() if shared else tensor)
    return given


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _symbols(values: Any) -> set[Any]:
    from torch.fx.experimental.symbolic_shapes import free_symbols

    return set(free_symbols(values))


def _unbacked(values: Any) -> set[Any]:
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

    return set(free_unbacked_symbols(values)) if any(isinstance(value, SYMBOLIC) for value in values) else set()


def hangs_on_data(condition: Any) -> bool:
    """Whether a comparison of sizes is of some that only the data tell."""
    return bool(_unbacked([condition]))


def _name(tensor: Tensor) -> str:
    """The name of a parameter or buffer of a module whose method is running, with a space; or nothing."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module):
            for name, own in [*owner.named_buffers(recurse=False), *owner.named_parameters(recurse=False)]:
                if own is tensor:
                    return f"{type(owner).__name__}.{name}, "
        frame = frame.f_back
    return ""


_current: ContextVar[Scout | None] = ContextVar("hybridjit_scout", default=None)


def active() -> Scout | None:
    """The scout at work, if what runs now runs on stand-ins."""
    return _current.get()


@contextlib.contextmanager
def scouting() -> Iterator[Scout]:
    """Records nothing within the body; functions called under the scout that it gives run on stand-ins.

    Within another scout that one goes on: what is captured at any depth is captured from outside of it.
    """
    outer = active()
    if outer is not None:
        yield outer
        return
    scout = Scout()
    with _torch.unrecorded():
        token = _current.set(scout)
        try:
            yield scout
        finally:
            _current.reset(token)
