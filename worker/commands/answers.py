"""Results as people read them. Texts come from outside: nothing of them reaches the terminal but what it shows."""

import sys
from collections.abc import Iterable, Mapping
from typing import Final

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from api_contracts import ContractViolation, GenerationResult, MappedError, StreamEvent
from api_contracts.client import Delta
from worker.commands.printable import one_line, print_json, shown
from worker.commands.terminal import FAILED

STYLES: Final = {"completed": "green", "incomplete": "yellow", "failed": "red"}


def print_answer(raw: bytes, *, as_json: bool, printed: bool = False) -> int:
    """Prints the text to stdout, unless it was `printed`, and an error to stderr, or all as JSON; the exit code."""
    result = GenerationResult.from_entry({"result": raw})
    if as_json:
        print_json(raw)
    elif result.response and not printed:
        _print_text(result.response.output_text + "\n")
    if result.error and not as_json:
        Console(stderr=True, soft_wrap=True, highlight=False).print(explained(result.error))
    return FAILED if result.error else 0


def print_deltas(deltas: Iterable[Delta]) -> bool:
    """Prints text to stdout as it comes, anew where an attempt was cut short; returns whether there was any."""
    printed = False
    for delta in deltas:
        if delta.type == "response.output_text.delta":
            text = _text_of(delta)
            _print_text(text)
            printed = printed or bool(text)
        elif delta.type == "restarted" and printed:
            typer.echo()
            typer.echo("The gateway broke off; once more from the beginning:", err=True)
    if printed:
        typer.echo()
    return printed


def _text_of(delta: Delta) -> str:
    """The event's piece of text; empty where the gateway wrote none."""
    try:
        event = StreamEvent.model_validate_json(delta.data)
    except ValidationError:
        return ""
    return event.delta or ""


def _print_text(text: str) -> None:
    typer.echo(shown(text) if sys.stdout.isatty() else text, nl=False)


def print_entry(entry_id: bytes, fields: Mapping[bytes, bytes], *, as_json: bool) -> None:
    """Prints one entry of a result stream on one line; what is no result is named on stderr."""
    if as_json and fields:
        print_json(fields.get(b"result", b"null"))
        return
    try:
        result = GenerationResult.from_entry(fields)
    except ContractViolation as unreadable:
        typer.echo(f"{entry_id.decode()}: {shown(str(unreadable))}", err=True)
        return
    took = seconds(result.timing.total_ms)
    console = Console(highlight=False)
    line = Text.assemble(
        (f"{result.error.code if result.error else result.outcome:<22}", STYLES[result.outcome]),
        (f"{took:>8}  ", "dim"),
        (f"{one_line(result.request_id)}  ", "bold"),
        snippet(result),
    )
    if console.is_terminal:
        console.print(line, no_wrap=True, overflow="ellipsis")
    else:
        typer.echo(line.plain)


def explained(error: MappedError) -> Text:
    """The code, what it means, what the gateway said, and whether asking again can help."""
    lines = [f"{error.code}: {error.message}"]
    lines += [violation.message for violation in error.violations[1:]]
    if error.upstream and error.upstream.message:
        lines.append(f"The gateway said: {one_line(error.upstream.message)}")
    lines.append("Asking again can help." if error.retryable else "Asking the same again cannot help.")
    return Text(shown("\n".join(lines)), style="red")


def snippet(result: GenerationResult) -> str:
    """The beginning of the text, or of the reason why there is none, on one line."""
    if result.error:
        return one_line(result.error.message)
    return one_line(result.response.output_text if result.response else "")


def seconds(ms: int) -> str:
    return f"{ms / 1000:.1f} s"
