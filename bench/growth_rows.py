"""The rows of `bench.growth`: the work that grows in each, and one function that measures it at a given amount."""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from api_contracts.client import ResponsesClient
from api_contracts.queues import cancel_key, request_key
from bench.deltas_gateway import gateway_process
from bench.growth_world import LANE, STREAM, Scene, World, held, memory_of, wait_until

BUSY: Final = 50
LONG_S: Final = 60.0
"""A call that outlasts its measurement."""

SERVED_AT_ONCE: Final = 250
"""Lanes of one worker."""

CANCELLED: Final = 200
CANCEL_WAIT_S: Final = 130.0
"""The longest wait for their answers; infinite time is reported after it."""

DELTAS_PER_S, DELTAS_S = 20.0, 10.0
_TENANT: Final = "default"


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure of a row; `reported` are earlier figures at other amounts of work, for a version that cannot run."""

    name: str
    unit: str
    reported: str
    flat: bool = True
    """Whether the figure should not grow with the work."""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that grows, from `small` to `large`; `at` measures it at one amount of work."""

    name: str
    grows: str
    small: int
    large: int
    at: "Callable[[World, int], Sequence[float]]"
    measures: Sequence[Measure]


def backlog(world: World, waiting: int) -> Sequence[float]:
    with world.scene() as scene:
        scene.fill(waiting)
        with scene.fleet(concurrency="100"):
            scene.load.keep(500)
            return [scene.spent(lambda: scene.load.keep(2000)).per(2000).valkey_ms]


def lanes_served(world: World, lanes: int) -> Sequence[float]:
    """Requests come in one of the lanes."""
    with world.scene() as scene, scene.fleet(lanes=_lanes(lanes)):
        idle = scene.idle()
        return [idle.commands, scene.steady(BUSY, 1000).valkey_ms]


def lanes_seen(world: World, lanes: int) -> Sequence[float]:
    """One request comes in each lane; then a worker of the first lane alone is measured."""
    with world.scene() as scene:
        for start in range(0, lanes, SERVED_AT_ONCE):
            _serve_once(scene, _lanes(lanes)[start : start + SERVED_AT_ONCE])
        with scene.fleet():
            busy = scene.steady(BUSY, 1000)
            quotas = list(scene.client.scan_iter(match="responses:quota:*"))
            return [busy.valkey_ms, float(sum(scene.client.hlen(key) for key in quotas))]


def idle_processes(world: World, processes: int) -> Sequence[float]:
    with world.scene() as scene, scene.fleet(processes, lanes=_lanes(2)):
        return [scene.idle().commands]


def throttled(world: World, processes: int) -> Sequence[float]:
    """More waits than 600 a minute let through."""
    lanes = _lanes(2)
    with world.scene() as scene, scene.fleet(processes, lanes=lanes, requests_per_minute="600"):
        for lane in lanes:
            scene.push(lane, [str(uuid.uuid4()) for _ in range(1000)])
        return [scene.idle(15).valkey_ms]


def in_flight(world: World, calls: int) -> Sequence[float]:
    with world.scene(latency_s=LONG_S) as scene, scene.fleet(concurrency=str(calls)):
        world.gateway.reset()
        scene.fill(calls)
        wait_until("all calls are under way", lambda: world.gateway.stats().in_flight >= calls, LONG_S / 2)
        return [scene.idle(10).commands]


def result_streams(world: World, streams: int) -> Sequence[float]:
    """Streams with one result each, as callers with a stream of their own leave them; four idle processes."""
    with world.scene() as scene:
        names = [f"{STREAM}:caller{number}" for number in range(streams)]
        for name in names:
            scene.client.xadd(name, {"outcome": "completed"})
        scene.client.sadd("responses:streams", *names)
        with scene.fleet(4, lanes=_lanes(2)):
            return [scene.idle().valkey_ms]


