"""The demo on a terminal: its progress, its outcome, and commands to try next."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from api_contracts import GenerationResult
from worker.commands.answers import STYLES, snippet
from worker.commands.tables import table
from worker.devtools.demo import play as demo
from worker.devtools.demo.scenarios import Report, Request

_SERVERS: Final = ("dev --redis-port 0 --page-port 0", "Valkey, gateway, worker, dashboard; prints export lines")
_NEXT: Final = (
    ('submit "Hello!" --wait', "sends a request and prints the answer"),
    ("status", "shows what waits and runs"),
)


def progress_bar(console: Console, total: int) -> tuple[Progress, demo.Listener]:
    """A bar that disappears at the end, and the listener that moves it."""
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
        where = f"{now.waiting} waiting, {now.in_flight} in flight, {now.parked} parked" if now.answering else ""
        bar.update(task, description=now.doing, completed=now.answered, where=where)

    return bar, listen


def overture(requests: Sequence[Request], real_gateway: str) -> RenderableType:
    """The line before the demo. `real_gateway` is a URL; it is empty if the gateway is simulated."""
    simulated = f"a simulated gateway of {demo.REQUESTS_PER_MINUTE} requests a minute"
    gateway = f"{real_gateway} with your key" if real_gateway else simulated
    return Text(f"{len(requests)} requests, one worker, an embedded Valkey, and {gateway}.", "bold")


def report_table(report: Report) -> Table:
    """The table with one row a scene. A burst is one row, with the range of its numbers."""
    made = table("request", "outcome", "attempts", "waited", "took", numbers=("attempts", "waited", "took"))
    made.add_column("answer", overflow="fold")
    for _, group in groupby(report.requests, key=lambda request: request.scene):
        requests = list(group)
        answers = [answer for request in requests for answer in report.answers(request)]
        made.add_row(
            _title(requests),
            _outcome(answers),
            _range([str(len(answer.attempts)) for answer in answers]),
            _seconds([answer.timing.queue_ms + answer.timing.throttle_ms for answer in answers]),
            _seconds([answer.timing.total_ms for answer in answers]),
            _answer(answers),
        )
    return made


def verdict(report: Report, problems: Sequence[str]) -> RenderableType:
    """The counts of a demo that went well; the problems of one that did not."""
    if problems:
        return Text("\n".join(("", *problems)), "bold red")
    sent = sum(request.scene.sends for request in report.requests)
    counts = Counter(result.outcome for result in report.results)
    outcomes = ", ".join(f"{counts[outcome]} {outcome}" for outcome in STYLES if counts[outcome])
    lines = [
        Text.assemble(
            (f"{len(report.requests)} requests, each answered exactly once", "bold green"),
            f" in {report.took_s:.1f} s: {outcomes}.",
        ),
        Text(f"{sent} messages went in. Repeated ones were dropped, and every lane is empty."),
    ]
    if report.calls is not None:
        calls, refused = sum(report.calls.values()), report.calls.get("429", 0)
        lines.append(
            Text(
                f"The gateway allows each account {demo.REQUESTS_PER_MINUTE} requests a minute. It took {calls} calls "
                f"and throttled {refused} of them."
            )
        )
    if report.spare:
        lines.append(
            Text(
                f"The key of the first route died on the way. Route {report.spare} answered {report.by_the_spare} "
                f"requests; {report.moved} of them had begun by another route."
            )
        )
    return Group("", *lines)


def next_steps(command: str) -> RenderableType:
    """Commands that work as they are printed; `command` is the path of `responses-worker`."""
    there = [(f"{command} {arguments}", purpose) for arguments, purpose in _NEXT]
    return Group(
        "",
        "Try next, in one terminal:",
        _steps([(f"{command} {_SERVERS[0]}", _SERVERS[1])]),
        "and in another, after the export lines:",
        _steps(there),
    )


def _steps(rows: Sequence[tuple[str, str]]) -> Table:
    steps = Table.grid(padding=(0, 3))
    steps.add_column(no_wrap=True)
    for line, purpose in rows:
        steps.add_row(Text(f"  {line}", "bold", overflow="ignore"), Text(purpose, "dim"))
    return steps


def _title(requests: Sequence[Request]) -> str:
    first, last = requests[0], requests[-1]
    if last is not first:
        return f"{first.request_id}..{last.request_id.rpartition('-')[2]}"
    return f"{first.request_id}, twice" if first.scene.sends > 1 else first.request_id


def _outcome(answers: Sequence[GenerationResult]) -> Text:
    if not answers:
        return Text("no result", "bold red")
    outcome = answers[0].outcome
    return Text(outcome if len(answers) == 1 else f"{len(answers)} {outcome}", STYLES[outcome])


def _answer(answers: Sequence[GenerationResult]) -> Text:
    if not answers:
        return Text()
    first = answers[0]
    code = (f"{first.error.code}: ", STYLES[first.outcome]) if first.error else ""
    return Text.assemble(code, snippet(first))


def _seconds(values_ms: Sequence[int]) -> str:
    return f"{_range([f'{ms / 1000:.1f}' for ms in sorted(values_ms)])} s" if values_ms else ""


def _range(ordered: Sequence[str]) -> str:
    """`first to last` on two lines, so that a burst widens no column."""
    if not ordered:
        return ""
    return ordered[0] if ordered[0] == ordered[-1] else f"{ordered[0]} to\n{ordered[-1]}"
