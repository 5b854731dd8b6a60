"""The arena's tables: a row for each model, and a row for each column."""

from collections import Counter
from statistics import median
from typing import Any

from .columns import COLUMNS, EAGER, FIRST
from .judge import CRASHED, LATE, LOUD, REFUSED, RIGHT, WRONG

LETTERS = {RIGHT: "r", LOUD: "l", WRONG: "W", LATE: "t", CRASHED: "c", REFUSED: "-"}
Models = dict[str, dict[str, Any]]


def verdicts(model: dict[str, Any], column: str, *, first: bool = False) -> dict[str, str]:
    """The further inputs and what became of each; one that its process did not come to shares how it ended.

    What counts is decided by the eager model: an input that it refuses, or that gives something else
    once other inputs were run, counts nowhere.
    """
    one = model[column]
    found = {line["input"]: line["verdict"] for line in one["inputs"]}
    accepted = {line["input"]: line["verdict"] == RIGHT for line in model.get(EAGER, one)["inputs"]}
    if EAGER not in model:
        accepted = dict.fromkeys(accepted, True)
    ended = one["ended"].split(" ")[0] or LOUD
    judged = {
        label: found.get(label, ended) if ok else REFUSED
        for label, ok in {**dict.fromkeys(found, True), **accepted}.items()
    }
    if column == EAGER:
        judged = {label: found.get(label, ended) for label in judged}
    return {label: verdict for label, verdict in judged.items() if first or label != FIRST}


def by_model(models: Models, columns: list[str]) -> str:
    """A letter for each further input."""
    width = max((len(name) for name in models), default=5)
    head = " ".join([" " * width, *(f"{column:>9}" for column in columns)])
    rows = [head]
    for name, model in models.items():
        cells = []
        for column in columns:
            letters = "".join(LETTERS[each] for each in verdicts(model, column).values()) if column in model else ""
            cells.append(f"{letters or '.':>9}")
        rows.append(" ".join([f"{name:{width}}", *cells]))
    legend = ", ".join(f"{letter} {verdict}" for verdict, letter in LETTERS.items())
    return "\n".join([*rows, f"each letter a further input: {legend}; t and c: ran into the time limit, crashed"])


def summary(models: Models, columns: list[str]) -> str:
    """For each column the models and the inputs by verdict, and the seconds an export takes."""
    rows = [
        f"{'':9} {'models':>6} {'all right':>9} {'any wrong':>9} {'inputs':>6} {'right':>5} {'loud':>5} {'wrong':>5} "
        f"{'of loud: late':>13} {'median s':>8} {'all s':>7}"
    ]
    for column in (name for name in COLUMNS if name in columns):
        having = [model for model in models.values() if column in model]
        if not having:
            continue
        each = [Counter(verdicts(model, column).values()) for model in having]
        total = sum(each, Counter[str]())
        count = sum(total.values()) - total[REFUSED]
        loud = total[LOUD] + total[LATE] + total[CRASHED]
        seconds = [model[column]["seconds"] for model in having]
        rows.append(
            f"{column:9} {len(having):6} {sum(n[RIGHT] == n.total() - n[REFUSED] for n in each):9} "
            f"{sum(n[WRONG] > 0 for n in each):9} {count:6} {total[RIGHT]:5} {loud:5} {total[WRONG]:5} "
            f"{total[LATE] + total[CRASHED]:13} {median(seconds):8.2f} {sum(seconds):7.1f}"
        )
    return "\n".join(rows)
