"""A report as plain text and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from .._describe import listed, place
from .report import Branch, Check, Finding, Report, site_of

_MOST = 40
"""Rows that plain text shows of a table; one that scrolls is not read, and Markdown and the page have all."""
_WIDE = 100
"""Characters of a message that plain text shows on one line."""


@dataclass(frozen=True)
class Table:
    """One part of a report.

    Attributes:
        title: What it tells.
        head: The columns.
        rows: The rows.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables_of(report: Report) -> list[Table]:
    """The parts of a report that have rows, except for findings."""
    several = any(check.entry for check in report.checks)
    entry = ["entry"] if several else []
    scripted = [[s.name, site_of(s)] for s in dict.fromkeys(report.scripted)]
    every = [
        Table("formats", VERDICT, verdicts_of(report)),
        Table(
            "entries",
            ["method", "flags", "takes", "returns"],
            [[e.method, e.flags, ", ".join(e.arguments), ", ".join(e.results)] for e in report.entries],
        ),
        Table(
            "checks",
            ["device", *entry, "input", "sizes", "result", "max abs", "max rel", "time"],
            [_check(each, several) for each in report.checks],
        ),
        Table(
            "guards: the file raises at another value",
            ["value", "captured", "where", "times"],
            [[g.what, g.value, site_of(g), str(g.count)] for g in report.guards],
        ),
        Table(
            "static on purpose",
            ["value", "where", "reason"],
            [[s.value, site_of(s), s.reason] for s in report.statics],
        ),
        Table("scripted, with control flow", ["piece", "called at"], scripted),
        Table(
            "branches",
            ["kind", "where", "in the graph", "checks by side"],
            [[b.kind, where, str(b.count), spell_sides(b)] for b, where in alike(report.branches)],
        ),
        Table("UNVERIFIED: sides that no check took", ["where", "side"], [list(row) for row in missing(report)]),
    ]
    return [table for table in every if table.rows]


VERDICT = ("format", "result", "time", "bytes", "max abs", "reason")


def verdicts_of(report: Report) -> list[list[str]]:
    """What came of each format, as rows."""
    return [
        [v.format, v.result, f"{v.seconds:.1f} s", f"{v.size:,}", spell_error(v.max_abs_error), v.reason]
        for v in report.verdicts
    ]


def headline(report: Report, verified: str = "verified", otherwise: str = "NOT verified") -> str:
    """What it is, and the verdict."""
    verdict = verified if report.ok else "REFUSED" if report.refused else otherwise
    parts = [f"{report.model} as {report.format}: {verdict}", counted(len(report.checks), "check")]
    if report.operations:
        parts.append(counted(report.operations, "operation"))
    if taken := spell_taken(report):
        parts.append(taken)
    return ", ".join(parts)


def spell_taken(report: Report) -> str:
    """How many of the sides that could be taken were; empty without branches."""
    taken, every = taken_sides(report)
    return f"{taken} of {counted(every, 'branch side')} taken" if every else ""


def taken_sides(report: Report) -> tuple[int, int]:
    """How many sides of branches the checks took, and how many there are; a loop's rounds are one."""
    missing = sum(len(branch.unverified) for branch in report.branches)
    taken = sum(
        1 if is_loop(branch) else sum(side.checks > 0 for side in branch.sides)
        for branch in report.branches
        if not (is_loop(branch) and branch.unverified)
    )
    return taken, taken + missing


def alike(branches: Sequence[Branch]) -> list[tuple[Branch, str]]:
    """Branch points of one line that differ in their module alone, as one, and where they are."""
    found: dict[Branch, list[str]] = {}
    for each in branches:
        found.setdefault(replace(each, module_path=""), []).append(each.module_path)
    return [(branch, f"{site_of(branch)}{_modules(paths)}") for branch, paths in found.items()]


def missing(report: Report) -> list[tuple[str, str]]:
    """Where sides are that no check took, and which; those of one line that differ in their module alone as one."""
    found: dict[tuple[str, str], list[str]] = {}
    for each in report.branches:
        for name in each.unverified:
            found.setdefault((place(each.file, each.line), name), []).append(each.module_path)
    return [(f"{where}{_modules(paths)}", name) for (where, name), paths in found.items()]


