"""`while_loop`, `fori_loop`, `scan` and `map`: loops whose number of rounds is known at run time only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from typing_extensions import TypeVarTuple, Unpack

from .. import _torch
from .._describe import describe
from .._errors import InputError, compose
from .._sites import user_site
from . import record
from .functions import check_functions
from .kept import leaving_nothing
from .lower import capturing, lower_fori_loop, lower_map, lower_scan, lower_while_loop
from .paths import as_paths
from .recorder import as_one_operation
from .rounds import as_carry, stack, stack_dim, trace_fori_loop, trace_scan, trace_while_loop, zero_slice
from .structure import flatten

Ts = TypeVarTuple("Ts")
C = TypeVar("C")
X = TypeVar("X")
Y = TypeVar("Y")


def while_loop(
    cond_fn: Callable[[Unpack[Ts]], Tensor | bool],
    body_fn: Callable[[Unpack[Ts]], tuple[Unpack[Ts]]],
    carried_inputs: tuple[Unpack[Ts]],
) -> tuple[Unpack[Ts]]:
    """Repeats a function for as long as a predicate of what it carries holds.

    In eager mode this is::

        def while_loop(cond_fn, body_fn, carried_inputs):
            while cond_fn(*carried_inputs):
                carried_inputs = body_fn(*carried_inputs)
            return carried_inputs

    In a trace the body is recorded once, as a loop. It may use tensors, modules and parameters
    from outside. What it carries keeps its structure and dtypes; shapes may change from round to
    round in TorchScript.

    Args:
        cond_fn: Takes what is carried; a tensor of one element.
        body_fn: Takes what is carried, and returns the new tuple.
        carried_inputs: A tuple of tensors, numbers, or containers of them.

    Returns:
        What is carried in the end. In a trace, numbers are tensors of no dimensions.

    Raises:
        InputError: ``carried_inputs`` is no tuple.
        CaptureError: The body returns another structure or dtype than it takes, or changes a tensor
            from outside in place.

    Example:
        >>> import torch, hybridjit as hj
        >>> def halve(x):
        ...     return hj.while_loop(lambda x: x.sum() > 1, lambda x: (x / 2,), (x,))[0]
        >>> traced = torch.jit.trace(halve, torch.ones(2))
        >>> traced(torch.tensor([4.0, 4.0]))
        tensor([0.5000, 0.5000])
    """
    functions = {"cond_fn": cond_fn, "body_fn": body_fn}
    check_functions("while_loop", functions, "hj.while_loop(lambda x: x.sum() > 1, lambda x: (x / 2,), (x,))")
    if not isinstance(carried_inputs, (tuple, list)):
        _refuse("while_loop", "carried_inputs", "a tuple", carried_inputs, "while_loop(cond_fn, body_fn, (x,))")
    if _torch.tracing_state() is not None:
        sides = as_paths(cond_fn), as_paths(body_fn)
        run = lambda: trace_while_loop(*sides, tuple(carried_inputs), (cond_fn, body_fn))  # noqa: E731
        last: tuple[Unpack[Ts]] = _recorded(while_loop, carried_inputs, (cond_fn, body_fn), run)
        return last
    if capturing():
        rounds: tuple[Unpack[Ts]] = _lowered(
            while_loop, (cond_fn, body_fn), lambda: lower_while_loop(cond_fn, body_fn, carried_inputs)
        )
        return rounds
    carried: Any = tuple(carried_inputs)
    going: Any = None
    try:
        while going := cond_fn(*carried):
            carried = as_carry(body_fn(*carried), len(carried))
    except RuntimeError:
        if isinstance(going, Tensor) and going.numel() != 1:  # which has no truth
            _refuse(
                "while_loop", "result of cond_fn", "a tensor of one element or a bool", going, "x.any(), or x.all()"
            )
        raise
    result: tuple[Unpack[Ts]] = carried
    return result


def fori_loop(lower: int | Tensor, upper: int | Tensor, body_fn: Callable[[Any, C], C], init: C) -> C:
    """Repeats a function for each number of a range.

    In eager mode this is::

        def fori_loop(lower, upper, body_fn, init):
            carry = init
            for i in range(lower, upper):
                carry = body_fn(i, carry)
            return carry

    In a trace the bounds may be traced sizes or integer tensors, and stay dynamic.

    Args:
        lower: The first number; an int, or an integer tensor of one element.
        upper: One past the last; no rounds if it is not above ``lower``.
        body_fn: Takes the number (in a trace an int64 tensor of no dimensions) and what is carried.
        init: What is carried first: a tensor, a number, or a container of them.

    Returns:
        What is carried in the end.

    Raises:
        InputError: A bound is no integer.
        CaptureError: As for `while_loop`.

    Example:
        >>> import torch, hybridjit as hj
        >>> def power(x):
        ...     return hj.fori_loop(0, x.shape[0], lambda i, y: y * 2, x)
        >>> traced = torch.jit.trace(power, torch.ones(1))
        >>> traced(torch.ones(3))
        tensor([8., 8., 8.])
    """
    check_functions("fori_loop", {"body_fn": body_fn}, "hj.fori_loop(0, n, lambda i, x: x * 2, x)")
    for name, bound in (("lower", lower), ("upper", upper)):
        if not _is_integer(bound):
            _refuse("fori_loop", name, "an int, or an integer tensor of one element", bound, "x.shape[0], or n.long()")
    if _torch.tracing_state() is not None:
        body = as_paths(body_fn)
        run = lambda: trace_fori_loop(lower, upper, body, init, body_fn)  # noqa: E731
        traced: C = _recorded(fori_loop, (lower, upper, init), (body_fn,), run)
        return traced
    if capturing():
        lowered: C = _lowered(fori_loop, (body_fn,), lambda: lower_fori_loop(lower, upper, body_fn, init))
        return lowered
    carry = init
    for index in range(int(lower), int(upper)):
        carry = body_fn(index, carry)
    return carry


def scan(
    combine_fn: Callable[[C, X], tuple[C, Y]], init: C, xs: X, *, dim: int = 0, reverse: bool = False
) -> tuple[C, Y]:
    """Carries a value along a dimension, and stacks what each step gives.

    In eager mode this is, for one tensor::

        def scan(combine_fn, init, xs, *, dim=0, reverse=False):
            carry, ys = init, []
            for x in xs.unbind(dim):
                carry, y = combine_fn(carry, x)
                ys.append(y)
            return carry, torch.stack(ys, dim)

    A dimension of length 0 gives ``init`` and an empty stack, whose other sizes come from a step on
    zeros. With ``reverse`` the last slice comes first, and each ``y`` stays beside its ``x``.

    Args:
        combine_fn: Takes the carry and a slice of ``xs``; returns the new carry and ``y``.
        init: The first carry: a tensor, a number, or a container of them.
        xs: A tensor, or a container of tensors of one length along ``dim``.
        dim: The dimension to go along.
        reverse: Whether to go from the end.

    Returns:
        The last carry, and the stack of every ``y`` along ``dim`` (along 0 where a ``y`` has fewer
        dimensions).

    Raises:
        InputError: ``xs`` holds no tensor, or tensors of different lengths.
        CaptureError: As for `while_loop`.

    Source:
        ``jax.lax.scan``; ``torch._higher_order_ops.scan``.

    Example:
        >>> import torch, hybridjit as hj
        >>> total, sums = hj.scan(lambda c, x: (c + x, c + x), torch.tensor(0), torch.arange(4))
        >>> sums
        tensor([0, 1, 3, 6])
    """
    check_functions("scan", {"combine_fn": combine_fn}, "hj.scan(lambda carry, x: (carry + x, carry), init, xs)")
    if not isinstance(dim, int):
        _refuse("scan", "dim", "an int", dim, "hj.scan(combine_fn, init, xs, dim=0)")
    dim = _check_xs("scan", xs, dim)
    if _torch.tracing_state() is not None:
        traced: tuple[C, Y] = _traced(scan, combine_fn, combine_fn, init, xs, dim, reverse)
        return traced
    if capturing():
        slices: tuple[C, Y] = _lowered(scan, (combine_fn,), lambda: lower_scan(combine_fn, init, xs, dim, reverse))
        return slices
    both: tuple[C, Y] = _eager_scan(combine_fn, init, xs, dim, reverse)
    return both


def _recorded(loop: Callable[..., Any], given: Any, functions: tuple[Any, ...], run: Callable[[], Any]) -> Any:
    """Records a loop as one operation of the path under way."""
    return as_one_operation(loop, given, lambda: leaving_nothing(loop, functions, run))


def _lowered(loop: Callable[..., Any], functions: tuple[Any, ...], run: Callable[[], Any]) -> Any:
    """Records a loop where torch.export, AOT or Dynamo does; all but Dynamo may be on a path that runs again."""
    return run() if capturing() == "dynamo" else _recorded(loop, (), functions, run)


def _traced(loop: Any, own: Any, combine_fn: Any, init: Any, xs: Any, dim: int = 0, reverse: bool = False) -> Any:
    """Records a `scan`, or what is one, of the user's own function."""
    body = as_paths(combine_fn)
    return _recorded(loop, (init, xs), (own,), lambda: trace_scan(body, init, xs, dim, reverse, own))


