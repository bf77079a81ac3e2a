"""Forms of options that several commands share."""

from datetime import timedelta
from typing import Annotated

import typer

OnlyOfLane = Annotated[str | None, typer.Option("--lane", help="Of this lane only.")]
OnlyOfTenant = Annotated[str | None, typer.Option("--tenant", help="Of this tenant only.")]


def duration(text: str) -> timedelta:
    """Reads `30m` or `24h`; ends the command with one line that says what would be right."""
    from worker.config.values import duration as read  # noqa: PLC0415  # --help stays quick

    try:
        return read(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def rate(text: str) -> timedelta:
    """Reads `50/m`, so many a second, minute or hour, as the time between two; ends the command as `duration` does."""
    number, _, unit = text.partition("/")
    seconds = {"s": 1, "m": 60, "h": 3600}.get(unit.strip())
    if seconds is None or not number.strip().isdecimal() or int(number) == 0:
        raise typer.BadParameter(f"must be a number a second, minute or hour, such as 50/m, not {text!r}")
    return timedelta(seconds=seconds / int(number))
