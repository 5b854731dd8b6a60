"""What a function changes besides its result: attributes, lists, variables of an outer function."""

from __future__ import annotations

import dis
import functools
import inspect
import itertools
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from .. import _torch
from .._describe import describe, listed
from .._errors import CaptureError, compose
from . import dicts
from .objects import put_together, taken_apart

NEAR = 500
"""How many containers a `cond` or a loop looks at: a model may hold many of them, and each looks."""
Contents = list[Any]
"""A copy of each container, one level deep, in the order of the containers."""


class Global:
    """A name of a module that a function sets."""

    def __init__(self, space: dict[str, Any], name: str) -> None:
        self.space = space
        self.name = name

    def read(self) -> list[Any]:
        """What it holds; empty if it is not set."""
        return [self.space[self.name]] if self.name in self.space else []

    def write(self, held: list[Any]) -> None:
        """Sets it to what `read` gave."""
        if held:
            self.space[self.name] = held[0]
        else:
            self.space.pop(self.name, None)


class Effects:
    """The containers that functions can reach, and what they hold.

    A function that runs once per path must find them each time as the first run did, and leave
    them alike on every path: Python around it goes on with one of them only. Reached are arguments,
    variables of outer functions, globals by name, and what these hold, the near before the far.

    Args:
        functions: The functions, or modules; those that they call from outside are followed.
        args: Positional arguments that all get.
        kwargs: Keyword arguments that all get.
        most: How many containers and functions are looked at, since a model may hold any number.
    """

    def __init__(
        self,
        functions: Sequence[Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        most: int = 4000,
    ) -> None:
        self.names: list[str] = []
        self.containers: list[Any] = []
        self.modules: dict[int, nn.Module] = {}  # of a container, by its id, that has attributes or buffers of one
        self.owners: list[Any] = []  # whose attributes a container is; else the container
        self._seen: set[int] = set()
        self._queue: deque[tuple[str, Any]] = deque()
        for fn in functions:
            self._follow(fn)
            if isinstance(fn, nn.Module):
                self._open(type(fn).__name__, fn)
            code = getattr(inspect.unwrap(getattr(fn, "__func__", fn)), "__code__", None)
            is_bound = inspect.ismethod(fn) or (isinstance(fn, FunctionType) and "__self__" in vars(fn))
            owner = [fn.__self__] if is_bound else []
            names = getattr(code, "co_varnames", ())
            self._queue.extend(zip([*names, *(f"args[{i}]" for i in range(len(names), 99))], [*owner, *args]))  # noqa: B905
        self._queue.extend(kwargs.items())
        while self._queue and len(self._seen) < most:
            self._open(*self._queue.popleft())

    def _follow(self, fn: Any) -> None:
        """Queues what a function reads from outside."""
        if isinstance(fn, functools.partial):
            self._queue.extend((f"args[{i}]", value) for i, value in enumerate((fn.func, *fn.args)))
            return
        if inspect.ismethod(fn):
            self._queue.append(("self", fn.__self__))
        fn = inspect.unwrap(getattr(fn, "__func__", fn))
        if not isinstance(fn, FunctionType) or id(fn) in self._seen or not is_users(fn.__module__ or ""):
            return
        self._seen.add(id(fn))
        self._queue.extend(zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True))
        space = fn.__globals__
        for name, sets in _globals(fn.__code__):
            if sets:
                self._keep(name, Global(space, name))
            elif name in space:
                self._queue.append((name, space[name]))

    def _open(self, name: str, value: Any) -> None:
        # A torch.Size holds traced sizes, and reading it is one more operation of the trace.
        if isinstance(value, (Tensor, torch.Size, str, int, float, bytes, type, ModuleType)) or value is None:
            return
        if isinstance(value, (FunctionType, MethodType, functools.partial)):
            self._follow(value)
        elif id(value) in self._seen:
            return
        elif isinstance(value, CellType):
            self._keep(name, value)
            self._queue.extend((name, held) for held in _copy(value))
        elif isinstance(value, nn.Module):
            self._seen.add(id(value))
            self._keep(name, vars(value), value)
            self.modules[id(vars(value))] = value
            for key, held in list(vars(value).items()):
                if key == "_modules":
                    self._queue.extend((f"{name}.{each}", module) for each, module in held.items())
                elif key in ("_buffers", "_parameters"):
                    self._keep(name, held)
                    self.modules[id(held)] = value
                elif key in ("_forward_hooks", "_forward_pre_hooks"):
                    self._queue.extend((f"{name}.{key}", hook) for hook in held.values())
                elif not key.endswith("_hooks"):
                    self._queue.append((f"{name}.{key}", held))
        elif isinstance(value, (list, tuple)):
            if isinstance(value, list):
                self._keep(name, value)
            self._queue.extend((f"{name}[{index}]", held) for index, held in enumerate(value[:_WIDE]))
        elif isinstance(value, dict):
            self._keep(name, value)
            held = itertools.islice(dicts.contents(value).items(), _WIDE)
            self._queue.extend((f"{name}[{key!r}]", item) for key, item in held)
        elif isinstance(value, set):
            self._keep(name, value)
        elif isinstance(value, ContextVar):
            self._queue.append((name, value.get(None)))
        elif is_users(type(value).__module__) and hasattr(value, "__dict__"):
            self._seen.add(id(value))
            self._keep(name, vars(value), value)
            self._queue.extend((f"{name}.{key}", held) for key, held in list(vars(value).items())[:_WIDE])

    def _keep(self, name: str, container: Any, owner: Any = None) -> None:
        if id(container) not in self._seen:
            self._seen.add(id(container))
            self.names.append(name)
            self.containers.append(container)
            self.owners.append(container if owner is None else owner)

    def take(self) -> Contents:
        """Copies what the containers hold."""
        return [_copy(container) for container in self.containers]

    def put(self, contents: Contents) -> None:
        """Puts back what the containers held."""
        for container, held in zip(self.containers, contents, strict=True):
            if isinstance(container, CellType):
                if held:
                    container.cell_contents = held[0]
                elif _copy(container):
                    del container.cell_contents
            elif isinstance(container, Global):
                container.write(held)
            elif isinstance(container, list):
                if not alike(container, held, exactly=True):
                    container[:] = held
            elif isinstance(container, set):
                if container != held:
                    container.clear()
                    container |= held
            elif not alike(container, held, exactly=True):
                dicts.fill(container, held)

    def written(self, before: Contents, ends: Sequence[Contents]) -> Iterator[tuple[nn.Module, str]]:
        """The attributes and buffers of modules that are others in some ends than before, by module and name."""
        for container, was, *held in zip(self.containers, before, *ends, strict=True):
            module = self.modules.get(id(container))
            if module is None or all(alike(was, each, exactly=True) for each in held):
                continue
            for key in {*was, *(key for each in held for key in each)}:
                if not all(key in was and key in each and same(was[key], each[key], exactly=True) for each in held):
                    yield module, key

    def check_same(self, ends: list[Contents], names: tuple[str, str], where: str) -> None:
        """Refuses paths that leave the containers different.

        Raises:
            CaptureError: With what differs, by name.
        """
        if len(ends) < 2:  # one side raises, and leaves nothing
            return
        rows = []
        for name, container, first, second in zip(self.names, self.containers, *ends, strict=True):
            if alike(first, second):
                continue
            if isinstance(container, dict):
                keys = [key for key in {**first, **second} if not same(first.get(key), second.get(key))]
                with _torch.paused_tracing():  # in which a size is a number
                    rows += [f"{name}.{key}: {describe(first.get(key))} or {describe(second.get(key))}" for key in keys]
            else:
                rows.append(f"{name}: differs in what it holds")
        if rows:
            raise CaptureError(
                compose(
                    "the paths of a function leave different things behind, and only its result can be a branch",
                    where=where,
                    differences=[*rows, f"first on {names[0]}, then on {names[1]}"],
                    instead="return what the paths make different, and set or append it after the call",
                    page="paths-that-differ",
                )
            )

    def left(self, before: Contents) -> Left:
        """What the containers hold since they held something else.

        Args:
            before: What `take` gave then.
        """
        rows = enumerate(zip(self.containers, before, self.take(), strict=True))
        changed = [(index, was, now) for index, (container, was, now) in rows if not alike(was, now)]
        return Left(self.names, {id(each): index for index, each in enumerate(self.owners)}, changed)


