"""`branch_if_tracing` under Dynamo: what rewritten functions call.

Dynamo reads the functions below, rather than running them. A function is rewritten only where it turns out that a
tensor's truth is asked: Dynamo is told then to begin anew, and finds the new function. Without the source, or where
the graph may break anyway, it gets the function as it is.
"""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Callable
from types import CellType, FunctionType
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import has_static_value

from .. import _torch
from .._errors import CaptureError, compose
from . import lower_dynamo, notes
from .branch import Twins
from .notes import while_tracing
from .paths import Budget, refuse_while
from .plans import plan_of, plans
from .rewrite import WHILE

_paths: dict[int, Budget] = {}
_calls = itertools.count()


@while_tracing
def are_wanted() -> bool | None:
    """Whether Dynamo needs another function; ``None`` where the graph may break at an ``if``, and Python goes on."""
    return _torch.dynamo_wants_one_graph() or None


def run(twins: Twins, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls a function where Dynamo traces."""
    return twins.made(*args, **kwargs) if _prepare(twins.key) else twins.fn(*args, **kwargs)


@while_tracing
def _prepare(key: str) -> bool:
    """Makes the rewritten function, if there is one."""
    twins = Twins.known[key]
    fn = twins.fn
    plan = plan_of(fn)
    if plan.code is None:
        return False
    if twins.made.__code__ is not plan.code:
        cells = dict(zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True))
        cells["_hj"] = CellType(_tools)
        closure = tuple(cells[name] for name in plan.code.co_freevars)
        twins.made = FunctionType(plan.code, fn.__globals__, fn.__name__, fn.__defaults__, closure)
        twins.made.__kwdefaults__ = fn.__kwdefaults__
    return True


# --- what rewritten functions call, as _hj.… -------------------------------------------------------


class Unset:
    """Stands for a variable that is not set."""


def bound(value: Any, name: str) -> Any:
    """The value of a variable that may not be set."""
    if value is Unset:
        raise UnboundLocalError(f"cannot access local variable '{name}' where it is not associated with a value")
    return value


@while_tracing
def begin(plan: int) -> int:
    """Begins a call, whose paths are counted."""
    call = next(_calls)
    _paths[call] = Budget(plans[plan].fn)
    _paths.pop(call - 1000, None)
    return call


@while_tracing
def _spend(plan: int, path: int, site: int) -> int:
    where = plans[plan].site(site)
    _paths[path].spend(where)
    frame, depth = sys._getframe(), 0
    while frame.f_back is not None:
        frame, depth = frame.f_back, depth + 1
    if depth + _FRAMES > sys.getrecursionlimit():
        raise CaptureError(
            compose(
                "ifs lie deeper in one another than torch can trace within Python's recursion limit",
                where=str(where),
                differences=[f"{len(_paths[path].sites)} of them, each on a path of the one before it"],
                instead="a function of its own with @branch_if_tracing around each if, so that its paths meet again "
                "before the next one, or sys.setrecursionlimit(5000) before it is compiled",
                page="too-many-paths",
            )
        )
    return 0


_FRAMES = 300
"""How many calls deep torch may need from one ``if`` to the next."""


@while_tracing
def _refuse_writes(plan: int, site: int) -> int:
    """Refuses a path that changes what is from before it: torch allows that without gradients, but not of views."""
    if _torch.dynamo_branch_writes():
        raise CaptureError(
            compose(
                "a path changes a tensor in place that was made before the if",
                where=str(plans[plan].site(site)),
                instead="a new tensor: y = y * 2, torch.where(mask, value, y)",
                page="branches-that-write",
            )
        )
    return 0


@while_tracing
def _sides(plan: int, site: int) -> str:
    return str(plans[plan].site(site))


@while_tracing
def _tell(plan: int, site: int) -> NoReturn:
    """Says that a tensor's truth is asked at a place: it is rewritten there, or refused.

    Raises:
        CaptureError: It can't be rewritten, with the reason.
    """
    found = plans[plan]
    if site not in found.chosen:
        found.choose(site)
        _torch.restart_dynamo("an if on a tensor")
    reason, where = found.reasons.get(site, "no statement can go before it"), found.site(site)
    if reason == WHILE:
        refuse_while(where)
    raise CaptureError(
        compose(
            "torch.compile and strict export can't keep an if that asks for a tensor's truth here",
            where=str(where),
            differences=[reason],
            instead="the if in a function of its own with @branch_if_tracing around it, which returns what it makes "
            "different, or hj.cond",
            page="ifs-under-compile",
        )
    )


def _asks(value: Any) -> bool:
    """Whether Python can't tell a truth while the graph is made."""
    if isinstance(value, Tensor):
        return True
    # A comparison of sizes is guarded in torch.compile; an exported program has no guards.
    return notes.is_exporting() and isinstance(value, (bool, int, float)) and not has_static_value(value)


def asked(plan: int, value: Any, site: int) -> Any:
    """Hands on what Python will ask the truth of."""
    if _asks(value):
        _tell(plan, site)
    return value


def _truth(value: Any) -> Tensor:
    """A truth as a tensor of its own."""
    if not isinstance(value, Tensor):
        if _asks(value):
            return lower_dynamo.as_tensor(value if isinstance(value, bool) else value != 0)
        return torch.full((), True if value else False)  # noqa: SIM210  # of a size, Dynamo gets bool() wrong
    return (value.clone() if value.dtype == torch.bool else value != 0).reshape(())


def if_(
    plan: int, path: int, site: int, test: Any, true: Callable[..., Any], false: Callable[..., Any], given: Any
) -> Any:
    """Goes on with one of two functions."""
    if not _asks(test):
        return true(*given) if test else false(*given)
    _spend(plan, path, site)
    where = _sides(plan, site)
    given = tuple([_apart(each) for each in given])
    names = ("the path where " + where + " holds", "the path where " + where + " does not hold")

    def side(follow: Callable[..., Any]) -> Any:
        result = follow(*given)
        _refuse_writes(plan, site)
        return result

    return lower_dynamo.cond(test, lambda: side(true), lambda: side(false), (), names, False)


def stop(plan: int, site: int, test: Any, raises: Callable[[], Any]) -> None:
    """Raises where a truth holds; what follows is no path of its own."""
    if not _asks(test):
        if test:
            raises()
        return
    try:
        raises()
        message = ""
    except Exception as error:
        message = type(error).__name__ + ": " + str(error)
    _torch.assert_in_graph(torch.logical_not(_truth(test)), message)


def not_(value: Any) -> Any:
    """``not value``, of which only the truth counts."""
    return torch.logical_not(_truth(value)) if _asks(value) else not value


def and_(value: Any, rest: Callable[[], Any]) -> Any:
    """``value and rest()``, of which only the truth counts."""
    return pick(value, rest, lambda: False)


def or_(value: Any, rest: Callable[[], Any]) -> Any:
    """``value or rest()``, of which only the truth counts."""
    return pick(value, lambda: True, rest)


def pick(test: Any, true: Callable[[], Any], false: Callable[[], Any]) -> Any:
    """``true() if test else false()``, of which only the truth counts."""
    if not _asks(test):
        return true() if test else false()
    return lower_dynamo.cond(test, lambda: _truth(true()), lambda: _truth(false()), ())


def truth_of(way: str, value: Any) -> Any:
    """What ``bool(value)``, ``value.item()`` or the like gives, of which only the truth counts."""
    if _asks(value):
        return value
    if way == "bool":
        return bool(value)
    return torch.is_nonzero(value) if way == "torch.is_nonzero" else getattr(value, way)()


class _By:
    """What ``enumerate``, ``zip`` and ``reversed`` give, with an index; it follows changes as they do."""

    def __init__(self, name: str, parts: list[Any], start: int) -> None:
        self.name = name
        self.parts = parts
        self.start = start


def rows_by(name: str, *given: Any) -> _By:
    """What a loop over ``enumerate(…)``, ``zip(…)`` or ``reversed(…)`` goes through, with an index."""
    if name == "zip":
        return _By(name, [rows(each) for each in given], 0)
    found = rows(given[0])
    if name == "reversed":
        return _By(name, [found], len(found))
    return _By(name, [found], given[1] if len(given) > 1 else 0)


def rows(value: Any) -> Any:
    """What a loop goes through, with an index."""
    if isinstance(value, Tensor):
        return value.unbind()
    if type(value) in (list, tuple, range, _By):
        return value
    if isinstance(value, (tuple, dict, str, nn.ModuleList, nn.ModuleDict, nn.Sequential, nn.ParameterList)):
        return list(value)
    if type(value) in (type({}.keys()), type({}.values()), type({}.items())):
        return list(value)
    _refuse_rows(type(value).__name__)
    return value


@while_tracing
def _refuse_rows(kind: str) -> NoReturn:
    raise CaptureError(
        compose(
            "a loop with an if that asks for a tensor's truth goes through something that has no index",
            differences=[f"a {kind}"],
            instead="a loop over a list of it: for row in list(rows)",
            page="ifs-under-compile",
        )
    )


def has_row(found: Any, index: int) -> bool:
    """Whether a loop goes on."""
    if not isinstance(found, _By):
        return index < len(found)
    return index < found.start if found.name == "reversed" else all([has_row(part, index) for part in found.parts])


def row(found: Any, index: int) -> Any:
    """What a loop goes on with."""
    if not isinstance(found, _By):
        return found[index]
    if found.name == "reversed":
        return found.parts[0][found.start - 1 - index]
    parts = tuple([row(part, index) for part in found.parts])
    return (found.start + index, parts[0]) if found.name == "enumerate" else parts


def _has_view(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value._base is not None
    if isinstance(value, _By):
        return _has_view(value.parts)
    inner = list(value.values()) if type(value) is dict else value
    return type(inner) in (list, tuple) and any([_has_view(each) for each in inner])


def _apart(value: Any) -> Any:
    """A variable for both sides: a view with memory of its own, since torch's branches take no two names for one.

    The sides can't tell: they may change nothing that is from outside.
    """
    if not _has_view(value):
        return value
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, _By):
        return _By(value.name, _apart(value.parts), value.start)
    if isinstance(value, dict):
        return {key: _apart(each) for key, each in value.items()}
    return type(value)([_apart(each) for each in value])


_tools = importlib.import_module(__name__)
"""This file, as rewritten functions see it."""
