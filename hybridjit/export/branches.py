"""`branches=`: `branch_if_tracing` for code that can't be edited: submodules by name or found, and helpers in them."""

from __future__ import annotations

import contextlib
import difflib
import gc
import inspect
import math
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from fnmatch import fnmatchcase
from types import CodeType, FunctionType, MappingProxyType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from .. import _torch
from .._describe import describe, listed, place
from .._errors import CaptureError, InputError, compose
from .._sites import Line, Site
from ..control import record
from ..control.asides import Arguments
from ..control.calls import call_at
from ..control.merges import covers, merged
from ..control.paths import at_most, trace_paths
from ..control.recorder import active


class Branching:
    """A module's ``forward`` while it is captured with its ``if``s as branches.

    An object, not a function: ``torch.jit`` tries to compile functions that it finds on a module.
    """

    def __init__(
        self, path: str, forward: Callable[..., Any], parts: Callable[[Site], bool], others: Sequence[Arguments] = ()
    ) -> None:
        self.path = path
        self.forward = forward
        self.parts = parts
        self.others = others
        hooks = getattr(getattr(forward, "__self__", None), "_forward_hooks", True)
        self._last = not path and not hooks  # nothing of the model runs after its own forward

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Runs the module; in a trace, with its ``if``s as branches."""
        if _torch.tracing_state() is None:
            return self.forward(*args, **kwargs)
        last, self._last = self._last, False  # if it calls itself, something does
        try:
            return trace_paths(self.forward, args, kwargs, self.parts, self.others, last)
        except CaptureError as error:
            raise _noted(BranchingError(error, self.path)) from error
        finally:
            self._last = last


class BranchingError(CaptureError):
    """A module can't be captured with its ``if``s as branches.

    Attributes:
        error: Why.
        path: The module, by its path; the innermost that was to branch.
        helper: Where the function begins that it is, if not a module's ``forward``; or the line of an ``if``.
        spent: How many paths there were until then.
    """

    spent: int = 0

    def __init__(self, error: CaptureError, path: str, helper: Line | None = None) -> None:
        inner = error if isinstance(error, BranchingError) else None
        super().__init__(str(error))
        self.error: CaptureError = inner.error if inner else error
        self.helper: Line | None = inner.helper if inner else helper
        self.path: str = inner.path if inner and not inner.helper else path


def helpers_at(lines: Collection[Line]) -> dict[Line, FunctionType]:
    """The innermost function around each line that is there before the model is called; no generator."""
    files = {file for file, _ in lines}
    found: dict[Line, FunctionType] = {}
    # What calls operations as if from a line of the model's is none of its functions.
    for each in gc.get_objects() if lines else ():
        if type(each) is not FunctionType or _MADE in vars(each):
            continue
        if each.__code__.co_filename in files and each.__globals__ is not _CALLS:
            numbers, first = _lines(each.__code__), each.__code__.co_firstlineno
            for line in lines:
                around = line[0] == each.__code__.co_filename and line[1] in numbers
                if around and (line not in found or found[line].__code__.co_firstlineno < first):
                    found[line] = each
    flags = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
    return {line: helper for line, helper in found.items() if not helper.__code__.co_flags & flags}


def with_lines(lines: Collection[Line]) -> list[tuple[FunctionType, list[int]]]:
    """The functions of `helpers_at`, each with its lines."""
    within: dict[int, tuple[FunctionType, list[int]]] = {}
    for (_, line), helper in helpers_at(lines).items():
        within.setdefault(id(helper), (helper, []))[1].append(line)
    return list(within.values())


_CALLS = call_at.__globals__
_MADE = "made_by_hybridjit"
"""An attribute of functions that stand for, or are part of, one of the model's."""


def _lines(code: CodeType) -> set[int | None]:
    """The lines of a function, with those of the functions and comprehensions in it."""
    inner = [_lines(each) for each in code.co_consts if isinstance(each, CodeType)]
    return {line for *_, line in code.co_lines()}.union(*inner)


def begins(helper: FunctionType) -> Line:
    """Where a function begins."""
    return helper.__code__.co_filename, helper.__code__.co_firstlineno


