"""The page of the command line, from the commands themselves."""

import inspect
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from docgen.markdown import one_line, page, table
from worker.cli import cli


def commands_page() -> str:
    return page(
        "Command line",
        "`responses-worker` and `python -m worker` are the same program. Exit codes are the same everywhere: 0 done; "
        "1 it failed, or the answer is an error; 2 the settings or the request are wrong; 3 no answer in time.",
        *(_section(path, command) for path, command in sorted(_walk(get_command(cli), ""), key=lambda found: found[0])),
    )


def _walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, child in getattr(command, "commands", {}).items():
        if hasattr(child, "commands"):
            yield from _walk(child, f"{path}{name} ")
        else:
            yield f"{path}{name}", child


def _section(path: str, command: Any) -> str:
    rows = [(_spelling(option), _help(option)) for option in command.params]
    options = f"\n\n{table(('argument or option', 'meaning'), rows)}" if rows else ""
    return f"## `{path}`\n\n{_plain(inspect.cleandoc(command.help or ''))}{options}"


def _spelling(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or parameter.name.upper()}`"
    return ", ".join(f"`{name}`" for name in parameter.opts)


def _help(parameter: Any) -> str:
    told = _plain(one_line(parameter.help))
    given = parameter.default
    shown = given not in (None, False, "", ()) and not callable(given)
    return f"{told} Default: `{given}`." if shown else told


def _plain(text: str) -> str:
    """Without the escapes of terminal markup."""
    return text.replace("[\\[", "[[").replace("\\[", "[").replace("\b\n", "")
