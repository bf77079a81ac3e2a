"""/livez, /readyz and /metrics of a real worker, through outages, standstills and its way out."""

import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.polling import wait_until
from support.probe_client import Probe
from support.producer import Producer, body
from support.worker_process import Fleet, WorkerProcess, worker_environment

from worker.devtools.devstack import EmbeddedValkey, Simulator, embedded_valkey
from worker.telemetry.metrics import METRICS, WAIT_REASONS

STALL_S = 15.0


def test_a_worker_is_alive_ready_and_measured(fleet: Fleet, producer: Producer) -> None:
    """Once it has started, and until somebody tells it to leave."""
    probe = Probe.of(fleet.start())
    producer.result(producer.ask())

    assert probe.status("/livez") == 200
    assert probe.status("/readyz") == 200
    assert probe.status("/nothing") == 404
    assert wait_until(lambda: probe.metric("deliveries_total", disposition="completed")) == 1


def test_every_metric_is_in_the_closed_list(fleet: Fleet, producer: Producer) -> None:
    """And everything in the list is shown, so that docs and rules name what there is."""
    probe = Probe.of(fleet.start())
    producer.result(producer.ask())
    shown = {line.split()[2] for line in probe.get("/metrics")[1].splitlines() if line.startswith("# TYPE")}

    ours = {name for name in shown if name.startswith("responses_worker_") and not name.endswith("_created")}
    assert ours == {spec.name for spec in METRICS}


def test_counters_that_explain_exist_at_zero(fleet: Fleet) -> None:
    """`rate()` does not see the step from nothing to one."""
    probe = Probe.of(fleet.start())

    for reason in WAIT_REASONS:
        assert probe.metric("waiting_seconds_total", reason=reason) == 0
        assert probe.metric("deferrals_total", reason=reason) == 0
    assert probe.metric("results_total", lane="batch", outcome="failed", code="upstream_error", fault="upstream") == 0
    assert probe.metric("incidents_total", kind="authentication_failed", action="reported") == 0


def test_metrics_of_a_request(fleet: Fleet, producer: Producer) -> None:
    """The calls, their durations, their use, and the fault of each failure."""
    probe = Probe.of(fleet.start(max_attempts=2))
    producer.ask("good [[sim:slow=0.3]]")
    producer.ask("[[sim:500]]", lane="batch")
    producer.ask("[[sim:400]]")
    producer.enqueue("no request")
    producer.results(4)
    wait_until(lambda: math.isclose(probe.metric("results_total"), 4), what="everything counted")

    assert probe.metric("results_total", code="upstream_error", fault="upstream", lane="batch") == 1
    assert probe.metric("results_total", code="invalid_request", fault="caller") == 2
    assert probe.metric("upstream_calls_total", status="200", code="", model="gpt-5.4-mini") == 1
    assert probe.metric("upstream_calls_total", status="500", code="upstream_error") == 2
    assert probe.metric("deliveries_total", disposition="retry_scheduled") == 1
    assert probe.metric("upstream_duration_seconds_sum", status_class="2xx") >= 0.3
    assert probe.metric("tokens_total", type="output") > 0
    assert probe.metric("queue_wait_seconds_count") == 4
    assert probe.metric("budget_used_total", budget="requests") == 4
    assert probe.metric("budget_limit", budget="requests") == 60_000


def test_lanes_and_streams_are_shown(fleet: Fleet, producer: Producer, valkey: Any) -> None:
    """The waiting messages by place, and the groups with unread results."""
    valkey.xgroup_create("responses:results", "billing", id="0", mkstream=True)
    probe = Probe.of(fleet.start(lanes="interactive=1"))
    producer.ask()
    producer.enqueue({"body": body()}, countdown=3600)
    producer.results(1)
    wait_until(lambda: valkey.zcard("responses:delayed:interactive") == 1, what="a parked request")

    assert wait_until(lambda: probe.metric("lane_messages", lane="interactive", state="parked"), within_s=7) == 1
    assert probe.metric("lane_messages", lane="interactive", state="ready") == 0
    assert probe.metric("result_entries", stream="responses:results") == 1
    assert probe.metric("results_unread", stream="responses:results", group="billing") == 1


def test_why_nothing_moves(redis_url: str, gateway: Simulator, producer: Producer) -> None:
    """Requests that wait for the budget say so, second by second."""
    with Fleet(redis_url, gateway.url) as fleet:
        probe = Probe.of(fleet.start(requests_per_minute=6, burst_seconds=1))
        for _ in range(3):
            producer.ask()

        assert wait_until(lambda: probe.metric("waiting_seconds_total", reason="requests"), what="a reason") > 0
        assert probe.metric("deferrals_total", reason="requests") > 0
        assert probe.metric("requests_held", phase="waiting") > 0


