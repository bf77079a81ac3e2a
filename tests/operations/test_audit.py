"""Acts of operators are recorded: a pause tells its author, reason and end; `audit` and `limits` show them."""

import json
from typing import Any

import pytest
import redis
from redis.exceptions import NoPermissionError
from support.command_line import called
from support.redis_users import url_of

from worker.operations.acl import OPERATOR
from worker.operations.overview import read


def acts(redis_url: str, *arguments: str) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in called("audit", "--json", *arguments, WORKER_REDIS_URL=redis_url).out.splitlines()
    ]


def test_every_act_is_in_the_record(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "ann")
    for command in (
        ["pause", "--reason", "an invoice", "--for", "30m"],
        ["resume"],
        ["limits", "--rpm", "600", "--reason", "a contract"],
        ["dead", "drop", "1-1"],
    ):
        assert called(*command, WORKER_REDIS_URL=redis_url).code == 0

    told = [(act["what"], act["why"]) for act in acts(redis_url)]
    assert told == [
        ("dead drop: 1 letters, 1-1", ""),
        ("limits --rpm 600", "a contract"),
        ("resume", ""),
        ("pause --for 1800s", "an invoice"),
    ]
    assert {(act["who"], act["redis_user"], act["fleet"]) for act in acts(redis_url)} == {("ann", "default", "default")}
    assert len(acts(redis_url, "--limit", "2")) == 2
    assert acts(redis_url, "--since", "1ms") == []


def test_a_pause_says_whose_it_is(valkey: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "ann")
    called("pause", "--reason", "an\x1b[31m invoice", "--for", "30m", WORKER_REDIS_URL=redis_url)

    shown = read(valkey, []).upstreams["default"]
    assert shown.pause is not None
    assert (shown.state, shown.pause.by.split()[0]) == ("paused", "ann")
    assert shown.pause.ends_ms == pytest.approx(30 * 60_000, abs=5_000)
    assert "\x1b" not in called("audit", WORKER_REDIS_URL=redis_url).out


@pytest.mark.parametrize("lasting", ["0s", "31d", "soon"])
def test_a_pause_must_have_an_end_within_reason(redis_url: str, lasting: str) -> None:
    ran = called("pause", "--for", lasting, WORKER_REDIS_URL=redis_url)

    assert ran.code == 2
    assert "--for" in ran.err


def test_the_limits_alone_are_printed_with_their_origin(valkey: redis.Redis, redis_url: str) -> None:
    assert valkey.hset("responses:quota:default", mapping={"rpm": 600, "scale": 0.5, "tpm": 0})
    settings = called("limits", WORKER_REDIS_URL=redis_url).out
    valkey.hset("responses:quota:default", "limit_rpm", 600)
    called("limits", "--rpm", "600", "--reason", "a contract", WORKER_REDIS_URL=redis_url)
    set_by_hand = called("limits", WORKER_REDIS_URL=redis_url).out

    assert "requests a minute    600        from the workers' settings" in settings
    assert "allowed now          300 requests a minute, as learned" in settings
    assert "from an operator" in set_by_hand
    assert "because: a contract" in set_by_hand


def test_the_record_is_append_only_for_operators(users: redis.Redis, redis_url: str) -> None:
    url = url_of(OPERATOR, redis_url)
    assert called("resume", WORKER_REDIS_URL=url).code == 0

    (act,) = acts(url)
    assert act["redis_user"] == "operator"
    client: Any = redis.Redis.from_url(url)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
    with client, pytest.raises(NoPermissionError):
        client.xdel("responses:audit", act["entry_id"])
    assert users.xlen("responses:audit") == 1