def _eager_scan(combine_fn: Any, init: Any, xs: Any, dim: int, reverse: bool) -> Any:
    flat = flatten(xs)
    length = flat.leaves[0].shape[dim]
    carry, rows = init, []
    # Of no slices the sizes of the result are unknown; a step on zeros tells them.
    for index in range(max(length, 1))[:: -1 if reverse else 1]:
        slices = [x.select(dim, index) if length else zero_slice(x, dim) for x in flat.leaves]
        made = combine_fn(carry, flat.rebuild(slices))
        if not isinstance(made, (tuple, list)) or len(made) != 2:
            _refuse("scan", "result of combine_fn", "a tuple (carry, y)", made, "lambda carry, x: (carry + x, carry)")
        carry, y = made
        rows.append(flatten(y))
    if reverse:
        rows.reverse()
    stacks = [stack(column, dim) for column in zip(*(row.leaves for row in rows), strict=True)]
    if not length:
        carry, stacks = init, [each.narrow(stack_dim(each.dim() - 1, dim), 0, 0) for each in stacks]
    return carry, rows[0].rebuild(stacks)


def map(fn: Callable[[X], Y], xs: X) -> Y:
    """Applies a function to each slice along dimension 0, and stacks the results.

    In eager mode this is, for one tensor::

        def map(fn, xs):
            return torch.stack([fn(x) for x in xs])

    Args:
        fn: Takes a slice of ``xs``; returns a tensor or a container of tensors.
        xs: A tensor, or a container of tensors of one length.

    Returns:
        What ``fn`` returned, stacked; empty where ``xs`` is.

    Raises:
        InputError: ``xs`` holds no tensor, or tensors of different lengths.
        CaptureError: As for `while_loop`.

    Source:
        ``jax.lax.map``.

    Example:
        >>> import torch, hybridjit as hj
        >>> hj.map(lambda x: x.sum(), torch.ones(2, 3))
        tensor([3., 3.])
    """
    check_functions("map", {"fn": fn}, "hj.map(lambda x: x * 2, xs)")
    _check_xs("map", xs, 0)
    if _torch.tracing_state() is None and capturing():
        lowered: Y = _lowered(map, (fn,), lambda: lower_map(fn, xs))
        return lowered
    step = lambda carry, x: (carry, fn(x))  # noqa: E731
    ys: Y = (
        _traced(map, fn, step, (), xs) if _torch.tracing_state() is not None else _eager_scan(step, (), xs, 0, False)
    )[1]
    return ys


