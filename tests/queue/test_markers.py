"""The marker that stays of an answered request is small, and enough to know its duplicates."""

import json
import uuid
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import pytest
import redis
from support.command_line import called
from support.ledger_parts import COMPLETED, FAILED, FAILED_RETRYABLE, HOUR_MS, RESULTS, Desk, claim_of
from support.producer import Producer
from support.redis_users import denials, url_of, users_of
from support.worker_process import Fleet

from api_contracts.client import ConflictError, ForgottenError, NotAnsweredError, ResponsesClient
from api_contracts.queues import request_key
from api_contracts.tickets import Ticket
from worker.operations.acl import WORKER
from worker.operations.redrive import FailedRequests, Failures
from worker.queue.claims import Lease, Published, Refusal
from worker.queue.failed_bodies import Redrive
from worker.queue.ledger import Ledger
from worker.storage.connection import RedisTarget
from worker.storage.scripts import ScriptRunner

BODY: Final = "0123456789abcdef" * 4
OTHER_BODY: Final = "f" + BODY[1:]
LONG: Final = replace(COMPLETED, result=b"x" * 1000)
LARGEST: Final = 120
"""Bytes of a marker beside what any value takes under such a key, where the names of its streams have 64 at most."""
LARGEST_RETRYABLE: Final = 220
LARGEST_FORM: Final = 250
"""Bytes that the large form of a hash takes beside its values: for streams with longer names, or more of them."""
KEPT_MS: Final = 1_000

UUID: Final = str(uuid.UUID(int=7))
WITHOUT_THE_RIGHT: Final = replace(
    WORKER,
    grants=tuple(replace(rule, commands=rule.commands.replace("pexpiretime ", "")) for rule in WORKER.grants),
)
"""The worker's user of the release before."""


async def forgotten(desk: Desk, answer: Published = LONG, request_id: str = "r", **claim: Any) -> Lease:
    """A request whose result is dropped by now."""
    lease = await desk.leased(request_id, fingerprint=BODY, **claim)
    await desk.ledger.complete(lease, answer, kept_ms=KEPT_MS)
    desk.advance(KEPT_MS)
    assert await desk.ledger.forget() == 1
    return lease


def bytes_of(desk: Desk, key: str) -> int:
    """The size of a value, beside that of a number under the same key."""
    with_marker: int = desk.redis.memory_usage(key, samples=0)
    desk.redis.set(key, 1, px=HOUR_MS)
    return with_marker - desk.redis.memory_usage(key)


@pytest.mark.parametrize("request_id", ["r", UUID, "i" * 128])
@pytest.mark.parametrize("tenant", ["default", "t" * 64])
@pytest.mark.parametrize("answer", [LONG, replace(FAILED, result=b"x" * 1000)])
@pytest.mark.parametrize("stream", [RESULTS, f"{RESULTS}:billing"])
async def test_a_marker_is_small(desk: Desk, tenant: str, request_id: str, answer: Published, stream: str) -> None:
    """However long its result and the names of its request are."""
    await forgotten(desk, answer, request_id, tenant=tenant, stream=stream)

    key = request_key(tenant, request_id)
    assert desk.redis.object("encoding", key) == b"listpack"
    assert bytes_of(desk, key) <= LARGEST


async def test_a_marker_of_a_request_that_may_run_anew_is_small(desk: Desk) -> None:
    desk.ledger = replace(desk.ledger, failed_kept_ms=HOUR_MS)
    await forgotten(desk, replace(FAILED_RETRYABLE, failed_code="upstream_timeout"), UUID)

    assert bytes_of(desk, request_key("acme", UUID)) <= LARGEST_RETRYABLE


@pytest.mark.parametrize("count", [1, 2, 3, 16])
@pytest.mark.parametrize("name", ["a", "billing-service", "n" * 64])
async def test_the_streams_that_have_the_result_cost_little_more_than_their_names(
    desk: Desk, count: int, name: str
) -> None:
    streams = [f"{RESULTS}:{name[:-2]}{number:02}" for number in range(count)]
    lease = await desk.leased(UUID, fingerprint=BODY, stream=streams[0])
    for stream in streams[1:]:
        waits = claim_of(UUID, fingerprint=BODY, stream=stream)
        assert await desk.ledger.claim(await desk.taken(stream), waits) is Refusal.BUSY
    await desk.ledger.complete(lease, LONG, kept_ms=KEPT_MS)
    desk.advance(KEPT_MS)
    await desk.ledger.forget()

    names = sum(len(f"{stream} ") for stream in streams)
    assert bytes_of(desk, request_key("acme", UUID)) <= LARGEST + names + (LARGEST_FORM if names >= 64 else 0)


