"""What the tracer warns about, as findings with the user's line and module path."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import TextIO

from .. import _torch
from .._sites import user_site
from .kinds import ARRAY, BOOL, FLOAT, INDEX, INT, LEN, LIST, MADE, NUMBER, ROWS, TEXT
from .leaks import Leak, spell_value
from .report import Finding

_KINDS = (
    (r"Python boolean", BOOL),
    (r"Python integer", INT),
    (r"Python float", FLOAT),
    (r"Python number", NUMBER),
    (r"Python index", INDEX),
    (r"Iterating over a tensor", ROWS),
    (r"Python list", LIST),
    (r"NumPy array", ARRAY),
    (r"Using len", LEN),
    (r"results are registered as constants", MADE),
)
"""Patterns in the tracer's text, and what each says."""


@contextlib.contextmanager
def collecting(names: Mapping[int, str]) -> Iterator[list[Finding]]:
    """Collects the tracer's warnings within the body, instead of printing them.

    Other warnings pass as they would without it.

    Args:
        names: ``id(module)`` to module path.

    Yields:
        The findings, one per kind and line, with a count; complete once the body has ended.
    """
    findings: dict[tuple[str, str, int], Finding] = {}
    collected: list[Finding] = []
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def receive(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not issubclass(category, _torch.TracerWarning):
                shown(message, category, filename, lineno, file, line)
                return
            finding = _read(str(message), names)
            key = (finding.code, finding.file, finding.line)
            if key in findings:
                finding = dataclasses.replace(findings[key], count=findings[key].count + 1)
            findings[key] = finding

        warnings.showwarning = receive
        warnings.simplefilter("always", category=_torch.TracerWarning)
        yield collected
    collected += findings.values()


def _read(text: str, names: Mapping[int, str]) -> Finding:
    frame = sys._getframe(2)
    while frame.f_code.co_filename == warnings.__file__ and frame.f_back is not None:
        frame = frame.f_back  # Python's own dispatch of the warning
    site = user_site(names, frame)
    kind = next((kind for pattern, kind in _KINDS if re.search(pattern, text)), None)
    what = f"{kind.what}: {kind.says}" if kind else text.splitlines()[0]
    if site.library:
        what += ", in torch's own code called here"
    code, fix = (kind.code, kind.fix) if kind else ("HJ199", "see the tracer's text")
    return Finding(code, "note" if site.library else "warning", what, site.file, site.line, site.module_path, fix)


def found(leaks: Iterable[Leak]) -> list[Finding]:
    """What left a trace, as findings: one per kind and line, with a count."""
    findings: dict[tuple[str, str, int], Finding] = {}
    for leak in leaks:
        before = findings.get(leak.key)
        if before is not None:
            findings[leak.key] = dataclasses.replace(before, count=before.count + 1)
            continue
        kind, site = leak.kind, leak.site
        message = f"{kind.what}: {kind.says} ({spell_value(leak.value)})"
        severity = "note" if site.library and kind not in (LEN, TEXT) else "warning"  # torch's own __len__
        findings[leak.key] = Finding(kind.code, severity, message, site.file, site.line, site.module_path, kind.fix)
    return list(findings.values())
