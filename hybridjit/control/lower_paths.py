"""Path tracing under non-strict torch.export and AOT: the paths of a function as torch's own branches."""

from __future__ import annotations

import operator
import random
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .._sites import is_users, user_site
from . import record
from .arithmetic import COMPARISONS, compared
from .effects import Effects
from .lower import lower_cond
from .paths import Budget, refuse_while, with_effects
from .recorder import Call, going_along
from .results import same, truth
from .runs import TRUTH, Undecided, copied, refuse_divergence, same_function
from .scout import hangs_on_data

_SHAPE: Any = torch.Tensor.shape
_SIZES = (_SHAPE.__get__, torch.Tensor.size, torch.Tensor.numel, torch.Tensor.stride)
_COMPARISONS = {f"__{name}__": getattr(operator, name) for name in COMPARISONS}


def _asking(run: Along, name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
    """A method of sizes that tells the model's own code something else than torch's."""

    def asked(size: Any, *other: Any) -> Any:
        ours = is_users(sys._getframe(1).f_code.co_filename)
        return run.asks(size, name, plain, *other) if ours else plain(size, *other)

    return asked


class Along(TorchFunctionMode):
    """One run of a function, along the decisions made so far.

    Attributes:
        log: What every operation gave, in order; the first of them in earlier runs.
        decided: Predicates and what they are taken for.
    """

    def __init__(self, fn: Callable[..., Any], log: list[Call], decided: list[tuple[Any, bool]]) -> None:
        super().__init__()
        self.fn = fn
        self.log: list[Call] = list(log)
        self.decided = decided
        self.inherited: int = len(log)
        self.position: int = 0
        self.on_path: bool = True
        self._plain: list[dict[tuple[type, str], Any]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        run: Callable[[], Any] = partial(func, *args, **(kwargs or {}))
        if not self.on_path:
            return run()
        if func in TRUTH:
            run = partial(self._decide, func, args[0])
        given = self.through_path(func, args, lambda: Call(func, run()))
        # A graph within another has its own name for a size.
        return run() if func in _SIZES and self.position <= self.inherited else given

    def through_path(self, func: Any, args: Any, run: Callable[[], Call]) -> Any:
        """Gives what an operation gave in an earlier run, or runs it."""
        if not self.on_path:
            return run().result
        index = self.position
        self.position += 1
        if index >= self.inherited:
            self.log.append(run())
        elif not same_function(self.log[index].func, func):
            refuse_divergence(self.fn, self.log[index].func, func)
        return copied(self.log[index].result)

    def whole(self, run: Callable[[], Any]) -> Any:
        """Runs what is one operation: none of those that it is made of is another."""
        before, self.on_path = self.on_path, False
        try:
            return run()
        finally:
            self.on_path = before

    def __enter__(self) -> Along:
        enter: Any = super().__enter__
        enter()
        # A comparison of sizes is no operation that a mode sees.
        plain: dict[tuple[type, str], Any] = {
            (of, name): getattr(of, name)
            for of, names in ((torch.SymBool, ("__bool__",)), (torch.SymInt, ("__bool__", *_COMPARISONS)))
            for name in names
        }
        for (of, name), own in plain.items():
            setattr(of, name, _asking(self, name, own))
        self._plain.append(plain)  # it may be entered within itself
        return self

    def __exit__(self, *error: Any) -> None:
        for (of, name), own in self._plain.pop().items():
            setattr(of, name, own)
        leave: Any = super().__exit__
        leave(*error)

    def asks(self, size: Any, name: str, plain: Callable[..., Any], *other: Any) -> Any:
        """What the model's own code is told of a size, where torch's is told what it always is."""
        if not self.on_path:
            return plain(size, *other)
        if name != "__bool__":
            return compared(
                lambda one, other: plain(one, other) if one is size else _COMPARISONS[name](one, other), size, *other
            )
        pred = compared(operator.ne, size, 0) if isinstance(size, torch.SymInt) else size
        if isinstance(pred, Tensor):
            return bool(pred)
        if truth(pred) is None and (record.current().sizes or hangs_on_data(pred)):
            return self._decide(None, pred)
        return plain(size)

    def _decide(self, func: Any, pred: Any) -> bool:
        known = truth(pred)
        if known is not None:
            return known
        for each, holds in self.decided:
            if each is pred or (func is None and same(each, pred)):
                return holds
        raise Undecided(func, pred, user_site(record.current().names))


def lower_paths(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Records a function with all its paths.

    Args:
        fn: The function.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
    """
    reached = partial(Effects, [fn], args, kwargs)
    return with_effects(fn, args, reached, lambda effects: _explore(fn, args, kwargs, effects))


def _explore(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], effects: Effects) -> Any:
    """Runs a function, and again for the sides of each branch."""
    before = effects.take(), random.getstate()
    budget = Budget(fn)

    def along(log: list[Call], decided: list[tuple[Any, bool]]) -> Any:
        effects.put(before[0])
        random.setstate(before[1])
        run = Along(fn, log, decided)
        try:
            with going_along(run), run:
                return fn(*args, **kwargs)
        except Undecided as stop:
            func, pred, site = stop.func, stop.pred, stop.site
        refuse_while(site)
        budget.spend(site)
        ends: dict[bool, Any] = {}

        def side(holds: bool) -> Any:
            log = run.log if func is None else [*run.log, Call(func, holds)]
            result = along(log, [*decided, (pred, holds)])
            ends[holds] = effects.take()
            return result

        result = lower_cond(pred, lambda: side(True), lambda: side(False), (), "if", site)
        names = f"the path where {site} holds", f"the path where {site} does not hold"
        if ends:
            effects.put([*ends.values()][-1])  # not what a side left that raises
        effects.check_same(list(ends.values()), names, str(site))
        return result

    return along([], [])
