"""Fleets of real workers over an empty Valkey, and the meters on them, for `bench.growth`."""

import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import redis

from bench.throughput_load import Load, Template
from bench.throughput_probe import CommandCounter, Processes, main_thread_s
from bench.throughput_rows import OURS, running
from worker.devtools.devstack import Simulator, embedded_valkey

LANE: Final = "interactive"
STREAM: Final = OURS.stream
FILLED_AT_ONCE: Final = 500
IDLE_S: Final = 20.0
"""Two rounds of what a worker does every ten seconds."""

_SETTLE_S, _PATIENCE_S = 5.0, 60.0
_SETTINGS: Final = {
    "WORKER_REQUESTS_PER_MINUTE": "1000000",  # an unknown rate would be learned during the measurement
    "WORKER_REQUEST_TIMEOUT": "10m",
    "WORKER_SHUTDOWN_GRACE": "1s",  # long calls need not end
    "WORKER_LOG_LEVEL": "INFO",
}


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU and commands of some time, or of one request or second of it; the bench's own commands are left out."""

    valkey_ms: float
    commands: float
    worker_ms: float

    def per(self, count: float) -> "Spent":
        return Spent(self.valkey_ms / count, self.commands / count, self.worker_ms / count)


@dataclass(frozen=True, slots=True)
class Scene:
    """One Valkey, a producer and the workers of one checkout."""

    url: str
    client: Any
    load: Load
    gateway_url: str
    tree: Path
    workers: list[Processes] = field(default_factory=list[Processes])

    @contextmanager
    def fleet(self, processes: int = 1, *, lanes: Sequence[str] = (LANE,), **settings: str) -> Generator[None]:
        """So many workers that take work; settings are those of the environment without `WORKER_`."""
        row = replace(OURS, tree=self.tree, command=(_python(self.tree), "-m", "worker", "run"))
        named = {f"WORKER_{name.upper()}": value for name, value in settings.items()}
        served = {"WORKER_LANES": ",".join(f"{lane}=1" for lane in lanes), "PYTHONPATH": str(self.tree)}
        row = replace(row, settings={**_SETTINGS, **served, **named})
        with ExitStack() as stack:
            for _ in range(processes):
                pid = stack.enter_context(running(row, self.url, self.gateway_url))
                self.workers.append(stack.enter_context(Processes(pid)))
            yield
            self.workers.clear()

    def fill(self, count: int) -> None:
        """Puts messages in the lane beside those that the load keeps outstanding."""
        for start in range(0, count, FILLED_AT_ONCE):
            self.load.enqueue(min(FILLED_AT_ONCE, count - start))

    def push(self, lane: str, ids: Sequence[str]) -> None:
        """Puts messages in any lane, under ids of the caller's choice; their results are not the load's."""
        for start in range(0, len(ids), FILLED_AT_ONCE):
            part = ids[start : start + FILLED_AT_ONCE]
            self.client.lpush(f"responses.{lane}", *map(self.load.template.under, part))

    def steady(self, in_flight: int, requests: int) -> Spent:
        """Of one request, while so many are kept outstanding."""
        self.load.ramp(in_flight, over_s=1.0)
        self.load.keep(2 * in_flight)
        return self.spent(lambda: self.load.keep(requests)).per(requests)

    def idle(self, seconds: float = IDLE_S) -> Spent:
        """Of one second in which the bench does nothing."""
        time.sleep(_SETTLE_S)
        return self.spent(lambda: time.sleep(seconds)).per(seconds)

    def spent(self, work: Callable[[], object]) -> Spent:
        """Of this work, by Valkey and by all workers that run."""
        counter, cpu = CommandCounter(self.client), self._cpu_ms()
        work()
        valkey_ms, worker_ms = (now - was for now, was in zip(self._cpu_ms(), cpu, strict=True))
        commands = counter.since_start()
        return Spent(valkey_ms, commands.sent + commands.inside, worker_ms)

    def _cpu_ms(self) -> tuple[float, float]:
        return main_thread_s(self.client) * 1000, sum(worker.cpu_s for worker in self.workers) * 1000


@dataclass(frozen=True, slots=True)
class World:
    """The gateway and the checkout whose worker is measured."""

    gateway: Simulator
    tree: Path

    @contextmanager
    def scene(self, *, latency_s: float = 0.5, prompt: int = 200, gateway: str = "") -> Generator[Scene]:
        """An empty Valkey and a gateway that takes so long; `gateway` is the address of another one."""
        self.gateway.configure(latency_median_s=latency_s, latency_sigma=0.0 if latency_s > 1 else 0.1)
        with embedded_valkey(config={"save": ""}) as valkey:
            # Protocol 2, because replies of XREAD differ in shape; one connection, so that its commands are known.
            client: Any = redis.Redis.from_url(valkey.url, protocol=2, single_connection_client=True)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
            template = Template.captured(valkey.url, task=OURS.task, queue=OURS.queue, prompt="x" * prompt)
            load = Load(client, template, STREAM)
            yield Scene(valkey.url, client, load, gateway or self.gateway.url, self.tree)
            client.close()


def wait_until(said: str, happened: Callable[[], bool], within_s: float = _PATIENCE_S) -> None:
    """Raises RuntimeError where it does not happen in time."""
    give_up = time.monotonic() + within_s
    while not happened():
        if time.monotonic() > give_up:
            raise RuntimeError(f"not within {within_s:.0f} s: {said}")
        time.sleep(0.05)


def held(client: Any) -> int:
    """Messages that workers have in flight, in all lanes."""
    return sum(client.hlen(key) for key in client.scan_iter(match="responses:inflight:*"))


def memory_of(client: Any, names: Mapping[str, str] | Sequence[str]) -> float:
    """Mean bytes of these keys."""
    sizes = [client.memory_usage(name, samples=0) or 0 for name in names]
    return sum(sizes) / len(sizes)


def _python(tree: Path) -> str:
    """The checkout's own environment where it has one."""
    own = tree / ".venv" / "bin" / "python"
    return str(own) if own.exists() else sys.executable