def _is_integer(value: Any) -> bool:
    if isinstance(value, Tensor):
        with _torch.paused_tracing():
            return value.numel() == 1 and not (value.is_floating_point() or value.is_complex())
    return isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool)


def _check_xs(name: str, xs: Any, dim: int) -> int:
    """Refuses what has no slices, and gives the dimension as one from 0."""
    flat = flatten(xs)
    with _torch.paused_tracing(), _torch.unwatched():
        hint = "hj.map(fn, x.unsqueeze(0))" if name == "map" else "hj.scan(fn, init, x.unsqueeze(0))"
        fits = [isinstance(x, Tensor) and -x.dim() <= dim < x.dim() for x in flat.leaves]
        if not fits or False in fits:
            _refuse(name, "xs", f"tensors that have the dimension {dim}", xs, hint)
        first = flat.leaves[0]
        differ = [x.shape[dim] != first.shape[dim] or dim % x.dim() != dim % first.dim() for x in flat.leaves[1:]]
        if True in differ:
            rows = [f"xs{path}: {describe(x)}" for path, x in zip(flat.paths, flat.leaves, strict=True)]
            raise InputError(
                compose(
                    f"{name} takes tensors of one length along dimension {dim}",
                    where=str(user_site(record.current().names)),
                    differences=rows,
                    instead="tensors of one length, and what all steps share from outside, or in init",
                    page="inputerror",
                )
            )
        return int(dim % first.dim())


def _refuse(function: str, name: str, expected: str, got: Any, instead: str) -> None:
    with _torch.paused_tracing():
        spelled = describe(got)
    raise InputError(
        compose(
            f"{function} got another {name} than it takes",
            where=str(user_site(record.current().names)),
            differences=[f"{name}: expected {expected}, got {spelled}"],
            instead=instead,
            page="inputerror",
        )
    )
