"""`Report`: what an export found, and what was verified."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._describe import place


@dataclass(frozen=True)
class Check:
    """One run of the file against the model.

    Attributes:
        device: The device both ran on.
        input: Which input: ``input`` or ``check_inputs[0]``.
        sizes: The tensors that went in, as ``image uint8[3, 512, 512]``.
        passed: Whether structure, dtypes, devices, shapes and values agree.
        max_abs_error: The largest absolute difference; ``None`` if values were not compared.
        max_rel_error: The largest relative difference; likewise.
        seconds: How long the file took, in seconds.
        differences: What differs, by path; empty if it passed.
        entry: The entry that was called, with its flags: ``forward(do_keypoint=True)``; empty where the
            file has but one.
    """

    device: str
    input: str
    sizes: str
    passed: bool
    max_abs_error: float | None
    max_rel_error: float | None
    seconds: float
    differences: tuple[str, ...] = ()
    entry: str = ""

    @property
    def where(self) -> str:
        """The input, with the entry where the file has several."""
        return f"{self.entry}, {self.input}" if self.entry else self.input


@dataclass(frozen=True)
class EntryPoint:
    """One captured combination of method, flags and structure.

    Attributes:
        method: The file's method, as C++ calls it: ``forward``, ``propose``, ``forward_2``.
        flags: The values of its flags, as in a call: ``do_keypoint=True``.
        arguments: The tensors that it takes, in order; the flags come after them.
        results: The tensors that it returns, by path.
    """

    method: str
    flags: str
    arguments: tuple[str, ...]
    results: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """Something to know about the capture.

    Attributes:
        code: ``HJ101`` and so on, explained in ``docs/errors.md``.
        severity: ``"warning"`` for a value that the trace froze in the model's own code, ``"note"``
            otherwise (torch's own checks of shapes, a wrapper taken off).
        message: What was found.
        file: The source file; empty if it is about no line.
        line: The line, from 1; 0 likewise.
        module_path: The module whose method was running.
        fix: What to write instead.
        count: How often it happened at this line.
    """

    code: str
    severity: str
    message: str
    file: str = ""
    line: int = 0
    module_path: str = ""
    fix: str = ""
    count: int = 1


@dataclass(frozen=True)
class Static:
    """A value frozen on purpose.

    Attributes:
        value: The captured value, as Python spells it.
        reason: The author's reason.
        file: The source file.
        line: The line, from 1.
        module_path: The module whose method was running.
    """

    value: str
    reason: str
    file: str = ""
    line: int = 0
    module_path: str = ""


@dataclass(frozen=True)
class Scripted:
    """A piece that was recorded with its control flow.

    Attributes:
        name: Its qualified name.
        file: Where it was called.
        line: The line, from 1.
        module_path: The module whose method called it.
    """

    name: str
    file: str
    line: int
    module_path: str


@dataclass(frozen=True)
class Branch:
    """A place where a branch was recorded.

    Attributes:
        file: The source file.
        line: The line, from 1.
        module_path: The module whose method was running.
        raises: The sides, ``"true"`` or ``"false"``, that raise: they did so on the traced input.
        count: How many branches the graph has for it.
    """

    file: str
    line: int
    module_path: str
    raises: tuple[str, ...] = ()
    count: int = 1


@dataclass(frozen=True)
class Report:
    """What an export found, and what was verified.

    Attributes:
        model: The model's qualified class name.
        format: The format of the file.
        checks: One per device and input.
        findings: What the capture met.
        statics: Values frozen on purpose.
        scripted: Pieces recorded with their control flow.
        branches: Where branches were recorded.
        operations: How many operations the file's graph has, those of every path counted.
        torch_version: The torch that captured it.
        entries: What the file can be called with; empty where that is but one thing.
        scope: What was verified, on one line.
    """

    model: str
    format: str
    checks: tuple[Check, ...]
    findings: tuple[Finding, ...] = ()
    statics: tuple[Static, ...] = ()
    scripted: tuple[Scripted, ...] = ()
    branches: tuple[Branch, ...] = ()
    operations: int = 0
    torch_version: str = ""
    entries: tuple[EntryPoint, ...] = ()
    scope: str = ""

    @property
    def ok(self) -> bool:
        """Whether there was a check and every check passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    def __str__(self) -> str:
        verdict = "verified" if self.ok else "NOT verified"
        parts = [f"{self.model} as {self.format}: {verdict}, {_count(self.checks, 'check')}"]
        parts[0] += f", {_count(range(self.operations), 'operation')}" if self.operations else ""
        parts += [f"verified {self.scope}"] if self.scope and self.ok else []
        parts += [f"\n{title}\n{_plain(head, rows)}" for title, head, rows in self._tables() if rows]
        failing = [f"  {c.device} {c.where}: {d}" for c in self.checks for d in c.differences]
        return "\n".join([*parts, *(["\ndifferences", *failing] if failing else [])])

    def to_json(self) -> str:
        """The report as JSON text; `from_json` reads it.

        JSON has no infinity and no NaN: such an error is the text ``"inf"`` or ``"nan"`` there.
        """
        data = dataclasses.asdict(self)
        for check in data["checks"]:
            for name in _ERRORS:
                value = check[name]
                if value is not None and not math.isfinite(value):
                    check[name] = str(value)
        return json.dumps(data, indent=1, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> Report:
        """The report that `to_json` wrote."""
        data: Mapping[str, Any] = json.loads(text)
        kinds: dict[str, Any] = {
            "checks": Check,
            "findings": Finding,
            "statics": Static,
            "scripted": Scripted,
            "branches": Branch,
            "entries": EntryPoint,
        }
        values = dict(data)
        for name, kind in kinds.items():
            values[name] = tuple(kind(**_read_row(row)) for row in data.get(name, ()))
        return Report(**values)

    def to_markdown(self) -> str:
        """The report as Markdown tables."""
        verdict = "verified" if self.ok else "**not verified**"
        parts = [f"# {self.model} as {self.format}: {verdict}"]
        parts += [f"Verified {self.scope}."] if self.scope and self.ok else []
        for title, head, rows in self._tables():
            if rows:
                lines = [_bar(head), _bar(["---"] * len(head)), *map(_bar, rows)]
                parts.append(f"## {title.capitalize()}\n\n" + "\n".join(lines))
        return "\n\n".join(parts) + "\n"

    def to_html(self) -> str:
        """The report as one self-contained page."""
        from html import escape  # its table of entities is slow to import

        verdict = "verified" if self.ok else "not verified"
        body = [f"<h1>{escape(self.model)} as {escape(self.format)}: {verdict}</h1>"]
        body += [f"<p>Verified {escape(self.scope)}.</p>"] if self.scope and self.ok else []
        for title, head, rows in self._tables():
            if not rows:
                continue
            top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
            lines = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
            body.append(f"<h2>{title}</h2><table><tr>{top}</tr>{''.join(lines)}</table>")
        return _PAGE.format(title=escape(self.model), body="\n".join(body))

    def _tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        several = any(check.entry for check in self.checks)
        checks = [
            [
                check.device,
                *([check.entry] if several else []),
                check.input,
                check.sizes,
                "same" if check.passed else "DIFFERENT",
                _error(check.max_abs_error),
                _error(check.max_rel_error),
                f"{check.seconds:.3f} s",
            ]
            for check in self.checks
        ]
        findings = [
            [
                f.code,
                f.severity,
                place(f.file, f.line) if f.file else "",
                f.module_path,
                f.message + (f" ({f.count} times)" if f.count > 1 else ""),
                f.fix,
            ]
            for f in self.findings
        ]
        statics = [[s.value, place(s.file, s.line) if s.file else "", s.module_path, s.reason] for s in self.statics]
        scripted = [[s.name, place(s.file, s.line), s.module_path] for s in dict.fromkeys(self.scripted)]
        branches = [
            [place(b.file, b.line), b.module_path, str(b.count), ", ".join(b.raises) or "none"] for b in self.branches
        ]
        entries = [[e.method, e.flags, ", ".join(e.arguments), ", ".join(e.results)] for e in self.entries]
        entry = ["entry"] if several else []
        return [
            ("entries", ["method", "flags", "takes", "returns"], entries),
            ("checks", ["device", *entry, "input", "sizes", "result", "max abs", "max rel", "time"], checks),
            ("findings", ["code", "severity", "where", "module", "what", "write instead"], findings),
            ("static on purpose", ["value", "where", "module", "reason"], statics),
            ("scripted, with control flow", ["piece", "called at", "module"], scripted),
            ("branches", ["where", "module", "in the graph", "sides that raise"], branches),
        ]


_PAGE = """<!doctype html><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><style>
:root {{ color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }}
body {{ max-width: 70rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8886; vertical-align: top }}
</style><body>
{body}
</body>
"""


_ERRORS = ("max_abs_error", "max_rel_error")


def _read_row(row: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    for name in _ERRORS:
        if isinstance(values.get(name), str):
            values[name] = float(str(values[name]))
    return values


def _error(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}" if value else "0"


def _count(items: Sequence[object], noun: str) -> str:
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


def _bar(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _plain(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = ["  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in [head, *rows]]
    return "\n".join(line.rstrip() for line in lines)
