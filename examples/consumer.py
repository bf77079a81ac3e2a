"""Reads results as a consumer group: each at least once, shared out among the processes of the group.

Usage: python examples/consumer.py, as often as you like.
"""

import os
import socket
from contextlib import suppress
from itertools import chain
from typing import Any

import redis

from api_contracts import GenerationResult

STREAM, GROUP = "responses:results", "shop"
CONSUMER = f"{socket.gethostname()}-{os.getpid()}"
ABANDONED_MS = 60_000


def main() -> None:
    results: Any = redis.Redis.from_url(os.environ.get("WORKER_REDIS_URL", "redis://127.0.0.1:6379/0"))
    with suppress(redis.ResponseError):  # the group is there already
        results.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    while True:
        _, abandoned, _ = results.xautoclaim(STREAM, GROUP, CONSUMER, ABANDONED_MS, count=10)
        new = results.xreadgroup(GROUP, CONSUMER, {STREAM: ">"}, count=10, block=1000)
        for entry_id, fields in chain(abandoned, *(entries for _, entries in new)):
            consume(GenerationResult.from_entry(fields))
            results.xack(STREAM, GROUP, entry_id)  # only now: a crash before this brings the result again


def consume(result: GenerationResult) -> None:
    """Your service's use of an answer; safe to repeat, by `request_id`."""
    if result.response:
        print(result.request_id, result.metadata, result.response.output_text, flush=True)
    if result.error:
        print(result.request_id, result.metadata, result.error.code, result.error.message, flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
