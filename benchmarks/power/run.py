"""Runs every mutant of every subject, each subject in a process of its own: a broken graph may not end, or end it."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from ..table import Row, Table
from .judge import Judge, Outcome
from .models import SUBJECTS
from .mutants import KINDS

MOST = 14
"""How many mutants of one kind a subject gives."""
_SECONDS = 30.0
"""How long one mutant may take."""
CLAIM = "of 100 that give another result on some input verify finds at least 99; the JSON has each survivor's reason"
_LEAST = 0.99
_START = 300.0
"""How long the export, and what comes before the first mutant, may take."""


@dataclass(frozen=True)
class Power(Table):
    """How many of the broken files were found, by kind; the rest is not found, or no other program."""

    mutants: tuple[Outcome, ...] = ()

    @property
    def held(self) -> bool:
        real = [each.verify for each in self.mutants if not each.equivalent]
        return bool(real) and sum(real) / len(real) >= _LEAST

    def __str__(self) -> str:
        head = f"{'':20}  {'mutants':>8}  {'no difference':>13}  {'hybridjit.verify':>16}  {self.peer:>16}"
        rows = []
        for kind in (*KINDS, "all"):
            every = [each for each in self.mutants if kind in (each.kind, "all")]
            real = [each for each in every if not each.equivalent]
            if every:
                ours, theirs = (_share(real, [each.verify for each in real]), _share(real, [e.trace for e in real]))
                rows.append(f"{kind:20}  {len(every):8}  {len(every) - len(real):13}  {ours:>16}  {theirs:>16}")
        missed = [f"missed: {each.model}, {each.what}: {each.how}" for each in self.mutants if _is_missed(each)]
        verdict = f"claim: {self.claim}: {'held' if self.held else 'NOT held'}"
        return "\n".join([self.title, head, *rows, *missed, verdict])


def _is_missed(outcome: Outcome) -> bool:
    return not outcome.verify and not outcome.equivalent


def _share(every: Sequence[Outcome], found: Sequence[bool]) -> str:
    return f"{sum(found)} of {len(every)}, {sum(found) / len(every):.1%}" if every else "-"


def run() -> tuple[Table, ...]:
    with tempfile.TemporaryDirectory() as folder:
        outcomes = tuple(each for subject in SUBJECTS for each in outcomes_of(subject.name, Path(folder)))
    return (table_of(outcomes),)


def table_of(outcomes: tuple[Outcome, ...]) -> Power:
    rows = []
    for kind in KINDS:
        real = [each for each in outcomes if each.kind == kind and not each.equivalent]
        if real:
            ours, theirs = (sum(found) / len(real) for found in ([e.verify for e in real], [e.trace for e in real]))
            rows.append(Row(kind, ours, theirs, 1 - ours))
    title = f"{len(outcomes)} broken files of {len({each.model for each in outcomes})} models, found by"
    return Power(title, "torch.jit.trace", tuple(rows), CLAIM, 0.0, "share", outcomes)


def outcomes_of(name: str, folder: Path) -> Iterator[Outcome]:
    """The outcomes of one subject; a mutant that does not end, or ends the process, is passed over and noted."""
    start = 0
    while True:
        command = [sys.executable, "-W", "ignore", "-m", __name__, name, str(folder), str(start)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            lines = _lines(worker.stdout)
            current: dict[str, object] = {}
            try:
                while (line := lines.get(timeout=_SECONDS if current else _START)) is not None:
                    current = json.loads(line)
                    if current.pop("done", False):
                        start = int(str(current.pop("number"))) + 1
                        yield Outcome(**current)  # type: ignore[arg-type]
                how = f"ends the process ({worker.wait()})"
            except queue.Empty:
                worker.kill()
                how = f"does not end within {_SECONDS:.0f} s"
            if worker.wait() == 0:
                return
        if "number" not in current or worker.returncode == 1:  # an error of the benchmark's own
            raise RuntimeError(f"{name}: the process ended at the mutant {start}: {how}")
        print(f"{name}: {current['what']}: {how}", file=sys.stderr, flush=True)
        start = int(str(current["number"])) + 1
        # If it hangs or crashes on the traced input already, `torch.jit.trace` shows it too.
        trace = current["stage"] == "trace" or bool(current["trace"])
        yield Outcome(name, str(current["kind"]), str(current["what"]), trace, True, how)


def _lines(stream: IO[str]) -> queue.Queue[str | None]:
    """A process's lines as they come, so that they can be waited for; ``None`` at the end."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in stream:
            if line.startswith("{"):
                lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def work(name: str, folder: Path, start: int) -> None:
    """Judges the mutants of one subject from one on; says each on a line before it runs, and when it is done."""
    from tests.devices import elsewhere

    [subject] = [each for each in SUBJECTS if each.name == name]
    path = folder / f"{name}.pt"
    if not path.exists():
        subject.export(subject.build()).save(path)
    elsewhere.register()
    judge = Judge(subject, path, ["cpu", "elsewhere:0"], MOST)
    for number, index in enumerate(judge.chosen[start:], start):
        _, mutant = judge.broken(index)
        says = {"number": number, "kind": mutant.kind, "what": mutant.what}
        _say({**says, "stage": "trace"})
        trace = judge.found_by_trace(index)
        _say({**says, "stage": "verify", "trace": trace})
        _say({"done": True, "number": number, **asdict(judge.outcome(index, trace))})


def _say(row: dict[str, object]) -> None:
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    work(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
