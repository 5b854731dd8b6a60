"""Branches and loop bodies as blocks of the running trace's graph."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Protocol

from .. import _torch
from .._errors import HybridJitError
from .._sites import Site, innermost, is_raise, user_site
from . import record
from .points import TRUTH, note
from .recorder import Frame, Recorder, watching
from .structure import Flat, check_same, flatten, is_static


@dataclass
class Side:
    """A function that ran in a block.

    Attributes:
        block: Its block.
        frame: What was made in it.
        result: What it returned; ``None`` if it raised.
        raised: What it raised, as ``ValueError: …``, and where.
    """

    block: Any
    frame: Frame
    result: Flat | None
    raised: str = ""


class EverySideRaisesError(Exception):
    """Both sides of a branch raise, each what it has to say."""


class Beside(Protocol):
    """What the sides of a branch leave behind besides their results."""

    def pairs(self) -> list[tuple[Any, Any]]:
        """What they leave different: tensors and numbers, of the one side and of the other; the same if one raises."""

    def join(self, values: list[Any]) -> None:
        """Is given what the branch gives for each pair."""


def run_side(
    recorder: Recorder,
    block: Any,
    says: str,
    fn: Callable[..., Any],
    operands: Sequence[Any],
    must: bool,
    ends: bool = False,
    instead: Callable[[], Iterable[Callable[[], Any]]] = tuple,
) -> Side:
    """Runs a function, its operations recorded into a block.

    Args:
        recorder: The recorder of the trace.
        block: The block, empty.
        says: What it is, for messages.
        fn: The function.
        operands: Its arguments.
        must: Whether eager mode would run it too, so that what it raises is the model's answer.
            Otherwise the example's data may contradict it: then it becomes a raise.
        ends: Whether nothing but the function's result is used afterwards.
        instead: What may record the side where the example's data contradict it.
    """
    graph = _torch.current_graph()

    def recorded(run: Callable[[], Any], through: type[Exception] | tuple[()]) -> Side:
        with recorder.block(says, ends=ends) as frame, _torch.recording_into(graph, block):
            try:
                return Side(block, frame, flatten(run()))
            except through:
                recorder.raised_within += 1
                raise
            except EverySideRaisesError:
                return Side(block, Frame(says), None, _EACH)
            except Exception as error:
                names = record.current().names
                last = innermost(error)
                site = user_site(names, last.tb_frame if last else None)
                raised = f"{type(error).__name__}: {error} (raised at {site})"
                if not is_raise(error):  # but an operation that the example's data do not fit
                    raised = f"{_UNKNOWN}: {raised}; export the model with an input that takes it among check_inputs"
                return Side(block, Frame(says), None, f"hybridjit: {raised}")

    failed = record.current().failed
    count = len(failed)
    side = own = recorded(functools.partial(fn, *operands), Exception if must else HybridJitError)
    others = iter(instead() if side.result is None else ())
    while side.result is None:
        del failed[count:]  # it is a raise of the file
        other = next(others, None)
        if other is None and side.raised == _EACH:
            return side
        _empty(graph, block)
        if other is None:
            with _torch.recording_into(graph, block):
                _torch.insert_raise(graph, own.raised)
            return own
        side = recorded(other, ())
    return side


_UNKNOWN = "a path that no known input takes, and on which the traced one raises"
_EACH = "what each of its own sides raises"


def _empty(graph: _torch.Graph, block: Any) -> None:
    """Takes what was recorded into a block out of it again."""
    with _torch.recording_into(graph, block):
        with _torch.unwatched():  # or the next select would get the index of an x[i] that raised
            torch.zeros(1).select(0, 0)
        _torch.erase_after((block, 0))


def as_tensor(leaf: Any) -> Tensor:
    """A leaf that a graph carries: a number as a tensor of no dimensions, of the dtype that its type has."""
    if isinstance(leaf, Tensor):
        return _settled(leaf)
    with _torch.paused_tracing():
        return torch.tensor(leaf, dtype=torch.float64 if isinstance(leaf, float) else None)


def _rank(leaf: Any) -> int:
    with _torch.paused_tracing(), _torch.unwatched():
        return leaf.dim() if isinstance(leaf, Tensor) else 0


def _settled(tensor: Tensor) -> Tensor:
    """A tensor as it is, but for one that an earlier call of the model left with its gradient: it is a constant now."""
    if _torch.tracing_state() is None or _torch.known_value(tensor) is not None:
        return tensor
    with _torch.paused_tracing(), _torch.unwatched():
        return tensor if tensor.grad_fn is None else tensor.detach()


def fresh(tensor: Tensor, make: Callable[[Tensor], Any] = torch.ops.aten.alias) -> Tensor:
    """The same example data under another name, for the trace to bind to another value."""
    with _torch.paused_tracing():
        made: Tensor = make(tensor)
    return made


def trace_cond(
    pred: Any,
    true_fn: Callable[..., Any],
    false_fn: Callable[..., Any],
    operands: Sequence[Any],
    names: tuple[str, str],
    site: Site | None = None,
    kind: str = "cond",
    spelled: tuple[str, str] = TRUTH,
    beside: Beside | None = None,
    instead: Callable[[bool], Iterable[Callable[[], Any]]] = lambda holds: (),
) -> Any:
    """Records both sides of a branch into the running trace.

    Args:
        pred: A tensor of one element, or a bool, which is static.
        true_fn: One side.
        false_fn: The other.
        operands: Arguments for both.
        names: What the sides are called.
        site: Where the branch is; where `cond` was called if absent.
        kind: What kind of branch point it is.
        spelled: What its sides are called in the report.
        beside: What both left behind besides their results, once they ran.
        instead: What may record a side that the example contradicts.
    """
    site = site or user_site(record.current().names)
    if not isinstance(pred, Tensor):
        record.current().statics.append(record.StaticValue(repr(pred), "a bool given to cond", site))
        return (true_fn if pred else false_fn)(*operands)
    graph = _torch.current_graph()
    with watching() as recorder:
        with _torch.paused_tracing():
            taken = bool(pred)
        node = _torch.insert_if(graph, _torch.insert_bool(graph, _torch.value_of(pred)))
        note(node, kind, site, spelled)
        sides = []
        for holds, fn, name in ((True, true_fn, names[0]), (False, false_fn, names[1])):
            block = node.addBlock()
            with recorder.assuming(pred, holds):
                others = functools.partial(instead, holds)
                must = holds == taken and not recorder.lenient
                sides.append(run_side(recorder, block, name, fn, operands, must=must, instead=others))
        record.current().branches.append(record.BranchPoint(site, tuple(bool(side.raised) for side in sides)))
        going = [side.result is not None for side in sides]
        if not any(going):
            _torch.close_blocks(graph, node, [[], []], nested=recorder.depth > 0)
            raise EverySideRaisesError
        taken = taken if all(going) else going[0]
        return _join(recorder, node, sides, taken, names, str(site), beside)


def trace_ends(
    pred: Tensor,
    own: Callable[[], Any],
    rest: Callable[[], Any],
    names: tuple[str, str],
    site: Site,
    spelled: tuple[str, str] = TRUTH,
) -> Any:
    """Records two ends of a trace: nothing follows the branch but the results.

    Args:
        pred: A tensor of one element, which holds for the example that is being traced.
        own: Goes on with that example; runs first.
        rest: Goes on with others.
        names: What the two are called.
        site: Where they part.
        spelled: What the two are called in the report.
    """
    graph = _torch.current_graph()
    with watching() as recorder:
        node = _torch.insert_if(graph, _torch.insert_bool(graph, _torch.value_of(pred)))
        note(node, "path", site, spelled)
        sides = []
        for fn, name in ((own, names[0]), (rest, names[1])):
            sides.append(run_side(recorder, node.addBlock(), name, fn, (), must=True, ends=True))
        record.current().branches.append(record.BranchPoint(site, (False, False)))
        return _join(recorder, node, sides, True, names, str(site))


def _join(
    recorder: Recorder,
    node: Any,
    sides: list[Side],
    taken: bool,
    names: tuple[str, str],
    where: str,
    beside: Beside | None = None,
) -> Any:
    """Closes both blocks, and gives the results of the side that the example took, as the branch's own."""
    graph = _torch.current_graph()
    one, other = (side.result or sides[1 - index].result for index, side in enumerate(sides))
    assert one is not None and other is not None  # the side that was taken has not raised
    own = sides[not taken]
    with _torch.paused_tracing():
        check_same("the sides of a branch return different things", where, names, (one, other), own.frame.ends)
    pairs = beside.pairs() if beside else []
    leaves = [[*each.leaves, *(pair[index] for pair in pairs)] for index, each in enumerate((one, other))]
    dynamic = [not is_static(a, b) for a, b in zip(*leaves, strict=True)]
    results: list[list[Any]] = []
    made: list[Tensor] = []
    for side, given, is_taken in zip(sides, leaves, (taken, not taken), strict=True):
        with _torch.recording_into(graph, side.block):
            if side.result is None:
                results.append([_torch.insert_uninitialized(graph) for moves in dynamic if moves])
                continue
            tensors = [as_tensor(leaf) for leaf, moves in zip(given, dynamic, strict=True) if moves]
            results.append([_torch.value_of(tensor) for tensor in tensors])
            made = [fresh(tensor) for tensor in tensors] if is_taken else made
    both = list(zip(*leaves, strict=True))
    pythons = [all(type(each) in (int, float) for each in pair) for pair in both]
    numbers = (number for number, moves in zip(pythons, dynamic, strict=True) if moves)
    record.current().ranks += any(moves and _rank(a) != _rank(b) for (a, b), moves in zip(both, dynamic, strict=True))
    outputs = _torch.close_blocks(graph, node, results, nested=recorder.depth > 0)
    for tensor, output, number in zip(made, outputs, numbers, strict=True):
        _torch.bind_value(tensor, output)
        if number:
            record.current().numbers.add(output.unique())
    recorder.adopt(made, own.frame)
    following = iter(made)
    flat = own.result
    assert flat is not None
    joined = [next(following) if moves else leaf for leaf, moves in zip(leaves[not taken], dynamic, strict=True)]
    rebuilt = flat.rebuild(joined[: len(flat.leaves)])
    if beside and pairs:
        beside.join(joined[len(flat.leaves) :])
    del tensors, flat, one, other, given, leaves, pairs, both
    for side in sides:
        side.result = None  # seal looks for tensors that somebody else still holds
        if not side.frame.ends:
            recorder.seal(side.frame)
    return rebuilt