def _modules(paths: Sequence[str]) -> str:
    named = [path for path in paths if path]
    return f" in {listed(named, most=2)}" if named else ""


def is_loop(branch: Branch) -> bool:
    """Whether a branch point is a loop."""
    return branch.kind.endswith(("loop", "scan"))


def spell_sides(branch: Branch) -> str:
    """``true 2, false 0 (raises)``."""
    return ", ".join(f"{side.name} {side.checks}{' (raises)' if side.raises else ''}" for side in branch.sides)


def counted(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def spell_error(value: float | None) -> str:
    """A difference between two results."""
    return "-" if value is None else f"{value:.2e}" if value else "0"


def as_text(report: Report) -> str:
    """A report as plain tables."""
    parts = [headline(report) + (f"\nverified {report.scope}" if report.scope and report.ok else "")]
    parts += ["\n".join(f"  {line}" for line in report.refused.splitlines())] if report.refused else []
    made = {table.title: f"{table.title}\n{_plain(table.head, table.rows)}" for table in tables_of(report)}
    parts += [made.pop(title) for title in ("formats", "entries", "checks") if title in made]
    findings = "\n".join(_findings(sorted(report.findings, key=lambda each: each.severity != "warning")))
    parts += ["findings\n" + findings] if findings else []
    parts += made.values()
    failing = [f"  {c.device} {c.where}: {d}" for c in report.checks for d in c.differences]
    parts += ["differences\n" + "\n".join(_few(failing))] if failing else []
    return "\n\n".join(parts)


def as_markdown(report: Report) -> str:
    """A report as Markdown tables, nothing left out."""
    parts = [f"# {headline(report, otherwise='**not verified**')}"]
    parts += [f"Verified {report.scope}."] if report.scope and report.ok else []
    parts += [f"```text\n{report.refused}\n```"] if report.refused else []
    findings = [
        [f.code, f.severity, site_of(f), f.message + (f" ({f.count:,} times)" if f.count > 1 else ""), f.fix]
        for f in report.findings
    ]
    tables = tables_of(report)
    if findings:
        tables.insert(2, Table("findings", ["code", "severity", "where", "what", "write instead"], findings))
    failing = [[c.device, c.where, d] for c in report.checks for d in c.differences]
    tables += [Table("differences", ["device", "input", "difference"], failing)] if failing else []
    for table in tables:
        lines = [_bar(table.head), _bar(["---"] * len(table.head)), *map(_bar, table.rows)]
        parts.append(f"## {table.title[0].upper()}{table.title[1:]}\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _check(check: Check, several: bool) -> list[str]:
    return [
        check.device,
        *([check.entry] if several else []),
        check.input,
        check.sizes,
        "same" if check.passed else "DIFFERENT",
        spell_error(check.max_abs_error),
        spell_error(check.max_rel_error),
        f"{check.seconds:.3f} s",
    ]


def _findings(findings: Sequence[Finding]) -> list[str]:
    """Each on lines of its own: a message in a column would make the table wider than any screen."""
    shown = [
        line
        for each in findings[:_MOST]
        for line in (
            "  " + "  ".join(filter(None, (each.code, each.severity, site_of(each), _times(each.count)))),
            f"      {_short(each.message)}",
            f"      write instead: {_short(each.fix.splitlines()[0])}" if each.fix else "",
        )
        if line
    ]
    rest = findings[_MOST:]
    return [*shown, f"  … and {len(rest):,} more lines"] if rest else shown


def _times(count: int) -> str:
    return f"{count:,} times" if count > 1 else ""


def _short(text: str) -> str:
    return text if len(text) <= _WIDE else text[: _WIDE - 1] + "…"


def _few(lines: Sequence[str]) -> list[str]:
    return [*lines[:_MOST], *([f"  … and {len(lines) - _MOST:,} more"] if len(lines) > _MOST else [])]


def _plain(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    shown = [head, *([_short(cell) for cell in row] for row in rows[:_MOST])]
    widths = [max(len(row[i]) for row in shown) for i in range(len(head))]
    lines = ["  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in shown]
    return "\n".join(lines + ([f"  … and {len(rows) - _MOST:,} more"] if len(rows) > _MOST else []))


def _bar(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells) + " |"
