"""What a model asks of a tensor besides its values, answered in the graph where TorchScript knows the question."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from .. import _torch
from .._sites import user_frame, user_site
from ..control.calls import call_at
from ..control.structure import tensors_of
from ..control.values import number_type
from .kinds import ARRAY, BOOL, FORMAT, LAYOUT, RESIZED
from .leaks import as_traced
from .numbers import is_number

if TYPE_CHECKING:
    from .watch import Watch


See: TypeAlias = "Callable[[Watch, Any, Any, Any], Any]"
"""What is done about one operation, given its function, arguments and keywords."""


def _see_strides(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    """Gives strides as traced numbers, as sizes are."""
    with _torch.paused_tracing():
        value = func(*args, **kwargs)
    if not watch.varies(args[0]):
        return value
    graph = _torch.current_graph()
    strides = _torch.insert(graph, "aten::stride", [_torch.value_of(args[0])], _torch.type_named("IntList"))

    def traced(dim: int, stride: int) -> Tensor:
        place = _torch.insert_constant(graph, dim)
        return as_traced(
            stride, _torch.insert(graph, "aten::__getitem__", [strides, place], _torch.type_named("IntType"))
        )

    if isinstance(value, int):
        return traced(args[1] if len(args) > 1 else kwargs["dim"], value)
    return tuple(traced(dim, stride) for dim, stride in enumerate(value))


_FORMATS = (torch.contiguous_format, torch.preserve_format, torch.channels_last, torch.channels_last_3d)
"""By the numbers that they are in TorchScript."""


def _see_contiguous(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    with _torch.paused_tracing():
        value = func(*args, **kwargs)
    if watch.varies(args[0]):
        graph, truth = _torch.current_graph(), _torch.type_named("BoolType")
        given = [_torch.value_of(args[0])]
        if kwargs:
            given.append(_torch.insert_constant(graph, _FORMATS.index(kwargs["memory_format"])))
        watch.leak(LAYOUT, as_traced(value, _torch.insert(graph, "aten::is_contiguous", given, truth)), value)
    return value


def _see_offset(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    """Gives the offset in memory as a traced number, as sizes are."""
    with _torch.paused_tracing():
        value = func(*args, **kwargs)
    if not watch.varies(args[0]):
        return value
    graph = _torch.current_graph()
    given = [_torch.value_of(args[0])]
    return as_traced(value, _torch.insert(graph, "aten::storage_offset", given, _torch.type_named("IntType")))


def _see_bytes(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    """Gives the size in bytes as a traced number, as sizes are."""
    if not watch.varies(args[0]):
        return func(*args, **kwargs)
    return args[0].numel() * args[0].element_size()


def _see_count(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    """Gives ``torch.numel(x)`` as ``x.numel()``, a traced number: the function alone makes a plain one."""
    return Tensor.numel(*args, **kwargs)


def _see_nonzeros(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    """Gives how many values a sparse tensor holds as a traced number."""
    if not watch.varies(args[0]):
        return func(*args, **kwargs)
    return (_torch.sparse_indices(args[0]) if args[0].layout is torch.sparse_coo else args[0].values()).size(-1)


def _see_compared(operator: str, *defaults: tuple[str, Any]) -> See:
    """Gives what compares two tensors as a traced truth: the tracer records nothing of it."""

    def see(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
        with _torch.paused_tracing():
            value = func(*args, **kwargs)
        tensors = [*args[:2], *(kwargs[name] for name in ("input", "other") if name in kwargs)]
        settings = [
            args[place] if len(args) > place else kwargs.get(name, default)
            for place, (name, default) in enumerate(defaults, 2)
        ]
        if not any(map(watch.varies, tensors)) or any(isinstance(each, Tensor) for each in settings):
            return value
        graph, truth = _torch.current_graph(), _torch.type_named("BoolType")
        given = [_torch.value_of(each) for each in tensors]
        given += [_torch.insert_constant(graph, each) for each in settings]
        return as_traced(value, _torch.insert(graph, operator, given, truth))

    return see


def _see_resized(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    given = [each for each in tensors_of((args, kwargs)) if watch.varies(each)]
    if given and not user_site().library:
        watch.leak(RESIZED, given[0], "a tensor")
    return func(*args, **kwargs)


def _see_format(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    """Sees what is asked of a tensor's layout; torch's own code is right for all that it takes."""
    with _torch.paused_tracing():
        value = func(*args, **kwargs)
    if not watch.varies(args[0]) or user_site().library:
        return value
    graph, given = _torch.current_graph(), _torch.value_of(args[0])
    number, truth = _torch.type_named("IntType"), _torch.type_named("BoolType")
    name = func.__self__.__name__
    if name in _OF_FORMAT:
        answer = as_traced(value, _torch.insert(graph, f"prim::{name}", [given], truth))
        watch.leak(FORMAT, answer, value)
        return value
    asked = _torch.insert(graph, "prim::layout", [given], number)
    same = _torch.insert(graph, "aten::eq", [asked, _torch.insert_constant(graph, args[0].layout)], truth)
    watch.leak(FORMAT, as_traced(True, same), True)
    return value


def _see_sparse(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    """Keeps traced sizes given to a constructor of sparse tensors, which the tracer takes for plain numbers."""
    result = func(*args, **kwargs)
    sizes = kwargs.get("size", next((each for each in args if isinstance(each, (tuple, list))), ()))
    if any(isinstance(each, Tensor) for each in sizes):
        values = [_torch.value_of(each) if isinstance(each, Tensor) else None for each in sizes]
        _torch.set_sizes(_torch.value_of(result), values)
    return result


def _see_new(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    """Keeps traced sizes given to ``x.new``, which the tracer takes for plain numbers."""
    tensor, *sizes = args
    if len(sizes) == 1 and isinstance(sizes[0], torch.Size):
        sizes = list(sizes[0])
    traced = any(isinstance(each, Tensor) for each in sizes)
    if traced and all(number_type(each) == "int" for each in sizes):
        return tensor.new_empty(sizes, **kwargs)
    return func(*args, **kwargs)


def _see_assignment(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    """Writes a part of a tensor that is broadcast: the tracer keeps the size that it is broadcast to, or cut to."""
    tensor, index, value = args
    parts = index if isinstance(index, tuple) else (index,)
    if not isinstance(value, Tensor):
        return func(*args, **kwargs)
    if not all(map(_is_place, parts)):
        with _torch.paused_tracing():
            fits = value.device == tensor.device and value.dim() <= tensor[index].dim()
            fits &= all(isinstance(part, Tensor) and part.dim() > 0 for part in parts)
            ones = next((place for place, size in enumerate(value.shape) if size != 1), value.dim())
        if fits:  # the program is then the same for one row and for more
            call_at(user_frame() or sys._getframe(), Tensor.index_put_, (tensor, parts, value), kwargs)
            return None
        for _ in range(ones):
            value = value.squeeze(0)
        return func(tensor, index, value)
    with _torch.paused_tracing():
        into = tensor[index]
        more = value.dim() - into.dim()
        ones = all(size == 1 for size in value.shape[: max(more, 0)])
        single, plain = not value.dim(), not ones or value.shape == into.shape
    if single:  # torch fills with one, which may be one of several at another size: of x.squeeze(), say
        plain = is_number(value)
    if plain:
        return func(*args, **kwargs)
    for _ in range(more):
        value = value.squeeze(0)
    tensor[index].copy_(value)
    return None


def _see_beside_numpy(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    """Computes ``array / size`` as NumPy does in eager mode: with a number, in 64 bits."""
    size, other = args
    of_python = type(other).__name__ in ("int64", "float64")  # NumPy's numbers that are what Python's are
    if type(other).__module__ != "numpy" or of_python or not is_number(size):
        if func is Tensor.__rpow__ and isinstance(other, int) and is_number(size):
            _check_exponent(watch, size)
        return watch.called(func, args, kwargs, user_frame() or sys._getframe())
    with _torch.paused_tracing():
        number = size.item()
    if watch.varies(size):
        watch.leak(ARRAY, size, number)
    return _REFLECTED[func](other, number)


def _check_exponent(watch: Watch, exponent: Tensor) -> None:
    """Sees which kind of number ``2 ** n`` is: Python's is a fraction where n is negative, torch's no number at all."""
    with _torch.paused_tracing():
        whole = not exponent.is_floating_point() and not exponent.is_complex()
        counts = bool(exponent >= 0) if whole else True
    if whole and watch.varies(exponent):
        watch.leak(BOOL, exponent >= 0, counts)


def _is_place(part: object) -> bool:
    """Whether a part of an index gives a view."""
    if isinstance(part, Tensor):
        with _torch.paused_tracing():
            return part.dim() == 0 and part.dtype in (torch.int64, torch.int32)
    return part is None or part is Ellipsis or isinstance(part, slice) or type(part) is int


_SPARSE = ["sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc", "sparse_compressed"]
_OF_FORMAT = ("is_sparse", "is_mkldnn", "is_quantized", "is_nested")
"""What TorchScript knows too; of the rest a file checks the layout."""
_REFLECTED: dict[Any, Callable[[Any, Any], Any]] = {
    vars(Tensor)[f"__r{name}__"]: getattr(operator, name) for name in ("truediv", "floordiv", "pow", "sub", "mod")
}
SEEN: dict[Any, See] = {
    **dict.fromkeys((getattr(torch, f"{name}_tensor") for name in _SPARSE), _see_sparse),
    Tensor.__setitem__: _see_assignment,
    **dict.fromkeys(_REFLECTED, _see_beside_numpy),
    Tensor.new: _see_new,
    torch.numel: _see_count,
    _torch.sparse_count: _see_nonzeros,
    Tensor.stride: _see_strides,
    Tensor.is_contiguous: _see_contiguous,
    Tensor.storage_offset: _see_offset,
    **{getattr(Tensor, name).__get__: _see_bytes for name in ("nbytes",)},
    **{getattr(Tensor, name).__get__: _see_format for name in (*_OF_FORMAT, "is_sparse_csr", "layout")},
    **dict.fromkeys((Tensor.resize_, Tensor.resize_as_), _see_resized),
    Tensor.is_set_to: _see_compared("aten::is_set_to"),
    _torch.left_aligned: _see_compared("aten::_nested_tensor_from_mask_left_aligned"),
    **dict.fromkeys((Tensor.equal, torch.equal), _see_compared("aten::equal")),
    **dict.fromkeys((Tensor.is_same_size, torch.is_same_size), _see_compared("aten::is_same_size")),
    **dict.fromkeys(
        (Tensor.allclose, torch.allclose),
        _see_compared("aten::allclose", ("rtol", 1e-5), ("atol", 1e-8), ("equal_nan", False)),
    ),
}
