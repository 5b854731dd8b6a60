"""A loss curve as an SVG, by hand."""

import math
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT, LEFT, TOP = 640, 400, 60, 30
COLOURS = {"training": "#1f77b4", "held back": "#d62728"}


def draw(title: str, curves: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """Draws curves on a logarithmic scale: for each name one thin line per fold, and their mean.

    Args:
        title: What stands above.
        curves: By name, one of `COLOURS`, the values by epoch, of each fold.
    """
    values = [value for folds in curves.values() for fold in folds for value in fold]
    low, high = math.floor(math.log10(min(values)) * 4) / 4, math.ceil(math.log10(max(values)) * 4) / 4
    epochs = max(len(fold) for folds in curves.values() for fold in folds)
    wide, tall = WIDTH - LEFT - 20, HEIGHT - TOP - 50

    def at(epoch: int, value: float) -> str:
        x = LEFT + wide * epoch / max(epochs - 1, 1)
        y = TOP + tall * (high - math.log10(value)) / (high - low)
        return f"{x:.1f},{y:.1f}"

    rows = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{WIDTH / 2}" y="18" text-anchor="middle" font-size="14">{title}</text>',
    ]
    for quarter in range(round(low * 4), round(high * 4) + 1):
        y = TOP + tall * (high - quarter / 4) / (high - low)
        rows.append(f'<path d="M{LEFT},{y:.1f}h{wide}" stroke="#ddd"/>')
        rows.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10 ** (quarter / 4):.2g}</text>')
    for epoch in range(0, epochs, max(1, epochs // 8)):
        x = LEFT + wide * epoch / max(epochs - 1, 1)
        rows.append(f'<text x="{x:.1f}" y="{TOP + tall + 18}" text-anchor="middle">{epoch + 1}</text>')
    rows.append(f'<text x="{LEFT + wide / 2}" y="{HEIGHT - 12}" text-anchor="middle">epoch</text>')
    rows.append(
        f'<text transform="translate(16,{TOP + tall / 2}) rotate(-90)" text-anchor="middle">mean squared error</text>'
    )
    for number, (name, folds) in enumerate(curves.items()):
        colour = COLOURS[name]
        for fold in folds:
            points = " ".join(at(epoch, value) for epoch, value in enumerate(fold))
            rows.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-opacity="0.3"/>')
        mean = [sum(values) / len(values) for values in zip(*folds, strict=True)]
        points = " ".join(at(epoch, value) for epoch, value in enumerate(mean))
        rows.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        rows.append(
            f'<text x="{LEFT + wide - 6}" y="{TOP + 18 + 18 * number}" text-anchor="end" fill="{colour}">{name}</text>'
        )
    return "\n".join([*rows, "</svg>\n"])
