"""Workers for the telemetry bench: with a probe in their loop, a Sentry that behaves or not, and outages."""

import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from support.polling import wait_until
from support.probe_client import Probe
from support.producer import Producer
from support.sentry_receiver import SentryReceiver
from support.worker_process import WorkerProcess, worker_environment

from worker.devtools.devstack import EmbeddedValkey, Simulator, embedded_valkey, simulator_process

LAGGED: Final = """
import asyncio, json, time
from worker import app
from worker.runtime import service
from worker.config.settings import load

lags = []

async def watch_lag():
    loop = asyncio.get_running_loop()
    while True:
        due, spent = loop.time() + 0.005, time.thread_time()
        await asyncio.sleep(0.005)
        # At most the CPU that the loop itself used meanwhile: other processes on a busy machine are not its lag.
        lags.append(min(loop.time() - due, time.thread_time() - spent))

async def run(self):
    task = asyncio.create_task(watch_lag())
    await original(self)
    task.cancel()
    print(json.dumps({"event": "bench.lags", "lags": lags}), flush=True)

original, service.Service.run = service.Service.run, run
app.run(load())
"""
PLAIN: Final = "from worker import app\nfrom worker.config.settings import load\napp.run(load())"


@dataclass(frozen=True, slots=True)
class World:
    """One worker between a Redis of its own, a gateway and a Sentry."""

    worker: WorkerProcess
    producer: Producer
    gateway: Simulator
    valkey: EmbeddedValkey
    receiver: SentryReceiver
    probe: Probe

    def stop(self) -> float:
        """The time it took to leave, in s."""
        started = time.monotonic()
        self.worker.terminate()
        self.worker.wait(60)
        return time.monotonic() - started

    def failures_told(self, kind: str) -> int:
        told = self.receiver.incidents(kind)
        return sum(event["contexts"]["impact"]["failures_since_last_event"] for event in told)


@contextmanager
def world(script: str = PLAIN, *, sentry: str = "ok", **settings: str) -> Generator[World]:
    """`sentry`: `ok`, `hang`, `refuse`, or `off`."""
    with ExitStack() as stack:
        receiver = stack.enter_context(SentryReceiver("ok" if sentry == "off" else sentry))  # type: ignore[arg-type]
        valkey = stack.enter_context(embedded_valkey())
        gateway = stack.enter_context(simulator_process())
        producer = stack.enter_context(Producer(valkey.url))
        own = worker_environment(valkey.url, gateway.url, **settings)
        if sentry != "off":
            own["SENTRY_DSN"] = receiver.dsn
        log = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "log"
        worker = WorkerProcess(own, log, script)
        stack.callback(worker.close)
        worker.wait_started()
        yield World(worker, producer, gateway, valkey, receiver, Probe.of(worker))


def storm(failures: int, *, sentry: str, per_second: float) -> dict[str, Any]:
    """Failures of one class, enqueued at a rate: events, their counts, and how late the loop was meanwhile."""
    with world(LAGGED, sentry=sentry, WORKER_MAX_ATTEMPTS="1") as here:
        started = time.monotonic()
        for n in range(failures):
            time.sleep(max(0.0, started + n / per_second - time.monotonic()))
            here.producer.ask(f"{n} [[sim:404]]", tenant=f"t{n % 40}")
        here.producer.results(failures, within_s=180)
        took_s = time.monotonic() - started
        here.stop()
        (probed,) = here.worker.events("bench.lags")
        lags = sorted(probed["lags"])
        return {
            "took_s": took_s,
            "events": len(here.receiver.incidents("model_unavailable")),
            "counted": here.failures_told("model_unavailable"),
            "lag_p50_ms": lags[len(lags) // 2] * 1000,
            "lag_p99_ms": lags[len(lags) * 99 // 100] * 1000,
            "lag_max_ms": lags[-1] * 1000,
        }


def redis_away(seconds: float) -> dict[str, Any]:
    """Redis gone, and back: what Sentry hears, and what the probes say."""
    with world() as here:
        here.producer.result(here.producer.ask())
        here.valkey.kill()
        lost = time.monotonic()
        lives, seen_unready = set[int](), False
        while time.monotonic() - lost < seconds:
            lives.add(here.probe.status("/livez"))
            seen_unready = seen_unready or here.probe.status("/readyz") == 503
            time.sleep(0.5)
        here.valkey.start()
        back = time.monotonic()
        wait_until(lambda: here.probe.status("/readyz") == 200, within_s=30)
        ready_s = time.monotonic() - back
        here.producer.result(here.producer.ask())
        here.stop()
        events = here.receiver.events()
        issues = {tuple(event["fingerprint"]) for event in events}
        return {
            "events": len(events),
            "issues": len(issues),
            "livez": sorted(lives),
            "unready": seen_unready,
            "ready_again_s": ready_s,
        }


def broken(requests: int, *, sentry: str) -> dict[str, float]:
    """Throughput and leaving with a Sentry that behaves as told; half of the requests fail."""
    with world(sentry=sentry, WORKER_MAX_ATTEMPTS="1") as here:
        started = time.monotonic()
        for n in range(requests):
            here.producer.ask(f"{n}" if n % 2 else f"{n} [[sim:404]]")
        here.producer.results(requests, within_s=120)
        return {"took_s": time.monotonic() - started, "left_s": here.stop()}


def stalled() -> float:
    """The time from the loop's block to the failure of /livez, in s."""
    script = LAGGED.replace(
        "async def run(self):", "async def run(self):\n    asyncio.get_running_loop().call_later(2, block)"
    )
    script = script.replace(
        "lags = []", 'lags = []\n\ndef block():\n    print("bench.blocked", flush=True)\n    time.sleep(60)'
    )
    with world(script) as here:
        wait_until(lambda: "bench.blocked" in here.worker.log)
        started = time.monotonic()
        wait_until(lambda: here.probe.status("/livez") == 503, within_s=30)
        return time.monotonic() - started
