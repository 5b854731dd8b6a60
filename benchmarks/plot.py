"""A benchmark's tables as one picture: a bar for each ratio, and a line where the claim ends. Plain SVG."""

import math
from collections.abc import Sequence
from html import escape

from .table import Row, Table, spell

LEFT, WIDTH, RIGHT, ROW, HEAD, FOOT = 330, 420, 250, 24, 44, 34
INK, GREY, OURS, OVER = "#222222", "#777777", "#3b6ea5", "#c0392b"


def picture(tables: Sequence[Table]) -> str:
    """The tables under each other."""
    parts: list[str] = []
    top = 10
    for table in tables:
        parts += _table(table, top)
        top += HEAD + ROW * len(table.rows) + FOOT
    size = f'width="{LEFT + WIDTH + RIGHT}" height="{top}" viewBox="0 0 {LEFT + WIDTH + RIGHT} {top}"'
    style = 'font-family="system-ui, sans-serif" font-size="13"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>',
            '<rect width="100%" height="100%" fill="white"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _text(x: float, y: float, text: str, anchor: str = "start", fill: str = INK, weight: str = "normal") -> str:
    look = f'text-anchor="{anchor}" fill="{fill}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}>{escape(text)}</text>'


def _line(x: float, top: float, bottom: float, stroke: str, dash: str = "none") -> str:
    return f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" stroke="{stroke}" stroke-dasharray="{dash}"/>'


def _table(table: Table, top: int) -> list[str]:
    limit = table.most if math.isfinite(table.most) else 0.0
    most = 1.08 * max([limit, *(row.ratio for row in table.rows)]) or 1.0
    first, bottom = top + HEAD, top + HEAD + ROW * len(table.rows)

    def x(ratio: float) -> float:
        return LEFT + WIDTH * min(max(ratio, 0.0), most) / most

    parts = [
        _text(12, top + 16, table.title, weight="bold"),
        _text(12, top + 34, f"hybridjit over {table.peer}", fill=GREY),
        _line(LEFT, first, bottom, GREY),
    ]
    for number, row in enumerate(table.rows):
        parts += _row(table, row, first + number * ROW, x)
    if limit:
        parts.append(_line(x(limit), first, bottom + 4, OVER, "4 3"))
        held = "held" if table.held else "NOT held"
        parts.append(_text(12, bottom + 18, f"claim: {table.claim}: {held}", fill=GREY if table.held else OVER))
    return parts


def _row(table: Table, row: Row, top: int, x: object) -> list[str]:
    assert callable(x)
    end = x(row.ratio)
    over = row.ratio > table.most
    bar = f'<rect x="{LEFT}" y="{top + 4}" width="{max(end - LEFT, 1):.1f}" height="{ROW - 8}" '
    said = f"{row.ratio:.3g}   ({spell(row.ours, table.unit)} to {spell(row.peer, table.unit)})"
    found = [
        _text(LEFT - 8, top + 16, row.name if len(row.name) < 50 else f"{row.name[:48]}…", "end"),
        f'{bar}fill="{OVER if over else OURS}"/>',
        _text(LEFT + WIDTH + 14, top + 16, said),
    ]
    if row.spread:  # how far the pairs differ
        low, high = x(row.ratio - row.spread), x(row.ratio + row.spread)
        found.append(f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{top + 12}" y2="{top + 12}" stroke="{INK}"/>')
    return found
