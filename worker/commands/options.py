"""Forms of options that several commands share."""

from datetime import timedelta

import typer


def duration(text: str) -> timedelta:
    """Reads `30m` or `24h`; ends the command with one line that says what would be right."""
    from worker.config.values import duration as read  # noqa: PLC0415  # --help stays quick

    try:
        return read(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