@dataclass(frozen=True)
class Left:
    """What a function left behind besides its result.

    Attributes:
        names: Of the containers that it can reach.
        places: Of each of them, or of whose attributes they are, by the ``id``, which one it is.
        changed: Of each that it changed which one it is, what it held, and what it holds since.
    """

    names: list[str]
    places: dict[int, int]
    changed: list[tuple[int, Any, Any]]

    def again(self, effects: Callable[[], Effects]) -> None:
        """Leaves the same behind without running the function.

        Args:
            effects: What the function reaches now: lists and dicts that its caller makes are others in each run.

        Raises:
            CaptureError: It reaches something else than it did.
        """
        if not self.changed:
            return
        reached = effects()
        if reached.names != self.names:
            raise CaptureError(
                compose(
                    "a function that leaves something behind is given something else when its caller runs again",
                    differences=[f"left in {listed([self.names[index] for index, *_ in self.changed])}"],
                    instead="return what it leaves, and set or append it after the call",
                    page="paths-that-differ",
                )
            )
        contents = reached.take()
        for index, was, now in self.changed:
            contents[index] = self._moved(was, now, contents[index], reached)
        reached.put(contents)

    def _moved(self, was: Any, now: Any, here: Any, reached: Effects) -> Any:
        """What a container has to hold: where nothing changed, what this run put there."""

        def mine(value: Any) -> Any:
            place = self.places.get(id(value))
            return reached.owners[place] if place is not None else put_together(taken_apart(value))

        def moved(value: Any) -> Any:
            return _torch.tree_map(mine, value, is_leaf=lambda each: id(each) in self.places)

        if isinstance(now, dict):
            kept = {key: value for key, value in here.items() if key in now}
            changed = {key: moved(value) for key, value in now.items() if key not in was or not same(was[key], value)}
            return kept | changed
        if isinstance(now, list):
            old = [index < len(was) and index < len(here) and same(was[index], now[index]) for index in range(len(now))]
            return [here[index] if old[index] else moved(value) for index, value in enumerate(now)]
        return now


