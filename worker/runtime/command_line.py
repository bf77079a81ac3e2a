"""Options of `celery -A worker.app worker`: each is honoured, or refused with one line that names the alternative.

An option that is in neither list is refused as well: an option of a later Celery is not ignored silently.
"""

import logging
import sys
from collections.abc import Iterator
from typing import Any, Final

import click
from click.core import ParameterSource

from worker.config.exit_codes import WRONG
from worker.config.settings import WrongSettingsError, load

HONOURED: Final = frozenset(
    {"concurrency", "loglevel", "hostname", "include", "pidfile", "uid", "gid", "task_events"}
    | {"without_gossip", "without_mingle", "without_heartbeat"}
)

_PROCESSES: Final = "set WORKER_CONCURRENCY, or run more processes"
_LANES: Final = "set WORKER_LANES, such as WORKER_LANES=interactive=4,batch=1"
_NO_CHILDREN: Final = "requests run in this process, not in children"
_LIMIT: Final = "set WORKER_REQUEST_TIMEOUT, or `timeout` in the envelope"
_FETCHES: Final = "the worker takes what the budget can start; set WORKER_CONCURRENCY"
_BEAT: Final = "run `celery beat` in a process of its own"
_REDIS: Final = "set WORKER_REDIS_URL"
_CONFIG: Final = "set WORKER_ variables"
_SUPERVISED: Final = "run the worker under a supervisor, such as systemd or Kubernetes"

REFUSED: Final = {
    "pool": "this worker has one pool, its own; leave the option out",
    "queues": _LANES,
    "exclude_queues": _LANES,
    "autoscale": _PROCESSES,
    "logfile": "the log goes to stdout; redirect it",
    "beat": _BEAT,
    "schedule_filename": _BEAT,
    "scheduler": _BEAT,
    "purge": "nothing is deleted unanswered; `celery control revoke ID` answers a request with `cancelled`",
    "heartbeat_interval": "with -E or WORKER_CELERY_EVENTS heartbeats are sent every 2 seconds, else none",
    "optimization": _NO_CHILDREN,
    "prefetch_multiplier": _FETCHES,
    "disable_prefetch": _FETCHES,
    "time_limit": _LIMIT,
    "soft_time_limit": _LIMIT,
    "max_tasks_per_child": _NO_CHILDREN,
    "max_memory_per_child": _NO_CHILDREN,
    "pool_start_method": _NO_CHILDREN,
    "statedb": "revoked ids are kept in Redis",
    "detach": _SUPERVISED,
    "umask": _SUPERVISED,
    "executable": _SUPERVISED,
    "broker": _REDIS,
    "result_backend": "results are entries of the stream responses:results; " + _REDIS,
    "config": _CONFIG,
    "loader": _CONFIG,
}
"""Click's name of an option -> the alternative."""

_GLOBAL: Final = ("broker", "result_backend", "config", "loader")
_LEVELS: Final = {getattr(logging, name): name for name in ("DEBUG", "INFO", "WARNING", "ERROR")}


def check_option() -> click.Option:
    """A hidden option for Celery's `worker` command, whose callback looks at all the others before anything starts.

    Click calls it for options that were not given as well, after those that were.
    """
    return click.Option(["--responses-worker"], is_flag=True, hidden=True, expose_value=False, callback=_check)


def _check(context: click.Context, _option: click.Parameter, _value: Any) -> None:
    problems = [*_refused(context), *_global(context.parent)]
    if not problems:
        problems = list(_applied(context))
    if problems:
        sys.stderr.write("\n".join(problems) + "\n")
        context.exit(WRONG)


def _refused(context: click.Context) -> Iterator[str]:
    for option in context.command.params:
        if _given(context, option) and option.name not in HONOURED:
            yield _line(option)


def _global(context: click.Context | None) -> Iterator[str]:
    """Options before the word `worker`."""
    for option in context.command.params if context else ():
        if context is not None and option.name in _GLOBAL and _given(context, option):
            yield _line(option)


def _applied(context: click.Context) -> Iterator[str]:
    """Puts -c, -l and -E into the app's settings, or says why not."""
    wanted: dict[str, Any] = {}
    if _source(context, "concurrency") is ParameterSource.COMMANDLINE:
        wanted["concurrency"] = context.params["concurrency"]
    if _source(context, "loglevel") is ParameterSource.COMMANDLINE:
        level = _LEVELS.get(context.params["loglevel"])
        if level is None:
            yield f"--loglevel: must be one of {', '.join(_LEVELS.values())}"
            return
        wanted["log_level"] = level
    if context.params.get("task_events"):
        wanted["celery_events"] = True
    try:
        if wanted:
            context.obj.app.settings = load(**wanted)
    except WrongSettingsError as error:
        yield str(error).replace("WORKER_CONCURRENCY", "--concurrency")


def _given(context: click.Context, option: click.Parameter) -> bool:
    return _source(context, option.name or "") is ParameterSource.COMMANDLINE


def _source(context: click.Context, name: str) -> ParameterSource | None:
    return context.get_parameter_source(name)


def _line(option: click.Parameter) -> str:
    name = next(one for one in option.opts if one.startswith("--"))
    return f"{name}: not for this worker: {REFUSED.get(option.name or '', 'it would have no effect')}"
