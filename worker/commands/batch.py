# ruff: noqa: PLC0415  # imports wait until the command runs: --help stays quick
"""`responses-worker batch`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from worker.commands.terminal import INTERRUPTED, WRONG, connected, ended, settings

if TYPE_CHECKING:
    from worker.operations.batches import Batch, Summary

_GO_ON: Final = "the same command goes on from here"


def batch(
    source: Annotated[Path, typer.Argument(metavar="IN.jsonl", help="Lines in the OpenAI Batch input format.")],
    answers: Annotated[Path, typer.Argument(metavar="OUT.jsonl", help="Answers; errors go to OUT.errors.jsonl.")],
    *,
    lane: Annotated[str, typer.Option(help="The lane to enqueue on.")] = "batch",
    tenant: Annotated[str, typer.Option(help="On whose behalf.")] = "default",
    concurrency: Annotated[int, typer.Option(min=1, help="The most requests that wait or run at a time.")] = 2000,
) -> None:
    """Answer every line of a file, once. Run it again to go on where it stopped.

    Exit code: 0 every line has its answer or error on disk, 1 the lane is full or another run writes the output,
    2 the file cannot be read, 130 interrupted.
    """
    from api_contracts.client import ResponsesClient
    from worker.operations.batches import Batch

    if not source.is_file():
        raise ended(f"{source}: no such file", WRONG)
    checked = settings()
    with connected(checked) as redis:
        checks: Any = {"max_body": checked.max_body, "contract": checked.envelope}
        job = Batch(
            client=ResponsesClient(redis, tenant=tenant, **checks),
            source=source,
            answers=answers,
            lane=lane,
            concurrency=concurrency,
            prices=checked.routing.prices,
            **checks,
        )
        _answer(job)


def _answer(job: "Batch") -> None:
    """Runs to the end, or ends the command with the reason that it stopped."""
    from api_contracts import ContractViolation
    from api_contracts.client import BackloggedError
    from worker.operations.batch_files import BatchError

    try:
        _summarize(_shown(job), job)
    except ContractViolation as wrong:
        raise ended(f"--tenant: {wrong}", WRONG) from None
    except KeyboardInterrupt:
        raise ended(f"interrupted; {_GO_ON}", INTERRUPTED) from None
    except BackloggedError as full:
        raise ended(f"{full}; {_GO_ON}") from None
    except BatchError as wrong:
        raise ended(str(wrong)) from None


def _shown(job: "Batch") -> "Summary":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from worker.operations.batch_files import lines_of

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]:.1f}/s"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=sum(1 for _ in lines_of(job.source)), speed=0.0)

        def answered(done: int) -> None:
            speed = progress.tasks[task].speed or 0.0
            progress.update(task, completed=done, speed=speed)

        job.on_progress = answered
        return job.run()


def _summarize(summary: "Summary", job: "Batch") -> None:
    outcomes = ", ".join(f"{count} {name}" for name, count in summary.outcomes.most_common())
    used = "; ".join(filter(None, (f"{summary.tokens} tokens", summary.told_cost())))
    typer.echo(f"{summary.lines} lines; this run: {outcomes or 'nothing left to do'}; {used}", err=True)
    if summary.latencies_ms:
        p50, p95, p99 = (summary.percentile_s(share) for share in (0.5, 0.95, 0.99))
        typer.echo(f"from enqueueing to answer: p50 {p50:.1f} s, p95 {p95:.1f} s, p99 {p99:.1f} s", err=True)
    typer.echo(f"answers in {job.answers}, errors in {job.output.errors}", err=True)
