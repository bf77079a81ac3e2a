"""The accounts as people read them."""

import sys
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

from worker.commands.printable import name_shown
from worker.commands.tables import table
from worker.operations.usage import Usage, total

_WIDTH: Final = 200
_NUMBERS: Final = ("requests", "failed", "input", "cached", "output", "USD")


def usage_table(rows: Sequence[Usage]) -> None:
    """One row for each tenant, model and day, and their sum below."""
    made = table("day (UTC)", "tenant", "model", *_NUMBERS, numbers=_NUMBERS)
    for row in rows:
        names = (Text(name_shown(name, 40)) for name in (row.tenant, row.model or "-"))
        made.add_row(str(row.day), *names, *_numbers(**{name: getattr(row, name) for name in total([])}))
    made.add_section()
    made.add_row("all", "", "", *_numbers(**total(rows)), style="bold")
    Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH).print(made)


def _numbers(*, cost_usd: float, **counts: float) -> list[str]:
    return [*(f"{count:,}" for count in counts.values()), f"{cost_usd:,.4f}" if cost_usd else "-"]
