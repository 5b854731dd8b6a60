"""A second device without hardware: ``elsewhere:0``, which computes real values in the CPU's memory.

torch takes it for a backend like any other: device guards, `torch.accelerator`, ``.to``, ``map_location``.
A tensor there has a storage of its own without memory; the CPU storage with the values hangs on it as
``.values``. Operations without a kernel of their own run on the CPU by one fallback. As on CUDA, an operation
on tensors of two devices raises, apart from CPU tensors of no dimensions in pointwise operations.

One thing differs: what a factory (``torch.zeros``) makes there is a constant in a trace made there, since C++
copies a tensor that Python holds too, and the tracer loses sight of it.

Registering it is for good, and gives the whole process an accelerator: `conftest.py` runs what needs it in a
process of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration

_C: Any = torch._C
_META = _C.DispatchKeySet(_C.DispatchKey.Meta)
_VIEWS = ("as_strided", "view", "_reshape_alias", "unfold")
"""Operations whose kernels for ``meta`` do all there is to do: sizes, strides and the storage, no values."""
_INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")
"""Operations whose second argument may be on the CPU, as on CUDA: the indices."""
_size = torch.ops.aten.size.default
"""The sizes; ``tensor.size()`` would be recorded, in a trace, though the kernel runs below the tracer."""
_unseen = _C.DisableTorchFunction
"""Hides what a kernel does from function modes."""


class _Module:
    """What torch looks for as ``torch.elsewhere``."""

    default_generators: tuple[torch.Generator, ...] = (torch.default_generator,)

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """The CPU's generator draws the numbers."""

    def get_rng_state(self, device: Any = 0) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: Any = 0) -> None:
        torch.set_rng_state(state)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


class _Blank(Tensor):
    """Only this way does Python get a storage on another device with a size and no memory."""

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise NotImplementedError


def _storage(values: Any) -> Any:
    """A storage on the device for CPU memory."""
    blank = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
        _Blank,
        (values.nbytes(),),
        dtype=torch.uint8,
        device=torch.device("elsewhere", 0),
        storage_size=values.nbytes(),
    )
    storage: Any = blank.untyped_storage()
    storage.values = values
    return storage


def _point(tensor: Tensor, storage: Any, like: Tensor) -> Tensor:
    """Points a tensor of the device to a storage, with another one's sizes."""
    place = storage, like.storage_offset(), _size(like), like.stride()
    torch.ops.aten.set_.source_Storage_storage_offset.redispatch(_META, tensor, *place)
    return tensor


def _on_device(values: Tensor, storage: Any = None) -> Tensor:
    made: Tensor = _C._acc.create_empty_tensor((0,), values.dtype)
    return _point(made, storage or _storage(values.untyped_storage()), values)


