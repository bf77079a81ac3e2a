"""Sentry hears of failures by a real client, on a server of ours that keeps every byte."""

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from support.captured_log import captured_log
from support.polling import wait_until
from support.sentry_parts import FACTS, KINDS, World
from support.sentry_receiver import Manner, SentryReceiver

from api_contracts import ErrorCode
from worker.failures.classes import FAILURES, Kind, State
from worker.telemetry import log
from worker.telemetry.reports import Facts
from worker.telemetry.runbook import ALERTS, RUNBOOK
from worker.telemetry.sentry import SHUTDOWN_TIMEOUT_S, scrubbed

CANARY: Final = "canary-7f3a"


def test_every_failure_class_and_state_is_treated_and_explained() -> None:
    """Nobody is woken by something that no table and no runbook knows."""
    assert set(FAILURES) == set(KINDS)
    assert set(RUNBOOK) == set(KINDS) | ALERTS.keys()
    for entry in RUNBOOK.values():
        assert entry.meaning
        assert entry.first_look
        assert entry.remedy
        assert entry.command


def test_an_event_says_what_broke_since_when_for_whom_and_what_to_do(world: World) -> None:
    """One glance at 3 a.m."""
    world.incidents.failed(ErrorCode.UPSTREAM_ERROR, FACTS)
    for n in range(9):
        world.incidents.failed(ErrorCode.UPSTREAM_ERROR, Facts(tenant=f"t{n % 3}", lane="batch", request_id="r"))
    world.pass_time(61)

    first, tail = world.events()
    assert first["level"] == "error"
    assert first["fingerprint"] == ["responses-worker", "upstream_error", "default"]
    assert first["exception"]["values"][0]["type"] == "upstream_error"
    assert (first["release"], first["environment"]) == ("responses-worker@1", "test")
    assert first["user"] == {"id": "acme"}
    assert first["tags"] == {
        "failure_class": "upstream_error",
        "component": "upstream",
        "fault": "upstream",
        "page": "false",
        "upstream": "default",
        "lane": "interactive",
        "model": "gpt-5.4-mini",
        "http_status": "502",
        "upstream_code": "bad_gateway",
        "retryable": "true",
        "attempts": ">3",
    }
    assert first["contexts"]["upstream"]["request_id"] == "req-up-1"
    assert first["contexts"]["request"]["id"] == "order-17"
    assert first["contexts"]["trace"]["trace_id"] == FACTS.trace_id
    runbook = first["contexts"]["runbook"]
    assert runbook["url"] == "https://run.example/book/upstream_error/"
    assert runbook["remedy"] == RUNBOOK["upstream_error"].remedy
    impact = tail["contexts"]["impact"]
    assert impact["failures_since_last_event"] == 9
    assert impact["failures_since_it_began"] == 10
    assert impact["tenants_affected"] == 3
    assert impact["lanes"] == ["batch"]
    assert impact["window_s"] == 60
    assert impact["oldest_request_age_s"] == 73.3
    assert datetime.fromisoformat(impact["since"]) < datetime.now(UTC) - timedelta(seconds=59)
    assert impact["customer_sees"]


def test_a_storm_is_two_events_with_exact_counts(world: World) -> None:
    """2,000 failures of one class, from many threads: counts add up, and the metric agrees."""
    threads = [
        threading.Thread(target=lambda: [world.incidents.failed(ErrorCode.UPSTREAM_ERROR, FACTS) for _ in range(250)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    world.pass_time(60)

    events = world.events()
    assert len(events) == 2
    assert sum(event["contexts"]["impact"]["failures_since_last_event"] for event in events) == 2000
    counter = world.metrics.incidents
    assert counter.labels("upstream_error", "reported")._value.get() == 1  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType]  # noqa: SLF001  # what a scrape shows
    assert counter.labels("upstream_error", "held")._value.get() == 1999  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType]  # noqa: SLF001  # as above


@pytest.mark.parametrize("kind", [kind for kind in KINDS if FAILURES[kind].level is None], ids=str)
def test_what_callers_got_wrong_makes_no_event(world: World, kind: Kind) -> None:
    """It is a line and a counter; nobody here could do anything."""
    world.incidents.failed(kind, FACTS)
    world.incidents.flush()

    assert world.events() == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if FAILURES[kind].level], ids=str)
