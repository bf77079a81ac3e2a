"""What the worker says about itself: closed event names, one canonical line per message, no prompt anywhere.

structlog renders to JSON through orjson straight to stdout, or readably on a terminal; what other libraries log
goes through the same chain.
"""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, Literal, get_args

import orjson
import structlog

Event = Literal[
    "worker.started",  # the pool takes work
    "worker.draining",  # SIGTERM: no more work is taken
    "worker.stopped",  # everything is finished or handed back
    "worker.failed",  # the pool died of a bug; the process leaves
    "request.finished",  # the canonical line: one per delivery
    "request.crashed",  # a bug of ours; the caller got internal_error
    "redis.lost",  # Redis does not serve; calls wait
    "redis.recovered",
    "ledger.refused",  # a script said no for a reason that stays
    "lease.lost",  # another worker took over what this one still holds
    "lease.reclaimed",  # a worker fell silent; its deliveries went back to their lanes
    "results.high_water",  # unread results: no more work is taken
    "results.drained",
]
"""Every event name there is; `noun.verb_past`, never interpolated."""

EVENTS: Final = frozenset(get_args(Event))

_QUIET: Final = {
    "httpx": logging.WARNING,  # logs every URL at INFO
    "httpcore": logging.WARNING,
    "asyncio": logging.WARNING,
    "kombu": logging.WARNING,
    "amqp": logging.WARNING,
    "celery": logging.WARNING,  # its INFO lines describe a consumer that consumes nothing
}

Processor = Any


def _orjson(event: MutableMapping[str, Any], **_: Any) -> bytes:
    return orjson.dumps(event, default=str)


def _orjson_text(event: MutableMapping[str, Any], **_: Any) -> str:
    return orjson.dumps(event, default=str).decode()


def _no_content(_: Any, __: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Second line of defence: whatever is called like content does not leave."""
    for name in event.keys() & {
        "body",
        "input",
        "output",
        "prompt",
        "message_body",
        "api_key",
        "authorization",
    }:
        event[name] = "[redacted]"
    return event


def configure(log_format: Literal["auto", "json", "console"], level: str, **static: str) -> None:
    """Sets up structlog and the standard library's logging, once per process."""
    console = log_format == "console" or (log_format == "auto" and sys.stdout.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
        lambda _, __, event: static | event,  # pyright: ignore[reportUnknownLambdaType]  # structlog types processors loosely
        _no_content,
    ]
    traces: Processor = (
        structlog.processors.ExceptionRenderer()
        if console
        # Frame locals hold prompts: never show them.
        else structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
    )
    structlog.configure(
        processors=[
            *shared,
            traces,
            structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer(_orjson),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory() if console else structlog.BytesLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    _configure_standard_library(shared, traces, level, console=console)


def _configure_standard_library(shared: list[Processor], traces: Processor, level: str, *, console: bool) -> None:
    renderer: Processor = (
        structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer(_orjson_text)
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, traces, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, quiet in _QUIET.items():
        logging.getLogger(name).setLevel(max(quiet, root.level))


_log: Any = structlog.get_logger()


def log(event: Event, level: Literal["debug", "info", "warning", "error", "critical"] = "info", **fields: Any) -> None:
    """Writes one line; `fields` are sizes, counts, ids and codes, never content."""
    getattr(_log, level)(event, **fields)


def log_exception(event: Event, error: BaseException, **fields: Any) -> None:
    """Writes one line with the traceback, without frame locals."""
    _log.error(event, exc_info=error, error_type=type(error).__name__, **fields)
