"""The bytes that a request costs the link to Redis, beside its message and its result."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from support.admission_parts import ask, process, reservations
from support.ledger_parts import COMPLETED, Desk, claim_of, open_desk
from support.link_runs import message

from worker.admission.client import Admission
from worker.admission.evidence import Evidence
from worker.admission.grants import Limits
from worker.queue.attempts import AttemptRecord
from worker.queue.claims import Lease

RESULT = replace(COMPLETED, result=b"x" * 2_600)
"""Of the length of a short answer with its times and attempts."""


@pytest.mark.parametrize(("together", "most"), [(1, 1.6), (8, 1.3), (32, 1.3), (100, 1.3)])
async def test_requests_that_go_together_cost_little_more_than_themselves(
    valkey: Any, redis_url: str, together: int, most: float
) -> None:
    """Five calls of scripts each, of which those that leave together name their keys once."""
    async with open_desk(valkey, redis_url) as desk:
        admission = process(desk.runner, Limits(requests_per_minute=60_000))
        await serve(desk, admission, enqueued(desk, 1), "first")  # the scripts are known from now on
        messages = enqueued(desk, together)
        asking, before = carried(valkey), carried(valkey)
        await serve(desk, admission, messages, "r")
        bytes_sent = carried(valkey) - before - (before - asking)

        assert len(desk.results()) == together + 1
        assert bytes_sent / (sum(map(len, messages)) + together * len(RESULT.result)) < most, bytes_sent


def enqueued(desk: Desk, count: int) -> list[str]:
    messages = [message(f"r-{number}", 3_000).decode() for number in range(count)]
    desk.enqueue(*messages)
    return messages


async def serve(desk: Desk, admission: Admission, messages: list[str], name: str) -> None:
    """All of them at once, from the pop to the result, as a worker does."""
    ledger, now_ms = desk.ledger, desk.now_ms
    deliveries = await desk.take(interactive=len(messages))
    claims = [claim_of(f"{name}-{number}") for number in range(len(deliveries))]
    found = await asyncio.gather(*map(ledger.claim, deliveries, claims))
    leases = [lease for lease in found if isinstance(lease, Lease)]
    asked = [ask(lease.delivery.token, 850, now_ms=now_ms, call_kind="gpt-5.4-mini|0") for lease in leases]
    calls = reservations(admission, asked, await admission.grant("interactive", 4, asked))
    attempt = AttemptRecord(number=1, started_at_ms=now_ms, waited_ms=12)
    await asyncio.gather(*(ledger.begin(lease, attempt) for lease in leases))
    said = Evidence(verdict="ok", used_tokens=820, took_ms=412)
    await asyncio.gather(
        *(admission.tell(call, said) for call in calls),
        *(ledger.complete(lease, RESULT, kept_ms=3_600_000) for lease in leases),
    )


def carried(valkey: Any) -> int:
    """Both ways, since the server began; asking costs some bytes as well."""
    stats = valkey.info("stats")
    return stats["total_net_input_bytes"] + stats["total_net_output_bytes"]