def test_every_other_class_is_one_issue_of_its_level(world: World, kind: Kind) -> None:
    """The rule holds for any status, tenant or text."""
    for status in (500, 502, 504):
        world.incidents.failed(kind, Facts(http_status=status, tenant=str(status), request_id="r"))
    world.incidents.flush()

    events = world.events()
    assert [event["level"] for event in events] == [FAILURES[kind].level] * 2
    assert len({tuple(event["fingerprint"]) for event in events}) == 1
    assert {event["tags"]["page"] for event in events} == {str(FAILURES[kind].pages).lower()}


def _crash(depth: int = 3) -> Exception:
    prompt = f"secret {CANARY}"
    if depth:
        return _crash(depth - 1)
    try:
        try:
            raise KeyError(prompt)  # noqa: TRY301  # with locals on the way
        except KeyError as cause:
            raise ValueError(prompt) from cause
    except ValueError as error:
        return error


def test_a_bug_is_told_with_its_stack_and_without_its_words(world: World) -> None:
    """Type and place find the defect; its text and its locals may be a prompt."""
    for _ in range(5):
        world.incidents.crashed(_crash(), FACTS)
    world.incidents.flush()

    first, tail = world.events()
    values = first["exception"]["values"]
    assert [(value["type"], value["value"]) for value in values] == [
        ("KeyError", "[withheld]"),
        ("ValueError", "[withheld]"),
    ]
    assert values[-1]["stacktrace"]["frames"][-1]["function"] == "_crash"
    assert "vars" not in json.dumps(first)
    assert first["fingerprint"] == ["{{ default }}"]
    assert tail["exception"] == first["exception"]
    assert tail["contexts"]["impact"]["failures_since_last_event"] == 4
    assert CANARY.encode() not in b"".join(world.receiver.raw)


def test_different_bugs_are_different_events(world: World) -> None:
    """The gate holds back the same defect, not its neighbour."""
    world.incidents.crashed(_crash(), FACTS)
    world.incidents.crashed(ZeroDivisionError(), FACTS)

    assert len(world.events()) == 2


def test_an_event_shows_what_led_to_it(world: World) -> None:
    """The last warnings of the process, as breadcrumbs, with their codes."""
    with captured_log():
        log("upstream.shut", "warning", gate="breaker_open", code="upstream_error")
    world.incidents.began(State.BREAKER_OPEN, FACTS)

    (event,) = world.events()
    crumb = event["breadcrumbs"]["values"][-1]
    assert crumb["category"] == "upstream.shut"
    assert crumb["data"] == {"code": "upstream_error", "gate": "breaker_open"}


def test_the_hooks_strip_whatever_else_finds_the_client() -> None:
    """A plugin that captures an exception by itself must not send its words, its locals or a request."""
    frames = [{"function": "f", "vars": {"prompt": CANARY}}]
    event = {
        "exception": {"values": [{"type": "ValueError", "value": CANARY, "stacktrace": {"frames": frames}}]},
        "request": {"data": CANARY},
        "extra": {"prompt": CANARY},
    }

    assert CANARY not in json.dumps(scrubbed(event, {}))


@pytest.mark.parametrize("manner", ["refuse", "rate_limit", "too_large", "hang"])
def test_a_broken_sentry_costs_nothing_but_the_shutdown_timeout(manner: Manner) -> None:
    """Telling it is as quick as ever, and leaving waits for it no longer than was decided."""
    with SentryReceiver(manner) as receiver:
        world = World(receiver)
        started = time.monotonic()
        for n in range(300):
            world.incidents.failed(ErrorCode.UPSTREAM_ERROR, Facts(upstream=str(n)))
        telling_s = time.monotonic() - started
        wait_until(lambda: receiver.raw, what="an envelope")
        world.client.close()
        leaving_s = time.monotonic() - started - telling_s

    assert telling_s < 2
    assert leaving_s < SHUTDOWN_TIMEOUT_S + 1
