"""State diagrams of the docs, as the moves they draw."""

import re
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).parents[2] / "docs" / "explanation"
_MOVE: Final = re.compile(r"^ *(\[\*\]|\w+) --> (\[\*\]|\w+)(?:: (.+))?$", re.MULTILINE)


def moves(page: str) -> set[tuple[str, str, str]]:
    """From, to and label of every arrow; `[*]` is outside."""
    return set(_MOVE.findall((DOCS / page).read_text(encoding="utf-8")))


def states(page: str) -> set[str]:
    return {state for start, end, _ in moves(page) for state in (start, end)} - {"[*]"}


def table(page: str, head: str) -> set[str]:
    """The names in the first column of the table with this first line."""
    _, _, rest = (DOCS / page).read_text(encoding="utf-8").partition(f"{head}\n")
    rows = rest.split("\n\n")[0].splitlines()
    return {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
