"""`Report`: what an export found, and what was verified."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._describe import describe, place
from .._errors import InputError, compose
from .outcome import Verdict


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
class Guard:
    """A value of a tensor that the file checks when it runs.

    Attributes:
        code: That of the finding, ``HJ101`` and so on.
        what: How it left the trace: ``tensor.item()``.
        value: The captured value, as Python spells it.
        file: The source file.
        line: The line, from 1.
        module_path: The module whose method was running.
        count: How often it left there.
    """

    code: str
    what: str
    value: str
    file: str
    line: int
    module_path: str = ""
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
        module_path: The module whose method it is; of a function, whose method called it.
    """

    name: str
    file: str
    line: int
    module_path: str


@dataclass(frozen=True)
class Side:
    """One side of a branch point.

    Attributes:
        name: ``true`` or ``false``; of a `switch` the number; of inputs that part the input; of a loop
            ``0 rounds``, ``1 round`` or ``more rounds``.
        checks: How many checks took it.
        raises: Whether it does nothing but raise: the model's own validation, say.
    """

    name: str
    checks: int
    raises: bool = False


@dataclass(frozen=True)
class Branch:
    """A place where the file branches or loops.

    Attributes:
        file: The source file.
        line: The line, from 1.
        module_path: The module whose method was running.
        kind: ``if``, ``cond``, ``switch``, ``loop``, ``scan``, ``path`` (inputs part here), and ``scripted if`` and
            ``scripted loop`` in a scripted piece.
        sides: Its sides, and how many checks took each.
        count: How many branches the graph has for it.
    """

    file: str
    line: int
    module_path: str
    kind: str = "if"
    sides: tuple[Side, ...] = ()
    count: int = 1

    @property
    def raises(self) -> tuple[str, ...]:
        """The sides that do nothing but raise."""
        return tuple(side.name for side in self.sides if side.raises)

    @property
    def unverified(self) -> tuple[str, ...]:
        """The sides that no check took, without those that only raise; of a loop its rounds, if none ever ran."""
        if self.kind.endswith(("loop", "scan")):
            rounds = [side for side in self.sides if side.name != "0 rounds"]
            ran = any(side.checks or side.raises for side in rounds)
            return () if ran else ("any round",)
        return tuple(side.name for side in self.sides if not side.checks and not side.raises)


@dataclass(frozen=True)
class Part:
    """A module of the model.

    Attributes:
        path: Its path; empty for the model itself.
        kind: Its class.
        scripted: Whether it was a script module already.
    """

    path: str
    kind: str
    scripted: bool = False


@dataclass(frozen=True)
class Source:
    """Lines of source code that the report speaks of.

    Attributes:
        file: The file.
        line: The number of the first one, from 1.
        text: The lines.
    """

    file: str
    line: int
    text: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What an export found, and what was verified.

    ``print(report)`` shows it as plain tables; ``to_markdown``, ``to_html`` and ``to_json`` give it in other forms. It
    travels inside of the saved file. The error of an export that was refused has it as ``error.report``.

    Attributes:
        model: The model's qualified class name.
        format: The format of the file.
        checks: One per device and input.
        findings: What the capture met: one per kind and line, with a count.
        statics: Values frozen on purpose.
        scripted: Pieces recorded with their control flow.
        branches: Where the file branches and loops, and how many checks took each side.
        operations: How many operations the file's graph has, those of every path counted.
        torch_version: The torch that captured it.
        entries: What the file can be called with; empty where that is but one thing.
        scope: What was verified, on one line.
        guards: Values that the file checks when it runs: one per kind and line, with a count.
        modules: The model's modules.
        sources: The lines that findings, guards and branches are about, with those around them.
        refused: Why there is no file; empty if there is one.
        verdicts: Where several formats were asked for, or ``"auto"``, what came of each; not in the saved file.

    Example:
        >>> import torch, hybridjit as hj
        >>> report = hj.export(torch.nn.Linear(2, 1).eval(), torch.zeros(3, 2)).report
        >>> report.ok, report.unverified
        (True, ())
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
    guards: tuple[Guard, ...] = ()
    modules: tuple[Part, ...] = ()
    sources: tuple[Source, ...] = ()
    refused: str = ""
    verdicts: tuple[Verdict, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there was a check, every check passed, and nothing was refused."""
        return bool(self.checks) and not self.refused and all(check.passed for check in self.checks)

    @property
    def unverified(self) -> tuple[str, ...]:
        """The sides of branches that no check took, by line: ``head.py:41 in head: false``."""
        return tuple(f"{site_of(b)}: {name}" for b in self.branches for name in b.unverified)

    def __str__(self) -> str:
        from .tables import as_text

        return as_text(self)

    def to_json(self) -> str:
        """The report as JSON text; `from_json` reads it.

        ``report.schema.json`` beside this file describes it. JSON has no infinity and no NaN: such an error is the text
        ``"inf"`` or ``"nan"`` there.
        """
        data = {"ok": self.ok, "unverified": list(self.unverified), **dataclasses.asdict(self)}
        for check in (*data["checks"], *data["verdicts"]):
            for name in _ERRORS:
                value = check.get(name)
                if value is not None and not math.isfinite(value):
                    check[name] = str(value)
        return json.dumps(data, indent=1, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> Report:
        """The report that `to_json` wrote, also an earlier version's.

        Raises:
            InputError: It is no such text.
        """
        try:
            data: Mapping[str, Any] = json.loads(text)
            values = dict(data)
            for name, kind in _KINDS.items():
                values[name] = tuple(_known(kind, _read_row(row)) for row in data.get(name, ()))
            made: Report = _known(Report, values)
        except (TypeError, ValueError, KeyError, AttributeError, AssertionError) as error:
            got = "other text" if isinstance(text, str) else describe(text)
            raise InputError(
                compose(
                    "from_json takes the text that to_json wrote",
                    differences=[f"text: expected a report as JSON, got {got}", f"{type(error).__name__}: {error}"],
                    instead="hybridjit.Report.from_json(report.to_json())",
                    page="inputerror",
                )
            ) from None
        return made

    def to_markdown(self) -> str:
        """The report as Markdown tables."""
        from .tables import as_markdown

        return as_markdown(self)

    def to_html(self) -> str:
        """The report as one self-contained page, for a browser in light or dark mode, without network."""
        from .page import as_page  # what it escapes by is slow to import

        return as_page(self)


_ERRORS = ("max_abs_error", "max_rel_error")
_KINDS: dict[str, Any] = {
    "checks": Check,
    "findings": Finding,
    "statics": Static,
    "scripted": Scripted,
    "branches": Branch,
    "entries": EntryPoint,
    "guards": Guard,
    "modules": Part,
    "sources": Source,
    "verdicts": Verdict,
}


def site_of(row: Finding | Guard | Static | Scripted | Branch) -> str:
    """Where something is: ``head.py:41 in head``; empty if it is about no line."""
    where = place(row.file, row.line) if row.file else ""
    return f"{where} in {row.module_path}".strip() if row.module_path else where


def _known(kind: Any, values: Mapping[str, Any]) -> Any:
    """A row of what this version knows; another one may have written more, or less."""
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in names})


def _read_row(row: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    for name in _ERRORS:
        if isinstance(values.get(name), str):
            values[name] = float(str(values[name]))
    if "sides" in values:
        values["sides"] = tuple(Side(**side) for side in values["sides"])
    return values
