"""The record of operators' acts as people read it."""

import sys
from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from worker.commands.printable import one_line
from worker.commands.tables import table
from worker.operations.audit import Act
from worker.queue.attempts import timestamp

_WIDTH = 200


def acts_table(acts: Iterable[Act]) -> None:
    made = table("when (UTC)", "fleet", "who", "from", "what", "why")
    for column in made.columns[-2:]:
        column.no_wrap = False
    for act in acts:
        who = act.who if act.redis_user in ("", "default") else f"{act.who} ({act.redis_user})"
        texts = (act.fleet, who, act.host, act.what, act.why)
        made.add_row(timestamp(act.at_ms)[:19].replace("T", " "), *(Text(one_line(text, 500)) for text in texts))
    Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH).print(made)
