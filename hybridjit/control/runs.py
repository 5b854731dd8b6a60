"""One run of a function along the decisions made so far, and what it does not do again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from .. import _torch
from .._errors import CaptureError, compose
from .._sites import Site, user_site
from . import record
from .effects import Left
from .recorder import Call, Recorder, decision
from .structure import flatten, tensors_of

TRUTH = (torch.Tensor.__bool__, torch.Tensor.is_nonzero, torch.is_nonzero)


NOWHERE = sys.maxsize
"""No operation of a run is so far on."""


class Undecided(BaseException):  # no Exception: it passes what the model catches
    """A run met the truth of a tensor that no side of a branch has decided yet."""

    def __init__(self, func: Any, pred: Tensor, site: Site) -> None:
        super().__init__()
        self.func = func
        self.pred = pred
        self.site = site


class Anew(BaseException):
    """A run changes memory that an earlier run made; it begins again, with memory of its own."""


class Generation:
    """How many runs have begun: what one run leaves in a cache must not be found by the next."""

    count: int = 0

    @classmethod
    def begin(cls) -> None:
        """Begins a run."""
        cls.count += 1


@dataclass(frozen=True)
class Done:
    """What one operation of a path gave, and what it left behind besides."""

    result: Any
    left: Left


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
        supposed: From which operation on the example would have taken another side; ``None`` for nowhere yet, `NOWHERE`
            where that is not asked.
    """

    supposed: int | None = None

    def __init__(
        self,
        recorder: Recorder,
        fn: Callable[..., Any],
        parts: Callable[[Site], bool],
        log: list[Call],
        anew: set[int],
    ) -> None:
        Generation.begin()
        self.recorder = recorder
        self.fn = fn
        self.parts = parts
        self.log = log
        self.anew = anew
        self.position: int = 0
        self.inherited: int = len(log)
        self.over: bool = False

    @property
    def supposes(self) -> bool:
        """Whether what it does now is what eager mode does elsewhere, and not on the example."""
        return self.supposed is not None and self.position >= self.supposed

    def counted(self) -> int:
        """Counts one more operation, and says the how-many-eth it is."""
        self.position += 1
        return self.position - 1

    def call(self, func: Any, args: Any, run: Callable[[], Call]) -> Any:
        """Gives what the operation gave in an earlier run, or runs it."""
        if self.over:  # a context manager that the end of the run passes: no other run meets it here
            return run().result
        index = self.counted()
        if index < self.inherited:
            earlier = self.log[index]
            if not same_function(earlier.func, func):
                refuse_divergence(self.fn, earlier.func, func)
            if not (earlier.touched & self.anew):
                return copied(earlier.result)
            self._refuse_random(earlier)
            self.log[index] = run()  # the runs that follow this one go on with its memory
            return copied(self.log[index].result)
        done = self.decide(func, args[0], run) if asks_truth(func, args) else run()
        self.log.append(done)
        return copied(done.result)

    def decide(self, func: Any, pred: Tensor, run: Callable[[], Call]) -> Call:
        """Gives what a truth is taken for.

        Raises:
            Undecided: It is not decided yet.
        """
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
        self.end(Undecided(func, pred, site))

    def end(self, why: BaseException) -> NoReturn:
        """Ends the run."""
        self.over = True
        raise why

    def own_memory(self, storage: int) -> None:
        """Ends the run, to begin it again with memory of its own, if an earlier run made that which is to change."""
        if storage not in self.anew and any(storage in each.made for each in self.log[: self.inherited]):
            self.anew.add(storage)
            self.end(Anew())

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
