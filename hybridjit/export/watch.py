"""The watch on a trace: every value that leaves it is seen where that happens."""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .. import _torch
from .._sites import is_own, user_frame, user_site, writes_text
from ..control import record
from ..control.calls import call_at
from ..control.guards import guard_kind
from ..control.structure import tensors_of
from . import answers, given, identity, lost, made, ranks
from .answers import See
from .kinds import ARRAY, BOOL, CONTAINS, FLOAT, GIVEN, INT, ITEM, LEN, LENT, LIST, ROWS, TEXT, WANTED, Kind
from .leaks import Leak
from .listing import listed
from .numbers import IN_PLACE, is_number, spelled
from .promotion import promoted, widest
from .rolling import counts, ends_loop, gone_through, is_iterated, rows_of, turns_under_way
from .validation import only_says


class Watch(TorchFunctionMode):
    """Sees every value that leaves the running trace.

    Args:
        names: ``id(module)`` to module path.
        meet: Is given each leak and the traced tensor that holds its value.
        exact: Whether numbers stay traced numbers where Python lets them.
        plain: Source files whose code is given sizes as Python's numbers, each a leak.
        reshaped: The buffers that a call leaves with another shape or dtype: the next one finds that.
        scripts: Whether what torch has scripted may be called.
    """

    def __init__(
        self,
        names: Mapping[int, str],
        meet: Callable[[Leak, Tensor], None],
        exact: bool = False,
        plain: Collection[str] = (),
        reshaped: Mapping[str, Tensor] | None = None,
        scripts: bool = False,
    ) -> None:
        super().__init__()
        self._reshaped = reshaped or {}
        self._plain = plain
        self.exact = exact
        self._numbers: dict[int, weakref.ref[Tensor]] = {}  # arithmetic on them has Python's digits
        self._names = names
        self._meet = meet
        self._varying: dict[int, bool] = {}
        self.kept: set[int] = set()  # values of the graph that Python has as numbers, not sizes
        self._kinds_vary = scripts
        self._kinds: dict[int, ranks.Varies] = {}
        self.raised: list[Exception] = []  # by operations on what varies

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        see = _SEEN.get(func)
        if _torch.tracing_state() is None:
            return func(*args, **kwargs)
        if self._plain and func in _COUNT and user_site().file in self._plain:
            return self._as_numbers(func, args, kwargs)
        if func in IN_PLACE and isinstance(args[0], Tensor) and is_number(args[0]):
            func = IN_PLACE[func]  # what Python has as a number has no memory of its own
        if func in _INDEXED:
            args = args[0], made.indexed(self, args[1]), *args[2:]
        if self._reshaped and func in ranks.OF_KIND:
            for name, buffer in self._reshaped.items():
                if args[0] is buffer:
                    guard_kind(f"the buffer {name}", buffer)
        caller = sys._getframe(1)
        asked = func in ranks.ASKING and not is_own(caller.f_code.co_filename)
        if asked and (rank := self._kind_asked(func, args, kwargs)) is not None:
            return rank
        self._kinds_vary |= func in ranks.SQUEEZES
        args, kwargs = promoted(func, *listed(func, args, kwargs), lambda *other: call_at(caller, *other))
        result = see(self, func, args, kwargs) if see is not None else self.called(func, args, kwargs, caller)
        if func in _COUNT:
            for tensor in tensors_of(result):
                self._numbers[id(tensor)] = weakref.ref(tensor)
        return result

    def _as_numbers(self, func: Any, args: Any, kwargs: Any) -> Any:
        with _torch.paused_tracing():
            numbers = func(*args, **kwargs)
        if self.varies(args[0]):
            traced = func(*args, **kwargs)
            pairs = zip(traced, numbers, strict=True) if isinstance(numbers, tuple) else [(traced, numbers)]
            for size, number in pairs:
                if isinstance(size, Tensor):
                    self.leak(INT, size, number)
        return numbers

    def called(self, func: Any, args: Any, kwargs: Any, caller: FrameType) -> Any:
        """Runs an operation, and sees what it was given that is not in what the trace has of it since.

        Of some parameters that are numbers (a shift, a factor) torch takes the tensor's number, where nobody sees it.
        """
        asked = _ASKED if getattr(func, "__module__", "") == "torch.nn.functional" else ()
        single = [(each, _uses(value, asked)) for each, value in self._single((args[1:], kwargs))]
        try:
            result = self._exactly(func, args, kwargs, caller)
        except Exception as error:
            if any(map(self.varies, tensors_of((args, kwargs)))):
                self.raised.append(error)
            raise
        results = tensors_of(result)
        if results and func not in lost.APART:
            lost.see_lost(self, args, kwargs, results)
        if single and func not in _BESIDE and results:
            unused = [each for each, uses in single if _uses(_torch.value_of(each), asked) == uses]
            kept = given.keep(func, args, kwargs, result, {id(each) for each in unused}) if unused else set()
            for tensor in unused:
                if id(tensor) not in kept:
                    with _torch.paused_tracing():
                        number = tensor.item()
                    self.leak(GIVEN, tensor, number)
        return result

    def _single(self, given: Any) -> Iterator[tuple[Tensor, Any]]:
        """The tensors of one element that vary, with their values."""
        with _torch.paused_tracing(), _torch.unwatched():
            ones = [each for each in tensors_of(given) if each.numel() == 1 and not each.is_complex()]
        for each in filter(self.varies, ones):
            yield each, _torch.value_of(each)

    def _exactly(self, func: Any, args: Any, kwargs: Any, caller: FrameType) -> Any:
        """Runs an operation; one on Python's numbers alone with as many digits as Python has."""
        result = call_at(caller, func, args, kwargs)
        if not isinstance(result, Tensor) or not self._numbers or func in _FILLED:
            return result
        given = tensors_of((args, kwargs))
        if not given or not all(map(self._is_number, given)):
            return result
        with _torch.paused_tracing():
            if result.dim():
                return result
            floats = [each for each in (*args, *given) if isinstance(each, float) or _is_narrow(each)]
            narrow = floats if result.dtype is torch.bool else _is_narrow(result)
            single = narrow and not any(isinstance(each, torch.dtype) for each in (*args, *kwargs.values()))
        if single and func in _INTO:  # torch has it as 1 / size, times the number: an ulp off, and so a size at some
            result = _double(args[0]).new_full((), args[1], dtype=torch.float64) / _double(args[0])
        elif single:
            result = func(*(_double(each) for each in args), **{key: _double(each) for key, each in kwargs.items()})
        self._numbers[id(result)] = weakref.ref(result)
        return result

    def _is_number(self, tensor: Tensor) -> bool:
        """Whether a tensor is what came of numbers alone."""
        found = self._numbers.get(id(tensor))
        return found is not None and found() is tensor

    def keep(self, tensor: Tensor) -> Tensor:
        """The number in a tensor of one element, as a tensor that Python has as a number."""
        number = widest(tensor.reshape(()))
        self.kept.add(_torch.value_of(number).unique())
        self._numbers[id(number)] = weakref.ref(number)
        return number

    def varies(self, tensor: Tensor) -> bool:
        """Whether a tensor can hold something else when the file runs."""
        value = _torch.known_value(tensor)
        return value is not None and _torch.varies(value, self._varying, self._of_other_shapes)

    def _kind_asked(self, func: Any, args: Any, kwargs: Any) -> Tensor | None:
        if not self._kinds_vary and not record.current().scripted and not record.current().ranks:
            return None
        value = _torch.known_value(args[0])
        if value is None or not self.varies(args[0]):
            return None
        return ranks.asked(self, func, args, kwargs, ranks.varying(value, self._kinds))

    @functools.cached_property
    def _of_other_shapes(self) -> set[int]:
        """The values of the buffers that have another shape in the next call."""
        values = map(_torch.known_value, self._reshaped.values())
        return {value.unique() for value in values if value is not None}

    def leak(self, kind: Kind, tensor: Tensor, value: Any) -> None:
        """Tells of a leak, unless it is text for people."""
        site = user_site(self._names)
        if kind is BOOL and "aten::is_grad_enabled" in map(_kind_of, _torch.value_of(tensor).node().inputs()):
            kind = WANTED
        if kind is not BOOL and writes_text():  # of a size as a whole, say, whose numbers are asked for one by one
            kind = TEXT
        if kind is not TEXT or not only_says(site):
            self._meet(Leak(kind, site, value, bool(turns_under_way())), tensor)


