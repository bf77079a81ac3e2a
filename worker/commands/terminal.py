# ruff: noqa: PLC0415  # imports wait until a command runs: --help stays quick
"""Every command shares this: its settings, its connection, and an end with one clear line."""

import shlex
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from worker.commands.absent import absent
from worker.commands.printable import shown
from worker.config.exit_codes import FAILED, INTERRUPTED, NO_ANSWER_YET, WRONG
from worker.failures.next_command import NEXT

if TYPE_CHECKING:
    from worker.config.settings import Settings

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "NO_ANSWER_YET",
    "WRONG",
    "command_path",
    "connected",
    "ended",
    "print_next",
    "settings",
]


def ended(message: str, code: int = FAILED) -> typer.Exit:
    """To be raised: ends the command once `message` is on stderr. It may quote what came from outside."""
    sys.stderr.write(f"{shown(message)}\n")
    return typer.Exit(code)


def print_next(command: str) -> None:
    """Prints the command to type next, whole, on a line of its own."""
    typer.echo(f"\n{NEXT}{shown(command)}")


def command_path() -> str:
    """The words that run `responses-worker` again from this directory, quoted for a shell."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m worker"
    if shutil.which(called.name) == str(called):
        return called.name
    return shlex.quote(str(called.relative_to(Path.cwd()) if called.is_relative_to(Path.cwd()) else called))


def settings(**options: Any) -> "Settings":
    """The settings of the environment, over which options of a command win, or exit 2 with one line per mistake."""
    with absent("opentelemetry.sdk.metrics"):  # redis-py imports it where it finds it: 0.1 s
        from worker.config.settings import WrongSettingsError, load

    try:
        return load(**options)
    except WrongSettingsError as error:
        raise ended(str(error), WRONG) from None


@contextmanager
def connected(settings: "Settings") -> Generator[Any]:
    """A Redis client that answers; a failure of Redis, then or later, exits 1 and never shows the password."""
    target = settings.redis
    client: Any = target.client()
    try:
        with client:
            client.ping()
            yield client
    except _lost() as error:
        where = target.path or ", ".join(f"{host}:{port}" for host, port in target.hosts)
        raise ended(f"Redis at {where} (WORKER_REDIS_URL): {error}") from None


def _lost() -> tuple[type[Exception], ...]:
    """The failures of Redis, as its client and as Celery's call them; asked for when something was raised."""
    import redis
    from kombu.exceptions import OperationalError

    return redis.RedisError, OperationalError
