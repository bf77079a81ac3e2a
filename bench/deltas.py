"""Age of a token when a client sees it: `python -m bench.deltas [--streams 100] [--per-second 15] [--seconds 20]`.

A gateway that writes into each delta when it was sent, one worker process, an embedded Valkey, and clients that follow
`ResponsesClient.deltas`, a thread for each stream, in two processes. Age is from the gateway's write to the client's
loop body, by the one monotonic clock of the machine: it holds the way to the worker, which is not the worker's, so
what is said of the worker is on the safe side. 15 tokens a second is a quick reader's pace and a usual one for models;
gaps vary as those of real tokens do. Every text is checked: deltas in order, joined they are the answer.
"""

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

from support.worker_process import Fleet

from api_contracts.client import ResponsesClient, Ticket
from bench.deltas_gateway import gateway_process
from bench.throughput_probe import Processes
from worker.devtools.devstack import embedded_valkey

READERS = 2
TARGET_MS = 50.0


def follow(url: str, tickets: Sequence[Ticket]) -> tuple[list[float], float]:
    """Ages in ms of all deltas of these requests, and the CPU that this process spent on them."""
    with ResponsesClient(url) as client, ThreadPoolExecutor(len(tickets)) as threads:
        started = time.process_time()
        ages = [age for stream in threads.map(partial(_ages, client), tickets) for age in stream]
        return ages, time.process_time() - started


def _ages(client: ResponsesClient, ticket: Ticket) -> list[float]:
    ages: list[float] = []
    numbers: list[int] = []
    for delta in client.deltas(ticket, timeout_s=60):
        seen_ns = time.monotonic_ns()
        if delta.type == "response.output_text.delta":
            event = json.loads(delta.data)
            ages.append((seen_ns - event["sent_ns"]) / 1e6)
            numbers.append(event["sequence_number"])
    if numbers != sorted(set(numbers)) or not numbers:
        raise RuntimeError("deltas are missing or out of order: there is nothing to measure")
    return ages


def measure(streams: int, per_second: float, seconds: float) -> dict[str, float]:
    """Ages in ms, and shares of one core."""
    with ExitStack() as stack:
        valkey = stack.enter_context(embedded_valkey())
        gateway = stack.enter_context(gateway_process(per_second, seconds))
        fleet = stack.enter_context(Fleet(valkey.url, gateway, forked=False))
        worker = Processes(fleet.start(concurrency=streams).process.pid)
        redis = Processes(valkey.pid)
        readers = stack.enter_context(ProcessPoolExecutor(READERS, multiprocessing.get_context("spawn")))
        list(readers.map(abs, range(READERS)))  # started, so that their imports are not on the clock
        client = stack.enter_context(ResponsesClient(valkey.url))
        body = {"model": "gpt-5.4-mini", "input": [{"role": "user", "content": "Tell me a story."}], "stream": True}
        before, started = [worker.cpu_s, redis.cpu_s, worker.waited_s], time.monotonic()
        tickets = client.enqueue_many({"body": body} for _ in range(streams))
        followed = list(readers.map(follow, [valkey.url] * READERS, [tickets[n::READERS] for n in range(READERS)]))
        took_s = time.monotonic() - started
        after = [worker.cpu_s, redis.cpu_s, worker.waited_s]
    spent = [(now - was) / took_s for now, was in zip(after, before, strict=True)]
    ages = sorted(age for part, _ in followed for age in part)
    cuts = statistics.quantiles(ages, n=100)
    return {
        "deltas": len(ages),
        "per_s": len(ages) / took_s,
        "p50_ms": cuts[49],
        "p95_ms": cuts[94],
        "p99_ms": cuts[98],
        "max_ms": ages[-1],
        "worker_cpu": spent[0],
        "redis_cpu": spent[1],
        "readers_cpu": sum(cpu_s for _, cpu_s in followed) / took_s,
        "worker_starved": spent[2],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="How old a token is when a client sees it.")
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--per-second", type=float, default=15.0, help="tokens a second and stream")
    parser.add_argument("--seconds", type=float, default=20.0)
    asked = parser.parse_args()
    found = measure(asked.streams, asked.per_second, asked.seconds)
    print(
        f"{asked.streams} streams of {asked.per_second:g} tokens/s: {found['deltas']:,} deltas, {found['per_s']:,.0f}/s"
    )
    print(
        "age at the client, ms: " + ", ".join(f"{name[:-3]} {found[name]:.1f}" for name in found if name[-3:] == "_ms")
    )
    print("of one core: " + ", ".join(f"{name[:-4]} {found[name]:.0%}" for name in found if name[-4:] == "_cpu"))
    print(f"the worker waited for a CPU for {found['worker_starved']:.0%} of the time")
    print(f"p95 within {TARGET_MS:.0f} ms: {'yes' if found['p95_ms'] <= TARGET_MS else 'NO'}")


if __name__ == "__main__":
    main()
