"""What the body of a loop leaves behind: a capture runs it once, or as often as the example does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .. import _torch
from .._errors import CaptureError, compose
from .._sites import user_site
from . import record
from .effects import NEAR, Effects, alike, same
from .structure import flatten
from .values import stands_for_none


def leaving_nothing(loop: Callable[..., Any], functions: tuple[Any, ...], run: Callable[[], Any]) -> Any:
    """Runs what records a loop; its body may leave only tensors of its own, which raise when they are used.

    Args:
        loop: The loop's function.
        functions: What is repeated, as the user wrote it.
        run: Records the loop.

    Raises:
        CaptureError: Something else is left, such as an item of a list: as often as the example has it.
    """
    effects = Effects(functions, (), {}, most=NEAR)
    before = effects.take()
    result = run()
    rows = []
    for name, first, second in zip(effects.names, before, effects.take(), strict=True):
        if alike(first, second):
            continue
        if isinstance(second, dict):
            keys = [key for key in {**first, **second} if not same(first.get(key), second.get(key))]
            rows += [f"{name}.{key}" for key in keys if not _is_lent(second.get(key))]
        elif isinstance(second, list) and len(first) == len(second):
            changed = [each for one, each in zip(first, second, strict=True) if not same(one, each)]
            rows += [name for each in changed if not _is_lent(each)]
        else:
            rows.append(name)
    if rows:
        raise CaptureError(
            compose(
                f"the body of a {loop.__name__} leaves something behind, as often as it runs on the example",
                where=str(user_site(record.current().names)),
                differences=[f"{row}: is changed" for row in rows],
                instead="return it with what is carried, and set or append it after the loop",
                page="paths-that-differ",
            )
        )
    return result


def _is_lent(value: Any) -> bool:
    """Whether a value is made of tensors alone that nobody can use any more."""
    leaves = [value] if isinstance(value, Tensor) else flatten(value).leaves
    if _torch.tracing_state() is None:
        return all(isinstance(leaf, Tensor) for leaf in leaves)
    found = [_torch.known_value(leaf) if isinstance(leaf, Tensor) else None for leaf in leaves]
    return all(each is not None and stands_for_none(each.node()) for each in found)
