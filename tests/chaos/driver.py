"""`make chaos`: minutes of kills, drains, Redis restarts and cut networks, and then the books must balance.

Usage: python tests/chaos/driver.py [--seeds 1,2,3,4,5] [--requests 2000]
Exits 1 when a request was lost, answered twice, or paid twice without an explanation.
"""

import argparse
import itertools
import math
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent.parent))

from harness import Fleet, Producer, WorkerProcess, body

from chaos.proxy import Proxy
from worker.devstack import EmbeddedValkey, Simulator, embedded_valkey, simulator_process
from worker.simulator import CLIENT_LEFT, Call

GATEWAY: Final = {
    "latency_median_s": 0.8,
    "latency_sigma": 0.5,
    "fault_rates": {"500": 0.02, "429": 0.01, "reset": 0.01, "html-502": 0.01},
}
WORKERS: Final = 3
SETTINGS: Final = {"concurrency": 30, "requests_per_minute": 6000, "max_attempts": 20, "shutdown_grace": "4s"}
RECOVERED_WITHIN_S: Final = 20.0
GIVE_UP_S: Final = 300.0


@dataclass(slots=True)
class World:
    """One seed's stage."""

    rng: random.Random
    fleet: Fleet
    valkey: EmbeddedValkey
    proxy: Proxy
    gateway: Simulator
    kills: list[float] = field(default_factory=list[float])

    def kill(self) -> None:
        """A spot node is taken away; another comes."""
        self.kills.append(time.time())
        self._victim().kill()
        self.fleet.start(**SETTINGS)

    def drain(self) -> None:
        """A rollout replaces a pod."""
        worker = self._victim()
        worker.terminate()
        self.fleet.start(**SETTINGS)
        worker.wait(30)

    def restart_redis(self) -> None:
        """Redis dies and comes back with its append-only file."""
        self.valkey.kill()
        time.sleep(self.rng.uniform(0.2, 3))
        self.valkey.start()

    def reset_connections(self) -> None:
        self.proxy.reset()

    def cut_network(self) -> None:
        """Redis cannot be reached for longer than a blip, for less than a lease."""
        self.proxy.cut()
        time.sleep(self.rng.uniform(1, 6))
        self.proxy.mend()

    def break_gateway(self) -> None:
        self.gateway.configure(fault_rates={"503": 0.9})
        time.sleep(self.rng.uniform(1, 4))
        self.gateway.configure(fault_rates=GATEWAY["fault_rates"])

    def _victim(self) -> WorkerProcess:
        return self.rng.choice([worker for worker in self.fleet.workers if worker.process.poll() is None])


