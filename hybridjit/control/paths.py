"""Path tracing: a function run again for each side of the Python ``if``s that ask for a tensor's truth.

A run goes as far as the first ``bool(tensor)`` that is not decided yet. There the two sides become
the blocks of a branch, and the function runs again in each. What it did up to there is not done
again: each operation gives what it gave the first time.
"""

from __future__ import annotations

import ast
import functools
import linecache
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor

from .. import _torch
from .._errors import CaptureError, compose
from .._sites import Site, user_site
from . import record
from .blocks import trace_cond
from .effects import Effects, Ends, Left
from .objects import put_together, taken_apart
from .recorder import Call, Recorder, active, decision, recording, tensors_of, watching
from .structure import flatten

PATH_LIMIT = 64

TRUTH = (torch.Tensor.__bool__, torch.Tensor.is_nonzero, torch.is_nonzero)


class Undecided(BaseException):  # no Exception: it passes what the model catches
    """A run met the truth of a tensor that no side of a branch has decided yet."""

    def __init__(self, func: Any, pred: Tensor, site: Site) -> None:
        super().__init__()
        self.func = func
        self.pred = pred
        self.site = site


class _Anew(BaseException):
    """A run changes memory that an earlier run made; it begins again, with memory of its own."""


class TooManyPathsError(CaptureError):
    """One function has more paths than the limit.

    Attributes:
        sites: Where they part.
    """

    def __init__(self, fn: Any, sites: list[Site]) -> None:
        lines = {str(each): sites.count(each) for each in sites}
        super().__init__(
            compose(
                f"{getattr(fn, '__qualname__', fn)} has more than {PATH_LIMIT} paths",
                where=str(sites[0]),
                differences=[f"{line}: an if that parts {count} paths" for line, count in lines.items()],
                instead="a function of its own with @branch_if_tracing around each if, so that its paths "
                "meet again before the next one, or hj.cond",
                page="too-many-paths",
            )
        )
        self.sites: list[Site] = sites


@dataclass
class Budget:
    """How many paths one call may have, the lines where they part, and the lines where they may."""

    fn: Callable[..., Any]
    sites: list[Site] = field(default_factory=list)
    parts: Callable[[Site], bool] = lambda site: True

    def spend(self, site: Site) -> None:
        """Counts one more branch.

        Raises:
            TooManyPathsError: There are more paths than the limit.
        """
        self.sites.append(site)
        if len(self.sites) >= PATH_LIMIT:
            raise TooManyPathsError(self.fn, self.sites)


class Generation:
    """How many runs have begun: what one run leaves in a cache must not be found by the next."""

    count: int = 0

    @classmethod
    def begin(cls) -> None:
        """Begins a run."""
        cls.count += 1


