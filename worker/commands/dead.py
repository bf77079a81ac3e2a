# ruff: noqa: PLC0415  # imports wait until a command runs: --help stays quick
"""`responses-worker dead list|show|replay|drop`."""

import json
import re
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Final

import typer

from worker.commands.options import OnlyOfLane, OnlyOfTenant, duration
from worker.commands.terminal import FAILED, WRONG, connected, ended, print_next, settings

if TYPE_CHECKING:
    from worker.operations.audit import Audit
    from worker.operations.dead_letters import DeadLetters, Replay, Selection

_ENTRY_ID: Final = re.compile(r"\d{1,20}-\d{1,20}")
_IDS_TOLD: Final = 5
"""In the record of what operators do."""

dead = typer.Typer(
    help="Look at dead letters, send them back to their lanes, or drop them.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


_EntryIds = Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Of dead letters.", show_default=False)]
_All = Annotated[bool, typer.Option("--all", help="Every letter that the other options select.")]
_Reason = Annotated[str | None, typer.Option(help="With this in their reason only, such as `poison`.")]
_OlderThan = Annotated[
    timedelta | None, typer.Option(parser=duration, metavar="AGE", help="Dead for at least this long, such as 7d.")
]
_NewerThan = Annotated[
    timedelta | None, typer.Option(parser=duration, metavar="AGE", help="Dead for at most this long, such as 1h.")
]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object for each, on a line of its own.")]


@dead.command("list")
def list_letters(
    *,
    lane: OnlyOfLane = None,
    reason: _Reason = None,
    tenant: OnlyOfTenant = None,
    older_than: _OlderThan = None,
    newer_than: _NewerThan = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 50,
    as_json: _Json = False,
) -> None:
    """List dead letters, newest first; no content is read."""
    from worker.commands.dead_letter_output import as_fact, letters_table

    with _dead_letters() as (letters, _):
        found = letters.find(_selection(lane, reason, tenant, older_than, newer_than))
        shown = list(islice(found, limit))
        more, count = next(found, None) is not None, letters.count()
    if as_json:
        for letter in shown:
            typer.echo(json.dumps(as_fact(letter)))
        return
    if shown:
        letters_table(shown)
    typer.echo(f"{len(shown)} shown of {count} dead letters{'; --limit shows more' if more else ''}")
    if shown:
        print_next(f"responses-worker dead replay {shown[0].entry_id} --within 1h")


@dead.command()
def show(
    entry_id: Annotated[str, typer.Argument(metavar="ID", help="Of a dead letter.", show_default=False)],
    *,
    content: Annotated[bool, typer.Option("--content", help="The message too. It holds a prompt.")] = False,
    as_json: _Json = False,
) -> None:
    """Show what is known of one dead letter, and its message only with --content."""
    from worker.commands.dead_letter_output import describe, print_facts

    checked = settings()
    _check([entry_id])
    with connected(checked) as redis:
        facts = describe(redis, entry_id, max_body=checked.max_body, content=content)
    if facts is None:
        raise ended(f"{entry_id}: there is no such dead letter")
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        print_facts(facts)


@dead.command()
def replay(
    entry_ids: _EntryIds = None,
    *,
    everything: _All = False,
    lane: OnlyOfLane = None,
    reason: _Reason = None,
    tenant: OnlyOfTenant = None,
    older_than: _OlderThan = None,
    newer_than: _NewerThan = None,
    within: Annotated[
        timedelta | None,
        typer.Option(parser=duration, metavar="TIME", help="Give them this long from now, such as 1h."),
    ] = None,
    yes: _Yes = False,
) -> None:
    """Send dead letters to the back of their lanes; their ids run anew.

    Each is one step, so an interrupted replay is simply repeated. A letter
    stays where it is if its id was enqueued again. Without --within their
    deadlines stay: past it the answer is `deadline_exceeded`.
    """
    from api_contracts.limits import FARTHEST
    from worker.operations.dead_letters import Replay

    if within is not None and not timedelta(0) < within <= FARTHEST:
        raise ended("--within: must be at most 7 days, and more than nothing", WRONG)

    selection = _selection(lane, reason, tenant, older_than, newer_than)
    with _dead_letters() as (letters, audit):
        chosen = _chosen(letters, entry_ids, selection, everything=everything, verb="Replay", yes=yes)
        audit.record(f"dead replay: {_told_ids(chosen)}")
        done = Counter(_told(entry_id, letters.replay(entry_id, within=within)) for entry_id in chosen)
    typer.echo(f"{done[Replay.REPLAYED]} replayed, {done[Replay.GONE]} not there any more")
    if done.total() > done[Replay.REPLAYED] + done[Replay.GONE]:
        raise typer.Exit(FAILED)


@dead.command()
def drop(
    entry_ids: _EntryIds = None,
    *,
    everything: _All = False,
    lane: OnlyOfLane = None,
    reason: _Reason = None,
    tenant: OnlyOfTenant = None,
    older_than: _OlderThan = None,
    newer_than: _NewerThan = None,
    yes: _Yes = False,
) -> None:
    """Remove dead letters for good."""
    selection = _selection(lane, reason, tenant, older_than, newer_than)
    with _dead_letters() as (letters, audit):
        chosen = _chosen(letters, entry_ids, selection, everything=everything, verb="Drop", yes=yes)
        audit.record(f"dead drop: {_told_ids(chosen)}")
        dropped = letters.drop(chosen)
    typer.echo(f"{dropped} dropped, {len(chosen) - dropped} not there any more")


@contextmanager
def _dead_letters() -> "Generator[tuple[DeadLetters, Audit]]":
    from worker.operations.audit import Audit
    from worker.operations.dead_letters import DeadLetters

    checked = settings()
    with connected(checked) as redis:
        yield DeadLetters(redis), Audit(redis, checked.fleet)


def _told_ids(entry_ids: list[str]) -> str:
    shown = ", ".join(entry_ids[:_IDS_TOLD])
    return f"{len(entry_ids)} letters, {shown}{' and more' if len(entry_ids) > _IDS_TOLD else ''}"


def _selection(
    lane: str | None,
    reason: str | None,
    tenant: str | None,
    older_than: timedelta | None,
    newer_than: timedelta | None,
) -> "Selection":
    from worker.operations.dead_letters import Selection

    return Selection(lane=lane, reason=reason, tenant=tenant, older_than=older_than, newer_than=newer_than)


def _told(entry_id: str, replay: "Replay") -> "Replay":
    from worker.commands.dead_letter_output import KEPT_BECAUSE

    if replay in KEPT_BECAUSE:
        typer.echo(f"{entry_id}: kept, {KEPT_BECAUSE[replay]}", err=True)
    return replay


def _chosen(
    letters: "DeadLetters",
    entry_ids: list[str] | None,
    selection: "Selection",
    *,
    everything: bool,
    verb: str,
    yes: bool,
) -> list[str]:
    """The ids meant, oldest first, once whoever asks for many has confirmed their number."""
    if bool(entry_ids) == everything or (entry_ids and selection != type(selection)()):
        raise ended("give either IDs, or --all with options that select", WRONG)
    if entry_ids:
        return _check(entry_ids)
    chosen = [letter.entry_id for letter in letters.find(selection)][::-1]
    if chosen and not yes:
        typer.confirm(f"{verb} {len(chosen)} dead letters?", abort=True, err=True)
    return chosen


def _check(entry_ids: list[str]) -> list[str]:
    for entry_id in entry_ids:
        if not _ENTRY_ID.fullmatch(entry_id):
            raise ended(f"{entry_id}: must be the id of a dead letter, such as 1795355279402-0", WRONG)
    return entry_ids
