"""Prints what becomes of each model of the gallery by each route: ``python -m tests.leaks [name] ...``."""

from __future__ import annotations

import sys
from collections import Counter

from .entry import Entry
from .gallery import GALLERY
from .measure import ROUTES, Verdict, verdicts


def main() -> None:
    chosen = sys.argv[1:] or list(GALLERY)
    width = max(map(len, chosen))
    print(f"{'':{width}}", *(f"{name:>18}" for name in ROUTES))
    models: dict[str, Counter[Verdict]] = {name: Counter() for name in ROUTES}
    inputs: dict[str, Counter[Verdict]] = {name: Counter() for name in ROUTES}
    for name in chosen:
        entry = GALLERY[name]
        row = {route: on_others(entry, route) for route in ROUTES}
        for route, each in row.items():
            models[route][worst(each)] += 1
            inputs[route].update(each)
        print(f"{name:{width}}", *(f"{worst(each):>18}" for each in row.values()), flush=True)
    for title, counts in (("models", models), ("further inputs", inputs)):
        print(f"\n| {title} | right | loud | silently wrong |\n| --- | --- | --- | --- |")
        for route, count in counts.items():
            print(f"| {route} | {count['right']} | {count['loud']} | {count['wrong']} |")


def on_others(entry: Entry, route: str) -> list[Verdict]:
    """The verdicts on the further inputs, each input counted once by the worse of its two calls."""
    found = verdicts(entry, ROUTES[route](entry), entry.model)[1:]
    return [worst([one, two]) for one, two in zip(found[: len(found) // 2], found[len(found) // 2 :], strict=True)]


def worst(found: list[Verdict]) -> Verdict:
    return "wrong" if "wrong" in found else "loud" if "loud" in found else "right"


if __name__ == "__main__":
    main()
