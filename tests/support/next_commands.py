"""Follows the commands that each output names, and judges whether a command could be typed as it stands."""

import re
import shlex
from typing import Any, Final

from typer.main import get_command

from support.command_line import called
from worker.cli import cli
from worker.config.settings import Settings
from worker.failures.next_command import NEXT

LONGEST_WAY: Final = 3
ELSEWHERE: Final = ("kubectl", "helm")
"""Programs of an operator's own machine; the image has neither."""
_READ_ON: Final = re.compile(r"responses-worker (?:status|runbook|dead list|redrive .*--dry-run)")
_SETTING: Final = re.compile(r"WORKER_([A-Z_]+)=.+")


def named_in(output: str) -> list[str]:
    """The commands to type next, as an output names them."""
    return [line.removeprefix(NEXT) for line in output.splitlines() if line.startswith(NEXT)]


def way_from(command: str, **settings: str) -> list[str]:
    """The commands that somebody types who types what each output names; ends before the one that changes something."""
    way = [command]
    while _READ_ON.match(way[-1]) and len(way) <= LONGEST_WAY:
        ran = called(*shlex.split(way[-1])[1:], **settings)
        assert ran.code == 0, ran
        named = named_in(ran.out)
        if not named:
            break
        assert len(named) == 1, ran.out
        way += named
    return way


def mistake_in(command: str) -> str:
    """The mistake for which a command could not be typed as it stands; empty where there is none."""
    words = shlex.split(command)
    while found := _SETTING.fullmatch(words[0]):
        if found[1].lower() not in Settings.model_fields:
            return f"{words[0]}: no such setting"
        words.pop(0)
    program, *arguments = words
    if program in ELSEWHERE:
        return ""
    return _mistake(arguments) if program == "responses-worker" else f"{program}: no program of ours"


def _mistake(arguments: list[str]) -> str:
    found: Any = get_command(cli)
    name = "responses-worker"
    while hasattr(found, "commands"):
        name = arguments.pop(0) if arguments else ""
        if name not in found.commands:
            return f"{name or 'nothing'}: no such command"
        found = found.commands[name]
    try:
        found.make_context(name, arguments)
    except Exception as error:  # noqa: BLE001  # whatever it is, it would end the command
        return f"{type(error).__name__}: {error}"
    return ""
