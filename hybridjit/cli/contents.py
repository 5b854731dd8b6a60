"""``inspect``: what a file holds, told by the file alone."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from ..adapters.switch import spell_flags
from ..adapters.tree import show
from ..export.entries import Entries, Entry, signature_with_flags
from ..export.exported import load, peek
from ..export.report import Report
from .usage import FINE
from .work import write_page


def inspect_command(given: Namespace) -> int:
    """Tells what a file holds; opens the program in it for its code alone."""
    report, entries = peek(given.file)
    code = load(given.file).code if given.code else ""
    if given.html:
        write_page(given.html, report)
    if given.json:
        print(json.dumps(_as_json(given.file, report, entries, code), indent=1, allow_nan=False))
        return FINE
    size = Path(given.file).stat().st_size
    print(f"{given.file}: {report.format}, {size:,} bytes, made with torch {report.torch_version or 'unknown'}\n")
    print("\n\n".join(_as_text(entry, several=len(entries) > 1) for entry in entries))
    print(f"\n{report}")
    if code:
        print(f"\ncode\n{code.rstrip()}")
    return FINE


def _as_text(entry: Entry, several: bool) -> str:
    """How Python calls an entry, and the tensors of its flat side, which C++ and servers see."""
    names = entry.call.names()
    rows = [f"{entry.point}{signature_with_flags(entry)}"]
    if several or entry.method != entry.point or entry.flags:
        flags = f" with {spell_flags(entry.combination)}" if entry.flags else ""
        rows.append(f"  in the file {entry.method}{flags}")
    taken = [row for name, node in zip(entry.call.arguments.names, entry.call.arguments.children, strict=True)
             for row in show(node, str(name))]  # fmt: skip
    rows += ["  takes", *(f"    {row}" for row in taken)]
    rows += [f"    as tensors: {', '.join(names) or 'none'}"]
    rows += ["  returns", *(f"    {row}" for row in show(entry.result.node, "result"))]
    return "\n".join(rows)


def _as_json(file: str, report: Report, entries: Entries, code: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "file": file,
        "format": report.format,
        "bytes": Path(file).stat().st_size,
        "torch_version": report.torch_version,
        "entries": [
            {
                "signature": f"{entry.point}{signature_with_flags(entry)}",
                "tensors": entry.call.names(),
                **entry.to_json(),
            }
            for entry in entries
        ],
        "report": json.loads(report.to_json()),
    }
    return {**made, "code": code} if code else made