_BESIDE = (Tensor.to, Tensor.type_as, Tensor.expand_as, Tensor.view_as, Tensor.reshape_as)
"""What asks a tensor for its dtype, device or sizes, and not for what it holds."""


def _kind_of(value: _torch.Value) -> str:
    return str(value.node().kind())


def _uses(value: Any, but: Collection[str]) -> int:
    return sum(use.user.kind() not in but for use in value.uses())


_INTO = tuple(getattr(Tensor, f"__{name}__") for name in ("rtruediv", "rdiv"))


_FILLED = (torch.full, torch.scalar_tensor, Tensor.new_full)
"""What makes a tensor of a number."""


def _is_narrow(value: Any) -> bool:
    """Whether a tensor has floats of fewer digits than Python's."""
    return isinstance(value, Tensor) and value.is_floating_point() and value.dtype is not torch.float64


def _double(value: Any) -> Any:
    return value.to(torch.float64) if isinstance(value, Tensor) else value


_COUNT = (
    *(getattr(Tensor, name).__get__ for name in ("shape", "nbytes")),
    *(Tensor.size, Tensor.numel, Tensor.nelement, Tensor.stride, torch.numel),
)
"""What gives Python numbers in eager mode and tensors in a trace."""

_INDEXED = (Tensor.__getitem__, Tensor.__setitem__)
_ASKED = tuple(f"aten::{name}" for name in ("eq", "ne", "lt", "le", "gt", "ge", "Bool"))
"""What functions of `torch.nn.functional` that are written in Python ask of a number before they hand it on."""


