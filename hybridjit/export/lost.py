"""Copies and aliases of tensors that a trace does not hear of: recorded as what they are, or refused."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import _torch
from .._describe import place
from .._errors import CaptureError, compose
from .._sites import is_users, user_frame
from ..control.calls import call_at
from ..control.guards import insert_guard
from ..control.recorder import active
from ..control.structure import tensors_of
from .contents import whereabouts
from .kinds import ADDRESS, LOST, SLOPE
from .leaks import as_traced

if TYPE_CHECKING:
    from .answers import See
    from .watch import Watch


def _recorded(func: Any, tensor: Tensor) -> Tensor:
    """What an operation gives for a tensor, as if called from the user's line."""
    made: Tensor = call_at(user_frame() or sys._getframe(), func, (tensor,), {})
    return made


def _see_data(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    """Gives ``x.data``, of which the tracer would make a constant, as an alias without gradient."""
    return _recorded(Tensor.detach, args[0])


def _see_copied(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    """Gives ``copy.deepcopy(x)`` the value that ``x.clone()`` has."""
    with _torch.paused_tracing():
        made = func(*args, **kwargs)
    _torch.bind_value(made, _torch.value_of(_recorded(Tensor.clone, args[0])))
    return made


def _see_laid_out(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    """Gives what is contiguous already as another tensor of its memory: with other strides it is a copy.

    The tensor itself, as eager mode gives it, would stand for the copy in all that follows.
    """
    before = _torch.known_value(args[0])
    made = func(*args, **kwargs)
    if made is not args[0] or before is None or not watch.varies(made):
        return made
    with _torch.paused_tracing():
        alias = made.detach()
    _torch.bind_value(alias, _torch.value_of(made))
    _torch.bind_value(made, before)
    return alias


def _see_given_data(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    """Sees ``x.data = y``; a weight has the new value from there on."""
    tensor, data = args
    with _torch.paused_tracing(), _torch.unwatched():
        if whereabouts(tensor) == whereabouts(data):  # as of layer.to(dtype), where it has that already
            func(tensor, data)
            return
    weight = _torch.value_of(tensor).node().kind() == "prim::TracedAttr"
    if watch.varies(data) and not (weight and active() is None):  # a run of another path would find the old one
        watch.leak(LOST, data, "a tensor")
    alias = _recorded(Tensor.detach, data)
    func(tensor, data)
    _torch.bind_value(tensor, _torch.value_of(alias))


def _see_applied(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    """Sees what Python code writes number by number."""
    for each in args[:2]:
        if isinstance(each, Tensor) and watch.varies(each):
            watch.leak(LOST, each, "a tensor")
    return func(*args, **kwargs)


def _see_gradients(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    """Sees gradients: what computes them has every size as the number that it was."""
    for tensor in filter(watch.varies, tensors_of((args, kwargs))):
        for dim in range(tensor.dim()):
            with _torch.paused_tracing():
                number = tensor.size(dim)
            size = Tensor.size(tensor, dim)  # a tensor, in a trace
            if isinstance(size, Tensor) and watch.varies(size):
                watch.leak(SLOPE, size, number)
    return func(*args, **kwargs)


def _see_address(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    with _torch.paused_tracing():
        value = func(*args, **kwargs)
    if watch.varies(args[0]) and not _asked_by_torch():
        watch.leak(ADDRESS, args[0], _ADDRESS)
    return value


def _asked_by_torch() -> bool:
    """Whether code of torch's stands between the user's and an operation, besides what calls the operation."""
    asking: FrameType | None = sys._getframe(2)
    while asking is not None and not is_users(asking.f_code.co_filename):
        module = str(asking.f_globals.get("__name__"))
        calls = module == "torch.overrides" or asking.f_code is Tensor.storage.__code__
        if module.startswith("torch.") and not calls:
            return True
        asking = asking.f_back
    return False


_ADDRESS = "an address"
"""Which address it was is of no interest: the next call has another one."""


def see_lost(watch: Watch, args: Any, kwargs: Any, made: Sequence[Tensor]) -> None:
    """Sees what an operation made of tensors that vary, if it is a constant for the tracer."""
    if not any(map(_torch.is_constant, made)):
        return
    given = tensors_of((args, kwargs))
    source = next(filter(watch.varies, given), None)
    for each in made:
        if source is not None and _torch.is_constant(each) and not any(each is one for one in given):
            watch.leak(LOST, source, "a tensor")


def keep_counts(results: Sequence[Tensor]) -> None:
    """Has the running trace check into how many parts tensors are taken: that is a Python number from the start.

    Where nothing but the number is used, the tracer leaves out what takes the tensor apart. Where the parts are, torch
    checks it, and says no line.

    Args:
        results: What is returned in the end.
    """
    graph = _torch.current_graph()
    returned = {_torch.value_of(each).unique() for each in results}
    point = graph.insertPoint()
    for node in graph.findAllNodes("prim::ListUnpack", True):
        parts, count = node.input().node(), node.outputsSize()
        if parts.kind() not in _PARTS:
            continue
        used = any(each.uses() or each.unique() in returned for each in node.outputs())
        if used and parts.inputsSize() > 1 and parts.kind() in _COUNTED and parts.inputsAt(1).toIValue() == count:
            continue
        file, line, _ = _torch.source_of(parts)
        graph.setInsertPoint(node if used else node.owningBlock())
        length = _torch.insert(graph, "aten::len", [node.input()], _torch.type_named("IntType"))
        says = f"value frozen at {place(file, line)}: the number of parts, captured {count}"
        fix = "an operation on the whole tensor, or hj.map" if used else "x.shape[0] for len(x.unbind())"
        insert_guard(as_traced(count, length), [count], says, f"write {fix}")
    graph.setInsertPoint(point)


_COUNTED = ("aten::chunk", "aten::tensor_split")
"""What is told how many parts there are."""
_PARTS = tuple(f"aten::{name}" for name in ("unbind", "split", "chunk", "tensor_split", "hsplit", "vsplit", "dsplit"))


@contextlib.contextmanager
def copying() -> Iterator[None]:
    """Has ``copy.copy`` of a traced tensor give an alias that the trace knows, within the body."""
    reduced: Any = Tensor.__reduce_ex__

    def alias(self: Tensor) -> Any:
        make, given, *state = reduced(self, 4)[:3]
        made = make(*given)
        if state and state[0]:
            made.__setstate__(state[0])
        if _torch.tracing_state() is not None:
            _torch.bind_value(made, _torch.value_of(_recorded(Tensor.detach, self)))
        return made

    type.__setattr__(Tensor, "__copy__", alias)
    try:
        yield
    finally:
        type.__delattr__(Tensor, "__copy__")


def refuse_caught(raised: Sequence[Exception]) -> None:
    """Refuses a model that went on after an operation raised, as it may not do for other inputs.

    Raises:
        CaptureError: An exception was caught by code of the user's.
    """
    for error in raised:
        caught = error.__traceback__  # from where it was caught down to where it was raised
        if caught is not None and is_users(caught.tb_frame.f_code.co_filename):
            raise CaptureError(
                compose(
                    f"an operation raises, and {caught.tb_frame.f_code.co_name} goes on: no file can do that",
                    where=place(caught.tb_frame.f_code.co_filename, caught.tb_lineno),
                    differences=[f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"],
                    instead="an if on what the operation needs (if x.shape[0] > 60: ...) in place of the except",
                    page="captureerror",
                )
            ) from error


def refuse_generators(module: _torch.ScriptModule) -> None:
    """Refuses a new trace that draws from a generator of its own: its state goes on from call to call of the file.

    Raises:
        CaptureError: An operation was given a ``torch.Generator``.
    """
    for part in module.modules():
        if not isinstance(part, _torch.ScriptModule) or not _torch.is_traced(part):
            continue
        for graph in _torch.method_graphs(part).values():
            for node in _torch.every_node(graph):
                if any(_torch.kind(value.type()) == "GeneratorType" for value in node.inputs()):
                    file, line, _ = _torch.source_of(node)
                    raise CaptureError(
                        compose(
                            "a torch.Generator is given to an operation: its state is no part of a file, where each "
                            "call goes on from the one before",
                            where=place(file, line) if file else "",
                            differences=[f"generator= of {node.kind().replace('aten::', 'torch.')}"],
                            instead="torch.manual_seed(seed) before it, which the file does at each call, "
                            "or the random numbers as an argument",
                            page="captureerror",
                        )
                    )


_PROPERTIES: Any = Tensor
APART: tuple[Any, ...] = (_PROPERTIES.grad.__get__,)
"""What gives another tensor than one that is made of its own: the gradient of a weight is none of a call's."""
SEEN: dict[Any, See] = {
    _PROPERTIES.data.__get__: _see_data,
    _PROPERTIES.data.__set__: _see_given_data,
    Tensor.__deepcopy__: _see_copied,
    Tensor.contiguous: _see_laid_out,
    **dict.fromkeys((Tensor.apply_, Tensor.map_, Tensor.map2_, Tensor.backward), _see_applied),
    torch.autograd.grad: _see_gradients,
    **dict.fromkeys((Tensor.data_ptr, Tensor.untyped_storage, Tensor.storage), _see_address),
}