class Run:
    """One run of a function, along the decisions made so far.

    Attributes:
        recorder: That of the running trace.
        log: What each operation gave, of earlier runs and then of this one; in place of the truths that paths part at,
            what was decided.
        inherited: How many operations of `log` are of earlier runs: those are not done again.
        position: How many operations this run has come to.
        anew: Memory that earlier runs made and this path changes: operations that touch it are done again.
        over: Whether the run ends here, and only leaves its context managers.
    """

    def __init__(self, recorder: Recorder, budget: Budget, log: list[Call], anew: set[int]) -> None:
        Generation.begin()
        self.recorder = recorder
        self.fn: Callable[..., Any] = budget.fn
        self.parts: Callable[[Site], bool] = budget.parts
        self.log = log
        self.anew = anew
        self.position: int = 0
        self.inherited: int = len(log)
        self.over: bool = False

    def call(self, func: Any, args: Any, run: Callable[[], Call]) -> Any:
        """Gives what the operation gave in an earlier run, or runs it."""
        if self.over:  # a context manager that the end of the run passes: no other run meets it here
            return run().result
        index = self.position
        self.position += 1
        if index < self.inherited:
            earlier = self.log[index]
            if not same_function(earlier.func, func):
                refuse_divergence(self.fn, earlier.func, func)
            if not (earlier.touched & self.anew):
                return copied(earlier.result)
            self._refuse_random(earlier)
            self.log[index] = run()  # the runs that follow this one go on with its memory
            return copied(self.log[index].result)
        done = self._decide(func, args[0], run) if asks_truth(func, args) else run()
        self.log.append(done)
        return copied(done.result)

    def _decide(self, func: Any, pred: Tensor, run: Callable[[], Call]) -> Call:
        with _torch.paused_tracing():
            one = pred.numel() == 1
        if not one or _torch.is_constant(pred):
            with _torch.paused_tracing():
                return Call(func, func(pred))  # of more than one element: torch says what is wrong
        known = self.recorder.decided.get(decision(pred))
        if known is not None:
            return Call(func, known)
        site = user_site(record.current().names)
        if not self.parts(site):
            return run()
        self.over = True
        raise Undecided(func, pred, site)

    def own_memory(self, storage: int) -> None:
        """Ends the run, to begin it again with memory of its own, if an earlier run made that which is to change."""
        if storage not in self.anew and any(storage in each.made for each in self.log[: self.inherited]):
            self.anew.add(storage)
            self.over = True
            raise _Anew

    def _refuse_random(self, earlier: Call) -> None:
        if not _torch.is_random(tensors_of(earlier.result)):
            return
        raise CaptureError(
            compose(
                "a side of a branch changes random numbers in place that were drawn before it",
                where=str(user_site(record.current().names)),
                differences=[f"drawn by {getattr(earlier.func, '__name__', earlier.func)}"],
                instead="a new tensor instead of the change: noise = noise * mask",
                page="branches-that-write",
            )
        )


def asks_truth(func: Any, args: Any) -> bool:
    """Whether an operation makes a truth of a tensor."""
    if func in TRUTH:
        return True
    with _torch.paused_tracing():
        return func is torch.Tensor.item and args[0].dtype is torch.bool


def refuse_divergence(fn: Any, earlier: Any, now: Any) -> NoReturn:
    """Refuses a function that runs other operations when it runs again.

    Raises:
        CaptureError: With the line.
    """
    names = [getattr(each, "__name__", str(each)) for each in (earlier, now)]
    raise CaptureError(
        compose(
            f"{getattr(fn, '__qualname__', fn)} does not do the same when it runs again",
            where=str(user_site(record.current().names)),
            differences=[f"first {names[0]}, then {names[1]}"],
            instead="a function that does the same on the same tensors: no caches that its first run fills, "
            "no iterator that its first run uses up",
            page="paths-that-differ",
        )
    )


def same_function(one: Any, other: Any) -> bool:
    """Whether two functions are one; each run makes a property's getter and a nested function anew."""
    code = getattr(one, "__code__", None)
    return bool(one == other or (code is not None and code is getattr(other, "__code__", None)))


def copied(result: Any) -> Any:
    """A container of its own for each run, which may change it."""
    if isinstance(result, Tensor) or not isinstance(result, (list, dict, tuple)) or isinstance(result, torch.Size):
        return result
    flat = flatten(result)
    return flat.rebuild(flat.leaves)


