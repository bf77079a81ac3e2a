# ruff: noqa: PLC0415  # imports wait until the command runs: --help stays quick
"""`responses-worker results`."""

import json
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
    code: Annotated[str | None, typer.Option(help="Those with this error code only; without --group.")] = None,
    drop_group: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Remove a group that nobody needs: its backlog goes, its results stay kept."),
    ] = None,
    reply_to: Annotated[str | None, typer.Option(help="The stream of requests with this `reply_to`.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, as the worker wrote it.")] = False,
) -> None:
    """Print the results on a stream, oldest first.

    Without --group all that are there; with it what it has not acknowledged.
    Results are kept until every group has read them: when done with one,
    remove it with --drop-group.
    """
    from api_contracts.queues import result_stream
    from worker.commands import answers

    _check({"--group": group, "--reply-to": reply_to, "--drop-group": drop_group}, code)
    stream, current = result_stream(reply_to), settings()
    with connected(current) as redis:
        if drop_group:
            _drop(redis, current.fleet, stream, drop_group)
            return
        entries = _unacknowledged(redis, stream, group, follow) if group else _all(redis, stream, follow)
        try:
            for entry_id, fields in entries:
                if code and not _has(fields, code):
                    continue
                answers.print_entry(entry_id, fields, as_json=as_json)
                if group:
                    redis.xack(stream, group, entry_id)
        except KeyboardInterrupt:  # how one stops following
            raise typer.Exit from None


def _check(names: Mapping[str, str | None], code: str | None) -> None:
    """Ends the command unless names are names, and options fit each other."""
    from api_contracts.errors import ErrorCode

    for option, name in names.items():
        if name is not None and not _NAME.fullmatch(name):
            raise ended(f"{option}: must be a name of letters, digits, . _ : and -", WRONG)
    if code is not None and code not in [*ErrorCode]:
        raise ended(f"--code: must be one of {', '.join(ErrorCode)}", WRONG)
    if code and names["--group"]:
        raise ended("--code: a group must read all its results, or some are never acknowledged", WRONG)


def _drop(redis: Any, fleet: str, stream: str, group: str) -> None:
    """Removes a consumer group, on record."""
    from worker.operations.audit import Audit

    found = {each["name"].decode(errors="replace"): each for each in _groups(redis, stream)}
    if group not in found:
        raise ended(f"--drop-group: {stream} has no group {group}; it has {', '.join(found) or 'none'}", WRONG)
    # Redis cannot tell the lag of a group that was made in the midst of its stream.
    lag, pending = found[group]["lag"], found[group]["pending"]
    unread = f"{lag + pending:,}" if lag is not None else "an unknown number of"
    Audit(redis, fleet).record(f"results --drop-group {group} of {stream}: {unread} unread")
    redis.xgroup_destroy(stream, group)
    typer.echo(f"dropped {group}, which had not read {unread} results of {stream}")


def _groups(redis: Any, stream: str) -> list[dict[str, Any]]:
    return redis.xinfo_groups(stream) if redis.exists(stream) else []


def _has(fields: Mapping[bytes, bytes], code: str) -> bool:
    """Whether a result has this error; what is no JSON has none."""
    try:
        result: Any = json.loads(fields.get(b"result", b"{}"))
        return result["error"]["code"] == code
    except (ValueError, KeyError, TypeError):
        return False


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
