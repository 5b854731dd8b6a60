"""Path tracing: a function run again for each side of the Python ``if``s that ask for a tensor's truth.

A run goes as far as the first ``bool(tensor)`` that is not decided yet. There the two sides become
the blocks of a branch, and the function runs again in each. What it did up to there is not done
again: each operation gives what it gave the first time.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import linecache
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from .. import _torch
from .._errors import CaptureError, compose
from .._sites import Site
from .asides import Arguments, Aside, attempt, others_of
from .blocks import trace_cond
from .effects import Effects
from .ends import Ends
from .objects import put_together, taken_apart
from .recorder import Call, Recorder, active, recording, watching
from .runs import NOWHERE, Anew, Done, Run, Undecided, copied

PATH_LIMIT = 64
_all: ContextVar[tuple[float, list[Site]] | None] = ContextVar("all_paths", default=None)


@contextlib.contextmanager
def at_most(paths: float) -> Iterator[list[Site]]:
    """Limits the paths within the body, those of all functions together; gives the lines where they part.

    Raises:
        TooManyPathsError: There are more.
    """
    spent: list[Site] = []
    token = _all.set((paths, spent))
    try:
        yield spent
    finally:
        _all.reset(token)


class TooManyPathsError(CaptureError):
    """A function has more paths than the limit.

    Attributes:
        sites: Where they part.
    """

    def __init__(self, fn: Any, sites: list[Site]) -> None:
        lines = {str(each): sites.count(each) for each in sites}
        super().__init__(
            compose(
                f"{getattr(fn, '__qualname__', fn)} has more than {len(sites)} paths",
                where=str(sites[0]),
                differences=[f"{line}: an if that parts {count} paths" for line, count in lines.items()],
                instead="a function of its own with @branch_if_tracing around each if, so that its paths "
                "meet again before the next one, or hj.cond",
                page="too-many-paths",
            )
        )
        self.sites: list[Site] = sites


class PathsDifferError(CaptureError):
    """The sides of an ``if`` can't be those of a branch.

    Attributes:
        site: Where they part.
    """

    def __init__(self, error: CaptureError, site: Site) -> None:
        super().__init__(str(error))
        self.site: Site = site


@dataclass
class Budget:
    """How many paths one call may have, and the lines where they part."""

    fn: Callable[..., Any]
    sites: list[Site] = field(default_factory=list)

    def spend(self, site: Site) -> None:
        """Counts one more branch.

        Raises:
            TooManyPathsError: There are more paths than the limit.
        """
        self.sites.append(site)
        if len(self.sites) >= PATH_LIMIT:
            raise TooManyPathsError(self.fn, self.sites)
        every = _all.get()
        if every is not None:
            every[1].append(site)
            if len(every[1]) >= every[0]:
                raise TooManyPathsError(self.fn, every[1])


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
    others: Sequence[Arguments] = (),
    last: bool = False,
) -> Any:
    """Records a function with its paths into the running trace.

    Args:
        fn: The function.
        args: Its arguments.
        kwargs: Its keyword arguments.
        parts: Whether paths part at a line; all others take for granted what the example has there.
        others: What other calls gave it, for the sides that the example contradicts.
        last: Whether nothing of the model runs after it.
    """
    with watching() as recorder:
        reached = functools.partial(Effects, [fn], args, kwargs)
        run = functools.partial(explore, recorder, fn, args, kwargs, parts=parts, others=others, last=last)
        return with_effects(fn, args, reached, lambda effects: run(effects=effects))


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
        return Call(func, Done(found.whole(functools.partial(run, reached)), reached.left(before)))

    done: Done = found.through_path(func, args, first)
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
    others: Sequence[Arguments] = (),
    last: bool = False,
) -> Any:
    """Runs a function, and again for the sides of each branch."""
    before = effects.take(), random.getstate()
    budget = Budget(fn)
    known = {id(container) for container in effects.containers}
    own = args, kwargs

    def along(log: list[Call], given: Arguments = own, scratch: Any = None, supposed: int | None = None) -> Any:
        frame = recorder.frames[-1]
        outer, anew = frame.path, set[int]()
        block = _torch.current_graph().insertPoint().owningBlock()
        mark = block, sum(1 for _ in block.nodes())
        while True:
            effects.put(before[0])
            random.setstate(before[1])
            run = Run(recorder, fn, parts, list(log), anew)
            if scratch is not None:
                run = Aside(recorder, fn, parts, list(log), anew, scratch)
            run.supposed = supposed
            frame.path = run
            try:
                return fn(*given[0], **given[1])
            except Anew:
                _torch.erase_after(mark)
                frame.erased += 1
                continue
            except Undecided as stop:
                func, pred, site = stop.func, stop.pred, stop.site
                break
            finally:
                frame.path = outer
        refuse_while(site)
        budget.spend(site)
        names = (f"the path where {site} holds", f"the path where {site} does not hold")
        ends = Ends(effects, names, str(site), before[0], last)

        told, raised = recorder.told_eager, recorder.raised_within
        with _torch.paused_tracing():
            taken = bool(pred)

        def side(holds: bool, given: Arguments = given, scratch: Any = None, as_traced: bool = False) -> Any:
            from_here = NOWHERE if as_traced else supposed
            if from_here is None and holds != taken:
                from_here = len(run.log) + 1
            result = along([*run.log, Call(func, holds)], given, scratch, from_here)
            ends.note(holds)
            return taken_apart(result, known)

        def instead(holds: bool) -> Iterator[Callable[[], Any]]:
            spent = len(budget.sites)
            ends.forget(holds)
            for other in ways(holds):
                yield other
                del budget.sites[spent:]
                ends.forget(holds)  # it was none, or nobody would ask for a further one

        def ways(holds: bool) -> Iterator[Callable[[], Any]]:
            again = functools.partial(side, holds)
            effects.put(before[0])  # what the side left behind may be among the arguments
            if supposed != NOWHERE and recorder.told_eager > told:
                # A library may have another way for a trace alone: numbers are tensors there.
                yield functools.partial(again, as_traced=True)
                effects.put(before[0])
            for bound in () if recorder.repeating else others_of(given, own, others):
                yield functools.partial(attempt, bound, again)
            if recorder.raised_within > raised and not recorder.lenient:
                effects.put(before[0])
                yield functools.partial(recorder.leniently, again)

        sides = functools.partial(side, True), functools.partial(side, False)
        try:
            result = trace_cond(pred, *sides, (), names, site, "if", beside=ends, instead=instead)
        except CaptureError as error:
            if type(error) is not CaptureError:
                raise
            raise PathsDifferError(error, site) from error.__cause__
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
