"""The wrapper that a decorator puts around a function: cheap in eager mode, and seen through by torch."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import CellType, CodeType, FunctionType
from typing import Any

from .. import _torch


def make_wrapper(fn: FunctionType, capturing: Callable[[], Any], on_capture: Callable[..., Any]) -> FunctionType:
    """Makes a wrapper with the parameters, globals and free variables of ``fn``.

    Its own parameters are those of ``fn``, because passing ``*args, **kwargs`` on costs eager code
    more than the question whether a capture is under way; and what rules one out is asked in its own
    code, because a call of a function that asks costs as much again. ``torch.jit.script(model)`` compiles a
    decorated method from the source that ``__wrapped__`` leads to, but looks its names up in the
    wrapper's globals and closure; so the wrapper has those of ``fn``, besides its own.

    Args:
        fn: The function.
        capturing: Whether a capture is under way that this is part of: asked where one may be, ``None`` if not.
        on_capture: Called with the arguments as a tuple and a dict while one is.
    """
    code = fn.__code__
    count, only = code.co_argcount, code.co_kwonlyargcount
    names = code.co_varnames
    rest = list(names[count + only :])
    stars = rest.pop(0) if code.co_flags & inspect.CO_VARARGS else ""
    double = rest.pop(0) if code.co_flags & inspect.CO_VARKEYWORDS else ""
    made = _wrapper_code(
        names[: code.co_posonlyargcount],
        names[code.co_posonlyargcount : count],
        stars,
        names[count : count + only],
        double,
        code.co_freevars,
    )
    asked = (_torch.tracing_state, _torch.dynamo_traces, _torch.dispatch_modes, capturing)
    own = dict(zip(_OWN, (fn, *asked, on_capture), strict=True))
    cells = {name: CellType(value) for name, value in own.items()}
    cells.update(zip(code.co_freevars, fn.__closure__ or (), strict=True))
    closure = tuple(cells[name] for name in made.co_freevars)
    wrapper = FunctionType(made, fn.__globals__, fn.__name__, fn.__defaults__, closure)
    wrapper.__kwdefaults__ = fn.__kwdefaults__
    return wrapper


_OWN = ("_hj_fn", "_hj_state", "_hj_dynamo", "_hj_modes", "_hj_capturing", "_hj_record")
"""The wrapper's own names start with an underscore and hj, out of the way of the user's."""


@functools.cache
def _wrapper_code(
    positional_only: tuple[str, ...],
    positional: tuple[str, ...],
    stars: str,
    keyword_only: tuple[str, ...],
    double: str,
    free: tuple[str, ...],
) -> CodeType:
    """The code of a wrapper for one list of parameters; shared by the functions that have it."""
    parameters = [*positional_only, *(["/"] if positional_only else []), *positional]
    parameters += [f"*{stars}" if stars else "*"] if stars or keyword_only else []
    parameters += [*keyword_only, *([f"**{double}"] if double else [])]
    given = [*positional_only, *positional, *([f"*{stars}"] if stars else [])]
    named = [f"{name}={name}" for name in keyword_only] + ([f"**{double}"] if double else [])
    # Dynamo takes the second answer for a constant, and knows nothing of the third.
    source = f"""
def outer({", ".join([*_OWN, *free])}):
    def wrapper({", ".join(parameters)}):
        if _hj_state() is None and not _hj_dynamo() and not _hj_modes() or _hj_capturing() is None:
            return _hj_fn({", ".join(given + named)})
        return _hj_record(({"".join(f"{each}, " for each in given)}), dict({", ".join(named)}))
        {", ".join(free)}
"""
    outer = next(c for c in compile(source, __file__, "exec").co_consts if isinstance(c, CodeType))
    return next(c for c in outer.co_consts if isinstance(c, CodeType))
