"""The command line as people use it: help, settings, `status`, `simulator`."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from support.command_line import ROOT, called, next_line, run, started
from support.fleet_hour import minute_counts
from support.producer import Producer, body
from support.terminals import session

from worker.operations.overview import read

COMMANDS = ("run", "submit", "results", "status", "simulator", "demo")
HEAVY = ("aiohttp", "celery", "httpx", "pydantic", "redis", "rich")


def test_help_names_every_command() -> None:
    helped = run("--help")

    assert helped.code == 0
    assert all(command in helped.out for command in COMMANDS)


def test_commands_import_nothing_heavy_before_they_run() -> None:
    probe = f"import sys, worker.cli; print([name for name in {HEAVY} if name in sys.modules])"

    assert subprocess.check_output([sys.executable, "-c", probe], text=True).strip() == "[]"


@pytest.fixture
def as_in_the_image(tmp_path: Path) -> Path:
    """A directory to run in, with the packages as the image has them: without the stand-ins."""
    for package in ("api_contracts", "worker"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("devtools", "__pycache__"))
    return tmp_path


@pytest.mark.parametrize("command", [("simulator", "--port", "0"), ("demo", "--help")])
def test_a_command_that_is_left_out_says_so(command: tuple[str, ...], as_in_the_image: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "worker", *command], cwd=as_in_the_image, capture_output=True, text=True, check=False
    )

    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"{command[0]}: this installation leaves it out")


def test_help_lists_no_command_that_is_left_out(as_in_the_image: Path) -> None:
    command = [sys.executable, "-m", "worker", "--help"]
    helped = subprocess.check_output(command, cwd=as_in_the_image, text=True)

    assert "status" in helped
    assert "simulator" not in helped
    assert "demo" not in helped


@pytest.mark.parametrize("command", [("run",), ("status",), ("submit", "Hello!"), ("results",)])
def test_every_wrong_setting_is_one_line_and_exit_2(command: tuple[str, ...]) -> None:
    ran = called(*command, WORKER_REDIS_URL="http://:secret@nowhere", WORKER_LANES="batch", WORKER_CONCURRENCY="0")

    assert ran.code == 2
    assert [line.partition(":")[0] for line in ran.err.splitlines()] == [
        "WORKER_REDIS_URL",
        "WORKER_CONCURRENCY",
        "WORKER_LANES",
    ]
    assert "secret" not in ran.err


@pytest.mark.parametrize("command", [("status",), ("submit", "Hello!"), ("results", "--follow")])
def test_an_unreachable_redis_is_named_without_its_password(command: tuple[str, ...]) -> None:
    ran = called(*command, WORKER_REDIS_URL="redis://:secret@127.0.0.1:1/0")

    assert ran.code == 1
    assert ran.err.startswith("Redis at 127.0.0.1:1 (WORKER_REDIS_URL): ")
    assert len(ran.err.splitlines()) == 1
    assert "secret" not in ran.err


def test_status_counts_what_is_where(valkey: redis.Redis, redis_url: str, producer: Producer) -> None:
    """Priority sub-lists are part of a lane, leases and pauses are told as times from now."""
    for priority in (None, None, 9):
        producer.enqueue({"body": body()}, priority=priority)
    now_ms = round(time.time() * 1000)
    valkey.hset("responses:inflight:batch", "token", "record")
    valkey.zadd("responses:leases:batch", {"token": now_ms - 5_000})
    valkey.hset("responses:quota:default", "pause_until", now_ms + 60_000)
    valkey.xadd("responses:dead", {"reason": "poison"})
    valkey.xadd("responses:results", {"result": "{}"})
    valkey.xgroup_create("responses:results", "shop", id="0")

    status = json.loads(called("status", "--json", WORKER_REDIS_URL=redis_url).out)
    table = called("status", WORKER_REDIS_URL=redis_url)

    assert status["lanes"]["interactive"]["ready"] == {"0": 2, "3": 0, "6": 0, "9": 1}
    assert status["lanes"]["batch"]["in_flight"] == 1
    assert -7_000 < status["lanes"]["batch"]["oldest_lease_ms"] < -4_000
    assert status["streams"]["responses:results"] == {"entries": 1, "groups": {"shop": {"unread": 1, "pending": 0}}}
    assert status["dead"] == 1
    assert status["upstreams"]["default"]["state"] == "throttled"
    assert 55_000 < status["upstreams"]["default"]["next_call_ms"] <= 60_000
    assert table.code == 0
    for shown_part in ("3 (p0: 2, p9: 1)", "s ago", "shop", "throttled", "dead letters: 1"):
        assert shown_part in table.out


def test_status_of_an_empty_redis_is_all_zeros(redis_url: str) -> None:
    status = json.loads(called("status", "--json", WORKER_REDIS_URL=redis_url, WORKER_LANES="own=1").out)

    assert list(status["lanes"]) == ["own"]
    assert status["lanes"]["own"]["oldest_lease_ms"] is None
    assert status["streams"] == {"responses:results": {"entries": 0, "groups": {}}}


def test_watching_the_status_shows_what_changes_and_ends_with_ctrl_c(redis_url: str, producer: Producer) -> None:
    with started("-m", "worker", "status", "--watch", "--json", WORKER_REDIS_URL=redis_url) as process:
        before = json.loads(next_line(process))
        producer.enqueue({"body": body()})
        after = json.loads(next_line(process))
        process.send_signal(signal.SIGINT)
        code = process.wait(10)

    assert (before["lanes"]["interactive"]["ready"]["0"], after["lanes"]["interactive"]["ready"]["0"]) == (0, 1)
    assert code == 0


def test_watching_on_a_terminal_draws_in_place_and_leaves_it_as_it_was(valkey: redis.Redis, redis_url: str) -> None:
    """On a screen of its own, with a bar for each minute; Ctrl-C is a key there and no failure."""
    for ago in range(1, 30):
        minute_counts(valkey, ago, {"answers interactive completed": 5 * ago})
    with session("status", "--watch", WORKER_REDIS_URL=redis_url) as terminal:
        terminal.reads("\x1b[?1049h")
        terminal.reads("idle: nothing waits")
        terminal.reads("▁")
        terminal.reads("█")
        valkey.lpush("responses.research", *range(1234))
        terminal.reads("\x1b[H")
        terminal.reads("1234")
        terminal.types("\x03")
        last = terminal.rest()

    assert "\x1b[?1049l" in last
    assert "\x1b[?25h" in last
    assert terminal.process.returncode == 0
    assert "Traceback" not in last


def test_the_simulator_serves_until_ctrl_c_with_the_limits_asked_for() -> None:
    with started("-m", "worker", "simulator", "--rpm", "60", "--config", '{"keys": ["k"]}') as process:
        url = next_line(process).strip()
        answer = httpx.post(f"{url}/v1/responses", json=body("Hi"), headers={"Authorization": "Bearer k"})
        process.send_signal(signal.SIGINT)

        assert answer.headers["x-ratelimit-limit-requests"] == "60"
        assert process.wait(10) == 0


def test_the_simulator_tells_its_markers_and_what_is_wrong_with_its_settings() -> None:
    assert "`[[sim:500]]`" in called("simulator", "--markers").out
    for config, complaint in (("{", "--config: "), ("[]", "must be a JSON object"), ('{"rpm": 1}', "no such setting")):
        refused = called("simulator", "--config", config)
        assert refused.code == 2
        assert complaint in refused.err


@pytest.mark.parametrize(
    ("kept", "state"),
    [
        ({}, ("open", "", 0)),
        ({"pause_until": 1}, ("open", "", 0)),
        ({"gate": "quota_exhausted", "gate_code": "quota_exhausted", "probe_at": 1}, ("quota_exhausted",) * 2 + (0,)),
        ({"paused": 1, "gate": "breaker_open", "gate_code": "upstream_error"}, ("paused", "upstream_error", 0)),
    ],
)
def test_status_tells_why_an_upstream_is_not_called(
    valkey: redis.Redis, kept: Any, state: tuple[str, str, int]
) -> None:
    if kept:
        valkey.hset("responses:quota:default", mapping=kept)

    upstream = read(valkey, []).upstreams["default"]

    assert (upstream.state, upstream.code, upstream.next_call_ms) == state
