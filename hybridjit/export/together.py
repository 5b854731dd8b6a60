"""One capture of several inputs, whose paths part where values that left the trace do.

The first input is traced. Where a value leaves the trace that another input has otherwise, the trace
parts: into what follows for the first, and, for each other value, what the model does on an input that
has it, run from its start. What that run does up to there is in the graph already: its tensors are
given the values that the first one's have.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import _torch
from .._errors import CaptureError, compose
from .._sites import Site
from ..control.asides import run_aside
from ..control.blocks import trace_ends
from ..control.guards import have_dtypes, have_ranks, have_sizes, insert_refusal
from ..control.objects import taken_apart
from ..control.recorder import Call, Recorder, watching
from ..control.runs import Done, Generation, copied, same_function
from ..control.structure import Flat, flatten, tensors_of
from .frozen import Guards, guard
from .leaks import Leak, as_traced, equal, same_value
from .members import Member, dtypes_of, forms_of, ranks_of
from .state import ModelState
from .survey import Occurrence, disjoint


@dataclass(frozen=True)
class _Step:
    """One operation that ran: what it gave, under which values, and how many leaks it had."""

    func: Any
    result: Any
    values: list[Any]
    leaks: int


@dataclass(frozen=True)
class _Open:
    """A leak of which inputs that still go the same way need other guards.

    Attributes:
        leak: The leak.
        place: What identifies it.
        tensor: The tensor that holds it.
        value: That tensor's value in the graph.
        held: What it is known to be; empty for anything.
    """

    leak: Leak
    place: Occurrence
    tensor: Tensor
    value: Any
    held: tuple[Any, ...] = ()


class _Parted(BaseException):  # no Exception: it passes what the model catches
    """A run met a value that another input has otherwise."""

    def __init__(self, leak: Leak, tensor: Tensor) -> None:
        super().__init__()
        self.leak = leak
        self.tensor = tensor


def _tensors(result: Any) -> list[Tensor]:
    """The tensors that an operation gave, and those that a function with branches left behind besides."""
    if not isinstance(result, Done):
        return tensors_of(result)
    return [leaf for leaf in _left(result).leaves if isinstance(leaf, Tensor)]


def _left(done: Done) -> Flat:
    return flatten(taken_apart((done.result, [now for *_, now in done.left.changed])))


class _Run:
    """One input on its way through the model."""

    supposes = False

    def __init__(
        self, member: Member, log: Sequence[_Step], owner: Member, decided: int, scratch: Any, left: Sequence[_Open]
    ) -> None:
        Generation.begin()
        self.member = member
        self.log = list(log)
        self.own = owner is member
        self.inherited = len(log)
        self.decided = decided
        self.position = 0
        self.leaks = 0
        self.over = False
        self.left = list(left)
        self._scratch = scratch
        self._repeating = False

    @property
    def repeats(self) -> bool:
        """Whether the run does what is in the graph already."""
        return self._repeating

    def call(self, func: Any, args: Any, run: Callable[[], Call]) -> Any:
        """Gives what the graph has for the operation already, or runs it."""
        if self.over:  # a context manager that the end of the run passes: no other run meets it here
            return run().result
        index = self.position
        self.position += 1
        before = self.leaks
        if index >= self.inherited:
            result = run().result
            values = [_torch.known_value(tensor) for tensor in _tensors(result)]
            self.log.append(_Step(func, result, values, self.leaks - before))
            return copied(result)
        step = self.log[index]
        if not same_function(step.func, func):
            raise _diverged(self.member, step.func, func)
        if self.own:
            self.leaks += step.leaks
            return copied(step.result)
        self._repeating = True
        try:
            result = run_aside(args, run, self._scratch).result
        finally:
            self._repeating = False
        tensors = _tensors(result)
        same = not isinstance(result, Done) or _left(result).spec == _left(step.result).spec
        if not same or len(tensors) != len(step.values):
            raise _diverged(self.member, step.func, func)
        for tensor, value in zip(tensors, step.values, strict=True):
            if value is not None:
                _torch.bind_value(tensor, value)
        self.log[index] = _Step(func, result, step.values, self.leaks - before)
        return copied(result)

    def own_memory(self, storage: int) -> None:
        """Nothing follows a block in which a run ends, so it may change what it likes."""


class Together:
    """Traces several inputs as one.

    Args:
        classes: The inputs, the traced one first; each computes something else. Those of several classes part where
            the model is entered, by their dtypes and sizes, those of one where a value does that left the trace.
        innocent: Leaks that need no guard and no branch.
        state: The model's state.
        entry: Where the model is entered.
    """

    def __init__(
        self,
        classes: Sequence[Sequence[Member]],
        innocent: dict[Occurrence, str],
        state: ModelState,
        entry: Site,
    ) -> None:
        self.members: list[Member] = [each for group in classes for each in group]
        self.guarded: list[Leak] = []
        self._innocent = innocent
        self._state = state
        self._entry = entry
        self._classes = classes
        self._guards = Guards()
        self._run: _Run | None = None
        self._group: Sequence[Member] = self.members

    def meet(self, index: int, leak: Leak, tensor: Tensor) -> None:
        """Guards a leak, or ends the run where its inputs part."""
        run = self._run
        assert run is not None
        at = run.leaks
        run.leaks += 1
        if run.repeats or at < run.decided:
            return
        mine = run.member.leaks
        if at >= len(mine) or mine[at].key != leak.key or not mine[at].same_value(leak):
            raise _diverged(run.member, mine[at].kind.what if at < len(mine) else "nothing", leak.kind.what)
        place = run.member.places[at]
        if place in self._innocent:
            if len(self._group) > 1:
                run.left.append(_Open(leak, place, tensor, _torch.value_of(tensor)))
            elif place not in run.member.proven:
                self._check(tensor, run.member.values[at], leak)
            return
        for other in self._group:
            if at >= len(other.leaks) or other.leaks[at].key != leak.key:
                its = other.leaks[at].kind.what if at < len(other.leaks) else "nothing"
                raise _diverged(other, leak.kind.what, its)
            if disjoint(other.values[at], run.member.values[at]):
                if self._inside():
                    raise _diverged(other, "a value inside a branch", "another one")
                run.over = True
                raise _Parted(leak, tensor)
        every = distinct([value for each in self._group for value in each.values[at]])
        self._check(tensor, every, leak)
        if len(self._group) > 1:
            run.left.append(_Open(leak, place, tensor, _torch.value_of(tensor), every))

    def _check(self, tensor: Tensor, values: Sequence[Any], leak: Leak) -> None:
        self.guarded.append(leak)
        self._guards.check(tensor, values, leak)

    def _close(self, member: Member, left: Sequence[_Open]) -> None:
        """Guards, on the path of one input alone, what was left open while others went the same way."""
        known = dict(zip(member.places, member.values, strict=True))
        for each in left:
            values = known.get(each.place, (each.leak.value,))
            if each.place not in member.proven and len(values) != len(each.held):
                _torch.bind_value(each.tensor, each.value)
                self._check(each.tensor, values, each.leak)

    def _inside(self) -> bool:
        """Whether recording goes on inside a branch of the model's own."""
        recorder = self._recorder
        return any(not frame.ends for frame in recorder.frames[1:]) or recorder.frames[-1].path is not self._run

    def __call__(self, fn: Callable[..., Any], tensors: Sequence[Tensor]) -> Any:
        """Runs the flat model while it is traced.

        Args:
            fn: The model, of flat tensors.
            tensors: The traced input's.
        """
        self._fn = fn
        self._starts = [_torch.value_of(tensor) for tensor in tensors]
        self._first = tuple(tensors)
        self._random = random.getstate(), torch.get_rng_state()
        self._scratches: list[Any] = []
        with watching() as recorder, self._state.running_again() as self._again:
            self._recorder: Recorder = recorder
            try:
                return self._apart(0, self.members[0])
            finally:
                for node in reversed(self._scratches):
                    for block in node.blocks():
                        _torch.keep_constants(block, node)
                    node.destroy()

    def _apart(self, index: int, first: Member) -> Any:
        """Records a class of inputs that dtypes and sizes tell apart, and those after it."""
        own = self._classes[index]

        def follow() -> Any:
            return self._along(own[0], own, (), first, 0, ())

        if index == len(self._classes) - 1:
            return follow()
        # Dtypes and sizes that nobody gave go with the first input, whose guards stop what does not fit.
        others = index == 0
        for tensor, value in zip(self._first, self._starts, strict=True):
            _torch.bind_value(tensor, value)
        if others:
            self._check_ranks()
        asked = [self._has(group) for group in (self._classes[1:] if others else [own])]
        have = functools.reduce(torch.logical_or, [as_traced(not others, each) for each in asked])
        pred = torch.logical_not(have) if others else have
        says = (f"the path of {own[0].name}", "the other paths"), self._entry, (f"as {own[0].name}", "")
        return trace_ends(pred, follow, lambda: self._apart(index + 1, first), *says)

    def _alone(self, of: Callable[[Sequence[Member]], set[Any]], group: Sequence[Member]) -> list[Any]:
        """What the inputs of a class have of something, if those of no other class have it, too."""
        own = of(group)
        return sorted(own, key=str) if all(each is group or not own & of(each) for each in self._classes) else []

    def _has(self, group: Sequence[Member]) -> _torch.Value:
        """Inserts the question whether an input is of a class: by its dtypes, or its ranks, or else by its sizes."""
        if dtypes := self._alone(dtypes_of, group):
            return have_dtypes(self._first, dtypes)
        if ranks := self._alone(ranks_of, group):
            have = have_ranks(self._first, ranks)
        else:
            have = have_sizes(self._first, [[size for _, size in form] for form in forms_of(group)])
        if len(dtypes_of(self.members)) == 1:
            return have
        both = [have, have_dtypes(self._first, sorted(dtypes_of(group), key=str))]
        return _torch.insert(_torch.current_graph(), "aten::__and__", both, _torch.type_named("BoolType"))

    def _check_ranks(self) -> None:
        """Inserts a check that an input has numbers of dimensions that were given, if they tell classes apart."""
        if not any(self._alone(ranks_of, own) and not self._alone(dtypes_of, own) for own in self._classes[1:]):
            return
        known = sorted(ranks_of(self.members))
        spelled = " or ".join(", ".join(map(str, ranks)) for ranks in known)
        text = f"captured inputs of {spelled} dimensions; export the model with such an input among check_inputs"
        insert_refusal(as_traced(True, have_ranks(self._first, known)), True, text)

    def _along(
        self,
        member: Member,
        group: Sequence[Member],
        log: Sequence[_Step],
        owner: Member,
        decided: int,
        left: Sequence[_Open],
    ) -> Any:
        """Records what follows for a group of inputs, by one of them."""
        graph, frame = _torch.current_graph(), self._recorder.frames[-1]
        with _torch.paused_tracing(), _torch.unwatched():
            self._again(owner is not member)
        random.setstate(self._random[0])
        torch.set_rng_state(self._random[1])
        scratch = None
        if owner is not member:
            node = _torch.insert_if(graph, _torch.insert_constant(graph, True))
            self._scratches.append(node)
            scratch = node.addBlock()
        tensors = self._first if member is self.members[0] else member.flat
        for tensor, value in zip(tensors, self._starts, strict=True):
            _torch.bind_value(tensor, value)
        if len(group) == 1:
            self._close(member, left)
        run = _Run(member, log, owner, decided, scratch, left)
        outer = frame.path, self._run, self._group
        frame.path, self._run, self._group = run, run, group
        try:
            result = self._fn(*tensors)
            if len(group) > 1:
                raise _diverged(group[1], "another way", "none that a value tells")
            return result
        except _Parted as stop:
            leak, tensor, at = stop.leak, stop.tensor, run.leaks - 1
        finally:
            frame.path, self._run, self._group = outer
        classes: list[list[Member]] = []
        for each in sorted(group, key=lambda each: each is not member):
            same = next((known for known in classes if not disjoint(known[0].values[at], each.values[at])), None)
            if same is None:
                classes.append([each])
            else:
                same.append(each)
        values = [distinct([value for each in known for value in each.values[at]]) for known in classes]
        every = distinct([value for known in values for value in known])
        _torch.bring_in(tensor)
        if not isinstance(leak.value, bool):
            guard(tensor, every, leak)

        value, place = _torch.value_of(tensor), member.places[at]

        def rest(index: int) -> Any:
            def follow() -> Any:
                left = [*run.left, _Open(leak, place, tensor, value, values[index])]
                return self._along(classes[index][0], classes[index], run.log, member, at + 1, left)

            if index == len(classes) - 1:
                return follow()
            names = (f"the path of {classes[index][0].name}", "the other paths")
            last = index == len(classes) - 2
            spelled = (f"as {classes[index][0].name}", f"as {classes[-1][0].name}" if last else "")
            return trace_ends(_is(tensor, values[index]), follow, lambda: rest(index + 1), names, leak.site, spelled)

        return rest(0)


def distinct(values: Sequence[Any]) -> tuple[Any, ...]:
    """Each value once."""
    found: list[Any] = []
    for value in values:
        if not any(same_value(value, each) for each in found):
            found.append(value)
    return tuple(found)


def _is(tensor: Tensor, values: Sequence[Any]) -> Tensor:
    """Whether a traced tensor has one of some values, as a traced tensor."""
    made = [_is_one(tensor, value) for value in values]
    held = made[0]
    for each in made[1:]:
        held = torch.logical_or(held, each)
    return held


def _is_one(tensor: Tensor, value: Any) -> Tensor:
    if isinstance(value, bool):
        return tensor if value else torch.logical_not(tensor)
    if isinstance(value, Tensor):
        return equal(tensor, value)
    same: Tensor = tensor == value
    return same


def _diverged(member: Member, one: Any, other: Any) -> CaptureError:
    names = [each if isinstance(each, str) else getattr(each, "__name__", str(each)) for each in (one, other)]
    return CaptureError(
        compose(
            f"{member.name} takes a path that can't be joined with the first input's",
            differences=[f"there {names[0]}, here {names[1]}"],
            instead="the part that depends on the input as a function with @hybridjit.script_if_tracing",
            page="captureerror",
        )
    )
