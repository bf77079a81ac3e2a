"""The first line of `status`: what stands still, since when and why, and what to type next."""

from typing import Any

import pytest
from support.fleet_parts import lane, upstream, worker

from worker.operations.fleet_verdict import LaneView, judge, span
from worker.operations.overview import Lane, Overview, Pause
from worker.operations.registry import Worker
from worker.operations.troubles import Seen, Verdict, troubles_of, verdict_of
from worker.telemetry.runbook import RUNBOOK

MINUTE = 60_000


def seen(
    *workers: Worker,
    lanes: dict[str, Lane] | None = None,
    still: dict[str, int] | None = None,
    served: tuple[str, ...] = (),
    **of_upstream: Any,
) -> tuple[dict[str, LaneView], Verdict]:
    overview = Overview(
        lanes={"interactive": lane(5)} if lanes is None else lanes,
        streams={},
        dead=0,
        failed=0,
        upstreams={"default": upstream(**of_upstream)},
        strays={},
    )
    decisive = overview.upstreams["default"]
    views = judge(overview.lanes, decisive, workers, still or {}, served)
    troubles = troubles_of(Seen(overview=overview, decisive=decisive, lanes=views, workers=workers))
    return dict(views), verdict_of(troubles, views.values(), workers)


def test_a_lane_that_nobody_serves_beside_one_that_moves() -> None:
    """The sum over all lanes moves, and one of them stands still."""
    lanes, verdict = seen(
        worker("interactive", per_second={"interactive": 12.3}),
        lanes={"interactive": lane(3), "batch": lane(5_000)},
        still={"interactive": 100, "batch": 120 * MINUTE},
    )

    assert (lanes["interactive"].state, lanes["batch"].state) == ("moving", "standing")
    assert verdict.text == "lane batch stands still for 2 h: no worker serves it; 5,000 messages wait"
    assert verdict.command == "responses-worker runbook lane_unserved --lane batch"


PAUSE = Pause(by="ann at bastion", reason="invoice", ends_ms=25 * MINUTE)


@pytest.mark.parametrize(
    ("workers", "of_upstream", "said", "entry"),
    [
        ([], {}, "no worker is alive", "workers_silent"),
        ([worker(silent_ms=25_000)], {}, "its workers fell silent 25 s ago", "workers_silent"),
        ([worker("batch")], {}, "no worker serves it", "lane_unserved"),
        (
            [worker()],
            {"state": "paused", "since_ms": 5 * MINUTE, "pause": PAUSE},
            "the fleet was paused 5 min ago by ann at bastion, because: invoice; it ends in 25 min",
            "paused",
        ),
        (
            [worker()],
            {"state": "breaker_open", "code": "upstream_timeout", "since_ms": 180_000, "next_call_ms": 40_000},
            "the gateway is shut for 3 min: breaker_open (upstream_timeout); it is tried again in 40 s",
            "breaker_open",
        ),
        ([worker(draining=True)], {}, "all its workers are leaving", "nothing_moving"),
        ([worker(backlog="responses:results")], {}, "too many results are unread", "results_high_water"),
        ([worker()], {"state": "throttled", "next_call_ms": 9_000}, "it ends in 9 s", "throttled"),
        ([worker(holds={"batch": (10, 0)})], {}, "every place of its workers is taken", "queue_age"),
        ([worker(holds={"interactive": (1, 0)})], {"waits_for": "tokens"}, "the budget of tokens", "rate_limited"),
        ([worker()], {}, "nothing says why", "nothing_moving"),
    ],
)
def test_the_cause_is_named(workers: list[Worker], of_upstream: dict[str, Any], said: str, entry: str) -> None:
    lanes, verdict = seen(*workers, lanes={"interactive": lane(5, in_flight=1)}, **of_upstream)

    assert lanes["interactive"].state == "standing"
    assert not verdict.ok
    assert said in verdict.text
    assert verdict.command.split(" --")[0] == f"responses-worker runbook {entry}"
    assert entry in RUNBOOK


def test_a_request_that_just_came_is_no_reason_to_wake_somebody() -> None:
    lanes, verdict = seen(worker(), lanes={"interactive": lane(1, oldest_age_ms=500)})

    assert (lanes["interactive"].state, verdict.ok) == ("moving", True)


@pytest.mark.parametrize(
    ("workers", "lanes", "text"),
    [
        ([worker(per_second={"interactive": 12.34})], {"interactive": lane(3)}, "moving: 12.3/s"),
        (
            [worker(holds={"interactive": (0, 3)})],
            {"interactive": lane(3, in_flight=3)},
            "working: 3 calls under way, and none has ended in the last ten seconds",
        ),
        ([worker()], {"interactive": lane()}, "idle: nothing waits, and 1 worker is there"),
        ([], {}, "idle: nothing waits, and 0 workers are there"),
        ([worker()], {"interactive": lane(parked=2)}, "idle: nothing waits, and 1 worker is there"),
    ],
)
def test_a_fleet_that_is_well_says_what_it_does(workers: list[Worker], lanes: dict[str, Lane], text: str) -> None:
    _, verdict = seen(*workers, lanes=lanes)

    assert verdict == Verdict(ok=True, text=text, command="")


def test_a_pause_and_a_shut_gate_are_told_before_anything_waits() -> None:
    _, paused = seen(worker(), lanes={}, state="paused")
    _, shut = seen(worker(), lanes={}, state="quota_exhausted", next_call_ms=1_000)

    assert (paused.ok, paused.command) == (False, "responses-worker runbook paused")
    assert (shut.ok, shut.command) == (False, "responses-worker runbook quota_exhausted")


def test_a_lane_of_another_fleet_is_not_ours_to_judge() -> None:
    lanes, _ = seen(worker("batch"), lanes={"interactive": lane(5)}, served=("interactive",))

    assert (lanes["interactive"].served_elsewhere, lanes["interactive"].cause) == (True, None)


@pytest.mark.parametrize(
    ("ms", "text"),
    [(900, "1 s"), (119_000, "119 s"), (120_000, "2 min"), (9_000_000, "2.5 h"), (200_000_000, "2 d")],
)
def test_a_duration_is_told_in_one_unit(ms: int, text: str) -> None:
    assert span(ms) == text
