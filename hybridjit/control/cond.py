"""`cond` and `switch`: a branch that stays one, in every capture."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from typing_extensions import TypeVarTuple, Unpack

from .. import _torch
from .._describe import describe
from .._errors import InputError, compose
from .._sites import user_site
from . import record
from .blocks import trace_cond
from .effects import NEAR, Effects
from .functions import check_functions
from .lower import capturing, lower_cond
from .paths import as_lowered_paths, as_paths, with_effects
from .points import TRUTH
from .structure import spell_function

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

_tracing_state = _torch.tracing_state
_dynamo = torch.compiler.is_dynamo_compiling


def cond(
    pred: Tensor | bool,
    true_fn: Callable[[Unpack[Ts]], R],
    false_fn: Callable[[Unpack[Ts]], R],
    operands: tuple[Unpack[Ts]] = (),  # type: ignore[assignment]
) -> R:
    """Runs one of two functions, by a tensor's value, and stays a branch when it is captured.

    In eager mode this is::

        def cond(pred, true_fn, false_fn, operands=()):
            return true_fn(*operands) if pred else false_fn(*operands)

    In a trace both functions run on the example, and both are recorded. They may use tensors,
    modules and parameters from outside, and call submodules. What they return has the same
    structure and dtypes; shapes may differ in TorchScript and ONNX. A side that raises on the
    example's data becomes a raise with its message.

    Args:
        pred: A tensor of one element, on any device; or a bool, which picks the side for good.
        true_fn: Runs where ``pred`` holds.
        false_fn: Runs where it does not.
        operands: Arguments for both; tensors, numbers, or containers of them.

    Returns:
        What the function returned. In a trace, a number that is not the same on both sides is a
        tensor of no dimensions.

    Raises:
        InputError: ``pred`` has more than one element, or is neither a tensor nor a bool.
        CaptureError: The sides differ in structure or dtype, or one changes a tensor from outside.

    Example:
        >>> import torch, hybridjit as hj
        >>> def halve(x):
        ...     return hj.cond(x.sum() > 0, lambda: x / 2, lambda: x)
        >>> traced = torch.jit.trace(halve, torch.ones(2))
        >>> traced(-torch.ones(2))
        tensor([-1., -1.])
    """
    if _tracing_state() is None and type(pred) is Tensor and not _dynamo():
        try:
            taken: Callable[..., R] = true_fn if pred else false_fn
        except RuntimeError:
            return _not_plain(pred, true_fn, false_fn, operands)
        try:
            return taken(*operands) if operands else taken()
        except (TypeError, RuntimeError):
            if callable(taken) and isinstance(operands, (tuple, list)):
                raise
    return _not_plain(pred, true_fn, false_fn, operands)


def _not_plain(
    pred: Any, true_fn: Callable[..., R], false_fn: Callable[..., R], operands: Any, part: tuple[str, str] | None = None
) -> R:
    """What is left once a plain tensor in eager mode is ruled out; ``part`` tells the sides of a `switch` apart."""
    check_functions("cond", {"true_fn": true_fn, "false_fn": false_fn}, "hj.cond(pred, lambda: x + 1, lambda: x)")
    _check_operands(operands)
    how = "trace" if _tracing_state() is not None else capturing()
    if how == "dynamo":
        lowered: R = lower_cond(pred, true_fn, false_fn, operands, _kind(part), None, part or TRUTH)
        return lowered
    if how:
        # Here, where the path that they may be part of is known.
        as_part = as_paths if how == "trace" else as_lowered_paths
        sides = as_part(true_fn), as_part(false_fn)
        names = f"true_fn ({spell_function(true_fn)})", f"false_fn ({spell_function(false_fn)})"
        reached = functools.partial(Effects, (true_fn, false_fn), tuple(operands), {}, most=NEAR)
        run = functools.partial(_record, pred, sides, operands, names, part, how)
        taken: R = with_effects(cond, (pred,), reached, run)
        return taken
    check_pred(pred)
    return true_fn(*operands) if pred else false_fn(*operands)


def _record(
    pred: Any,
    functions: tuple[Any, Any],
    operands: Any,
    names: tuple[str, str],
    part: tuple[str, str] | None,
    how: str,
    effects: Effects,
) -> Any:
    """Records both sides, each of which finds Python's objects as they were, and must leave them alike."""
    before = effects.take()
    left: dict[int, Any] = {}  # by each side

    def side(index: int) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            effects.put(before)
            result = functions[index](*args)
            left[index] = effects.take()
            return result

        return run

    true_fn, false_fn = side(0), side(1)
    site = user_site(record.current().names)
    if how == "trace":
        check_pred(pred)
        result = trace_cond(pred, true_fn, false_fn, operands, names, site, _kind(part), part or TRUTH)
    else:
        result = lower_cond(pred, true_fn, false_fn, operands, _kind(part), site, part or TRUTH)
    if left:
        effects.put([*left.values()][-1])
    effects.check_same(list(left.values()), names, str(site))
    return result


