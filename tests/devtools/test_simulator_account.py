"""The simulated gateway as an account: its limits, keys and wallets, and what its call log remembers."""

import asyncio
import hashlib
import json
from collections import Counter

import httpx
import pytest
from support.gateway_caller import KEY, Caller
from support.polling import wait_until
from support.producer import body

from worker.devtools.simulator import CLIENT_LEFT, key_alias, prompt_hash


async def in_flight(caller: Caller, count: int) -> None:
    await asyncio.to_thread(wait_until, lambda: caller.gateway.stats().in_flight == count)


def test_keys_can_be_revoked_and_wallets_emptied_and_refilled(caller: Caller) -> None:
    caller.gateway.configure(keys=["good", "poor"], empty_wallets=["poor"])
    assert caller.ask("x", key="").text == '{"error":{"message":"No token provided"}}'
    assert [caller.ask("x", key=key).status_code for key in ("", "wrong", "poor", "good")] == [401, 401, 403, 200]
    assert caller.ask("x", key="poor").json()["error"]["code"] == "insufficient_user_quota"

    caller.gateway.configure(empty_wallets=["good"], revoked_keys=["poor"], empty_wallet_fault="quota-429")

    assert [caller.ask("x", key=key).status_code for key in ("good", "poor")] == [429, 401]
    assert "good" not in caller.get("/simulator/config").text


