"""The command to type next, on the way from an alert to its cause and its remedy. Pure.

An alert names a command, a verdict names one, and each entry of the runbook ends with one. Every command prints the
next one on a line of its own, behind `next:`.
"""

import re
import shlex
from typing import Final

NEXT: Final = "next: "
"""Begins the line that holds a command."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_NEEDED: Final = re.compile(r"\b(?:LANE|GROUP)\b")
_OPTIONAL: Final = re.compile(r"\[([^\]]*?)([A-Z]+)\]")


def look_up(entry: str, **about: str) -> str:
    """The command that explains an entry of the runbook, for one lane, group, route or account.

    Names that no option could carry are left out: producers choose those of lanes.
    """
    named = {what: name for what, name in about.items() if _PLAIN.fullmatch(name)}
    return f"responses-worker runbook {entry}" + "".join(f" --{what} {name}" for what, name in named.items())


def filled_in(command: str, **about: str) -> str:
    """The runbook's command for one lane, group, route or account; as general as it can be where none is given."""

    def part(found: re.Match[str]) -> str:
        name = about.get(found[2].lower(), "")
        return f"{found[1]}{shlex.quote(name)}" if name else ""

    without_options = _OPTIONAL.sub(part, command)
    return _NEEDED.sub(lambda found: shlex.quote(about.get(found[0].lower(), "") or found[0]), without_options)