def _kind(part: tuple[str, str] | None) -> str:
    return "switch" if part else "cond"


def _check_operands(operands: Any) -> None:
    if not isinstance(operands, (tuple, list)):
        with _torch.paused_tracing():
            got = describe(operands)
        raise InputError(
            compose(
                "cond takes the operands of its functions as a tuple",
                where=str(user_site(record.current().names)),
                differences=[f"operands: expected a tuple, got {got}"],
                instead="hj.cond(pred, true_fn, false_fn, (x,))",
                page="inputerror",
            )
        )


def check_pred(pred: Any) -> None:
    """Refuses a predicate that has no one truth value."""
    with _torch.paused_tracing():
        if isinstance(pred, (bool, torch.SymBool)) or (isinstance(pred, Tensor) and pred.numel() == 1):
            return
        got = describe(pred)
    whole = "pred.any() or pred.all()" if isinstance(pred, Tensor) else "a comparison of tensors: x.shape[0] > 4"
    raise InputError(
        compose(
            "cond takes a predicate of one element",
            where=str(user_site(record.current().names)),
            differences=[f"pred: expected a tensor of one element or a bool, got {got}"],
            instead=whole,
            page="inputerror",
        )
    )


def switch(index: int | Tensor, branches: Sequence[Callable[[Unpack[Ts]], R]], operands: tuple[Unpack[Ts]] = ()) -> R:  # type: ignore[assignment]
    """Runs one of several functions, by an index, and stays a branch when it is captured.

    In eager mode this is::

        def switch(index, branches, operands=()):
            return branches[min(max(int(index), 0), len(branches) - 1)](*operands)

    Args:
        index: An integer tensor of one element, or an int, which picks the branch for good. Clamped
            to the branches there are.
        branches: The functions; at least one.
        operands: Arguments for each; tensors, numbers, or containers of them.

    Returns:
        What the function returned, as from `cond`.

    Raises:
        InputError: ``index`` is no integer of one element, or there are no branches.
        CaptureError: As for `cond`.

    Source:
        ``jax.lax.switch``.

    Example:
        >>> import torch, hybridjit as hj
        >>> scales = [lambda x: x, lambda x: x * 2, lambda x: x * 4]
        >>> hj.switch(torch.tensor(2), scales, (torch.ones(2),))
        tensor([4., 4.])
    """
    _check_switch(index, branches)
    named = {f"branches[{number}]": branch for number, branch in enumerate(branches)}
    check_functions("switch", named, "hj.switch(index, [lambda x: x, lambda x: x * 2], (x,))")
    _check_operands(operands)
    if not isinstance(index, (Tensor, torch.SymInt)):
        return branches[min(max(index, 0), len(branches) - 1)](*operands)
    if _tracing_state() is None and not capturing():
        return branches[min(max(int(index), 0), len(branches) - 1)](*operands)
    last = len(branches) - 1

    def pick(number: int) -> R:
        if number == last:
            return branches[number](*operands)
        spelled = str(number), str(last) if number == last - 1 else ""
        return _not_plain(index <= number, branches[number], lambda *_: pick(number + 1), operands, spelled)

    return pick(0)


def _check_switch(index: Any, branches: Any) -> None:
    rows = []
    with _torch.paused_tracing():
        if isinstance(index, Tensor):
            fits = index.numel() == 1 and not (index.is_floating_point() or index.is_complex())
        else:
            fits = isinstance(index, (int, torch.SymInt)) and not isinstance(index, bool)
        if not fits:
            rows.append(f"index: expected an integer tensor of one element or an int, got {describe(index)}")
    if not isinstance(branches, Sequence) or not branches:
        rows.append(f"branches: expected a list of functions, got {'none' if branches == [] else describe(branches)}")
    if rows:
        raise InputError(
            compose(
                "switch takes an integer and a list of functions",
                where=str(user_site(record.current().names)),
                differences=rows,
                instead="hj.switch(index.long(), [first, second], (x,)), or hj.cond for a bool",
                page="inputerror",
            )
        )
