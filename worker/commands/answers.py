"""Results as people read them. Texts come from outside: nothing of them reaches the terminal but what it shows."""

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Final

import typer
from rich.console import Console
from rich.text import Text

from api_contracts import ContractViolation, GenerationResult, MappedError
from api_contracts.client import Delta
from worker.commands.terminal import FAILED

STYLES: Final = {"completed": "green", "incomplete": "yellow", "failed": "red"}
_LAYOUT: Final = frozenset("\n\t")
_JOINER: Final = "\u200d"
"""Holds compound emoji and Indic letters together; the one invisible character that is text."""


def print_answer(raw: bytes, *, as_json: bool, printed: bool = False) -> int:
    """Prints the text to stdout, unless it was `printed`, and an error to stderr, or all as JSON; the exit code."""
    result = GenerationResult.from_entry({"result": raw})
    if as_json:
        typer.echo(raw)
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
            _print_text(json.loads(delta.data)["delta"])
            printed = True
        elif delta.type == "restarted" and printed:
            typer.echo()
            typer.echo("The gateway broke off; once more from the beginning:", err=True)
    if printed:
        typer.echo()
    return printed


def _print_text(text: str) -> None:
    typer.echo(shown(text) if sys.stdout.isatty() else text, nl=False)


def print_entry(entry_id: bytes, fields: Mapping[bytes, bytes], *, as_json: bool) -> None:
    """Prints one entry of a result stream on one line; what is no result is named on stderr."""
    if as_json and fields:
        typer.echo(fields.get(b"result", b"null"))
        return
    try:
        result = GenerationResult.from_entry(fields)
    except ContractViolation as unreadable:
        typer.echo(f"{entry_id.decode()}: {unreadable}", err=True)
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
    return Text("\n".join(lines), style="red")


def snippet(result: GenerationResult) -> str:
    """The beginning of the text, or of the reason why there is none, on one line."""
    if result.error:
        return one_line(result.error.message)
    return one_line(result.response.output_text if result.response else "")


def one_line(text: str, longest: int = 200) -> str:
    return shown(" ".join(text[: 2 * longest].split()))[:longest]


def shown(text: str) -> str:
    """The text without escape sequences, controls and direction overrides, which can forge what a terminal shows."""
    return "".join(char for char in text if char.isprintable() or char in _LAYOUT or char == _JOINER)


def seconds(ms: int) -> str:
    return f"{ms / 1000:.1f} s"
