"""Commands that this installation does not have: the image holds no stand-ins for development."""

from collections.abc import Callable

import typer

from worker.commands.terminal import WRONG, ended


def leave_out(cli: typer.Typer, *names: str) -> None:
    """Each name ends with exit code 2 and one line that says where the command is; `--help` does not list it."""
    anything = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": list[str]()}
    for name in names:
        cli.command(name, hidden=True, context_settings=anything)(_explain(name))


def _explain(name: str) -> Callable[[], None]:
    def command() -> None:
        raise ended(
            f"{name}: this installation leaves it out, as the image does; a checkout has it, see `make help`", WRONG
        )

    return command