def cancelled(world: World, waiting: int) -> Sequence[float]:
    """One worker is full, so the lane stands still, and requests of its second half are cancelled."""
    ids = [str(uuid.uuid4()) for _ in range(waiting)]
    deep = ids[waiting // 2 :: max(1, waiting // 2 // CANCELLED)][:CANCELLED]
    with world.scene(latency_s=4 * LONG_S) as scene:
        scene.push(LANE, ids)
        with scene.fleet(concurrency="10"):
            wait_until("the worker is full", lambda: held(scene.client) >= 10)
            time.sleep(2)
            for name in deep:
                scene.client.set(cancel_key(_TENANT, name), 1, ex=3600)
            return _answered(scene, len(deep))


def kept(world: World, requests: int) -> Sequence[float]:
    with world.scene(prompt=1000) as scene, scene.fleet(result_ttl="20s"):
        ids = [str(uuid.uuid4()) for _ in range(requests)]
        names = [request_key(_TENANT, name) for name in ids]
        scene.push(LANE, ids)
        wait_until("all are answered", lambda: scene.client.xlen(STREAM) == requests)
        whole = memory_of(scene.client, names)
        wait_until("results were kept for long enough", lambda: memory_of(scene.client, names) < 0.7 * whole)
        time.sleep(12)  # the rest goes within one round
        return [whole, memory_of(scene.client, names)]


def streamed(world: World, streams: int) -> Sequence[float]:
    """Answers that come a token at a time, at the pace of a quick reader."""
    with gateway_process(DELTAS_PER_S, DELTAS_S) as gateway, world.scene(gateway=gateway) as scene:
        body = {"model": "gpt-5.4-mini", "input": [{"role": "user", "content": "Tell me a story."}], "stream": True}
        with scene.fleet(), ResponsesClient(scene.url) as client:
            scene.push(LANE, [str(uuid.uuid4())])
            wait_until("connections are open", lambda: scene.client.xlen(STREAM) == 1)

            def ask() -> None:
                client.enqueue_many({"body": body} for _ in range(streams))
                wait_until("all are answered", lambda: scene.client.xlen(STREAM) == 1 + streams)

            spent = scene.spent(ask).per(_entries(scene.client))
            return [1000 * spent.valkey_ms, 1000 * spent.worker_ms]


def bodies(world: World, size: int) -> Sequence[float]:
    with world.scene(prompt=size) as scene, scene.fleet():
        spent = scene.steady(10, 200)
        return [spent.worker_ms, spent.valkey_ms]


def _serve_once(scene: Scene, lanes: Sequence[str]) -> None:
    with scene.fleet(lanes=lanes):
        for lane in lanes:
            scene.push(lane, [str(uuid.uuid4())])
        wait_until("every lane was served", lambda: scene.client.xlen(STREAM) == len(lanes))
    scene.client.delete(STREAM)


def _lanes(count: int) -> list[str]:
    return [LANE, *(f"lane{number}" for number in range(1, count))]


def _answered(scene: Scene, count: int) -> Sequence[float]:
    """Seconds until so many results are there, and the longest PING meanwhile in ms."""
    began, longest = time.monotonic(), 0.0
    while scene.client.xlen(STREAM) < count:
        asked = time.monotonic()
        if asked - began > CANCEL_WAIT_S:
            return [inf, longest * 1000]
        scene.client.ping()
        longest = max(longest, time.monotonic() - asked)
        time.sleep(0.01)
    return [time.monotonic() - began, longest * 1000]


def _entries(client: Any) -> int:
    return sum(client.xlen(key) for key in client.scan_iter(match="responses:deltas:*"))


ROWS: Final = (
    Row("backlog", "messages in the lane", 1_000, 200_000, backlog, [Measure("Valkey a request", "ms", "0.56 → 0.66")]),
    Row(
        "lanes",
        "lanes served",
        1,
        50,
        lanes_served,
        [Measure("idle commands", "/s", "85 → 3,100"), Measure("Valkey a request", "ms", "0.63 → 1.0")],
    ),
    Row(
        "lanes-seen",
        "lanes ever seen",
        1,
        1_000,
        lanes_seen,
        [Measure("Valkey a request", "ms", "a report 0.09 → 1.6"), Measure("fields of the quota", "", "")],
    ),
    Row("idle", "idle processes", 1, 15, idle_processes, [Measure("commands", "/s", "147 → 2,237", flat=False)]),
    Row(
        "throttled", "processes at 600 a minute", 1, 8, throttled, [Measure("Valkey a second", "ms", "30 → 118 at 10")]
    ),
    Row("in-flight", "calls in flight", 100, 2_000, in_flight, [Measure("commands", "/s", "25,000 at 10,000")]),
    Row(
        "streams",
        "result streams",
        1,
        5_000,
        result_streams,
        [Measure("Valkey a second", "ms", "67 a round and process")],
    ),
    Row(
        "cancelled",
        "messages in the lane",
        1_000,
        100_000,
        cancelled,
        [
            Measure("200 cancelled are answered", "s", "none in 28", flat=False),
            Measure("longest PING meanwhile", "ms", "2,800"),
        ],
    ),
    Row(
        "kept",
        "answered requests",
        10,
        500,
        kept,
        [Measure("kept result, each", "bytes", "2,840"), Measure("marker, each", "bytes", "1,200")],
    ),
    Row(
        "streamed",
        "streams of 200 events",
        2,
        20,
        streamed,
        [Measure("Valkey an event", "µs", "10 to 44"), Measure("worker an event", "µs", "140 to 330")],
    ),
    Row(
        "bodies",
        "bytes of a body",
        1_000,
        1_000_000,
        bodies,
        [
            Measure("worker a request", "ms", "2 → 25", flat=False),
            Measure("Valkey a request", "ms", "0.6 → 6.4", flat=False),
        ],
    ),
)
