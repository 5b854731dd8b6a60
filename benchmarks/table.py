"""A benchmark's table: ratios, a claim, and whether it held."""

import json
import math
import os
import platform
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from operator import truediv
from pathlib import Path
from statistics import median

import torch


@dataclass(frozen=True)
class Row:
    """One comparison: seconds of hybridjit and of the peer, the median ratio of the pairs, and how far it varies."""

    name: str
    ours: float
    peer: float
    ratio: float
    spread: float = 0.0


@dataclass(frozen=True)
class Table:
    """What was compared, and the ratio that every row is claimed to stay within, if any is."""

    title: str
    peer: str
    rows: tuple[Row, ...]
    claim: str = ""
    most: float = math.inf
    unit: str = "s"

    @property
    def held(self) -> bool:
        return all(row.ratio <= self.most for row in self.rows)

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.rows)
        peer = max(12, len(self.peer))
        digits = 2 if self.most > 0.1 else 4
        head = f"{self.title}\n{'':{width}}  {'hybridjit':>12}  {self.peer:>{peer}}  {'ratio':>6}"
        rows = [
            f"{row.name:{width}}  {ours:>12}  {theirs:>{peer}}  {row.ratio:6.{digits}f}"
            for row in self.rows
            for ours, theirs in [(spell(row.ours, self.unit), spell(row.peer, self.unit))]
        ]
        verdict = [f"claim: {self.claim}: {'held' if self.held else 'NOT held'}"] if self.claim else []
        return "\n".join([head, *rows, *verdict])


def paired(
    name: str,
    pairs: list[tuple[float, float]],
    ratio_of: Callable[[float, float], float] = truediv,
) -> Row:
    """A row of interleaved pairs of seconds, ours and the peer's: what slows both cancels in the ratio."""
    ours, peer = zip(*pairs, strict=True)
    ratios = [ratio_of(our, other) for our, other in pairs]
    middle = median(ratios)
    return Row(name, median(ours), median(peer), middle, median(abs(ratio - middle) for ratio in ratios))


def spent() -> float:
    """Seconds on processors so far, of this process and those that it waited for: what else runs does not count."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def once(function: Callable[[], object]) -> float:
    """What a call spends."""
    started = spent()
    function()
    return spent() - started


def spell(amount: float, unit: str = "s") -> str:
    """Seconds, bytes with the unit ``"B"``, or a number with none."""
    if unit != "s":
        return f"{amount / 1e6:.1f} MB" if unit == "B" else f"{amount:g}"
    for name, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if amount >= size:
            return f"{amount / size:.3g} {name}"
    return f"{amount / 1e-9:.3g} ns"


def environment() -> dict[str, str | int]:
    """What a result depends on."""
    return {
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
    }


def write(tables: Sequence[Table], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = [{**asdict(table), "most": table.most if table.claim else None, "held": table.held} for table in tables]
    path.write_text(json.dumps({"environment": environment(), "tables": data}, indent=2) + "\n")


def read(path: Path) -> tuple[Table, ...]:
    """The tables that `write` wrote."""
    names = ("title", "peer", "claim", "unit")
    return tuple(
        Table(**{name: each[name] for name in names if name in each}, rows=tuple(Row(**row) for row in each["rows"]),
              most=math.inf if each["most"] is None else each["most"])
        for each in json.loads(path.read_text())["tables"]
    )  # fmt: skip


_NOISE = 4
"""How many times the spread of two runs a ratio may be worse."""
_LEAST, _ALONE = 0.1, 0.35
"""By how much of itself it always may; and a time that was taken once, whose noise nobody knows."""


def worse(tables: Sequence[Table], path: Path) -> list[str]:
    """Where ratios are worse than in the results at a path, by more than their own noise."""
    if not path.exists():
        return []
    before = json.loads(path.read_text())
    if {**before["environment"], "threads": 0} != {**environment(), "threads": 0}:
        return []  # another machine or torch: nothing to compare with
    known = {(table["title"], table["peer"], row["name"]): row for table in before["tables"] for row in table["rows"]}
    found = []
    for table in tables:
        for row in table.rows:
            old = known.get((table.title, table.peer, row.name))
            if old is None:
                continue
            spread = row.spread + old.get("spread", 0.0)
            least = _ALONE if table.unit == "s" and not spread else _LEAST
            noise = max(least * abs(old["ratio"]), _NOISE * spread)
            if row.ratio > old["ratio"] + noise:
                found.append(f"{table.title}, {row.name}: {old['ratio']:.2f} before, {row.ratio:.2f} now")
    return found
