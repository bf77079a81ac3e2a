# ruff: noqa: PLC0415  # imports wait until the command runs: --help stays quick
"""`responses-worker pause`, `resume` and `limits`: what an operator decides for the whole fleet, at once."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from worker.commands.options import duration
from worker.commands.terminal import WRONG, connected, ended, settings

if TYPE_CHECKING:
    from worker.admission.client import Admission
    from worker.config.settings import Settings
    from worker.operations.audit import Operator

_Limit = Annotated[str, typer.Option(help="A number, 0 for unknown, or `default` for what the workers' settings say.")]
_Reason = Annotated[str, typer.Option(help="Why; `status` and `audit` show it.")]
_Route = Annotated[str, typer.Option(metavar="NAME", help="Only this route of WORKER_CONFIG_FILE.")]
_Account = Annotated[str, typer.Option(metavar="NAME", help="Only this account of WORKER_CONFIG_FILE.")]
_LONGEST = timedelta(days=30)
_REASON_CHARS = 200


def pause(
    *,
    reason: _Reason = "",
    lasting: Annotated[
        timedelta | None,
        typer.Option("--for", parser=duration, metavar="TIME", help="End it by itself after so long, such as 30m."),
    ] = None,
    route: _Route = "",
    account: _Account = "",
) -> None:
    """Stop starting calls, everywhere, until `resume`. Calls in flight end; requests wait in place."""
    if lasting is not None and not timedelta(0) < lasting <= _LONGEST:
        raise ended("--for: must be at most 30 days, and more than nothing", WRONG)
    for_ms = round(lasting.total_seconds() * 1000) if lasting else 0
    wanted = Wanted("pause", route, account)
    what = f"{wanted} --for {round(for_ms / 1000)}s" if for_ms else str(wanted)
    why = " ".join(reason.split())[:_REASON_CHARS]
    _with_admission(what, why, wanted, lambda admission, by: admission.pause(for_ms=for_ms, by=str(by), why=why))
    by_itself = "it ends by itself, and " if for_ms else ""
    typer.echo(f"paused; {by_itself}`responses-worker resume` ends it")


def resume(*, reason: _Reason = "", route: _Route = "", account: _Account = "") -> None:
    """End every pause and open every gate: a repaired key or a paid account need not wait for the next probe."""
    wanted = Wanted("resume", route, account)
    _with_admission(str(wanted), reason, wanted, lambda admission, _: admission.resume())
    typer.echo("resumed")


def limits(
    *,
    rpm: _Limit = "",
    tpm: _Limit = "",
    in_flight: _Limit = "",
    reason: _Reason = "",
    route: _Route = "",
    account: _Account = "",
) -> None:
    """Change the fleet's limits without a restart; they override every worker's settings until set to `default`.

    Limits are an account's: with several accounts, name one, or a route of it.
    Without numbers: print the limits in force, and whose they are.
    """
    given = {"--rpm": rpm, "--tpm": tpm, "--in-flight": in_flight}
    for option, value in given.items():
        if value not in ("", "default") and not value.isdecimal():
            raise ended(f"{option}: must be a whole number or `default`", WRONG)
    numbers = [f"{option} {value}" for option, value in given.items() if value]
    wanted = Wanted("limits", route, account, limits=True)
    if not numbers:
        _print_limits()
        return
    what = " ".join([str(wanted), *numbers])
    _with_admission(
        what, reason, wanted, lambda admission, _: admission.override(rpm=rpm, tpm=tpm, in_flight=in_flight)
    )
    typer.echo("changed: in force from the next call")


@dataclass(frozen=True)
class Wanted:
    """A command, and the part of the fleet that it is about: a route, an account, or everything."""

    command: str
    route: str = ""
    account: str = ""
    limits: bool = False

    def __str__(self) -> str:
        named = {"--route": self.route, "--account": self.account}
        return " ".join([self.command, *(f"{option} {name}" for option, name in named.items() if name)])

    def scopes(self, settings: "Settings") -> list[str]:
        """The states to change; exit 2 if there are none of that name."""
        from worker.operations.route_view import UnknownNameError, scopes_to_change, table_of

        try:
            return scopes_to_change(table_of(settings), self.route, self.account, limits=self.limits)
        except UnknownNameError as error:
            raise ended(str(error), WRONG) from None


def _print_limits() -> None:
    from worker.commands.limits_output import limits_lines
    from worker.operations.audit import Audit
    from worker.operations.overview import read
    from worker.operations.route_view import scopes_of, table_of

    current = settings()
    scopes = scopes_of(table_of(current))
    with connected(current) as redis:
        upstreams = read(redis, [], scopes.values()).upstreams
        acts = Audit(redis, current.fleet).read()
        set_by = next((act for act in acts if act.fleet == current.fleet and act.what.startswith("limits")), None)
    for name, scope in scopes.items():
        if len(scopes) > 1:
            typer.echo(f"{name}:")
        for line in limits_lines(upstreams[scope], set_by):
            typer.echo(line)


def _with_admission(
    what: str, why: str, wanted: Wanted, act: "Callable[[Admission, Operator], Awaitable[None]]"
) -> None:
    """Records the act, then carries it out."""
    import asyncio

    from worker.admission.client import Admission
    from worker.admission.grants import Limits
    from worker.operations.audit import Audit
    from worker.queue.leases import LEASE_MS
    from worker.storage.scripts import ScriptRunner

    current = settings()
    scopes = wanted.scopes(current)

    async def once(by: "Operator") -> None:
        runner = ScriptRunner(current.redis.async_client())
        fixed = {"limits": Limits(), "lease_ms": LEASE_MS, "longest_pause_ms": 0, "probe_ms": 0}
        try:
            for scope in scopes:
                await act(Admission(runner=runner, upstream=scope, **fixed), by)  # pyright: ignore[reportArgumentType]  # one dict of several types
        finally:
            await runner.aclose()

    with connected(current) as redis:  # Redis answers, or the command ends here
        audit = Audit(redis, current.fleet)
        audit.record(what, why)
        asyncio.run(once(audit.operator))
