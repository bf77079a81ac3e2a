# ruff: noqa: PLC0415  # imports wait until the command runs: --help stays quick
"""`responses-worker redrive`."""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from worker.commands.options import OnlyOfLane, OnlyOfTenant, duration, rate
from worker.commands.terminal import WRONG, connected, ended, print_next, settings

if TYPE_CHECKING:
    from worker.operations.redrive import FailedRequest, Failures

_CALM: Final = "60/m"
"""The rate of the command that a dry run prints."""


_Code = Annotated[str | None, typer.Option(help="With this error code only, such as `upstream_error`.")]
_Since = Annotated[
    timedelta | None, typer.Option(parser=duration, metavar="AGE", help="Failed in the last so long, such as 2h.")
]
_Pace = Annotated[
    timedelta | None, typer.Option("--rate", parser=rate, metavar="RATE", help="At most so many, such as 50/m.")
]
_Within = Annotated[
    timedelta | None,
    typer.Option(parser=duration, metavar="TIME", help="Give each this long for its answer; 24h if not given."),
]


def redrive(
    *,
    code: _Code = None,
    tenant: OnlyOfTenant = None,
    lane: OnlyOfLane = None,
    since: _Since = None,
    everything: Annotated[bool, typer.Option("--all", help="Every request that is kept.")] = False,
    pace: _Pace = None,
    within: _Within = None,
    reason: Annotated[str, typer.Option(help="For the record of what operators do.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count them only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Run requests anew that ended in a retryable failure.

    They go behind all live traffic, each once. What was answered or enqueued
    again since then stays as it is. Dead letters have a command of their own:
    `dead replay`.
    """
    from worker.operations.audit import Audit
    from worker.operations.redrive import WITHIN, FailedRequests, Failures, counted, run_anew

    failures = Failures(code=code, tenant=tenant, lane=lane, since=since)
    given = WITHIN if within is None else within
    _check(failures, given, everything=everything)
    current = settings()
    with connected(current) as redis:
        found = list(FailedRequests(redis).find(failures))
        report = counted(redis, found, tenant)
        if not as_json:
            _tell_count(found, report)
        if found and not dry_run:
            Audit(redis, current.fleet).record(f"redrive {failures}: {len(found)} requests", reason)
            report |= run_anew(redis, _paced(found, pace), within=given)
    if as_json:
        typer.echo(json.dumps(report))
    elif found and dry_run:
        print_next(f"responses-worker redrive {failures} --rate {_CALM}")
    elif "redriven" in report:
        typer.echo(f"{report['redriven']} redriven, {report['left_alone']} answered or enqueued again meanwhile")


def _check(failures: "Failures", within: timedelta, *, everything: bool) -> None:
    """Ends the command unless these options name what is meant."""
    from api_contracts.errors import ErrorCode
    from api_contracts.limits import FARTHEST

    if everything == (failures != type(failures)()):
        raise ended("give --code, --tenant, --lane or --since, or else --all", WRONG)
    if failures.code is not None and failures.code not in [*ErrorCode]:
        raise ended(f"--code: must be one of {', '.join(ErrorCode)}", WRONG)
    if not timedelta(0) < within <= FARTHEST:
        raise ended("--within: must be at most 7 days, and more than nothing", WRONG)


def _paced(found: Iterable["FailedRequest"], pace: timedelta | None) -> Iterator["FailedRequest"]:
    """One after the other, each at least `pace` after the one before."""
    for number, failed in enumerate(found):
        if pace and number:
            time.sleep(pace.total_seconds())
        yield failed


def _tell_count(found: list["FailedRequest"], report: Mapping[str, Any]) -> None:
    """The number of requests and the cost to expect, then the number by lane and code; the most of a kind first."""
    tokens = f", about {report['tokens']:,} tokens" if "tokens" in report else ""
    cost = f", about ${report['cost_usd']:,.2f}" if "cost_usd" in report else ""
    typer.echo(f"{report['found']} failed requests, {report['bytes'] / 1024:.1f} KiB{tokens}{cost}")
    for (lane, code), count in Counter((failed.lane, failed.code) for failed in found).most_common():
        typer.echo(f"{count:>8}  {lane}  {code}")
