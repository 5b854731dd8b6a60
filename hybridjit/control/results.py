"""What the sides of a branch give, and what becomes of each leaf in a graph that needs them alike."""

from __future__ import annotations

import dis
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import _torch
from .._describe import describe, place
from .._errors import CaptureError, HybridJitError, compose
from .._sites import innermost, user_site
from . import record
from .scout import SYMBOLIC, Scout
from .structure import Flat, check_same, flatten, spell_function

_DTYPES: dict[type, torch.dtype] = {bool: torch.bool, int: torch.int64, float: torch.float64}
_SYMBOLIC_DTYPES = dict(zip(SYMBOLIC, (torch.int64, torch.float64, torch.bool), strict=True))
_RAISE = dis.opmap["RAISE_VARARGS"]


class ScriptedRaise(RuntimeError):
    """What a compiled piece raises, as its own code says it, at a place."""

    def __init__(self, text: str, where: str) -> None:
        super().__init__(text)
        self.where = where


@dataclass(frozen=True)
class Slot:
    """What becomes of one leaf of a result.

    Attributes:
        tensor: Whether it is a tensor in the graph; else it is ``value`` on both sides.
        value: An example.
        layout: ``"copied"`` or ``"contiguous"`` where the sides differ in how they lie in memory.
        copies: Per side, whether it is a tensor from outside or a second name for another result.
    """

    tensor: bool
    value: Any
    layout: str = ""
    copies: tuple[bool, ...] = ()


def attempt(scout: Scout, sides: Sequence[Callable[[], Any]]) -> list[Any]:
    """Runs both sides of a branch; one whose own code raises is its exception, for a raise in the graph."""
    runs: list[Any] = []
    for side in sides:
        try:
            flat = flatten(side())
        except HybridJitError:
            raise
        except Exception as error:
            if not _raised_by_model(error) or any(isinstance(run, Exception) for run in runs):
                raise
            runs.append(error)
        else:
            runs.append(Flat([scout.inside(leaf) for leaf in flat.leaves], flat.paths, flat.spec))
    return runs


def _raised_by_model(error: Exception) -> bool:
    """Whether a ``raise`` or ``assert`` outside of torch raised an error, rather than an operation."""
    if isinstance(error, ScriptedRaise):
        return True
    trace = innermost(error)
    if trace is None or user_site(frame=trace.tb_frame).file != trace.tb_frame.f_code.co_filename:
        return False
    return trace.tb_frame.f_code.co_code[trace.tb_lasti] == _RAISE


def match(what: str, scout: Scout, sides: Sequence[Callable[[], Any]], runs: Sequence[Any]) -> tuple[Flat, list[Slot]]:
    """Compares the results of both sides, and says what becomes of each leaf.

    Raises:
        CaptureError: They differ in structure, dtype, device or number of dimensions.
    """
    flats = [run for run in runs if isinstance(run, Flat)]
    first, second = flats[0], flats[-1]
    where = str(user_site(record.current().names))
    names = (spell_function(sides[0]), spell_function(sides[1]))
    if first.spec != second.spec:
        check_same(what, where, names, (first, second))
    pairs = list(zip(first.leaves, second.leaves, strict=True))
    rows = [
        f"result{path}: {names[0]} gives {describe(a)}, {names[1]} {describe(b)}"
        for path, (a, b) in zip(first.paths, pairs, strict=True)
        if _kind(a, b, scout) != _kind(b, a, scout)
    ]
    if rows:
        instead = "the same dtype, device and number of dimensions on both sides: result.to(x), x.new_zeros(())"
        raise CaptureError(compose(what, where=where, differences=rows, instead=instead, page="branches-that-differ"))
    outside = [_torch.storage_key(tensor) for tensor in scout.stand_ins()]
    copies = [_copies(flat.leaves, list(outside)) for flat in flats]
    if len(flats) == 1:
        copies *= 2
    return first, [
        Slot(False, a) if _is_static(a, b, scout) else Slot(True, a, _layout(a, b), flags)
        for a, b, *flags_ in zip(first.leaves, second.leaves, *copies, strict=True)
        for flags in [tuple(flags_)]
    ]


