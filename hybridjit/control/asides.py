"""A side of a branch that the example contradicts, recorded with another one that takes it.

The function runs again on arguments that another call had. What it did up to the branch is in the graph already: that
runs aside, and its tensors get the values that the example's have there. What follows is recorded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

import torch
from torch import Tensor

from .. import _torch
from .._errors import CaptureError
from .._sites import Site
from . import record
from .recorder import Call, Recorder
from .runs import Anew, Done, Run, asks_truth, copied, same_function
from .structure import flatten, is_static, tensors_of

Arguments: TypeAlias = "tuple[tuple[Any, ...], Mapping[str, Any]]"
"""Those of a call, by position and by keyword."""


class Contradicted(BaseException):  # no Exception: it passes what the model catches
    """What another example does up to the branch is not what the graph has, or takes the other side as well."""


class Aside(Run):
    """A run on another example.

    Args:
        recorder: That of the running trace.
        fn: The function.
        parts: Whether paths part at a line.
        log: What the example's run did, up to the branch, and what is decided there.
        anew: Memory of the example's run that this one changes.
        scratch: A block for what is in the graph already.
    """

    def __init__(
        self,
        recorder: Recorder,
        fn: Callable[..., Any],
        parts: Callable[[Site], bool],
        log: list[Call],
        anew: set[int],
        scratch: Any,
    ) -> None:
        super().__init__(recorder, fn, parts, log, anew)
        self._example = tuple(log)
        self._scratch = scratch

    def call(self, func: Any, args: Any, run: Callable[[], Call]) -> Any:
        """Runs the operation aside, if the graph has it already."""
        if self.over or self.position > self.inherited:
            return super().call(func, args, run)
        if self.position == self.inherited:
            aside = (each for each, was in zip(self.log, self._example, strict=False) if not was.touched & self.anew)
            self.recorder.disown(key for each in aside for key in each.made)
            return super().call(func, args, run)
        index = self.counted()
        earlier = self._example[index]
        if not same_function(earlier.func, func):
            self._contradict()
        if asks_truth(func, args):
            with _torch.paused_tracing():
                self._check(func(args[0]), earlier.result)
            return earlier.result
        if earlier.touched & self.anew:
            self._refuse_random(earlier)
            self.log[index] = run()
            return copied(self.log[index].result)
        with self.recorder.repeat():
            self.log[index] = done = run_aside(args, run, self._scratch)
        self._bind(earlier.result, done.result)
        return copied(done.result)

    def decide(self, func: Any, pred: Tensor, run: Callable[[], Call]) -> Call:
        """Takes the side of a truth that is decided, which must be its own."""
        done = super().decide(func, pred, run)
        with _torch.paused_tracing():
            self._check(func(pred), done.result)
        return done

    def own_memory(self, storage: int) -> None:
        """Begins again likewise; it is the example's memory that is known by what touches it."""
        pairs = zip(self.log[: self.inherited], self._example, strict=True)
        made = {key for each, was in pairs if storage in each.made for key in was.made}
        if not made <= self.anew:
            self.anew |= made
            self.end(Anew())

    def _bind(self, earlier: Any, now: Any) -> None:
        """Gives tensors the values of those that the example had; all else must be as it was there."""
        if isinstance(earlier, Done):
            if earlier.left.changed or now.left.changed:
                self._contradict()
            earlier, now = earlier.result, now.result
        for one, other in _pairs(earlier, now):
            if isinstance(one, Tensor) and isinstance(other, Tensor):
                self._check(_kind(other), _kind(one))
                if one is not other and (value := _torch.known_value(one)) is not None:
                    _torch.bind_value(other, value)
            elif not is_static(one, other):
                self._contradict()

    def _check(self, one: Any, other: Any) -> None:
        if one != other:
            self._contradict()

    def _contradict(self) -> NoReturn:
        self.end(Contradicted())


