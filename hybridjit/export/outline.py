"""What a report tells besides the checks: the model's modules, lines of its source, guards and findings by line."""

from __future__ import annotations

import linecache
from collections.abc import Iterable
from dataclasses import replace

from torch import nn

from .. import _torch
from .._describe import qualified
from .leaks import Leak, spell_value
from .report import Branch, Finding, Guard, Part, Report, Scripted, Source, Static

_MOST_LINES = 400
"""How many lines a report quotes: it travels in the file."""
_AROUND = 2


def model_name(model: nn.Module) -> str:
    """The qualified name of a model's class; a script module tells that of the class it was made from."""
    return str(model.original_name) if isinstance(model, _torch.ScriptModule) else qualified(type(model))


def outlined(report: Report, model: nn.Module) -> Report:
    """A report with the model's modules, and the lines of source code that it speaks of."""
    return replace(report, modules=parts_of(model), sources=sources_of(report))


def parts_of(model: nn.Module) -> tuple[Part, ...]:
    """The modules of a model, each under its first name."""
    found = []
    for path, module in model.named_modules():
        scripted = isinstance(module, _torch.ScriptModule)
        kind = str(module.original_name) if scripted else type(module).__qualname__
        found.append(Part(path, kind, scripted))
    return tuple(found)


def sources_of(report: Report) -> tuple[Source, ...]:
    """The lines that a report speaks of, with those around them, as far as their files are here."""
    notes = [each for each in report.findings if each.severity == "note"]
    warnings = [each for each in report.findings if each.severity != "note"]
    rows: list[Finding | Guard | Branch | Static | Scripted] = [*warnings, *report.guards, *report.branches]
    rows += [*report.statics, *report.scripted, *notes]
    wanted = dict.fromkeys((row.file, row.line) for row in rows if row.file)
    found = []
    for file, line in list(wanted)[:_MOST_LINES]:
        first = max(line - _AROUND, 1)
        text = [each.rstrip("\n")[:160] for each in linecache.getlines(file)[first - 1 : line + _AROUND]]
        if text:
            found.append(Source(file, first, tuple(text)))
    return tuple(found)


def guards_of(leaks: Iterable[Leak]) -> tuple[Guard, ...]:
    """What a file checks when it runs: one per kind and line, with a count."""
    first: dict[tuple[str, str, int], Leak] = {}
    counts: dict[tuple[str, str, int], int] = {}
    for leak in leaks:
        first.setdefault(leak.key, leak)
        counts[leak.key] = counts.get(leak.key, 0) + 1
    return tuple(
        Guard(
            leak.kind.code,
            leak.kind.what,
            spell_value(leak.value),
            leak.site.file,
            leak.site.line,
            leak.site.module_path,
            counts[key],
        )
        for key, leak in first.items()
    )


def by_line(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings of several entries, each kind once per line."""
    found: dict[tuple[str, ...], Finding] = {}
    for each in findings:
        what = each.message.split(":")[0] if each.code.startswith("HJ1") else each.message  # those of leaks have values
        key = (each.code, each.file, str(each.line), what)
        before = found.get(key)
        if before is not None:
            worse = each if (each.severity, before.severity) == ("warning", "note") else before
            each = replace(worse, count=before.count + each.count)
        found[key] = each
    return tuple(found.values())


def guards_by_line(guards: Iterable[Guard]) -> tuple[Guard, ...]:
    """The guards of several entries, each kind once per line."""
    found: dict[tuple[str, str, int], Guard] = {}
    for each in guards:
        key = each.what, each.file, each.line
        before = found.get(key)
        found[key] = each if before is None else replace(before, count=before.count + each.count)
    return tuple(found.values())