def _copies(leaves: Sequence[Any], known: list[int]) -> list[bool]:
    found = []
    for leaf in leaves:
        key = _torch.storage_key(leaf) if isinstance(leaf, Tensor) else -1
        found.append(key in known)
        if key != -1:
            known.append(key)
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two numbers or other values are equal, without a guess about a size."""
    if isinstance(one, SYMBOLIC) or isinstance(other, SYMBOLIC):
        return type(one) is type(other) and one.node.expr == other.node.expr
    return type(one) is type(other) and bool(one is other or one == other)


def _is_static(leaf: Any, other: Any, scout: Scout) -> bool:
    if isinstance(leaf, Tensor) or isinstance(other, Tensor):
        return False
    return same(leaf, other) and not (isinstance(leaf, SYMBOLIC) and scout.is_inner(leaf))


def dtype_of(leaf: Any) -> torch.dtype | None:
    """The dtype of a tensor, or of a number that becomes one."""
    if isinstance(leaf, Tensor):
        return leaf.dtype
    return _DTYPES.get(type(leaf)) or _SYMBOLIC_DTYPES.get(type(leaf))


def _kind(leaf: Any, other: Any, scout: Scout) -> str:
    """What both sides must have alike, spelled."""
    dtype = dtype_of(leaf)
    if dtype is None or _is_static(leaf, other, scout):
        return repr(leaf)
    device = next((str(each.device) for each in (leaf, other) if isinstance(each, Tensor)), "cpu")
    dimensions = leaf.dim() if isinstance(leaf, Tensor) else 0
    return f"{str(dtype).removeprefix('torch.')} of {dimensions} dimensions, {device}"


def _layout(one: Any, other: Any) -> str:
    """What has to be done about the memory of two tensors: the operator merges sizes of dense ones in one order."""
    if not isinstance(one, Tensor) or not isinstance(other, Tensor) or one.layout != torch.strided:
        return ""
    pairs = zip((*one.shape, *one.stride()), (*other.shape, *other.stride()), strict=True)
    if not one.storage_offset() and not other.storage_offset() and all(same(a, b) for a, b in pairs):
        return ""
    return "copied" if _order(one) == _order(other) else "contiguous"


def _order(tensor: Tensor) -> list[int]:
    """The dimensions, those whose neighbours are closest in memory first, as far as that is known."""
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    strides = tensor.stride()

    def compare(one: int, other: int) -> int:
        if same(strides[one], strides[other]):
            return 0
        if statically_known_true(strides[one] <= strides[other]):
            return -1
        return int(statically_known_true(strides[one] >= strides[other]))

    return sorted(reversed(range(tensor.dim())), key=functools.cmp_to_key(compare))


def settle(leaf: Any, slot: Slot, copy: bool) -> Tensor:
    """Makes a result a tensor of its own, as the other side has it."""
    if not isinstance(leaf, Tensor):
        device = slot.value.device if isinstance(slot.value, Tensor) else "cpu"
        return torch.full((), leaf, dtype=dtype_of(leaf), device=device)
    if slot.layout == "contiguous":
        return leaf.clone(memory_format=torch.contiguous_format)
    return leaf.clone() if copy or slot.layout else leaf


def spell_error(error: Exception) -> str:
    """What a side raised, and where."""
    if isinstance(error, ScriptedRaise):
        return f"{error} (raised at {error.where})"
    trace = innermost(error)
    where = f" at {place(trace.tb_frame.f_code.co_filename, trace.tb_lineno)}" if trace else ""
    return f"{type(error).__name__}{where}: {error}"


def unread(slots: Sequence[Slot]) -> tuple[Tensor, ...]:
    """Results of the other side's kind, for a side that raises."""
    made = []
    for slot in slots:
        if slot.tensor:
            value = slot.value if isinstance(slot.value, Tensor) else settle(slot.value, slot, False)
            sizes = [0 if isinstance(size, torch.SymInt) else size for size in value.shape]
            made.append(torch.zeros(sizes, dtype=value.dtype, device=value.device))
    return tuple(made)


def truth(pred: Any) -> bool | None:
    """The truth of a predicate that has one while the graph is made."""
    if isinstance(pred, Tensor):
        return None
    if not isinstance(pred, SYMBOLIC):
        return bool(pred)
    from torch.fx.experimental.symbolic_shapes import statically_known_false, statically_known_true

    holds = pred if isinstance(pred, torch.SymBool) else pred != 0
    if statically_known_true(holds):
        return True
    return False if statically_known_false(holds) else None


def as_condition(pred: Any) -> Any:
    """A predicate as the operators take it: a bool tensor of no dimensions, or a comparison of sizes."""
    if not isinstance(pred, Tensor):
        return pred if isinstance(pred, (bool, torch.SymBool)) else pred != 0
    if pred.dtype != torch.bool:
        pred = pred != 0
    return pred.reshape(()) if pred.dim() else pred