@contextlib.contextmanager
def meeting(
    lines: Collection[Line],
    merges: Collection[Line],
    parts: Callable[[Site], bool] = lambda site: True,
    others: Others = MappingProxyType({}),
    most: float = math.inf,
    within: Collection[Line] = (),
) -> Iterator[None]:
    """Makes paths within the body meet again before their end.

    Who calls the functions may hold them under any name, so that it is their code that is another meanwhile.

    Args:
        lines: Of ``if``s whose paths meet where the innermost function around them ends, if it is part of a path.
        merges: Of ``if``s whose paths meet where they end themselves.
        parts: Whether an ``if`` at a line becomes a branch.
        others: What other inputs of the model give the functions, and the ``if``s.
        most: How many paths there may be in all.
        within: Of ``if``s that have paths whether or not they are part of one.
    """
    changed: list[tuple[FunctionType, CodeType]] = []
    parting = lambda site: (site.file, site.line) in within or parts(site)  # noqa: E731
    try:
        for helper, own in with_lines({*merges, *within}):
            code = helper.__code__
            changed.append((helper, code))
            name, file = helper.__qualname__, code.co_filename
            helper.__code__ = merged(
                helper, {at: _Merged(name, parting, (file, at), others, (file, at) in within) for at in own}
            )
        for helper, _ in with_lines(lines):
            code = helper.__code__
            twin = FunctionType(code, helper.__globals__, helper.__name__, helper.__defaults__, helper.__closure__)
            twin.__kwdefaults__, twin.__qualname__ = helper.__kwdefaults__, helper.__qualname__
            twin.__module__ = helper.__module__
            vars(twin)[_MADE] = True
            changed.append((helper, code))
            helper.__code__ = _calling(_Helper(twin, parts, others).__call__, code)
        with at_most(most) as spent:
            try:
                yield
                for error in record.current().failed:
                    raise error
            except BranchingError as error:
                if error.helper in within:  # to have its paths meet earlier is of no help
                    raise CaptureError(str(error)) from error
                error.spent = len(spent)
                raise
    finally:
        for helper, code in reversed(changed):
            helper.__code__ = code


class _Merged:
    """An ``if`` as a function."""

    def __init__(
        self, name: str, parts: Callable[[Site], bool], line: Line, others: Others, alone: bool = False
    ) -> None:
        self.alone = alone
        self.name = name
        self.parts = parts
        self.line = line
        self.others = others

    def __call__(self, /, fn: FunctionType, *args: Any) -> Any:
        fn.__qualname__ = self.name
        vars(fn)[_MADE] = True
        given = _meets(fn, args, {}, self.parts, self.line, self.others, self.alone)
        if _traces(self.alone) and not all(map(_is_plain, given if isinstance(given, tuple) else [given])):
            raise _refused("gives a list or an object, of which it would make another one", self.line)
        return given


def _is_plain(value: Any) -> bool:
    """Whether a value is the same whichever object it is."""
    if type(value) is tuple:
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (Tensor, str, bool, int, float, nn.Module, torch.dtype, torch.device))


def _refused(why: str, line: Line) -> BranchingError:
    error = CaptureError(
        compose(f"the paths of an if can't meet before its function ends: it {why}", where=place(*line))
    )
    return _noted(BranchingError(error, "", line))


def _noted(error: BranchingError) -> BranchingError:
    """Has an error told in the end, too, if code of the model catches it."""
    record.current().failed.append(error)
    return error


def _traces(alone: bool = False) -> bool:
    """Whether paths part here; alone, outside of others, too."""
    recorder = active()
    on_path = recorder is not None and recorder.frames[-1].path is not None
    return (alone or on_path) and _torch.tracing_state() is not None


class _Helper:
    def __init__(self, fn: FunctionType, parts: Callable[[Site], bool], others: Others) -> None:
        self.fn = fn
        self.parts = parts
        self.others = others

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return _meets(self.fn, args, kwargs, self.parts, begins(self.fn), self.others)


def _meets(
    fn: FunctionType,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    parts: Callable[[Site], bool],
    line: Line,
    others: Others,
    alone: bool = False,
) -> Any:
    """Runs a function; where it is part of a path, its paths meet at its end."""
    heard = _heard.get()
    key = line, *(id(each) for each in args if isinstance(each, nn.Module))
    if heard is not None:
        _hear(heard.setdefault(key, []), args, kwargs)
    if not _traces(alone):
        return fn(*args, **kwargs)
    if not all(map(covers, (*args, *kwargs.values()))):
        raise _refused("is given what may change unseen", line)
    seen = record.current()
    before = seen.ranks
    try:
        with at_most(math.inf) if alone else contextlib.nullcontext():  # of each turn, of which one is left
            result = trace_paths(fn, args, kwargs, parts, others.get(key, ()))
    except CaptureError as error:
        raise _noted(BranchingError(error, "", line)) from error
    except Exception as error:
        _refused(f"raises {type(error).__name__}, which the model catches", line)
        raise
    if seen.ranks > before:
        raise _refused("gives tensors of different ranks", line)
    return result