@pytest.mark.parametrize("answer", [LONG, FAILED_RETRYABLE])
async def test_a_marker_ends_when_its_request_would_have(desk: Desk, answer: Published) -> None:
    await desk.ledger.complete(await desk.leased(), answer, kept_ms=KEPT_MS)
    ends = desk.redis.pexpiretime("responses:request:acme:r")
    desk.advance(KEPT_MS)
    await desk.ledger.forget()

    assert ends == desk.redis.pexpiretime("responses:request:acme:r") == desk.now_ms - KEPT_MS + 2 * HOUR_MS


@pytest.mark.parametrize(
    ("window_ms", "kept_ms", "deadline_ms", "expected_ms"),
    [
        (10_000, 1_000, 24 * HOUR_MS, 10_000),
        (10_000, 60_000, 24 * HOUR_MS, 60_000),
        (48 * HOUR_MS, 1_000, HOUR_MS, 48 * HOUR_MS),
        (10_000, 1_000, -HOUR_MS, 10_000),
    ],
)
async def test_a_window_counts_from_the_answer(
    desk: Desk, window_ms: int, kept_ms: int, deadline_ms: int, expected_ms: int
) -> None:
    """The deadline counts until the answer. A request is remembered for at least as long as its result is kept."""
    desk.ledger = replace(desk.ledger, window_ms=window_ms)
    lease = await desk.leased(deadline_ms=desk.now_ms + deadline_ms)
    running = desk.redis.pexpiretime("responses:request:acme:r") - desk.now_ms
    desk.advance(500)
    await desk.ledger.complete(lease, COMPLETED, kept_ms=kept_ms)

    assert running == max(deadline_ms, 0) + HOUR_MS
    assert desk.redis.pexpiretime("responses:request:acme:r") == desk.now_ms + expected_ms


async def test_a_window_ends_no_request_before_its_kept_message(desk: Desk) -> None:
    desk.ledger = replace(desk.ledger, window_ms=10_000, failed_kept_ms=5 * HOUR_MS)
    failed = replace(FAILED_RETRYABLE, failed_code="upstream_timeout")
    await desk.ledger.complete(await desk.leased(), failed, kept_ms=KEPT_MS)

    assert desk.redis.pexpiretime("responses:request:acme:r") == desk.now_ms + 6 * HOUR_MS


def test_a_worker_remembers_for_as_long_as_its_setting_says(fleet: Fleet, producer: Producer) -> None:
    fleet.start(duplicate_window="2h", result_ttl="1m")
    request_id = producer.ask(lane="batch")
    producer.result(request_id)

    assert HOUR_MS < producer.redis.pttl(request_key("default", request_id)) <= 2 * HOUR_MS


async def test_duplicates_are_known_by_a_marker(desk: Desk) -> None:
    await forgotten(desk)
    same, elsewhere, other = (
        claim_of(fingerprint=fingerprint, stream=stream)
        for fingerprint, stream in ((BODY, RESULTS), (BODY, f"{RESULTS}:x"), (OTHER_BODY, RESULTS))
    )

    assert await desk.ledger.claim(await desk.taken(), same) is Refusal.DUPLICATE
    assert await desk.ledger.claim(await desk.taken(), elsewhere) is Refusal.GONE
    assert await desk.ledger.claim(await desk.taken(), replace(elsewhere, republish=False)) is Refusal.WITHHELD
    assert await desk.ledger.claim(await desk.taken(), other) is Refusal.CONFLICT


async def test_a_failure_that_may_be_retried_runs_anew_behind_its_marker(desk: Desk) -> None:
    """Its body is compared as a whole, and its kept message goes with the old run."""
    desk.ledger = replace(desk.ledger, failed_kept_ms=HOUR_MS)
    await forgotten(desk, replace(FAILED_RETRYABLE, failed_code="upstream_timeout"))
    assert desk.redis.xlen("responses:failed") == 1

    other = claim_of(fingerprint=BODY[:-1] + "0")
    assert await desk.ledger.claim(await desk.taken(), other) is Refusal.CONFLICT
    again = await desk.leased(fingerprint=BODY)

    assert (again.failures, again.claimed_at_ms) == (0, desk.now_ms)
    assert desk.redis.xlen("responses:failed") == 0