def _copy(container: Any) -> Any:
    if isinstance(container, CellType):
        try:
            return [container.cell_contents]
        except ValueError:  # not set yet
            return []
    if isinstance(container, dict):
        return dicts.contents(container)
    return container.read() if isinstance(container, Global) else container.copy()


_WIDE = 256
"""How many items of one container are looked into."""


@functools.lru_cache(maxsize=4096)
def _globals(code: CodeType) -> tuple[tuple[str, bool], ...]:
    """The globals that a function uses, and whether it sets them; functions inside it count as well."""
    found: dict[str, bool] = {}
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            found.setdefault(instruction.argval, False)
        elif instruction.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            found[instruction.argval] = True
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            for name, sets in _globals(constant):
                found[name] = found.get(name, False) or sets
    return tuple(found.items())


@functools.lru_cache(maxsize=4096)
def is_users(module: str) -> bool:
    """Whether code is neither Python's nor torch's own, whose objects keep caches and counters."""
    package = module.partition(".")[0]
    return package not in sys.stdlib_module_names and package not in ("builtins", "torch", "numpy", "hybridjit")


def alike(first: Any, second: Any, exactly: bool = False) -> bool:
    """Whether two copies of a container hold the same; exactly, if two tensors of the same memory are not."""
    if isinstance(first, dict):
        first, second = (each if type(each) is dict else dicts.contents(each) for each in (first, second))
        return [*first] == [*second] and all(same(first[key], second[key], exactly) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(same(*pair, exactly) for pair in zip(first, second, strict=True))
    return bool(first == second)


def _of_branch(tensor: Tensor) -> bool:
    """Whether a branch or loop gave a tensor, which has the memory of the example's side, but is what either gave."""
    value = None if _torch.tracing_state() is None else _torch.known_value(tensor)
    while value is not None and value.node().kind() == "prim::TupleUnpack":  # brought to where it is
        place = [each.unique() for each in value.node().outputs()].index(value.unique())
        packed = next(value.node().inputs()).node()
        value = list(packed.inputs())[place] if packed.kind() == "prim::TupleConstruct" else None
    return value is not None and value.node().kind() in ("prim::If", "prim::Loop")


def same(first: Any, second: Any, exactly: bool = False) -> bool:
    """Whether two values are the same; exactly, if two tensors of the same memory are not."""
    if first is second:
        return True
    if isinstance(first, (list, tuple)):
        fits = type(first) is type(second) and len(first) == len(second)
        return fits and all(same(*pair, exactly) for pair in zip(first, second, strict=True))
    if isinstance(first, Tensor) and isinstance(second, Tensor):  # x.to(x.device) is x, named anew on each path
        with _torch.paused_tracing(), _torch.unwatched():
            strided = first.layout is second.layout is torch.strided and first.dtype is second.dtype
            one = not exactly and strided and first.is_set_to(second)
        return one and not any(map(_of_branch, (first, second)))
    return type(first) is type(second) and isinstance(first, (int, float, str, bytes)) and first == second