def _calling(run: Callable[..., Any], code: CodeType) -> CodeType:
    """Code that does nothing but call something, for a function with the variables of another's closure."""
    # It has them although it reads none: whoever looks at its frame's variables looks at these, too.
    free = ", ".join(code.co_freevars)
    source = (
        f"def outer({free}):\n def stands(*args, **kwargs):\n  if 0: [{free}]\n  return 'run'.__call__(*args, **kwargs)"
    )
    outer = next(each for each in compile(source, __file__, "exec").co_consts if isinstance(each, CodeType))
    stands = next(each for each in outer.co_consts if isinstance(each, CodeType))
    constants = tuple(run if each == "run" else each for each in stands.co_consts)
    return stands.replace(co_consts=constants, co_freevars=code.co_freevars, co_name=code.co_name)


@contextlib.contextmanager
def branching(
    model: nn.Module,
    paths: Sequence[str],
    parts: Callable[[Site], bool] = lambda site: True,
    others: Others = MappingProxyType({}),
) -> Iterator[None]:
    """Gives the submodules at these paths a `Branching` forward within the body.

    Args:
        model: The model.
        paths: The submodules' paths.
        parts: Whether an ``if`` at a line becomes a branch.
        others: What other inputs of the model give them, by path.
    """
    with _forwards(model, paths, lambda path, forward: Branching(path, forward, parts, others.get(path, ()))):
        yield


@contextlib.contextmanager
def listening(
    model: nn.Module, paths: Sequence[str], lines: Collection[Line], merges: Collection[Line]
) -> Iterator[dict[Hashable, list[Arguments]]]:
    """Notes what submodules are given within the body, by path, and functions and ``if``s: of each the first calls."""
    found: dict[Hashable, list[Arguments]] = {path: [] for path in paths}
    token = _heard.set(found)
    try:
        with _forwards(model, paths, lambda path, forward: _Listening(forward, found[path])), meeting(lines, merges):
            yield found
    finally:
        _heard.reset(token)


Others: TypeAlias = "Mapping[Hashable, Sequence[Arguments]]"
"""What other inputs give submodules, by path, and functions and ``if``s, by line and the modules that they get."""
_heard: ContextVar[dict[Hashable, list[Arguments]] | None] = ContextVar("heard", default=None)


_CALLS_KEPT = 4
"""How many calls of one submodule are noted."""


class _Listening:
    def __init__(self, forward: Callable[..., Any], calls: list[Arguments]) -> None:
        self.forward = forward
        self.calls = calls

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        _hear(self.calls, args, kwargs)
        return self.forward(*args, **kwargs)


def _hear(calls: list[Arguments], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if len(calls) < _CALLS_KEPT:
        calls.append(_torch.tree_map(_kept, (args, kwargs)))


def _kept(value: Any) -> Any:
    """What a value is now: a tensor may be changed in place later."""
    return value.detach().clone() if isinstance(value, Tensor) and not isinstance(value, nn.Parameter) else value


@contextlib.contextmanager
def _forwards(model: nn.Module, paths: Sequence[str], make: Callable[[str, Any], Any]) -> Iterator[None]:
    """Gives the submodules at these paths another ``forward`` within the body."""
    changed: dict[nn.Module, Any] = {}
    try:
        for path in paths:
            module = model.get_submodule(path)
            if module not in changed:  # one module by two names
                changed[module] = vars(module).get("forward")
                vars(module)["forward"] = make(path, module.forward)
        yield
    finally:
        for module, before in changed.items():
            if before is None:
                del vars(module)["forward"]
            else:
                vars(module)["forward"] = before


def matching(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """The submodules that names or patterns (``layers.*.attn``) mean; ``""`` is the model itself.

    Raises:
        InputError: A pattern is no text, or means no module that can branch.
    """
    if not isinstance(patterns, (list, tuple, set, frozenset)) or not all(isinstance(each, str) for each in patterns):
        raise InputError(
            compose(
                "branches takes a list of module names or patterns, or 'auto'",
                differences=[f"expected a list of text, got {describe(patterns)}"],
                instead='branches=["roi_heads", "layers.*.attn"]',
                page="inputerror",
            )
        )
    names = {name: module for name, module in model.named_modules() if not isinstance(module, _torch.ScriptModule)}
    found: list[str] = []
    for pattern in patterns:
        hits = [name for name in names if fnmatchcase(name, pattern)]
        if not hits:
            near = difflib.get_close_matches(pattern, names, n=3) or list(names)[1:4]
            there = f"expected a module's path, such as {listed(near)}" if near else "the model has no submodules"
            raise InputError(
                compose(
                    f"branches names no module: {pattern!r}",
                    where=type(model).__qualname__,
                    differences=[there],
                    instead=f"branches={near[:1]!r}" if near else 'branches="auto"',
                    page="inputerror",
                )
            )
        found += [name for name in hits if name not in found]
    return found


def parent(path: str) -> str | None:
    """The module around one; ``None`` around the model itself."""
    return path.rpartition(".")[0] if path else None
