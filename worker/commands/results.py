# ruff: noqa: PLC0415  # imports wait until the command runs: --help stays quick
"""`responses-worker results`."""

import re
import socket
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

import typer

from worker.commands.terminal import WRONG, connected, ended, settings

_NAME: Final = re.compile(r"[A-Za-z0-9._:\-]{1,64}")
_PAGE: Final = 100
_BLOCK_MS: Final = 1000
"""Below the connection's timeout, so that silence is not taken for a dead peer."""
_NEW: Final = b">"

Entry = tuple[bytes, Mapping[bytes, bytes]]


def results(
    *,
    group: Annotated[
        str | None, typer.Option(help="Read as this consumer group, and acknowledge what was printed.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-F", help="Go on as results arrive.")] = False,
    reply_to: Annotated[str | None, typer.Option(help="The stream of requests with this `reply_to`.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, as the worker wrote it.")] = False,
) -> None:
    """Print the results on a stream, oldest first.

    Without --group all that are there; with it what it has not acknowledged.
    Results are kept until every group has read them: when done with one,
    remove it with XGROUP DESTROY.
    """
    from api_contracts.queues import result_stream
    from worker.commands import answers

    for option, name in (("--group", group), ("--reply-to", reply_to)):
        if name is not None and not _NAME.fullmatch(name):
            raise ended(f"{option}: must be a name of letters, digits, . _ : and -", WRONG)
    stream = result_stream(reply_to)
    with connected(settings()) as redis:
        entries = _unacknowledged(redis, stream, group, follow) if group else _all(redis, stream, follow)
        try:
            for entry_id, fields in entries:
                answers.print_entry(entry_id, fields, as_json=as_json)
                if group:
                    redis.xack(stream, group, entry_id)
        except KeyboardInterrupt:  # how one stops following
            raise typer.Exit from None


def _all(redis: Any, stream: str, follow: bool) -> Iterator[Entry]:  # noqa: FBT001  # named at its only call
    last = b"0"
    while True:
        found = _entries(redis.xread({stream: last}, count=_PAGE, block=_BLOCK_MS if follow else None))
        yield from found
        if not found and not follow:
            return
        last = found[-1][0] if found else last


def _unacknowledged(redis: Any, stream: str, group: str, follow: bool) -> Iterator[Entry]:  # noqa: FBT001  # named at its only call
    """First what this host was given before and did not acknowledge, then what nobody was given."""
    from redis import ResponseError

    try:
        redis.xgroup_create(stream, group, id="0", mkstream=True)
    except ResponseError as error:
        if not str(error).startswith("BUSYGROUP"):
            raise
    position = b"0"
    while True:
        block_ms = _BLOCK_MS if follow and position == _NEW else None
        found = _entries(redis.xreadgroup(group, socket.gethostname(), {stream: position}, count=_PAGE, block=block_ms))
        yield from found
        if position != _NEW:
            position = found[-1][0] if found else _NEW
        elif not found and not follow:
            return


def _entries(reply: Any) -> list[Entry]:
    return reply[0][1] if reply else []
