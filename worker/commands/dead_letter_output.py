"""Dead letters as people read them. What came from outside is printed without what could forge a terminal's picture."""

import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import typer
from rich.console import Console
from rich.text import Text

from api_contracts.queues import request_key
from worker.commands.printable import one_line, shown
from worker.commands.tables import table
from worker.operations.dead_letters import DeadLetter, DeadLetters, Replay
from worker.queue.messages import Unreadable, decode
from worker.request.results import timestamp

_WIDTH: Final = 240

KEPT_BECAUSE: Final = {
    Replay.UNDER_WAY: "its id was enqueued again and is not answered yet",
    Replay.ANSWERED: "its id was enqueued again and has its answer: drop it",
    Replay.BLOCKED: "the key of its request holds something else: delete that first",
    Replay.NO_LANE: "no worker wrote it, and it names no lane",
}


def letters_table(letters: Iterable[DeadLetter]) -> None:
    """One row each; the reason takes what room a terminal leaves, and all it needs elsewhere."""
    on_terminal = sys.stdout.isatty()
    made = table("id", "died (UTC)", "lane", "tenant", "request id", "size", "reason", numbers=("size",))
    made.expand, made.columns[-1].ratio, made.columns[-1].min_width = on_terminal, 1, 12
    for letter in letters:
        died = timestamp(letter.died_at_ms)[5:16].replace("T", " ")
        ids = (Text(one_line(text)) for text in (letter.lane, letter.tenant, letter.request_id))
        made.add_row(letter.entry_id, died, *ids, _size(letter.size), Text(one_line(letter.reason)))
    Console(highlight=False, width=None if on_terminal else _WIDTH).print(made)


def as_fact(letter: DeadLetter) -> dict[str, Any]:
    """A letter's facts, for JSON."""
    return {
        "id": letter.entry_id,
        "died_at": timestamp(letter.died_at_ms),
        "lane": letter.lane,
        "reason": letter.reason,
        "tenant": letter.tenant,
        "request_id": letter.request_id,
        "size": letter.size,
    }


def describe(redis: Any, entry_id: str, *, max_body: int, content: bool) -> dict[str, Any] | None:
    """Everything known of one letter, or None; its message only where `content` is asked for."""
    letters = DeadLetters(redis)
    letter, raw = letters.get(entry_id), letters.content(entry_id)
    if letter is None or raw is None:
        return None
    facts = as_fact(letter) | _read(raw, max_body) | {"state": _state(redis, letter)}
    return facts | ({"message": raw.decode(errors="backslashreplace")} if content else {})


def print_facts(facts: Mapping[str, Any]) -> None:
    """One fact a line, and the message after an empty one."""
    for name, fact in facts.items():
        if name != "message":
            typer.echo(f"{name.replace('_', ' '):<12}{'-' if fact in (None, '') else one_line(str(fact))}")
    if "message" in facts:
        typer.echo(f"\n{shown(facts['message'])}")


def _read(raw: bytes, max_body: int) -> dict[str, Any]:
    """The message's facts, as far as it can be read, without its content."""
    message = decode(raw, max_body=max_body)
    if isinstance(message, Unreadable):
        return {"task_id": None, "deadline": None, "expired": None, "problem": message.reason}
    deadlines = [moment for moment in (message.terms and message.terms.deadline, message.expires) if moment]
    deadline = min(deadlines) if deadlines else None
    violation = message.violations[0] if message.violations else None
    return {
        "task_id": message.task_id,
        "deadline": timestamp(round(deadline.timestamp() * 1000)) if deadline else None,
        "expired": deadline is not None and deadline < datetime.now(UTC),
        "problem": f"{violation.field}: {violation.message}" if violation else None,
    }


def _state(redis: Any, letter: DeadLetter) -> str | None:
    """Of the letter's request now; None where its id is not known any more, or never was."""
    key = request_key(letter.tenant, letter.request_id)
    if not letter.request_id or redis.type(key) != b"hash":
        return None
    (state,) = redis.hmget(key, "state")
    return state.decode() if state else None


def _size(size: int) -> str:
    return f"{size} B" if size < 1024 else f"{size / 1024:.1f} KiB"  # noqa: PLR2004  # binary prefixes