def _number(kind: Kind) -> See:
    """Sees a tensor of one element become a Python number."""

    def see(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
        with _torch.paused_tracing():
            value = func(*args, **kwargs)
        if not (kind is BOOL and ends_loop(args[0], value)) and watch.varies(args[0]):
            held = value
            if not isinstance(value, (bool, int, float)):  # complex
                with _torch.paused_tracing():
                    held = args[0].detach().clone()
            watch.leak(kind, args[0], held)
        return value

    return see


def _see_item(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    with _torch.paused_tracing():
        truth = args[0].dtype is torch.bool
        number = args[0].numel() == 1 and not args[0].is_complex()
    if truth:
        return _number(BOOL)(watch, func, args, kwargs)
    if watch.exact and number and watch.varies(args[0]):
        return watch.keep(args[0])
    return _number(ITEM)(watch, func, args, kwargs)


def _see_list(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    with _torch.paused_tracing():
        few = 0 < args[0].dim() <= 2 and 0 < args[0].numel() <= _LISTED and not args[0].is_complex()
    if watch.exact and few and watch.varies(args[0]):
        for dim in range(Tensor.dim(args[0])):  # what is not taken out of the list leaves no trace of how long it is
            _count_rows(watch, args[0], dim, LEN)
        return _parts(watch, args[0])
    return _values(LIST)(watch, func, args, kwargs)


def _count_rows(watch: Watch, tensor: Tensor, dim: int = 0, kind: Kind = ROWS) -> None:
    size = Tensor.size(tensor, dim)  # a tensor, in a trace
    if isinstance(size, Tensor) and watch.varies(size):
        with _torch.paused_tracing():
            count = tensor.size(dim)
        watch.leak(kind, size, count)


_LISTED = 64
"""How many numbers a list of traced ones may have."""


def _parts(watch: Watch, tensor: Tensor) -> list[Any]:
    with _torch.paused_tracing():
        last = tensor.dim() == 1
    return [watch.keep(each) if last else _parts(watch, each) for each in tensor.unbind()]


def _values(kind: Kind) -> See:
    """Sees the values of a whole tensor leave."""

    def see(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
        tensor = args[0]
        with _torch.paused_tracing():
            value = func(*args, **kwargs)
        if watch.varies(tensor):
            with _torch.paused_tracing():
                held = tensor.detach().clone()
                one = held.item() if held.dim() == 0 and not held.is_complex() else held
            watch.leak(kind, tensor, one)
        return value

    return see


def _see_len(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    with _torch.paused_tracing():
        value = func(*args, **kwargs)
    size = torch.Tensor.size(args[0], 0)  # a tensor, in a trace
    if watch.exact and (frame := user_frame()) is not None and "__len__" in frame.f_code.co_names:
        return size  # x.__len__(), which may give anything; len(x) wants an int
    if isinstance(size, Tensor) and watch.varies(size):
        watch.leak(LEN, size, value)
    return value


def _see_rows(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    """Sees a loop over a tensor, or its parts; what else ``unbind`` gives stands in the graph as the model has it."""
    if not is_iterated():
        rows = gone_through(args, kwargs, user_frame())
        return func(*args, **kwargs) if rows is None else rows
    if (turns := rows_of(args[0], user_frame())) is not None:
        return turns
    _count_rows(watch, args[0])
    return func(*args, **kwargs)


def _see_split(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    """Splits by a traced size, of which torch would make a number: into as many parts as there were."""
    given = dict(zip(("tensor", "size", "dim"), args, strict=False))
    dim = given.get("dim", kwargs.get("dim", 0))
    size = given.get("size", kwargs.get("split_size", kwargs.get("split_size_or_sections")))
    if not given or not isinstance(size, Tensor) or not watch.varies(size):
        return func(*args, **kwargs)
    with _torch.paused_tracing():
        count = len(func(*args, **kwargs))
    whole = Tensor.size(args[0], dim)
    watch.leak(ROWS, torch.div(whole + size - 1, size, rounding_mode="floor"), count)
    return args[0].split_with_sizes([*(size for _ in range(count - 1)), whole - size * (count - 1)], dim)


def _see_resized(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    """Resizes by a factor to the size that eager mode computes; torch has single precision for it in a trace."""
    names = ("input", "size", "scale_factor", "mode", "align_corners", "recompute_scale_factor")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    factor, computed = given.get("scale_factor"), given.get("recompute_scale_factor") or given.get("mode") == "area"
    if not computed or factor is None or given.get("size") is not None:
        return func(*args, **kwargs)
    with _torch.paused_tracing():
        count = given["input"].dim() - 2
    factors = factor if isinstance(factor, (tuple, list)) else [factor] * count
    sizes = [_double(Tensor.size(given["input"], 2 + dim)) * _double(each) for dim, each in enumerate(factors)]
    resized = {"size": [size.trunc().to(torch.int64) for size in sizes]}
    return func(**{**given, **resized, "scale_factor": None, "recompute_scale_factor": None})


def _see_contains(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    with _torch.paused_tracing():
        value = func(*args, **kwargs)
    found = (args[0] == args[1]).any()
    if watch.varies(found):
        watch.leak(CONTAINS, found, value)
    return value


_SEEN: dict[Any, See] = {
    **dict.fromkeys((Tensor.__bool__, Tensor.is_nonzero, torch.is_nonzero), _number(BOOL)),
    Tensor.__int__: _number(INT),
    Tensor.__float__: _number(FLOAT),
    Tensor.__complex__: _number(FLOAT),
    Tensor.__index__: lambda watch, *called: _number(counts(user_frame()))(watch, *called),
    Tensor.item: _see_item,
    Tensor.tolist: _see_list,
    Tensor.numpy: _values(ARRAY),
    Tensor.__array__: _values(ARRAY),
    Tensor.__dlpack__: _values(LENT),
    Tensor.__format__: _values(TEXT),
    Tensor.__repr__: lambda watch, *called: spelled(called[1][0], _values(TEXT)(watch, *called)),
    Tensor.__len__: _see_len,
    **dict.fromkeys((Tensor.unbind, torch.unbind), _see_rows),
    **dict.fromkeys((Tensor.split, torch.split), _see_split),
    torch.nn.functional.interpolate: _see_resized,
    Tensor.__contains__: _see_contains,
    **answers.SEEN,
    **given.SEEN,
    **identity.SEEN,
    **lost.SEEN,
    **made.SEEN,
}
