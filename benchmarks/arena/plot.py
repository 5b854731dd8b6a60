"""The arena as a picture for the docs: `python -m benchmarks.arena.plot` draws docs/arena.svg from the results."""

import json
from collections import Counter
from pathlib import Path

from .judge import CRASHED, LATE, LOUD, RIGHT, WRONG
from .tables import Models, verdicts

ROOT = Path(__file__).parents[2]
RESULTS, PICTURE = ROOT / "benchmarks" / "results" / "arena.json", ROOT / "docs" / "arena.svg"
NAMES = {
    "trace": "torch.jit.trace",
    "script": "torch.jit.script",
    "export": "torch.export",
    "compile": "torch.compile",
    "untold": "hybridjit",
}
COLORS = {"right": "#3a9d6a", "loud": "#a9b0bb", "silently wrong": "#d1433f"}
LEFT, WIDTH, BAR, STEP = 150, 520, 26, 40


def counts(models: Models, column: str) -> dict[str, int]:
    """What became of the further inputs under one export."""
    total = sum((Counter(verdicts(model, column).values()) for model in models.values()), Counter[str]())
    loud = total[LOUD] + total[LATE] + total[CRASHED]
    return {"right": total[RIGHT], "loud": loud, "silently wrong": total[WRONG]}


def draw(models: Models) -> str:
    """A bar for each export, as long as there are inputs; greys that can be read on light and on dark."""
    height = STEP * (len(NAMES) + 1) + 8
    rows = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 20} {height}" '
        f'font-family="sans-serif" font-size="14" role="img">',
        "<title>What became of further inputs, by export</title>",
    ]
    for place, (label, color) in enumerate(COLORS.items()):
        x = LEFT + place * 110
        rows.append(f'<rect x="{x}" y="8" width="14" height="14" fill="{color}"/>')
        rows.append(f'<text x="{x + 20}" y="20" fill="#808080">{label}</text>')
    for place, (column, name) in enumerate(NAMES.items(), 1):
        y, left = place * STEP, float(LEFT)
        found = counts(models, column)
        rows.append(f'<text x="{LEFT - 10}" y="{y + 18}" fill="#808080" text-anchor="end">{name}</text>')
        for label, count in found.items():
            width = WIDTH * count / sum(found.values())
            rows.append(f'<rect x="{left:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{COLORS[label]}"/>')
            if count:
                middle = f'x="{left + width / 2:.1f}" y="{y + 18}" text-anchor="middle"'
                rows.append(f'<text {middle} fill="#ffffff">{count}</text>')
            left += width
    return "\n".join([*rows, "</svg>"]) + "\n"


def main() -> None:
    """Writes the picture."""
    PICTURE.write_text(draw(json.loads(RESULTS.read_text())["models"]))


if __name__ == "__main__":
    main()
