"""A report as one self-contained page: no script, nothing from the network, light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from .._describe import place
from .modules import tree
from .report import Branch, Check, Finding, Report, Side, site_of
from .style import STYLE
from .tables import VERDICT, alike, counted, is_loop, missing, spell_error, taken_sides, verdicts_of

_MOST = 100
"""Findings, and branches, that the page shows one by one."""


def as_page(report: Report) -> str:
    """A report as HTML."""
    parts = [
        _header(report),
        _refusal(report),
        _matrix(report.checks),
        _unverified(report),
        _modules(report),
        _findings(report),
        _branches(report),
        _rest(report),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(report.model)} · hybridjit</title>"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def _header(report: Report) -> str:
    package, _, name = report.model.rpartition(".")
    verdict = ("good", "verified") if report.ok else ("bad", "refused" if report.refused else "not verified")
    failed = sum(not check.passed for check in report.checks)
    warnings = sum(each.severity == "warning" for each in report.findings)
    taken, every = taken_sides(report)
    tiles = [
        _tile(
            f"{len(report.checks) - failed} of {len(report.checks)}" if failed else str(len(report.checks)),
            "checks pass" if len(report.checks) != 1 else "check passes",
            "bad" if failed else "",
        )
        if report.checks
        else _tile("none", "checks", "bad"),
        _tile(f"{taken} of {every}", "branch sides taken", "warn" if taken < every else "") if every else "",
        _tile(str(len(report.guards)), "guards" if len(report.guards) != 1 else "guard"),
        _tile(str(warnings), "warnings" if warnings != 1 else "warning", "warn" if warnings else ""),
        _tile(f"{report.operations:,}", "operations") if report.operations else "",
    ]
    made = " · ".join(filter(None, (report.format, f"torch {report.torch_version}" if report.torch_version else "")))
    scope = f'<p class="scope">Verified {escape(report.scope)}.</p>' if report.scope and report.ok else ""
    return (
        f'<header><p class="eyebrow">{escape(package) or "model"}</p>'
        f'<h1>{escape(name)} <span class="verdict {verdict[0]}">{verdict[1]}</span></h1>'
        f'<p class="muted">{escape(made)}</p>{scope}<div class="tiles">{"".join(tiles)}</div></header>'
    )


def _tile(number: str, text: str, kind: str = "") -> str:
    return f'<div class="tile {kind}"><b>{number}</b><span>{text}</span></div>'


def _section(title: str, body: str, hint: str = "") -> str:
    if not body:
        return ""
    said = f'<p class="hint">{hint}</p>' if hint else ""
    return f"<section><h2>{title}</h2>{said}{body}</section>"


def _refusal(report: Report) -> str:
    rows = [
        f"<li><b>{escape(check.device)}, {escape(check.where)}</b> {escape(line)}</li>"
        for check in report.checks
        for line in check.differences[:_MOST]
    ]
    parts = [f"<h2>Why there is no file</h2><pre>{escape(report.refused)}</pre>"] if report.refused else []
    parts += [f"<h2>What differs</h2><ul>{''.join(rows[:_MOST])}</ul>"] if rows else []
    return f'<section class="refusal">{"".join(parts)}</section>' if parts else ""


def _matrix(checks: Sequence[Check]) -> str:
    """Inputs by devices, for each combination of flags."""
    devices = list(dict.fromkeys(check.device for check in checks))
    rows: dict[str, dict[str, dict[str, Check]]] = {}
    for check in checks:
        rows.setdefault(check.entry, {}).setdefault(check.input, {})[check.device] = check
    lines = []
    for entry, inputs in rows.items():
        if entry:
            lines.append(f'<tr class="entry"><th colspan="{len(devices) + 1}"><code>{escape(entry)}</code></th></tr>')
        for name, cells in inputs.items():
            sizes = next(iter(cells.values())).sizes
            head = f'<th><code>{escape(name)}</code><span class="muted">{escape(sizes)}</span></th>'
            lines.append(f"<tr>{head}{''.join(_cell(cells.get(device)) for device in devices)}</tr>")
    if not lines:
        return ""
    top = "".join(f"<th><code>{escape(device)}</code></th>" for device in devices)
    hint = "Model and re-loaded file on the same input: structure, types, devices, sizes and values."
    table = f'<div class="wide"><table class="matrix"><tr><th>input</th>{top}</tr>{"".join(lines)}</table></div>'
    return _section("Checks", table, hint)


def _cell(check: Check | None) -> str:
    if check is None:
        return '<td class="none">–</td>'
    kind, word = ("good", "same") if check.passed else ("bad", "differs")
    error = "" if check.max_abs_error is None else f"± {spell_error(check.max_abs_error)}"
    if check.max_abs_error == 0:
        error = "bit for bit"
    spent = f"{check.seconds * 1000:.0f} ms" if check.seconds < 1 else f"{check.seconds:.1f} s"
    said = " · ".join(filter(None, (error, spent)))
    return f'<td><span class="mark {kind}">{word}</span> <span class="muted">{said}</span></td>'


def _unverified(report: Report) -> str:
    lines = {(branch.file, branch.line): branch for branch in report.branches}
    spelled = {place(*key): _line(report, branch) for key, branch in lines.items()}
    rows = [
        f"<li><code>{escape(where)}</code> <b>{escape(name)}</b>{spelled.get(where.split(' in ')[0], '')}</li>"
        for where, name in missing(report)
    ]
    more = f"<li>… and {len(rows) - _MOST:,} more</li>" if len(rows) > _MOST else ""
    hint = "These sides are in the file, and no check took them: give an input that does."
    return _section("Unverified", f'<ul class="unverified">{"".join(rows[:_MOST])}{more}</ul>' if rows else "", hint)


def _modules(report: Report) -> str:
    legend = "".join(
        f'<span class="key"><i class="dot {kind}"></i>{text}</span>'
        for kind, text in (
            ("traced", "traced"),
            ("scripted", "scripted"),
            ("branching", "branching"),
            ("guarded", "guarded"),
            ("frozen", "frozen without a guard"),
            ("unsure", "a side unverified"),
        )
    )
    body = tree(report)
    return _section("Modules", f'<div class="legend">{legend}</div><div class="tree">{body}</div>' if body else "")


def _findings(report: Report) -> str:
    guarded = {(guard.code, guard.file, guard.line) for guard in report.guards}
    first = [each for each in report.findings if each.severity == "warning"]
    notes = [each for each in report.findings if each.severity != "warning"]
    cards = [_card(report, each, (each.code, each.file, each.line) in guarded) for each in first[:_MOST]]
    if len(first) > _MOST:
        cards.append(f'<p class="muted">… and {len(first) - _MOST:,} more lines, which the JSON has</p>')
    if notes:
        own = "".join(_card(report, each, (each.code, each.file, each.line) in guarded) for each in notes[:_MOST])
        cards.append(f"<details><summary>{counted(len(notes), 'note')}</summary>{own}</details>")
    return _section("Findings", "".join(cards))


def _card(report: Report, finding: Finding, guarded: bool) -> str:
    tags = [f'<span class="tag {finding.severity}">{escape(finding.code)}</span>']
    tags += ['<span class="tag guarded">guarded</span>'] if guarded else []
    tags += [f'<span class="tag">{finding.count:,} times</span>'] if finding.count > 1 else []
    where = f'<code class="where">{escape(site_of(finding))}</code>'
    fix = f'<div class="fix"><span>write instead</span><code>{escape(finding.fix)}</code></div>' if finding.fix else ""
    return (
        f'<article class="card {finding.severity}"><div class="top">{"".join(tags)}{where}</div>'
        f"<p>{escape(finding.message)}</p>{_source(report, finding.file, finding.line)}{fix}</article>"
    )


def _source(report: Report, file: str, line: int) -> str:
    """The lines around one, that one marked."""
    found = next(
        (each for each in report.sources if each.file == file and 0 <= line - each.line < len(each.text)), None
    )
    if found is None:
        return ""
    rows = []
    for number, text in enumerate(found.text, found.line):
        kind = ' class="hit"' if number == line else ""
        rows.append(f"<span{kind}><i>{number}</i>{escape(text) or ' '}</span>")
    return f'<pre class="source">{"".join(rows)}</pre>'


def _line(report: Report, branch: Branch) -> str:
    for each in report.sources:
        if each.file == branch.file and 0 <= branch.line - each.line < len(each.text):
            return f'<code class="line">{escape(each.text[branch.line - each.line].strip())}</code>'
    return ""


def _branches(report: Report) -> str:
    every = alike(report.branches)
    rows = [
        f'<tr><td><span class="tag">{escape(each.kind)}</span></td>'
        f'<td><code class="where">{escape(where)}</code>{_line(report, each)}</td>'
        f'<td class="sides">{"".join(_sides(each))}</td></tr>'
        for each, where in every[:_MOST]
    ]
    if len(every) > _MOST:
        rows.append(f'<tr><td colspan="3" class="muted">… and {len(every) - _MOST:,} more</td></tr>')
    hint = "How many checks took each side."
    table = f'<div class="wide"><table class="branches">{"".join(rows)}</table></div>' if rows else ""
    return _section("Branch coverage", table, hint)


def _sides(branch: Branch) -> Iterable[str]:
    for side in branch.sides:
        yield f'<span class="side {_kind(branch, side)}">{escape(side.name)}<b>{_count(side)}</b></span>'


def _kind(branch: Branch, side: Side) -> str:
    if side.checks:
        return "taken"
    missing = bool(branch.unverified) if is_loop(branch) else side.name in branch.unverified
    return "missing" if missing and side.name != "0 rounds" else "idle"


def _count(side: Side) -> str:
    return "raises" if side.raises and not side.checks else f"{side.checks:,}"


def _rest(report: Report) -> str:
    entries = _table(
        ("method", "flags", "takes", "returns"),
        [[e.method, e.flags, ", ".join(e.arguments), ", ".join(e.results)] for e in report.entries],
    )
    guards = _table(
        ("value", "captured", "where", "times"),
        [[g.what, g.value, site_of(g), f"{g.count:,}"] for g in report.guards[:_MOST]],
    )
    statics = _table(("value", "where", "reason"), [[s.value, site_of(s), s.reason] for s in report.statics])
    scripted = _table(("piece", "called at"), [[s.name, site_of(s)] for s in dict.fromkeys(report.scripted)])
    return (
        _section("Formats", _table(VERDICT, verdicts_of(report)))
        + _section("Guards", guards, "The file raises where one of these values is another one.")
        + _section("Static on purpose", statics)
        + _section("Entries", entries)
        + _section("Scripted pieces", scripted)
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return f'<div class="wide"><table><tr>{top}</tr>{"".join(lines)}</table></div>'