def _is_here(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == "elsewhere"


def _values(tensor: Tensor) -> Tensor:
    """The CPU tensor behind one of the device."""
    made = torch.empty(0, dtype=tensor.dtype)
    storage: Any = tensor.untyped_storage()
    return made.set_(storage.values, tensor.storage_offset(), _size(tensor), tensor.stride())


def _is_pointwise(op: Any) -> bool:
    packet = op.overloadpacket
    return any(torch.Tag.pointwise in getattr(packet, name).tags for name in packet.overloads())


def _refuse_mixing(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    indexing = op.overloadpacket.__name__ in _INDEXING and _is_here(args[0])
    held = [value for position, value in enumerate(args) if not (indexing and position == 1)] + list(kwargs.values())
    scalars = indexing or _is_pointwise(op)
    for value in (item for each in held for item in (each if isinstance(each, (list, tuple)) else [each])):
        if isinstance(value, Tensor) and value.device.type != "elsewhere" and not (scalars and value.dim() == 0):
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"elsewhere:0 and {value.device}! (in {op.name()})"
            )


def _fallback(op: Any, *args: Any, **kwargs: Any) -> Any:
    with _unseen():
        _refuse_mixing(op, args, kwargs)
        # A boxed kernel is given a truth for the tensor that Python's ``tensor & True`` makes of it.
        kinds = [str(argument.type) for argument in op._schema.arguments]
        pairs = zip(args, kinds, strict=False)
        whole = tuple(
            torch.tensor(each) if isinstance(each, bool) and kind == "Tensor" else each for each, kind in pairs
        )
        return _run(op, whole, kwargs)


def _run(op: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Runs an operation on the CPU; what shares memory there shares a storage on the device."""
    pairs: list[tuple[Tensor, Tensor]] = []

    def lower(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [lower(item) for item in value]
        if _is_here(value):
            pairs.append((_values(value), value))
            return pairs[-1][0]
        return torch.device("cpu") if isinstance(value, torch.device) and value.type == "elsewhere" else value

    def lift(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(lift(item) for item in value)
        if not isinstance(value, Tensor):
            return value
        for cpu, tensor in pairs:
            if cpu is value:
                return tensor
        for cpu, tensor in pairs:
            if cpu.untyped_storage()._cdata == value.untyped_storage()._cdata:
                return _on_device(value, tensor.untyped_storage())
        return _on_device(value)

    result = op(*map(lower, args), **{key: lower(value) for key, value in kwargs.items()})
    for cpu, tensor in pairs:  # an operation may have changed the sizes of what it writes to
        storage: Any = tensor.untyped_storage()
        values = cpu.untyped_storage()
        if storage.values._cdata != values._cdata or storage.nbytes() != values.nbytes():
            _point(tensor, _storage(values), cpu)
        elif _place(cpu) != _place(tensor):
            _point(tensor, storage, cpu)
    return lift(result)


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return _size(tensor), tensor.stride(), tensor.storage_offset()


# --- kernels of its own -------------------------------------------------------------------------


def _empty(size: Any, *, dtype: Any = None, memory_format: Any = None, **_: Any) -> Tensor:
    with _unseen():
        return _on_device(torch.empty(size, dtype=dtype, memory_format=memory_format))


def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> Tensor:
    with _unseen():
        return _on_device(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    with _unseen():
        to, given = (_values(each) if _is_here(each) else each for each in (target, source))
        to.copy_(given)
        return target


def _set_storage(self: Tensor, storage: Any, offset: Any = 0, size: Any = None, stride: Any = ()) -> Tensor:
    with _unseen():
        count = storage.nbytes() // self.element_size()
        like = torch.empty(0, dtype=self.dtype).set_(storage.values, offset, size or (count,), stride or (1,))
        return _point(self, storage, like)


def _pin_memory(self: Tensor, device: Any = None) -> Tensor:
    with _unseen():
        return self.clone()  # no memory is pinned here, but a copy is made


def _convolution(*args: Any) -> Any:
    with _unseen():
        return _run(torch.ops.aten.convolution, args, {})


def _lstm_cell(gates_x: Any, gates_h: Any, cell: Any, bias_x: Any = None, bias_h: Any = None) -> Any:
    def compute(gates_x: Any, gates_h: Any, cell: Any, bias_x: Any, bias_h: Any) -> Any:
        gates = gates_x + gates_h + (0 if bias_x is None else bias_x + bias_h)
        i, f, g, o = gates.chunk(4, 1)
        after = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        return o.sigmoid() * after.tanh(), after, gates

    with _unseen():
        return _run(compute, (gates_x, gates_h, cell, bias_x, bias_h), {})


def _gru_cell(gates_x: Any, gates_h: Any, hidden: Any, bias_x: Any = None, bias_h: Any = None) -> Any:
    def compute(gates_x: Any, gates_h: Any, hidden: Any, bias_x: Any, bias_h: Any) -> Any:
        one = gates_x + (0 if bias_x is None else bias_x)
        other = gates_h + (0 if bias_h is None else bias_h)
        (reset_x, keep_x, new_x), (reset_h, keep_h, new_h) = one.chunk(3, 1), other.chunk(3, 1)
        new = (new_x + (reset_x + reset_h).sigmoid() * new_h).tanh()
        return new + (keep_x + keep_h).sigmoid() * (hidden - new), one

    with _unseen():
        return _run(compute, (gates_x, gates_h, hidden, bias_x, bias_h), {})


def _view(name: str) -> Callable[..., Any]:
    op = getattr(torch.ops.aten, name).default

    def kernel(*args: Any, **kwargs: Any) -> Any:
        with _unseen():
            return op.redispatch(_META, *args, **kwargs)

    return kernel


_libraries: list[Any] = []


def register() -> None:
    """Adds the device to this process, once."""
    if _libraries:
        return
    setup: Any = backend_registration._setup_privateuseone_for_python_backend
    setup("elsewhere", backend_module=_Module())
    everything = torch.library.Library("_", "IMPL")
    everything.fallback(_fallback, "PrivateUse1")
    aten = torch.library.Library("aten", "IMPL")
    kernels: dict[str, Any] = {
        "empty.memory_format": _empty,
        "empty_strided": _empty_strided,
        "_copy_from": _copy_from,
        "set_.source_Storage": _set_storage,
        "set_.source_Storage_storage_offset": _set_storage,
        "convolution_overrideable": _convolution,
        "_thnn_fused_lstm_cell": _lstm_cell,
        "_thnn_fused_gru_cell": _gru_cell,
        **{name: _view(name) for name in _VIEWS},
    }
    for name, kernel in kernels.items():
        aten.impl(name, kernel, "PrivateUse1")
    aten.impl("_pin_memory", _pin_memory, "CPU")
    aten.impl("_pin_memory", _pin_memory, "PrivateUse1")
    _libraries.extend([everything, aten])
    # What Python asks a storage for, or makes of it, would need an allocator in C++.
    storage: Any = torch.UntypedStorage
    plain_clone, plain_pointer = storage.clone, storage.data_ptr

    def clone(self: Any) -> Any:
        return plain_clone(self) if self.device.type != "elsewhere" else _storage(self.values.clone())

    def data_ptr(self: Any) -> int:
        return int(plain_pointer(self if self.device.type != "elsewhere" else self.values))

    storage.clone, storage.data_ptr = clone, data_ptr
