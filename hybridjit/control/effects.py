"""What a function changes besides its result: attributes, lists, variables of an outer function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import CellType
from typing import Any

from torch import nn

from .. import _torch
from .._describe import describe
from .._errors import CaptureError, compose

Contents = list[Any]
"""A copy of each container, one level deep, in the order of the containers."""


class Effects:
    """The containers that a function can reach, and what they hold.

    A function that runs once per path must find them each time as the first run did, and leave
    them alike on every path: Python around it goes on with one of them only.
    """

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.names: list[str] = []
        self.containers: list[Any] = []
        self._seen: set[int] = set()
        plain = inspect.unwrap(getattr(fn, "__func__", fn))
        code = getattr(plain, "__code__", None)
        for name, cell in zip(getattr(code, "co_freevars", ()), getattr(plain, "__closure__", None) or (), strict=True):
            self._add(name, cell)
        owner = getattr(fn, "__self__", None)
        given = {**dict(zip(getattr(code, "co_varnames", ()), ([owner] if owner else []) + list(args))), **kwargs}  # noqa: B905
        for name, value in given.items():
            self._add(name, value)

    def _add(self, name: str, value: Any) -> None:
        if id(value) in self._seen:
            return
        if isinstance(value, nn.Module):
            for path, module in value.named_modules():
                inner = f"{name}.{path}" if path else name
                self._keep(inner, vars(module))
                for key, held in list(vars(module).items()):
                    if isinstance(held, (list, dict, set)) and key != "_modules":
                        self._keep(inner if key in ("_buffers", "_parameters") else f"{inner}.{key}", held)
        elif isinstance(value, CellType):
            self._keep(name, value)
            try:
                self._add(name, value.cell_contents)
            except ValueError:  # not set yet
                return
        elif isinstance(value, (list, dict, set)):
            self._keep(name, value)

    def _keep(self, name: str, container: Any) -> None:
        if id(container) not in self._seen:
            self._seen.add(id(container))
            self.names.append(name)
            self.containers.append(container)

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
            elif isinstance(container, list):
                if not _alike(container, held):
                    container[:] = held
            elif isinstance(container, set):
                if container != held:
                    container.clear()
                    container |= held
            elif not _alike(container, held):
                container.clear()
                container.update(held)

    def check_same(self, ends: list[Contents], names: tuple[str, str], where: str) -> None:
        """Refuses paths that leave the containers different.

        Raises:
            CaptureError: With what differs, by name.
        """
        if len(ends) < 2:  # one side raises, and leaves nothing
            return
        rows = []
        for name, container, first, second in zip(self.names, self.containers, *ends, strict=True):
            if _alike(first, second):
                continue
            if isinstance(container, dict):
                keys = [key for key in {**first, **second} if not _same(first.get(key), second.get(key))]
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


def _copy(container: Any) -> Any:
    if isinstance(container, CellType):
        try:
            return [container.cell_contents]
        except ValueError:  # not set yet
            return []
    return container.copy()


def _alike(first: Any, second: Any) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_same(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(_same, first, second))
    return bool(first == second)


def _same(first: Any, second: Any) -> bool:
    if first is second:
        return True
    return type(first) is type(second) and isinstance(first, (int, float, str, bytes)) and first == second
