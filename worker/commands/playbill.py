"""The demo on a terminal: what is going on, what came of it, and what to try next."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from api_contracts import GenerationResult
from worker import demo
from worker.commands.answers import STYLES, snippet
from worker.commands.tables import table
from worker.scenes import Report, Request

_NEXT: Final = (
    ("responses-worker simulator --rpm 60", "a gateway to experiment with"),
    ("responses-worker run", "a worker; WORKER_REDIS_URL and WORKER_UPSTREAM_URL say between what"),
    ('responses-worker submit "Hello!" --wait', "ask it something"),
    ("responses-worker status", "see what waits and what runs"),
)


def progress_bar(console: Console, total: int) -> tuple[Progress, demo.Listener]:
    """A bar that is gone when it is done, and the listener that moves it."""
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("[dim]{task.fields[where]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    task = bar.add_task("", total=total, where="")

    def listen(now: demo.Progress) -> None:
        where = f"{now.waiting} waiting, {now.in_flight} in flight, {now.parked} parked"
        bar.update(task, description=now.doing, completed=now.answered, where=where)

    return bar, listen


def report_table(report: Report) -> Table:
    """One row per scene; a burst is one row with the range of its numbers."""
    made = table("request", "outcome", "attempts", "waited", "took", "answer", numbers=("attempts", "waited", "took"))
    made.columns[-1].ratio, made.columns[-1].no_wrap, made.columns[-1].overflow = 1, False, "fold"
    for scene, requests in groupby(report.requests, key=lambda request: request.scene):
        asked = list(requests)
        answers = [answer for request in asked for answer in report.answers(request)]
        made.add_row(_title(asked), _outcome(answers), *_numbers(answers), Text(snippet(answers[0]) if answers else "", overflow="ellipsis"))
        made.add_section() if scene.ids > 1 else None
    return made


def closing(report: Report) -> RenderableType:
    """Counts, and what to try next."""
    return Text()