def test_readyz_drops_at_once_when_told_to_leave(fleet: Fleet, producer: Producer, gateway: Simulator) -> None:
    """While calls in flight go on, the probe says 503 and the process is alive."""
    worker = fleet.start(shutdown_grace="30s")
    probe = Probe.of(worker)
    producer.ask("[[sim:slow=2]]")
    wait_until(lambda: len(gateway.calls()) == 1, what="a call in flight")

    worker.terminate()

    wait_until(lambda: probe.status("/readyz") == 503, within_s=2, what="readiness to drop")
    assert probe.verdict("/readyz")["why"] == "draining"
    assert probe.status("/livez") == 200
    assert worker.wait() == 0


@pytest.fixture
def own_valkey() -> Generator[EmbeddedValkey]:
    with embedded_valkey() as server:
        yield server


def test_a_lost_redis_is_not_ready_but_alive(own_valkey: EmbeddedValkey, gateway: Simulator) -> None:
    """A restart of the worker would bring nothing back; when Redis is, it goes on by itself."""
    with Fleet(own_valkey.url, gateway.url) as fleet, Producer(own_valkey.url) as producer:
        worker = fleet.start()
        probe = Probe.of(worker)
        own_valkey.kill()

        wait_until(lambda: probe.status("/readyz") == 503, what="readiness to drop")
        assert probe.verdict("/readyz")["why"] == "redis_lost"
        assert probe.metric("redis_up") == 0
        assert math.isnan(probe.metric("lane_messages"))
        wait_until(lambda: probe.metric("waiting_seconds_total", reason="redis_lost") >= 3, what="3 s of it")
        assert probe.status("/livez") == 200

        own_valkey.start()
        wait_until(lambda: probe.status("/readyz") == 200, what="readiness to come back")
        assert producer.result(producer.ask())["outcome"] == "completed"
        assert worker.events("redis.recovered")[0]["lost_s"] > 2


STUCK_LOOP = """
import threading, time
from worker import app
from worker.runtime import pool
from worker.config.settings import load

async def stuck(service):
    time.sleep(60)

def on_start(self):
    start(self)
    threading.Timer(0.5, lambda: self.submit(stuck)).start()

start, pool.Pool.on_start = pool.Pool.on_start, on_start
app.run(load())
"""
STUCK_CONSUMER = """
import time
from worker import app
from worker.config.settings import load
from worker.runtime.celery_app import ConsumerPulse

def stuck():
    time.sleep(60)

def on_start(self, parent):
    start(self, parent)
    parent.timer.call_after(0.5, stuck)

start, ConsumerPulse.start = ConsumerPulse.start, on_start
app.run(load())
"""


@pytest.mark.parametrize(
    ("heart", "script"), [("loop", STUCK_LOOP), ("consumer", STUCK_CONSUMER)], ids=["loop", "consumer"]
)
def test_a_standstill_fails_livez_within_15_s(
    redis_url: str, gateway: Simulator, tmp_path: Path, heart: str, script: str
) -> None:
    """Only a restart helps, so the probe asks for one; the line says where the thread stands."""
    own = worker_environment(redis_url, gateway.url)
    with closing(WorkerProcess(own, tmp_path / "log", script)) as worker:
        probe = Probe.of(worker.wait_started())
        wait_until(lambda: probe.verdict("/livez")[f"{heart}_silent_s"] > 2.5, what="silence")
        assert probe.status("/livez") == 200

        wait_until(lambda: probe.status("/livez") == 503, within_s=STALL_S - 2.5, what="/livez to fail")

        (told,) = worker.events(f"{heart}.stalled")
        assert told["stack"][-1].endswith("in stuck")
        assert [one["kind"] for one in worker.events("incident.reported")] == [f"{heart}_stalled"]


def test_a_stopped_process_answers_no_probe(fleet: Fleet) -> None:
    """As a kubelet sees it: no answer in time is a failure too."""
    worker = fleet.start()
    probe = Probe.of(worker)
    os.kill(worker.process.pid, signal.SIGSTOP)
    stopped = psutil.Process(worker.process.pid)
    wait_until(lambda: stopped.status() == psutil.STATUS_STOPPED, what="a stopped process")

    with pytest.raises(TimeoutError):
        probe.get("/livez", timeout_s=1)

    os.kill(worker.process.pid, signal.SIGCONT)
    assert probe.status("/livez") == 200


def test_a_taken_port_stops_the_start_with_one_clear_line(redis_url: str, gateway: Simulator) -> None:
    """Not a traceback, and not a worker without probes."""
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as taken:
        own = worker_environment(redis_url, gateway.url, WORKER_HTTP_PORT=str(taken.getsockname()[1]))
        command = [sys.executable, "-m", "worker", "run"]
        ran = subprocess.run(command, env=own, capture_output=True, text=True, timeout=30, check=False)

    assert ran.returncode == os.EX_CONFIG
    assert "WORKER_HTTP_PORT=0 takes any free port" in ran.stdout