def as_paths(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function of a branch or loop; its own ``if``s become branches if it is part of a path."""
    recorder = active()
    if recorder is None or all(frame.path is None for frame in recorder.frames):
        return fn

    # While an example is computed, the function just runs.
    def paths(*args: Any) -> Any:
        return fn(*args) if _torch.tracing_state() is None else explore(recorder, fn, args, {}, Effects([fn], args, {}))

    return paths


def as_lowered_paths(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`as_paths` where torch.export or AOT records."""
    found = recording()
    if found is None or not found.on_path:
        return fn
    from .lower_paths import lower_paths

    return lambda *args: lower_paths(fn, args, {})


def trace_paths(
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    parts: Callable[[Site], bool] = lambda site: True,
) -> Any:
    """Records a function with its paths into the running trace.

    Args:
        fn: The function.
        args: Its arguments.
        kwargs: Its keyword arguments.
        parts: Whether paths part at a line; all others take for granted what the example has there.
    """
    with watching() as recorder:
        reached = functools.partial(Effects, [fn], args, kwargs)
        return with_effects(fn, args, reached, lambda effects: explore(recorder, fn, args, kwargs, effects, parts))


@dataclass(frozen=True)
class _Done:
    """What one operation of a path gave, and what it left behind besides."""

    result: Any
    left: Left


def with_effects(func: Any, args: Any, effects: Callable[[], Effects], run: Callable[[Effects], Any]) -> Any:
    """Runs something as one operation of the path under way; the runs that follow find all that it left behind.

    Args:
        func: What runs.
        args: Its arguments.
        effects: What it reaches now.
        run: Runs it, given that.
    """
    found = recording()
    if found is None or not found.on_path:
        return run(effects())
    ran = False

    def first() -> Call:
        nonlocal ran
        ran, reached = True, effects()
        before = reached.take()
        return Call(func, _Done(found.whole(functools.partial(run, reached)), reached.left(before)))

    done: _Done = found.through_path(func, args, first)
    if not ran:
        done.left.again(effects)
    return copied(done.result)


def explore(
    recorder: Recorder,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    effects: Effects,
    parts: Callable[[Site], bool] = lambda site: True,
) -> Any:
    """Runs a function, and again for the sides of each branch."""
    before = effects.take(), random.getstate()
    budget = Budget(fn, parts=parts)
    known = {id(container) for container in effects.containers}

    def along(log: list[Call]) -> Any:
        frame = recorder.frames[-1]
        outer, anew = frame.path, set[int]()
        block = _torch.current_graph().insertPoint().owningBlock()
        mark = block, sum(1 for _ in block.nodes())
        while True:
            effects.put(before[0])
            random.setstate(before[1])
            run = Run(recorder, budget, list(log), anew)
            frame.path = run
            try:
                return fn(*args, **kwargs)
            except _Anew:
                _torch.erase_after(mark)
                continue
            except Undecided as stop:
                func, pred, site = stop.func, stop.pred, stop.site
                break
            finally:
                frame.path = outer
        refuse_while(site)
        budget.spend(site)
        names = (f"the path where {site} holds", f"the path where {site} does not hold")
        ends = Ends(effects, names, str(site))

        def side(holds: bool) -> Any:
            result = along([*run.log, Call(func, holds)])
            ends.left.append(effects.take())
            return taken_apart(result, known)

        result = trace_cond(pred, lambda: side(True), lambda: side(False), (), names, site, "if", beside=ends)
        effects.put(ends.left[-1])  # not what a side left that raises
        return put_together(result)

    return along([])


def refuse_while(site: Site) -> None:
    """Refuses a ``while`` over a tensor: paths have an end, and a loop needs none.

    Raises:
        CaptureError: With the loop to write.
    """
    test = next((text for first, last, text in _while_tests(site.file) if first <= site.line <= last), None)
    if test is None:
        return
    raise CaptureError(
        compose(
            "a while loop over a tensor's value can't be unrolled into paths",
            where=str(site),
            differences=[f"while {test}:"],
            instead="state = hj.while_loop(\n"
            f"    lambda state: {test},  # in terms of state\n"
            "    lambda state: (...,),  # the loop's body, returns the new state\n"
            "    (state,),\n)",
            page="loops-over-tensors",
        )
    )


@functools.lru_cache(maxsize=64)
def _while_tests(file: str) -> list[tuple[int, int, str]]:
    """The tests of a file's ``while`` loops: first line, last line, text."""
    source = "".join(linecache.getlines(file))
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a notebook cell with magic commands, say
        return []
    loops = [node.test for node in ast.walk(tree) if isinstance(node, ast.While)]
    return [(test.lineno, test.end_lineno or test.lineno, ast.unparse(test)) for test in loops]
