"""Path tracing under non-strict torch.export and AOT: the paths of a function as torch's own branches."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from .._sites import user_site
from . import record
from .effects import Effects
from .lower import lower_cond
from .paths import TRUTH, Budget, Undecided, copied, refuse_divergence, refuse_while, same_function
from .recorder import Call
from .results import truth


class Along(TorchFunctionMode):
    """One run of a function, along the decisions made so far.

    Attributes:
        log: What every operation gave, in order; the first of them in earlier runs.
        decided: Predicates and what they are taken for.
    """

    def __init__(self, fn: Callable[..., Any], log: list[Call], decided: list[tuple[Tensor, bool]]) -> None:
        super().__init__()
        self.fn = fn
        self.log = list(log)
        self.decided = decided
        self.inherited = len(log)
        self.position = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        index = self.position
        self.position += 1
        if index < self.inherited:
            earlier = self.log[index]
            if not same_function(earlier.func, func):
                refuse_divergence(self.fn, earlier.func, func)
            return copied(earlier.result)
        done = Call(func, self._decide(func, args[0]) if func in TRUTH else func(*args, **(kwargs or {})))
        self.log.append(done)
        return copied(done.result)

    def _decide(self, func: Any, pred: Tensor) -> bool:
        known = truth(pred)
        if known is not None:
            return known
        for each, holds in self.decided:
            if each is pred:
                return holds
        raise Undecided(func, pred, user_site(record.current().names))


def lower_paths(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Records a function with all its paths.

    Args:
        fn: The function.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
    """
    effects = Effects([fn], args, kwargs)
    before = effects.take(), random.getstate()
    budget = Budget(fn)

    def along(log: list[Call], decided: list[tuple[Tensor, bool]]) -> Any:
        effects.put(before[0])
        random.setstate(before[1])
        run = Along(fn, log, decided)
        try:
            with run:
                return fn(*args, **kwargs)
        except Undecided as stop:
            func, pred, site = stop.func, stop.pred, stop.site
        refuse_while(site)
        budget.spend(site)
        ends: dict[bool, Any] = {}

        def side(holds: bool) -> Any:
            result = along([*run.log, Call(func, holds)], [*decided, (pred, holds)])
            ends[holds] = effects.take()
            return result

        result = lower_cond(pred, lambda: side(True), lambda: side(False))
        names = f"the path where {site} holds", f"the path where {site} does not hold"
        effects.check_same(list(ends.values()), names, str(site))
        return result

    return along([], [])
