"""Branch points: where the author of a model wrote the branches and loops that a trace records.

They are noted on the graph's own nodes, in memory: a file that is saved has none of it.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from .. import _torch
from .._sites import Site, user_site
from . import record

TRUTH = ("true", "false")
"""The sides of a branch, as TorchScript orders them."""
ROUNDS = ("0 rounds", "1 round", "more rounds")
"""What counts as the sides of a loop."""
CONTROL = ("prim::If", "prim::Loop")

_NOTE = "hybridjit"
_around: ContextVar[Site | None] = ContextVar("hybridjit_around", default=None)
"""Where the operator is whose sides are being recorded."""


@dataclass(frozen=True)
class Point:
    """A branch or loop in a graph.

    Attributes:
        kind: ``if``, ``cond``, ``switch``, ``path`` (inputs part here), ``loop`` or ``scan``; ``scripted if`` and
            ``scripted loop`` in code that TorchScript compiled; empty for one that no user wrote.
        file: The source file.
        line: The line, from 1.
        module_path: The module whose method was running.
        sides: What its sides are called, as in `TRUTH` or `ROUNDS`; empty for one that is none by itself.
    """

    kind: str
    file: str = ""
    line: int = 0
    module_path: str = ""
    sides: tuple[str, ...] = TRUTH


def note(node: Any, kind: str, site: Site, sides: Sequence[str] = TRUTH) -> None:
    """Notes on a node of the running trace what it is."""
    node.s_(_NOTE, json.dumps([kind, site.file, site.line, site.module_path, list(sides)]))


@contextlib.contextmanager
def pointed(
    kind: str, site: Site | None = None, sides: Sequence[str] = TRUTH, raises: Sequence[bool] = (), more: int = 0
) -> Iterator[None]:
    """Notes on the operator that the body records under torch.export what it is, as far as an export wants it.

    Args:
        kind: Its kind, see `Point`.
        site: Where it is; the line of the user's that calls if absent.
        sides: What its sides are called.
        raises: For each side whether it was recorded as a raise.
        more: How many rounds it runs besides those that are meant.
    """
    if not record.is_recording():
        yield
        return
    from torch.fx import traceback

    where = site or user_site(record.current().names)
    if where.file.startswith("<"):  # nobody's line: a part of what is being recorded
        where = _around.get() or where
    text = json.dumps([kind, where.file, where.line, where.module_path, list(sides), list(raises), more])
    token = _around.set(where)
    try:
        with traceback.preserve_node_meta(), traceback.annotate({_NOTE: text}):
            yield
    finally:
        _around.reset(token)


def take_note(node: Any) -> tuple[Point, tuple[bool, ...], int] | None:
    """What `pointed` noted on a node of torch.fx, which is taken away: the point, which sides raise, rounds more."""
    kept = {name: value for name, value in node.meta.get("custom", {}).items() if not name.startswith("_torchdynamo_")}
    text = kept.pop(_NOTE, None)
    if kept:
        node.meta["custom"] = kept
    else:
        node.meta.pop("custom", None)
    if text is None:
        return None
    kind, file, line, module_path, sides, raises, more = json.loads(text)
    return Point(kind, file, line, module_path, tuple(sides)), tuple(raises), more


def noted(node: Any) -> Point | None:
    """What `note` noted; ``None`` if nothing."""
    if not node.hasAttribute(_NOTE):
        return None
    kind, file, line, module_path, sides = json.loads(node.s(_NOTE))
    return Point(kind, file, line, module_path, tuple(sides))


def note_scripted(graph: Any, module_path: str) -> None:
    """Notes on the branches and loops of a compiled piece where they stand in its source, and who calls it."""
    for node in _torch.every_node(graph):
        if node.kind() in CONTROL:
            point = scripted(node, module_path)
            note(node, point.kind, Site(point.file, point.line, module_path), point.sides)


def scripted(node: Any, module_path: str = "") -> Point:
    """A branch or loop that TorchScript compiled, by the line that torch keeps for it; without one, of no kind."""
    file, line, _ = _torch.source_of(node)
    if file.startswith("Serialized"):  # of a module that was loaded torch shows its own text, and after # the user's
        found = re.search(r"# (.+):(\d+):\d+$", str(node).partition("\n")[0])
        file, line = (found[1], int(found[2])) if found else ("", 0)
    if not line or not file or file.startswith("<"):  # written by torch, or by hybridjit
        return Point("")
    if node.kind() == "prim::Loop":
        return Point("scripted loop", file, line, module_path, ROUNDS)
    return Point("scripted if", file, line, module_path)