def test_a_rate_limit_is_enforced_announced_and_lifted(caller: Caller) -> None:
    caller.gateway.configure(requests_per_minute=6, burst_s=20)

    responses = [caller.ask("x") for _ in range(3)]

    assert [response.status_code for response in responses] == [200, 200, 429]
    assert responses[1].headers["x-ratelimit-limit-requests"] == "6"
    assert responses[1].headers["x-ratelimit-remaining-requests"] == "0"
    refusal = responses[2]
    assert refusal.json()["error"]["type"] == "requests"
    assert 0 < int(refusal.headers["retry-after-ms"]) <= 10_000
    assert refusal.headers["retry-after"] == str(-(-int(refusal.headers["retry-after-ms"]) // 1_000))
    caller.gateway.configure(requests_per_minute=0)
    assert caller.ask("x").status_code == 200


@pytest.mark.parametrize(
    ("settings", "present", "absent"),
    [
        ({"headers": "openai"}, {"x-ratelimit-limit-requests", "retry-after"}, set[str]()),
        ({"headers": "retry-after", "retry_after": "ms"}, {"retry-after-ms"}, {"retry-after"}),
        ({"headers": "none", "rate_limit_fault": "429-chinese"}, set[str](), {"retry-after", "retry-after-ms"}),
        ({"headers": "openai", "dialect": "openai"}, {"x-request-id"}, {"x-oneapi-request-id"}),
    ],
)
def test_a_gateway_says_what_its_settings_let_it(
    caller: Caller, settings: dict[str, str], present: set[str], absent: set[str]
) -> None:
    caller.gateway.configure(requests_per_minute=1, burst_s=0, **settings)
    caller.ask("x")

    refusal = caller.ask("x")

    assert refusal.status_code == 429
    assert present <= refusal.headers.keys()
    assert not absent & refusal.headers.keys()
    assert any(name.startswith("x-ratelimit") for name in refusal.headers) == (settings["headers"] == "openai")


def test_tokens_are_estimated_input_and_max_output(caller: Caller) -> None:
    caller.gateway.configure(tokens_per_minute=60, burst_s=1_000)

    assert caller.ask("x" * 400, max_output_tokens=800).status_code == 200
    refused = caller.ask("x" * 400, max_output_tokens=101)
    too_large = caller.ask("x" * 400, max_output_tokens=901)

    assert [call.tokens for call in caller.gateway.calls()] == [900, 201, 1_001]
    assert refused.json()["error"]["type"] == "tokens"
    assert "Request too large" in too_large.json()["error"]["message"]
    assert "retry-after" not in too_large.headers


def test_a_failed_call_keeps_what_it_took_unless_told_otherwise(caller: Caller) -> None:
    caller.gateway.configure(requests_per_minute=1, burst_s=0, count_failed=False)
    assert caller.statuses("[[sim:500]]", "x", "x") == [500, 200, 429]

    caller.gateway.configure(requests_window_s=60, count_failed=True)
    assert caller.statuses("[[sim:500]]", "x") == [500, 429]


def test_a_slow_refusal_is_slow(caller: Caller) -> None:
    caller.gateway.configure(requests_per_minute=1, burst_s=0, refusal_latency_s=0.1)

    assert caller.statuses("x", "x") == [200, 429]

    assert (caller.gateway.calls()[1].duration_s or 0) >= 0.1


async def test_concurrency_is_counted_at_the_gateway_and_freed_by_clients_that_leave(caller: Caller) -> None:
    caller.gateway.configure(max_in_flight=40)
    async with httpx.AsyncClient(base_url=caller.gateway.url, headers={"Authorization": f"Bearer {KEY}"}) as client:
        waiting = [asyncio.create_task(client.post("/v1/responses", json=body("[[sim:hang]]"))) for _ in range(40)]
        await in_flight(caller, 40)

        refused = [await client.post("/v1/responses", json=body("x")) for _ in range(10)]

        assert {response.json()["error"]["type"] for response in refused} == {"concurrency"}
        assert caller.gateway.calls()[-1].in_flight == 40
        for call in waiting:
            call.cancel()
        await in_flight(caller, 0)
    stats = caller.gateway.stats()
    assert (stats.peak_in_flight, stats.by_status) == (40, {"429": 10, str(CLIENT_LEFT): 40})
    assert stats.throttled_share == 0.2


async def test_a_gateway_that_collapses_takes_longer_and_then_refuses(caller: Caller) -> None:
    caller.gateway.configure(collapse_above=4, latency_median_s=0.05)
    async with httpx.AsyncClient(base_url=caller.gateway.url, headers={"Authorization": f"Bearer {KEY}"}) as client:
        asked = [client.post("/v1/responses", json=body(f"{number}")) for number in range(9)]
        statuses = Counter(response.status_code for response in await asyncio.gather(*asked))

    longest_s = max(call.duration_s or 0 for call in caller.gateway.calls() if call.status == 200)
    assert longest_s >= 0.05 * (6 / 4) ** 2, "the sixth in flight at once"
    assert statuses == {200: 6, 503: 3}


def test_the_call_log_tells_who_asked_what_without_saying_it(caller: Caller) -> None:
    caller.ask("canary [[id:order-7]] [[sim:503]]")
    caller.ask("other")

    [call] = caller.gateway.calls(tag="order-7")
    sent = json.dumps(body("canary [[id:order-7]] [[sim:503]]"), separators=(",", ":"))
    assert call.body_sha256 == hashlib.sha256(sent.encode()).hexdigest()
    assert call.prompt == prompt_hash("canary [[id:order-7]] [[sim:503]]")
    assert (call.key, call.fault, call.status, call.in_flight) == (key_alias(KEY), "503", 503, 0)
    log = caller.get("/simulator/calls").text
    assert KEY not in log
    assert "canary" not in log
    stats = caller.gateway.stats()
    assert (stats.calls, stats.by_fault, stats.by_key) == (2, {"503": 1}, {key_alias(KEY): 2})
    caller.gateway.reset()
    assert caller.gateway.stats().calls == 0


def test_a_wrong_setting_changes_nothing_and_is_named(caller: Caller) -> None:
    with pytest.raises(ValueError, match="headers: must be one of"):
        caller.gateway.configure(headers="loud", requests_per_minute=1)

    assert caller.get("/simulator/config").json()["requests_per_minute"] == 0


def test_accounts_have_keys_and_budgets_of_their_own(caller: Caller) -> None:
    caller.gateway.configure(
        accounts={
            "main": {"keys": ["main-1", "main-2"], "requests_per_minute": 2, "burst_s": 60},
            "spare": {"keys": ["spare-1"], "requests_per_minute": 1, "burst_s": 60, "headers": "none"},
        }
    )

    assert [caller.ask("x", key=key).status_code for key in ("main-1", "main-2", "main-1")] == [200, 200, 429]
    assert [caller.ask("x", key="spare-1").status_code for _ in range(2)] == [200, 429]
    assert caller.ask("x", key="another").status_code == 200
    assert [call.account for call in caller.gateway.calls()] == ["main"] * 3 + ["spare"] * 2 + [""]
    assert "main-1" not in caller.get("/simulator/config").text


def test_a_change_of_one_account_leaves_the_rest_of_it_and_the_others_alone(caller: Caller) -> None:
    caller.gateway.configure(accounts={"main": {"keys": ["a", "b"]}, "spare": {"keys": ["c"]}})

    caller.gateway.configure(accounts={"main": {"revoked_keys": ["a"]}})

    assert [caller.ask("x", key=key).status_code for key in ("a", "b", "c")] == [401, 200, 200]


@pytest.mark.parametrize(
    ("accounts", "said"),
    [
        ({"main": {}}, "accounts.main: must have keys"),
        ({"main": {"keys": ["a"], "rpm": 1}}, "accounts.main.no such setting: rpm"),
        ({"main": {"keys": ["a"]}, "spare": {"keys": ["a"]}}, "a key belongs to one account"),
        ({"main": 3}, "an object of objects"),
    ],
)
def test_wrong_accounts_are_refused(caller: Caller, accounts: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        caller.gateway.configure(accounts=accounts)
