# ruff: noqa: PLC0415  # imports wait until the command runs: --help stays quick
"""`responses-worker pause`, `resume` and `limits`: what an operator decides for the whole fleet, at once."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from worker.commands.terminal import WRONG, connected, ended, settings

if TYPE_CHECKING:
    from worker.admission.client import Admission
    from worker.config.settings import Settings

_Limit = Annotated[str, typer.Option(help="A number, 0 for unknown, or `default` for what the workers' settings say.")]


_Route = Annotated[str, typer.Option(metavar="NAME", help="Only this route of WORKER_CONFIG_FILE.")]
_Account = Annotated[str, typer.Option(metavar="NAME", help="Only this account of WORKER_CONFIG_FILE.")]


def pause(*, route: _Route = "", account: _Account = "") -> None:
    """Stop starting calls, everywhere, until `resume`. Calls in flight end; requests wait in place."""
    _with_admission(lambda admission: admission.pause(), Wanted(route, account))
    typer.echo("paused; `responses-worker resume` ends it")


def resume(*, route: _Route = "", account: _Account = "") -> None:
    """End every pause and open every gate: a repaired key or a paid account need not wait for the next probe."""
    _with_admission(lambda admission: admission.resume(), Wanted(route, account))
    typer.echo("resumed")


def limits(
    *, rpm: _Limit = "", tpm: _Limit = "", in_flight: _Limit = "", route: _Route = "", account: _Account = ""
) -> None:
    """Change the fleet's limits without a restart; they override every worker's settings until set to `default`.

    Limits are an account's: with several accounts, name one, or a route of it.
    """
    wanted = {"--rpm": rpm, "--tpm": tpm, "--in-flight": in_flight}
    for option, value in wanted.items():
        if value not in ("", "default") and not value.isdecimal():
            raise ended(f"{option}: must be a whole number or `default`", WRONG)
    if not any(wanted.values()):
        raise ended("give at least one of --rpm, --tpm and --in-flight", WRONG)
    _with_admission(
        lambda admission: admission.override(rpm=rpm, tpm=tpm, in_flight=in_flight),
        Wanted(route, account, limits=True),
    )
    typer.echo("changed: in force from the next call")


@dataclass(frozen=True)
class Wanted:
    """The part of the fleet that a command is about: a route, an account, or everything."""

    route: str = ""
    account: str = ""
    limits: bool = False

    def scopes(self, settings: "Settings") -> list[str]:
        """The states to change; exit 2 if there are none of that name."""
        from worker.operations.route_view import UnknownNameError, scopes_to_change, table_of

        try:
            return scopes_to_change(table_of(settings), self.route, self.account, limits=self.limits)
        except UnknownNameError as error:
            raise ended(str(error), WRONG) from None


def _with_admission(act: "Callable[[Admission], Awaitable[None]]", wanted: Wanted) -> None:
    import asyncio

    from worker.admission.client import Admission
    from worker.admission.grants import Limits
    from worker.queue.leases import LEASE_MS
    from worker.storage.scripts import ScriptRunner

    current = settings()
    scopes = wanted.scopes(current)

    async def once() -> None:
        runner = ScriptRunner(current.redis.async_client())
        try:
            for scope in scopes:
                await act(
                    Admission(
                        runner=runner,
                        limits=Limits(),
                        lease_ms=LEASE_MS,
                        longest_pause_ms=0,
                        probe_ms=0,
                        upstream=scope,
                    )
                )
        finally:
            await runner.aclose()

    with connected(current):  # Redis answers, or the command ends here
        asyncio.run(once())
