"""Texts from outside, made fit for a terminal: nothing of them but what it shows, and never as rich's markup."""

import json
import re
import sys
from typing import Final

import typer

_LAYOUT: Final = frozenset("\n\t")
_JOINER: Final = "\u200d"
"""Holds compound emoji and Indic letters together; the one invisible character that is text."""
_MAYBE_HIDDEN: Final = re.compile(r"[^ -~]")


def shown(text: str) -> str:
    """The text without escape sequences, controls and direction overrides, which can forge what a terminal shows."""
    return "".join(char for char in text if char.isprintable() or char in _LAYOUT or char == _JOINER)


def one_line(text: str, longest: int = 200) -> str:
    return shown(" ".join(text[: 2 * longest].split()))[:longest]


def name_shown(name: str, longest: int = 80) -> str:
    """A name with its controls as escapes, so that two names never look the same."""
    return name.encode("unicode_escape").decode()[:longest] if not name.isprintable() else name[:longest]


def print_json(raw: bytes) -> None:
    """JSON as it was written; on a terminal, characters that it does not show become escapes of the same JSON."""
    if not sys.stdout.isatty():
        typer.echo(raw)
        return
    typer.echo(_MAYBE_HIDDEN.sub(_escaped, raw.decode("utf-8", "replace")))


def _escaped(char: re.Match[str]) -> str:
    text = char[0]
    return text if text.isprintable() or text in _LAYOUT else json.dumps(text)[1:-1]
