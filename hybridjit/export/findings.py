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
from .kinds import LEN, TEXT
from .leaks import Leak, spell_value
from .report import Finding

# Pattern in the tracer's text, code, what was frozen, what to write instead.
_KINDS = [
    (
        r"Python boolean",
        "HJ101",
        "bool(tensor): the branch that the example took is kept",
        "the branch as a function with @hybridjit.script_if_tracing, or torch.where",
    ),
    (
        r"Python integer",
        "HJ102",
        "int(tensor): the number is kept",
        "x.shape[0] as it is, without int(), or hybridjit.static(value, reason=...)",
    ),
    (
        r"Python float",
        "HJ103",
        "float(tensor): the number is kept",
        "the tensor itself in the arithmetic, or hybridjit.static(value, reason=...)",
    ),
    (
        r"Python number",
        "HJ103",
        "a number taken out of a tensor (item, in, a format string): it is kept",
        "the tensor itself in the arithmetic, (tensor == value).any() for in",
    ),
    (
        r"Python index",
        "HJ104",
        "a tensor used as an index: the index is kept",
        "tensor.index_select(0, index), or x[index] on a tensor rather than a list",
    ),
    (
        r"Iterating over a tensor",
        "HJ105",
        "for x in tensor: the number of elements is kept",
        "an operation on the whole tensor, or the loop in a function with @hybridjit.script_if_tracing",
    ),
    (
        r"Python list",
        "HJ105",
        "tensor.tolist(): the numbers are kept",
        "the tensor itself, or the loop in a function with @hybridjit.script_if_tracing",
    ),
    (
        r"NumPy array",
        "HJ106",
        "tensor.numpy(): the array is kept",
        "the torch function of the same name",
    ),
    (
        r"Using len",
        "HJ107",
        "len(tensor): the length is kept",
        "tensor.shape[0]",
    ),
    (
        r"results are registered as constants",
        "HJ108",
        "torch.tensor(...) in forward: its contents are kept",
        "torch.stack([...]) of tensors, or a buffer registered in __init__",
    ),
]


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
    unknown = ("", "HJ199", text.splitlines()[0], "see the tracer's text")
    _, code, what, fix = next((kind for kind in _KINDS if re.search(kind[0], text)), unknown)
    if site.library:
        what += ", in torch's own code called here"
    severity = "note" if site.library else "warning"
    return Finding(code, severity, what, site.file, site.line, site.module_path, fix)


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
