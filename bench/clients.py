"""The time from a result or a token to a service: `python -m bench.clients`.

Three measurements, each with parts of its own: an embedded Valkey, a gateway, one worker.

- pushed: 1,000 tasks of one process wait, 125 results a second are written as a worker writes them. Time from the
  write to the waiting task, and CPU of the waiting process.
- beside: 200 tasks wait for answers of 8 s; the time of one quick request of the same process.
- blocking: the time from the write to a thread that waits, one at a time.
"""

import asyncio
import multiprocessing
import statistics
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.synchronize import Event
from typing import Any

import redis
from support import published
from support.producer import body
from support.worker_process import Fleet

from api_contracts.client import AsyncResponsesClient, ResponsesClient, Ticket
from api_contracts.client.watching import CHECK_S
from worker.devtools.devstack import embedded_valkey, simulator_process

WAITERS, PER_SECOND, ROUNDS = 1000, 125, 200


def write(url: str, tickets: Sequence[Ticket], per_second: float, go: Event) -> None:
    """Answers the tickets at a pace; each answer holds the time of its writing."""
    client: Any = redis.Redis.from_url(url)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
    go.wait()
    began = time.monotonic()
    for number, ticket in enumerate(tickets):
        time.sleep(max(0.0, began + number / per_second - time.monotonic()))
        published.answer(client, ticket, metadata={"written_ns": str(time.monotonic_ns())})


def age_ms(result: Any) -> float:
    return (time.monotonic_ns() - int(result.metadata["written_ns"])) / 1e6


class Cores:
    """The share of one core that this process takes from now on."""

    def __init__(self) -> None:
        self._cpu_s, self._began = time.process_time(), time.monotonic()

    def share(self) -> float:
        return (time.process_time() - self._cpu_s) / (time.monotonic() - self._began)


async def _waits(url: str, go: Event, tickets: Sequence[Ticket]) -> tuple[list[float], float, float]:
    """Ages, and the shares of a core while nothing happens and while results come."""

    async def waited(client: AsyncResponsesClient, ticket: Ticket) -> float:
        return age_ms(await client.wait(ticket, timeout_s=60))

    async with AsyncResponsesClient(url) as client:
        waiting = [asyncio.create_task(waited(client, ticket)) for ticket in tickets]
        await asyncio.sleep(2)
        cores = Cores()
        await asyncio.sleep(2 * CHECK_S)
        idle, cores = cores.share(), Cores()
        go.set()
        return await asyncio.gather(*waiting), idle, cores.share()


def pushed(url: str) -> None:
    with ResponsesClient(url) as client:
        tickets = client.enqueue_many({"body": body(f"{n}")} for n in range(WAITERS))
    with _writer(url, tickets, PER_SECOND) as go:
        ages, idle, busy = asyncio.run(_waits(url, go, tickets))
    print(f"pushed: {WAITERS} tasks, {PER_SECOND} results/s: {spread(ages)}; {busy:.2f} cores, {idle:.3f} while idle")


def blocking(url: str) -> None:
    with ResponsesClient(url) as client:
        tickets = client.enqueue_many({"body": body(f"{n}")} for n in range(ROUNDS))
        with _writer(url, tickets, 50) as go:
            go.set()
            ages = [age_ms(client.wait(ticket, timeout_s=60)) for ticket in tickets]
    print(f"blocking: one thread, 50 results/s: {spread(ages[1:])}")


async def _beside(url: str) -> float:
    async with AsyncResponsesClient(url) as client:
        slow = await client.enqueue_many({"body": body("[[sim:slow=8]]")} for _ in range(200))
        waiting = [asyncio.create_task(client.wait(ticket, timeout_s=60)) for ticket in slow]
        await asyncio.sleep(3)
        began = time.monotonic()
        await client.wait(await client.enqueue(body("quick")), timeout_s=60)
        took_s = time.monotonic() - began
        done = sum(task.done() for task in waiting)
        await asyncio.gather(*waiting)
    print(f"beside: 200 tasks that wait 8 s, {done} of them done: a quick request took {took_s * 1000:.0f} ms")
    return took_s


def beside(url: str) -> None:
    with simulator_process({}) as gateway, Fleet(url, gateway.url, forked=False) as fleet:
        fleet.start(concurrency=250, requests_per_minute=600_000)
        asyncio.run(_beside(url))


@contextmanager
def _writer(url: str, tickets: Sequence[Ticket], per_second: float) -> Generator[Event]:
    spawning = multiprocessing.get_context("spawn")
    go = spawning.Event()
    process = spawning.Process(target=write, args=(url, tickets, per_second, go))
    process.start()
    yield go
    process.join()


def percentile(ages: Sequence[float], share: int) -> float:
    return statistics.quantiles(ages, n=100)[share - 1]


def spread(ages: Sequence[float]) -> str:
    return f"p50 {percentile(ages, 50):.1f} ms, p99 {percentile(ages, 99):.1f} ms, max {max(ages):.1f} ms"


def main() -> None:
    for measure in (pushed, blocking, beside):
        with ExitStack() as stack:
            measure(stack.enter_context(embedded_valkey()).url)


if __name__ == "__main__":
    main()