async def test_a_failure_can_be_redriven_behind_its_marker(desk: Desk) -> None:
    desk.ledger = replace(desk.ledger, failed_kept_ms=HOUR_MS)
    await forgotten(desk, replace(FAILED_RETRYABLE, failed_code="upstream_timeout"))
    requests = FailedRequests(desk.redis)
    (failed,) = requests.find(Failures())

    assert requests.redrive(failed, within=timedelta(hours=1)) is Redrive.REDRIVEN
    assert desk.request()["fingerprint"] == BODY


@pytest.mark.parametrize("state", ["queued", "running", "parked"])
async def test_only_the_result_of_a_request_that_goes_on_is_dropped(desk: Desk, state: str) -> None:
    lease = await desk.leased()
    desk.redis.hset("responses:request:acme:r", mapping={"result": "old", "state": state})
    desk.redis.zadd("responses:kept", {"responses:request:acme:r": desk.now_ms, "responses:request:acme:no": 1})
    before = desk.request()

    assert await desk.ledger.forget() == 2
    assert desk.request() == {name: value for name, value in before.items() if name != "result"}
    assert desk.request()["token"] == lease.delivery.token
    assert desk.redis.zcard("responses:kept") == desk.redis.exists("responses:request:acme:no") == 0


async def test_a_record_of_which_little_is_known_becomes_a_marker_that_knows_no_more(desk: Desk) -> None:
    """Redis may have dropped the hash while its request ran."""
    lease = await desk.leased()
    desk.redis.delete("responses:request:acme:r")
    await desk.ledger.complete(lease, COMPLETED, kept_ms=KEPT_MS)
    desk.advance(KEPT_MS)
    await desk.ledger.forget()

    assert desk.request() == {"state": "completed", "token": "", "replied": f" {RESULTS} "}
    again = claim_of(fingerprint=OTHER_BODY)
    assert await desk.ledger.claim(await desk.taken(), again) is Refusal.DUPLICATE


async def test_a_waiting_caller_reads_a_marker(desk: Desk, redis_url: str) -> None:
    """A caller that enqueued a failed request again waits for the next answer, not for that of the marker."""
    await forgotten(desk)
    failed = await forgotten(desk, FAILED_RETRYABLE, "failed")
    ticket = Ticket(tenant="acme", request_id="r", fingerprint=BODY)
    again = replace(ticket, request_id="failed", outdated=failed.delivery.token.encode())
    tickets = [ticket, replace(ticket, fingerprint=OTHER_BODY), replace(again, outdated=None), again]

    with ResponsesClient(redis_url) as client:
        outcomes = client.wait_many(tickets, timeout_s=0.05, return_exceptions=True)

    assert [*map(type, outcomes)] == [ForgottenError, ConflictError, ForgottenError, NotAnsweredError]


async def test_an_operator_sees_a_marker(desk: Desk, redis_url: str) -> None:
    await forgotten(desk)

    shown = called("show", "r", "--json", WORKER_REDIS_URL=redis_url)

    found = json.loads(shown.out)
    assert (found["state"], found["answer"]) == ("completed", {"outcome": "completed", "kept": False})


async def test_a_user_with_the_rights_of_the_release_before_still_drops_results(
    valkey: redis.Redis, redis_url: str
) -> None:
    with users_of(valkey, WITHOUT_THE_RIGHT):
        runner = ScriptRunner(RedisTarget.parse(url_of(WITHOUT_THE_RIGHT, redis_url)).async_client())
        ledger = Ledger(runner)
        try:
            valkey.lpush("responses.interactive", "m")
            (delivery,) = (await ledger.pop({"interactive": 1})).deliveries
            lease = await ledger.claim(delivery, claim_of())
            assert isinstance(lease, Lease)
            await ledger.complete(lease, COMPLETED, kept_ms=0)
            assert await ledger.forget() == 1
        finally:
            await runner.aclose()
        refused = denials(valkey, WITHOUT_THE_RIGHT)

    assert refused == [("command", "pexpiretime")]
    assert valkey.hmget("responses:request:acme:r", "state", "fingerprint", "result") == [b"completed", b"f", None]
