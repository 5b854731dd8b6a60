"""The module tree of a report's page: what is traced, scripted, branching and guarded."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass, field
from html import escape

from .report import Finding, Report

_MOST = 2000
"""Modules that the page shows."""
_FEW = 40
"""Of so many those without anything to tell are open too."""

_COLORS = ("frozen", "guarded", "branching", "scripted")
"""What a module's color says, the gravest first."""


@dataclass
class _Node:
    """A module with those in it.

    Attributes:
        name: Its name in the module around it.
        kind: Its class.
        marks: What is in its own code, with how much of it.
        children: The modules in it.
    """

    name: str
    kind: str
    marks: dict[str, int] = field(default_factory=dict)
    children: list[_Node] = field(default_factory=list)

    @functools.cached_property
    def plain(self) -> bool:
        """Whether there is nothing but traced code in it."""
        return not self.marks and all(child.plain for child in self.children)

    @functools.cached_property
    def shape(self) -> tuple[object, ...]:
        """What two modules that look alike have in common."""
        return (self.kind, *self.marks.items(), *((child.name, child.shape) for child in self.children))


def tree(report: Report) -> str:
    """The modules as nested lists; those in a row that are alike as one."""
    root = _root(report)
    return f"<ul>{_item(root, [root.name], len(report.modules) <= _FEW)}</ul>" if root else ""


def _root(report: Report) -> _Node | None:
    marks: dict[str, Counter[str]] = {}
    for kind, rows in (
        ("scripted", report.scripted),
        ("branching", report.branches),
        ("guarded", report.guards),
        ("frozen", frozen(report)),
        ("unsure", [branch for branch in report.branches if branch.unverified]),
    ):
        for row in rows:
            marks.setdefault(row.module_path, Counter())[kind] += 1
    found: dict[str, _Node] = {}
    for part in report.modules[:_MOST]:
        above, _, name = part.path.rpartition(".")
        own = marks.get(part.path, Counter())
        if part.scripted and not own["scripted"]:
            own["scripted"] = 1
        found[part.path] = _Node(name, part.kind, dict(own))
        if part.path and above in found:
            found[above].children.append(found[part.path])
    return found.get("")


def frozen(report: Report) -> list[Finding]:
    """What the file goes on with as it was captured: neither guarded, nor a branch, nor without a part in it."""
    handled = {(row.file, row.line) for rows in (report.guards, report.branches) for row in rows}
    return [
        each
        for each in report.findings
        if each.severity == "warning" and each.code.startswith("HJ1") and (each.file, each.line) not in handled
    ]


def _item(node: _Node, names: list[str], few: bool) -> str:
    said = {kind: kind for kind in _COLORS} | {"unsure": "unverified"}
    chips = "".join(
        f'<span class="chip {kind}">{said[kind]}{f" {count}" if count > 1 else ""}</span>'
        for kind, count in node.marks.items()
    )
    color = next((kind for kind in _COLORS if kind in node.marks), "traced")
    name = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"
    times = f' <span class="muted">× {len(names)}</span>' if len(names) > 1 else ""
    spelled = f"<code>{escape(name)}</code> " if name else ""
    row = f'<i class="dot {color}"></i>{spelled}<span class="kind">{escape(node.kind)}</span>{times}{chips}'
    if not node.children:
        return f'<li><div class="row">{row}</div></li>'
    inner = "".join(_item(run[0], [each.name for each in run], few) for run in _runs(node.children))
    shown = "" if node.plain and node.name and not few else " open"
    return f'<li><details{shown}><summary class="row">{row}</summary><ul>{inner}</ul></details></li>'


def _runs(nodes: list[_Node]) -> list[list[_Node]]:
    """Modules in a row that look alike."""
    runs: list[list[_Node]] = []
    for node in nodes:
        last = runs[-1] if runs else None
        if last and node.name.isdigit() and last[0].name.isdigit() and last[0].shape == node.shape:
            last.append(node)
        else:
            runs.append([node])
    return runs
