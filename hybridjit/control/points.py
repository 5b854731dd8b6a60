"""Branch points: where the author of a model wrote the branches and loops that a trace records.

They are noted on the graph's own nodes, in memory: a file that is saved has none of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .. import _torch
from .._sites import Site

TRUTH = ("true", "false")
"""The sides of a branch, as TorchScript orders them."""
ROUNDS = ("0 rounds", "1 round", "more rounds")
"""What counts as the sides of a loop."""
CONTROL = ("prim::If", "prim::Loop")

_NOTE = "hybridjit"


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