def run_aside(args: Any, run: Callable[[], Call], block: Any) -> Call:
    """Runs an operation that the graph has already, for what it gives, into a block that is gone in the end."""
    given = [(tensor, _torch.known_value(tensor)) for tensor in tensors_of(args)]
    with record.forgetting(), _torch.recording_into(_torch.current_graph(), block):
        done = run()
    for tensor, value in given:
        if value is not None:
            _torch.bind_value(tensor, value)
    return done


def _pairs(one: Any, other: Any) -> Iterator[tuple[Any, Any]]:
    """What is in two results at the same places; a traced size in a torch.Size is a tensor, too."""
    if type(one) is not type(other):
        yield one, other
    elif isinstance(one, (tuple, list)) and len(one) == len(other):
        for pair in zip(one, other, strict=True):
            yield from _pairs(*pair)
    elif isinstance(one, dict) and one.keys() == other.keys():
        for key in one:
            yield from _pairs(one[key], other[key])
    else:
        yield one, other


def _kind(tensor: Tensor) -> tuple[torch.dtype, int]:
    with _torch.paused_tracing(), _torch.unwatched():
        return tensor.dtype, tensor.dim()


def fitting(given: Arguments, other: Arguments) -> Callable[[], Arguments] | None:
    """What makes arguments of another call stand for those given, in the running trace; ``None`` if they can't."""
    one, two = flatten(given), flatten(other)
    if one.spec != two.spec:
        return None
    for mine, its in zip(one.leaves, two.leaves, strict=True):
        fits = is_static(mine, its) or (isinstance(mine, Tensor) and isinstance(its, (Tensor, int, float)))
        if not fits or (isinstance(its, Tensor) and _kind(mine) != _kind(its)):
            return None

    def bound() -> Arguments:
        leaves: list[Any] = [
            _standing(mine, its) if isinstance(mine, Tensor) and mine is not its else its
            for mine, its in zip(one.leaves, two.leaves, strict=True)
        ]
        args, kwargs = two.rebuild(leaves)
        return args, kwargs

    return bound


def _standing(mine: Tensor, its: Any) -> Tensor:
    """A tensor with the data of one and the value of the other in the graph."""
    made: Tensor
    with _torch.paused_tracing(), _torch.unwatched():
        made = its.detach() if isinstance(its, Tensor) else torch.tensor(its, dtype=mine.dtype)
    _torch.bind_value(made, _torch.value_of(mine))
    return made


@contextlib.contextmanager
def scratch() -> Iterator[Any]:
    """A block that is gone in the end, at the place where recording goes on."""
    graph = _torch.current_graph()
    node = _torch.insert_if(graph, _torch.insert_constant(graph, True))
    block = node.addBlock()
    try:
        yield block
    finally:
        _torch.keep_constants(block, node)
        node.destroy()


def attempt(bound: Callable[[], Arguments], run: Callable[[Arguments, Any], Any]) -> Any:
    """Runs a function on another example.

    Args:
        bound: Its arguments, as `fitting` gives them.
        run: Records what follows, given them and a block for what is in the graph already.

    Raises:
        CaptureError: It does not take this side, or changes its arguments.
    """
    with record.forgetting() as keep, scratch() as block:
        arguments = bound()
        before = flatten(arguments)
        try:
            result = run(arguments, block)
        except Contradicted:
            raise CaptureError("the other example takes the other side") from None
        after = flatten(arguments)
        if before.spec != after.spec or any(a is not b for a, b in zip(before.leaves, after.leaves, strict=True)):
            raise CaptureError("the function changes the containers that it is given")
        keep()
        return result


def others_of(given: Arguments, own: Arguments, others: Sequence[Arguments]) -> Iterator[Callable[[], Arguments]]:
    """The further examples that can stand for arguments, the traced one among them where that is not what runs.

    Args:
        given: The arguments that run.
        own: The traced example's.
        others: Further ones.
    """
    for other in [own, *others]:
        if other is not given and (bound := fitting(own, other)) is not None:
            yield bound
