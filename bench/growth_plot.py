"""The growth of each cost with its work, before and after, as a small SVG that is drawn without a library."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.growth_rows import Row
from bench.growth_table import Figure, named

WIDTH, LEFT, RIGHT, TOP, STEP, BOTTOM = 720, 300, 70, 62, 34, 34
COLOURS: Final = {"before": "#b8864b", "now": "#4c8fc4"}
"""These and the grey are readable on white and on black."""

GREY: Final = "#767676"
TICKS: Final = (1, 10, 100, 1000)
TITLE: Final = "How many times a cost grows with the work (log scale)"
_BAR: Final = 10


def plot(rows: Sequence[Row], before: Mapping[str, Figure], after: Mapping[str, Figure], path: Path) -> None:
    """Two bars for each measure that was taken both times: the longer one grows more."""
    names = [(row, named(row, each)) for row in rows for each in row.measures]
    drawn = [(row, name) for row, name in names if _finite(before.get(name)) and _finite(after.get(name))]
    height = TOP + STEP * len(drawn) + BOTTOM
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">']
    parts += [f"<title>{TITLE}</title>", _text(10, 22, TITLE, size=15), *_legend(), *_axis(height)]
    for place, (row, name) in enumerate(drawn):
        parts += _measure(TOP + STEP * place, row, before[name], after[name])
    path.write_text("\n".join([*parts, "</svg>", ""]), encoding="utf-8")


def _finite(figure: Figure | None) -> bool:
    return figure is not None and math.isfinite(figure.factor) and figure.factor > 0


def _legend() -> Iterator[str]:
    for place, (name, colour) in enumerate(COLOURS.items()):
        yield f'<rect x="{LEFT + 80 * place}" y="35" width="10" height="10" fill="{colour}"/>'
        yield _text(LEFT + 16 + 80 * place, 44, name)


def _axis(height: int) -> Iterator[str]:
    for tick in TICKS:
        yield f'<path d="M{_x(tick):.1f} {TOP - 6}V{height - BOTTOM}" stroke="{GREY}" stroke-opacity="0.35"/>'
        yield _text(_x(tick), height - BOTTOM + 18, f"{tick:,}", anchor="middle")


def _measure(top: float, row: Row, before: Figure, after: Figure) -> Iterator[str]:
    said = before.name.partition(": ")[2]
    yield _text(LEFT - 10, top + 9, said, anchor="end")
    yield _text(LEFT - 10, top + 22, f"{row.grows}, {after.small:,} to {after.large:,}", anchor="end", size=10)
    for place, (figure, colour) in enumerate(zip((before, after), COLOURS.values(), strict=True)):
        y, ends = top + (_BAR + 2) * place, _x(figure.factor)
        yield f'<rect x="{LEFT}" y="{y}" width="{max(2.0, ends - LEFT):.1f}" height="{_BAR}" fill="{colour}"/>'
        yield _text(max(ends, LEFT + 2) + 5, y + 9, factor(figure.factor), size=10)


def factor(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _x(value: float) -> float:
    share = math.log(min(max(value, TICKS[0]), TICKS[-1])) / math.log(TICKS[-1])
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _text(x: float, y: float, said: str, *, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{GREY}">{said}</text>'