EVENTS: Final[dict[Callable[[World], None], int]] = {
    World.kill: 4,
    World.drain: 3,
    World.restart_redis: 2,
    World.reset_connections: 3,
    World.cut_network: 2,
    World.break_gateway: 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What one seed came to; all lists name requests."""

    sent: int
    lost: list[str]
    answered_twice: list[str]
    unexplained: list[str]
    leftovers: dict[str, int]
    paid_twice: int
    recoveries: list[float]
    events: Counter[str]
    seconds: float

    @property
    def balanced(self) -> bool:
        return not (self.lost or self.answered_twice or self.unexplained or self.leftovers) and (
            self.p99_recovery <= RECOVERED_WITHIN_S
        )

    @property
    def p99_recovery(self) -> float:
        ordered = sorted(self.recoveries)
        return ordered[math.ceil(0.99 * len(ordered)) - 1] if ordered else 0.0


def run(seed: int, requests: int) -> Books:
    """One seed from the first request to the last answer."""
    with (
        embedded_valkey(appendonly=True) as valkey,
        Proxy(valkey.port) as proxy,
        simulator_process(GATEWAY | {"seed": seed}) as gateway,
        Producer(valkey.url) as producer,
        Fleet(f"redis://127.0.0.1:{proxy.port}/0", gateway.url) as fleet,
    ):
        world = World(random.Random(seed), fleet, valkey, proxy, gateway)
        for _ in range(WORKERS):
            fleet.start(**SETTINGS)
        started, events = time.monotonic(), Counter[str]()
        ids = [f"{seed}-{n}" for n in range(requests)]
        unsent = list(ids)
        while time.monotonic() - started < GIVE_UP_S:
            send(producer, unsent, world.rng)
            if not unsent and answered(producer) >= requests:
                break
            if answered(producer) < 0.9 * requests:
                event = world.rng.choices(list(EVENTS), list(EVENTS.values()))[0]
                events[event.__name__] += 1
                event(world)
            time.sleep(world.rng.uniform(0.5, 2.5))
        return balance(world, producer, ids, events, time.monotonic() - started)


def send(producer: Producer, unsent: list[str], rng: random.Random) -> None:
    """Enqueues a few more; a producer of its own is not what is tested, so it talks to Redis directly."""
    for _ in range(min(len(unsent), rng.randint(100, 300))):
        request_id = unsent.pop()
        lane = rng.choice(("interactive", "batch"))
        producer.enqueue({"body": body(f"[[id:{request_id}]]"), "request_id": request_id}, lane=lane)


def answered(producer: Producer) -> int:
    return producer.redis.xlen("responses:results")


def balance(world: World, producer: Producer, ids: list[str], events: Counter[str], seconds: float) -> Books:
    results: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for result in producer.entries():
        results[result["request_id"]].append(result)
    calls: dict[str, list[Call]] = defaultdict(list)
    for call in world.gateway.calls():
        calls[call.tag or ""].append(call)
    paid = {request_id: sum(map(was_paid, calls[request_id])) for request_id in ids}
    return Books(
        sent=len(ids),
        lost=[request_id for request_id in ids if not results[request_id]],
        answered_twice=[request_id for request_id in ids if len(results[request_id]) > 1],
        unexplained=[request_id for request_id in ids if paid[request_id] > 1 + excuses(results[request_id])],
        leftovers=producer.leftovers(),
        paid_twice=sum(count > 1 for count in paid.values()),
        recoveries=[found for kill in world.kills for found in recoveries(calls, kill)],
        events=events,
        seconds=seconds,
    )


def was_paid(call: Call) -> bool:
    """Answered well, or left by its caller while the model may have been running."""
    return call.status in (200, CLIENT_LEFT)


def excuses(results: list[dict[str, Any]]) -> int:
    """Attempts that say of themselves that they may have been billed."""
    return sum(attempt["maybe_billed"] for result in results for attempt in result["attempts"])


def recoveries(calls: dict[str, list[Call]], killed_at: float) -> list[float]:
    """For each call that the kill cut off: how long until its request was called again."""
    found: list[float] = []
    for of_one in calls.values():
        for call, following in itertools.pairwise(of_one):
            ended = call.wall + (call.duration_s or 0)
            if call.status == CLIENT_LEFT and abs(ended - killed_at) < 0.5:
                found.append(following.wall - killed_at)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--requests", type=int, default=2000)
    options = parser.parse_args()
    books = [report(int(seed), run(int(seed), options.requests)) for seed in options.seeds.split(",")]
    passed = sum(book.balanced for book in books)
    print(f"{passed} passed, {len(books) - passed} failed")
    return 0 if passed == len(books) else 1


def report(seed: int, books: Books) -> Books:
    events = ", ".join(f"{count} {name}" for name, count in sorted(books.events.items()))
    print(
        f"seed {seed}: {books.sent} sent in {books.seconds:.0f} s, {len(books.lost)} lost, "
        f"{len(books.answered_twice)} answered twice, {books.paid_twice} paid twice, {len(books.unexplained)} of them "
        f"unexplained, recovery p99 {books.p99_recovery:.1f} s over {len(books.recoveries)} ({events})",
        flush=True,
    )
    for name in ("lost", "answered_twice", "unexplained", "leftovers"):
        found: Any = getattr(books, name)
        if found:
            print(f"  {name}: {list(found)[:10]} {found if name == 'leftovers' else ''}")
    return books


if __name__ == "__main__":
    sys.exit(main())
