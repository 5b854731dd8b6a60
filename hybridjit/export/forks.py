"""Forks: code that asks whether it is traced, and may do something else then than in eager mode."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .. import _torch
from .._sites import Site, is_users, user_site
from ..control.recorder import active
from .report import Finding

_FIX = "the same code in both; for what only a trace needs, hybridjit.is_tracing()"
_receive: list[Callable[[str, Any], bool]] = []
"""Is told who asked what; says whether the answer is to be that nothing is traced."""


_pretending: list[bool] = []


def _asking(owner: Any, name: str) -> Any:
    """A function that answers as the one it stands for, and tells of it while somebody listens."""
    answer = getattr(owner, name)

    def ask() -> Any:
        answered = answer()
        if _pretending and name == "is_tracing" and not answered and is_users(sys._getframe(1).f_code.co_filename):
            return True
        if answered and _receive and _receive[-1](name, sys._getframe(1)):  # the state is a thread's, as the answer is
            return False if answered is True else None
        return answered

    if not _torch.compile_as(ask, answer):  # the marks by which TorchScript compiles what it stands for
        functools.update_wrapper(ask, answer)
        vars(ask).update({"__original_fn": answer, _torch.SCRIPT_IF_TRACING_MARK: True})
    return ask


@functools.cache
def _standins() -> list[tuple[Any, str, Any]]:
    return [(owner, name, _asking(owner, name)) for owner, name in _torch.asked_by]


@contextlib.contextmanager
def pretending() -> Iterator[None]:
    """Tells the user's code within the body, which runs in eager mode, that it is traced."""
    kept = [(owner, name, getattr(owner, name)) for owner, name in _torch.asked_by]
    _pretending.append(True)
    try:
        for owner, name, standin in _standins():
            setattr(owner, name, standin)
        yield
    finally:
        for owner, name, function in kept:
            setattr(owner, name, function)
        _pretending.pop()


@contextlib.contextmanager
def forks(names: Mapping[int, str], as_eager: bool = False) -> Iterator[list[Finding]]:
    """Notes within the body which lines ask whether they are traced.

    Torch's own and hybridjit's do, with the same result either way; they are let be. A library that took such a
    function into a closure before can't be seen.

    Args:
        names: ``id(module)`` to module path.
        as_eager: Whether they are told that they are not, so that they do what they do in eager mode.

    Yields:
        The findings, one per line; complete once the body has ended.
    """
    asked: dict[tuple[Site, bool], str] = {}
    found: list[Finding] = []

    def receive(name: str, frame: Any) -> bool:
        if not is_users(frame.f_code.co_filename):
            return False
        recorder = active()
        supposes = recorder is not None and recorder.supposes  # there no input compares the two
        if recorder is not None and supposes:
            recorder.told_eager += 1
        eager = as_eager or supposes
        asked.setdefault((user_site(names, frame), eager), name)
        return eager

    kept = [(owner, name, getattr(owner, name)) for owner, name in _torch.asked_by]
    _receive.append(receive)
    try:
        for owner, name, standin in _standins():
            setattr(owner, name, standin)
        yield found
    finally:
        for owner, name, function in kept:
            setattr(owner, name, function)
        _receive.pop()
        for (site, eager), name in asked.items():
            text = (
                f"asks {name}(): what this does in a trace, and so in the file, may not be what it does in eager mode"
            )
            if eager:
                text = f"asks {name}(), and was told that nothing is traced: what it does in a trace would not do"
            found.append(Finding("HJ303", "note", text, site.file, site.line, site.module_path, _FIX))
