"""The main job, end to end on one machine: a real Valkey, a gateway, a real worker and the messages of callers.

Messages are plain Celery, and results come from the stream. `scenarios` holds the requests and judges the results.
"""

import os
import subprocess
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import redis
from celery import Celery

from api_contracts import GenerationResult, rfc3339
from api_contracts.queues import DEFAULT_LANES, RESULT_STREAM, TASK_NAME, lane_queue
from worker.devtools.demo.scenarios import Report, Request
from worker.devtools.devstack import Simulator, command_process, embedded_valkey, simulator_process
from worker.operations.overview import read

REQUESTS_PER_MINUTE: Final = 420
"""A limit so small that a burst of 30 visibly waits."""
_KEYS: Final = {"primary": "sk-demo-primary", "spare": "sk-demo-spare"}
"""By route. The first key dies in the midst of it, and the fleet moves on."""
_DIES_AT: Final = 0.6
"""Of all answers."""
_GATEWAY: Final[Mapping[str, Any]] = {
    "requests_per_minute": REQUESTS_PER_MINUTE,
    "burst_s": 4.0,  # twice the worker's: a call may travel longer than the one after it
    "keys": ["none but those of the accounts"],
    "accounts": {name: {"keys": [key]} for name, key in _KEYS.items()},
    "latency_median_s": 0.3,
    "latency_sigma": 0.3,
}
_SCOPES: Final = tuple(f"default:account:{name}" for name in _KEYS)
_PLAIN: Final = {"WORKER_HTTP_PORT": "0", "WORKER_LOG_FORMAT": "json", "WORKER_LOG_LEVEL": "INFO"}
_TICK_S: Final = 0.1
_START_S: Final = 20.0
_ANSWERS_S: Final = 60.0


class DemoError(RuntimeError):
    """The demo could not be played; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The state of the demo, told to the listener about ten times a second."""

    doing: str
    answered: int = 0
    waiting: int = 0
    in_flight: int = 0
    parked: int = 0
    answering: bool = False
    """True once requests are enqueued. Before that the counts mean nothing."""


Listener = Callable[[Progress], None]
"""Hears of progress. It may raise, which ends the demo; processes are then cleaned up as always."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The processes of one demo."""

    redis_url: str
    gateway: Simulator | None
    worker: "subprocess.Popen[bytes]"


def play(requests: Sequence[Request], *, simulated: bool, log: Path, listen: Listener) -> Report:
    """Enqueues the requests, follows the results, and leaves no process behind.

    `log` receives the output of the worker. Raises DemoError, or DevstackError where a stand-in does not start.
    """
    with _stage(simulated=simulated, log=log, listen=listen) as stage, _connected(stage.redis_url) as client:
        started_s = time.monotonic()
        _enqueue(stage.redis_url, requests)
        left = _await_answers(client, len(requests), stage, listen)
        return Report(
            requests=requests,
            results=[GenerationResult.from_entry(fields) for _, fields in client.xrange(RESULT_STREAM)],
            left=left,
            took_s=time.monotonic() - started_s,
            calls=stage.gateway.stats().by_status if stage.gateway else None,
            spare="spare" if stage.gateway else "",
        )


def _connected(redis_url: str) -> Any:
    return redis.Redis.from_url(redis_url)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs


@contextmanager
def _stage(*, simulated: bool, log: Path, listen: Listener) -> Generator[Stage]:
    with ExitStack() as stack:
        listen(Progress(doing="starting Valkey"))
        valkey = stack.enter_context(embedded_valkey())
        environment = _own_environment(simulated=simulated) | _PLAIN | {"WORKER_REDIS_URL": valkey.url}
        gateway: Simulator | None = None
        if simulated:
            listen(Progress(doing="starting the simulated gateway"))
            gateway = stack.enter_context(simulator_process(_GATEWAY))
            directory = Path(stack.enter_context(TemporaryDirectory(prefix="responses-routes-")))
            environment |= _simulated(gateway.url, directory)
        listen(Progress(doing="starting a worker"))
        worker = stack.enter_context(command_process(["run"], environment, log))
        _wait_started(worker, log, listen)
        yield Stage(redis_url=valkey.url, gateway=gateway, worker=worker)


def _own_environment(*, simulated: bool) -> dict[str, str]:
    """Our environment without Sentry. With a simulated gateway it also lacks the settings made for a real one."""
    prefixes = ("SENTRY_", "WORKER_" if simulated else "WORKER_LANES")
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}


def _simulated(url: str, directory: Path) -> dict[str, str]:
    """Two routes, each with an account of its own; the second only where the first is out of order."""
    tables = [
        f'[accounts.{name}]\nrequests_per_minute = {REQUESTS_PER_MINUTE}\n[routes.{name}]\nurl = "{url}"\n'
        f'key_env = "DEMO_KEY_{name.upper()}"\naccount = "{name}"\norder = {order}\nspill_after = "1h"\n'
        for order, name in enumerate(_KEYS, 1)
    ]
    (directory / "routes.toml").write_text("".join(tables), encoding="utf-8")
    keys = {f"DEMO_KEY_{name.upper()}": key for name, key in _KEYS.items()}
    return keys | {"WORKER_CONFIG_FILE": str(directory / "routes.toml")}


def _revoke(gateway: Simulator) -> None:
    gateway.configure(accounts={"primary": {"revoked_keys": [_KEYS["primary"]]}})


def _wait_started(worker: "subprocess.Popen[bytes]", log: Path, listen: Listener) -> None:
    give_up_at = time.monotonic() + _START_S
    while b"worker.started" not in log.read_bytes():
        if worker.poll() is not None or time.monotonic() > give_up_at:
            raise DemoError("the worker did not start")
        listen(Progress(doing="starting a worker"))
        time.sleep(_TICK_S)


def _enqueue(redis_url: str, requests: Sequence[Request]) -> None:
    celery: Any = Celery("demo", broker=redis_url, set_as_current=False)  # Any: Celery has no types
    with celery as app:
        for request in requests:
            for _ in range(request.scene.sends):
                envelope = {**request.envelope, "enqueued_at": rfc3339(datetime.now(UTC))}
                app.send_task(TASK_NAME, args=[envelope], queue=lane_queue(request.scene.lane), ignore_result=True)


def _await_answers(client: Any, wanted: int, stage: Stage, listen: Listener) -> int:
    """Waits for a result of each request and for empty lanes. Returns the number of messages that are left."""
    give_up_at = time.monotonic() + _ANSWERS_S
    dying = stage.gateway
    while True:
        overview = read(client, DEFAULT_LANES, _SCOPES if stage.gateway else ("default",))
        answered = overview.streams[RESULT_STREAM].entries
        lanes = overview.lanes.values()
        left = sum(lane.left for lane in lanes)
        if dying is not None and answered >= _DIES_AT * wanted:
            _revoke(dying)
            dying = None
        if (answered >= wanted and not left) or time.monotonic() > give_up_at:
            return left
        if stage.worker.poll() is not None:
            raise DemoError("the worker died")
        listen(
            Progress(
                doing="answering",
                answering=True,
                answered=answered,
                waiting=sum(sum(lane.ready.values()) for lane in lanes),
                in_flight=sum(upstream.in_flight for upstream in overview.upstreams.values()),
                parked=sum(lane.parked for lane in lanes),
            )
        )
        time.sleep(_TICK_S)
