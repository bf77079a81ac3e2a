"""Writes log lines: JSON to stdout, or readable text on a terminal.

The standard library's logging, warnings, and exceptions that reach the top of a thread go through the same chain, so
that redaction sees every line.
"""

import logging
import re
import sys
import threading
import warnings
from collections import deque
from collections.abc import Mapping, MutableMapping
from copy import copy
from typing import Any, BinaryIO, Final, Literal, TextIO

import orjson
import structlog

from worker.telemetry.context import speaking
from worker.telemetry.events import OF_A_REQUEST, Event, Level
from worker.telemetry.redaction import WITHHELD, clean, described, without_content
from worker.telemetry.redaction import name as type_name

_QUIET: Final = {
    "httpx": logging.WARNING,  # logs every URL at INFO
    "httpcore": logging.WARNING,
    "asyncio": logging.WARNING,
    "kombu": logging.WARNING,
    "amqp": logging.WARNING,
    "celery": logging.WARNING,  # its INFO lines describe a consumer without queues
    "sentry_sdk": logging.ERROR,
}
_REMEMBERED: Final = 30
_HEAD: Final = ("timestamp", "level", "event")
_WARNING: Final = re.compile(r"[^\n]+?:\d+: \w+")
"""Place and category of a warning. Its text is dropped: pydantic's warnings quote a value."""

Line = MutableMapping[str, Any]

recent_warnings: deque[Mapping[str, Any]] = deque(maxlen=_REMEMBERED)
"""The last lines at WARNING and above; incidents show them as breadcrumbs."""


def configure(
    log_format: Literal["auto", "json", "console"], level: str, *, out: BinaryIO | None = None, **static: str | int
) -> None:
    """Sets up structlog, the standard library's logging, warnings and exception hooks, once per process."""
    console = log_format == "console" or (log_format == "auto" and sys.stdout.isatty())

    def prepare(_: Any, __: str, line: Line) -> Line:
        head = {name: line[name] for name in _HEAD}
        told = _with_ids(_with_exception(without_content(line), as_text=console))
        return {**head, **told} if console else {**head, **told, **static}

    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
            prepare,
            _remember,
            structlog.dev.ConsoleRenderer() if console else _as_bytes,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory() if console else structlog.BytesLoggerFactory(out),
    )
    _sink.logger = structlog.get_logger().bind()
    _take_the_standard_library(level)
    _catch_the_rest()


def log(event: Event, level: Level = "info", **fields: Any) -> None:
    """Writes one line. `fields` are sizes, counts, ids and codes, never content."""
    getattr(_sink.logger, level)(event, **fields)


def log_exception(event: Event, error: BaseException, **fields: Any) -> None:
    """Writes one line with type and place of `error`, without its text."""
    _sink.logger.error(event, exc_info=error, error_type=type_name(error), **fields)


class _Sink:
    """The current logger. structlog's own cache would keep the first set-up for ever."""

    logger: Any = structlog.get_logger()


_sink: Final = _Sink()


def _with_ids(line: Line) -> Line:
    whose = speaking.get() if line["event"] in OF_A_REQUEST else None
    return {**whose(), **line} if whose else line


def _with_exception(line: Line, *, as_text: bool) -> Line:
    error = line.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()
    if isinstance(error, tuple):
        error = error[1]  # pyright: ignore[reportUnknownVariableType]  # (type, value, traceback)
    if isinstance(error, BaseException):
        links = described(error)
        line["exception"] = "\n".join(_readable(links)) if as_text else links
    return line


def _readable(links: list[Mapping[str, Any]]) -> list[str]:
    return [
        text for link in links for text in (f"{link['type']}: {link['text']}", *(f"  {at}" for at in link["frames"]))
    ]


def _remember(_: Any, __: str, line: Line) -> Line:
    if line["level"] in ("warning", "error", "critical"):
        recent_warnings.append(line)
    return line


def _as_bytes(_: Any, __: str, line: Line) -> bytes:
    return orjson.dumps(line, default=str)


class _Through(logging.Handler):
    """Turns a record of the standard library into a line. Its text becomes a field: event names are a closed list."""

    def emit(self, record: logging.LogRecord) -> None:
        level = min(max(record.levelno, logging.DEBUG), logging.CRITICAL)
        raised = {"exc_info": record.exc_info} if record.exc_info else {}
        _sink.logger.log(level // 10 * 10, "library.logged", logger=record.name, message=_message(record), **raised)


def _message(record: logging.LogRecord) -> str:
    """The record's text, with the types of exceptions in place of their texts."""
    named = copy(record)
    if isinstance(record.args, tuple):
        named.args = tuple(_named(argument) for argument in record.args)
    elif record.args:
        named.args = {key: _named(argument) for key, argument in record.args.items()}
    text = named.getMessage()
    raised = record.exc_info[1] if record.exc_info else None
    if raised is not None and str(raised):
        text = text.replace(str(raised), WITHHELD)
    if record.name == "py.warnings" and (located := _WARNING.match(text)):
        return located[0]
    return clean(text)


def _named(argument: object) -> object:
    return type_name(argument) if isinstance(argument, BaseException) else argument


def _take_the_standard_library(level: str) -> None:
    root = logging.getLogger()
    root.handlers[:] = [_Through()]
    root.setLevel(level)
    for name, quiet in _QUIET.items():
        logging.getLogger(name).setLevel(max(quiet, root.level))


def _catch_the_rest() -> None:
    """Withholds the texts of warnings and uncaught exceptions: they may quote a prompt."""
    warnings.showwarning = _warn
    threading.excepthook = lambda raised: _crash(raised.exc_value, f"thread {raised.thread and raised.thread.name}")
    sys.unraisablehook = lambda raised: _crash(raised.exc_value, "finalizer")
    sys.excepthook = lambda _, error, __: _crash(error, "main thread")


def loop_exception(_: Any, context: Mapping[str, Any]) -> None:
    """An event loop's handler for exceptions that no code awaited; asyncio's own prints the exception's text."""
    _crash(context.get("exception"), "event loop")


def _crash(error: BaseException | None, where: str) -> None:
    if isinstance(error, KeyboardInterrupt):
        return
    _sink.logger.error("process.crashed", where=where, exc_info=error, error_type=type_name(error) if error else None)


def _warn(
    _message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    _file: TextIO | None = None,
    _line: str | None = None,
) -> None:
    _sink.logger.warning("library.logged", logger="warnings", message=f"{category.__name__} at {filename}:{lineno}")
