"""The table of `bench.growth`: figures before and after, as Markdown. Nothing here measures."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Final, NamedTuple

from bench.growth_rows import Measure, Row

FLAT: Final = 1.5
"""A cost that should not grow may be this many times as high with all the work, for measurements scatter."""


class Figure(NamedTuple):
    """One measure of a row at a small and at a large amount of work."""

    name: str
    small: int
    large: int
    at_small: float
    at_large: float

    @property
    def factor(self) -> float:
        return self.at_large / self.at_small if self.at_small else float("nan")


def named(row: Row, each: Measure) -> str:
    return f"{row.name}: {each.name}"


def measured(figures: Sequence[Figure]) -> str:
    """One line a figure."""
    return "\n".join(
        f"{one.name:<40} {number(one.at_small):>10} at {one.small:,} {number(one.at_large):>10} at {one.large:,}"
        for one in figures
    )


def comparison(rows: Sequence[Row], before: Mapping[str, Figure], after: Mapping[str, Figure]) -> str:
    """One row of the page a measure; a figure that was only reported is marked by an asterisk."""
    lines = ["| `--rows` | what grows | measure | before | now | growth now |", "|---|---|---|---|---|---|"]
    for row in rows:
        for each in row.measures:
            old, new = before.get(named(row, each)), after.get(named(row, each))
            work = f"{row.grows}, {new.small:,} → {new.large:,}" if new else row.grows
            said = f"{each.name}, {each.unit}" if each.unit else each.name
            was = pair(old) if old else f"{each.reported}*" if each.reported else "-"
            now, growth = (pair(new), verdict(each, new)) if new else ("-", "")
            lines.append(f"| `{row.name}` | {work} | {said} | {was} | {now} | {growth} |")
    return "\n".join(lines)


def pair(figure: Figure) -> str:
    return f"{number(figure.at_small)} → {number(figure.at_large)}"


def verdict(each: Measure, figure: Figure) -> str:
    """The growth of a figure; one that should not grow, and does, is in bold."""
    if figure.factor <= FLAT:
        return "flat"
    return f"**{figure.factor:.1f} times**" if each.flat else f"{figure.factor:.1f} times"


def number(value: float) -> str:
    """Three digits that count, and no more than whole numbers above them."""
    if not isfinite(value):
        return "not in time"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
