"""All that needs somebody, with the command about each: what moves may still be in trouble."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from support.fleet_parts import lane, upstream, worker
from support.route_parts import SHARING

from worker.operations.fleet_verdict import judge
from worker.operations.history import Span
from worker.operations.overview import Budget, Group, Lane, Overview, Stream, Upstream
from worker.operations.registry import Worker
from worker.operations.route_view import decisive, places_of, together
from worker.operations.troubles import Seen, Trouble, Verdict, troubles_of, verdict_of

PLACES = places_of(SHARING)
OPEN = {name: upstream() for name in PLACES}
MOVING = worker(per_second={"interactive": 3.0})


def answers(failed: int, completed: int, code: str = "upstream_error") -> Span:
    lane = "interactive"
    counts = {("answers", lane, "failed"): failed, ("answers", lane, "completed"): completed}
    return Span(0, {**counts, ("failed", lane, code): failed})


def seen(
    *workers: Worker,
    lanes: Mapping[str, Lane] | None = None,
    upstreams: Mapping[str, Upstream] = OPEN,
    minute: Span | None = None,
    hour: Span | None = None,
    **changes: Any,
) -> Seen:
    plain: dict[str, Any] = {"streams": {}, "dead": 0, "failed": 0, "strays": {}}
    overview = Overview(lanes=lanes or {}, upstreams=upstreams, **plain | changes)
    way, workers = decisive(upstreams, PLACES), workers or (MOVING,)
    return Seen(
        overview=overview,
        decisive=way,
        lanes=judge(overview.lanes, way, workers, {"interactive": 100}, ()),
        workers=workers,
        minute=minute or Span(0),
        hour=hour or Span(0),
        places=PLACES,
        targets={"interactive": timedelta(minutes=1), "*": timedelta(hours=1)},
    )


def told(troubles: list[Trouble]) -> list[tuple[str, str, bool]]:
    return [(trouble.text, trouble.command, trouble.is_grave) for trouble in troubles]


def test_a_fleet_that_is_well_needs_nobody() -> None:
    assert troubles_of(seen(minute=answers(1, 90), hour=answers(5, 4_000))) == []


@pytest.mark.parametrize(
    ("minute", "hour", "kept", "trouble"),
    [
        (
            answers(9, 3), answers(9, 300), 9,
            ("answers fail: 75% of the last minute, most with upstream_error",
             "responses-worker runbook upstream_error", True),
        ),
        (
            answers(2, 30), answers(12, 388), 9,
            ("3.0% of the last hour's answers failed, most with upstream_error",
             "responses-worker runbook upstream_error", False),
        ),
        (
            answers(0, 30), answers(12, 388), 9,
            ("12 requests failed in the last hour, most with upstream_error; none did in the last minute",
             "responses-worker redrive --code upstream_error --dry-run", False),
        ),
        (
            answers(0, 30), answers(12, 388, "permission_denied"), 0,
            ("3.0% of the last hour's answers failed, most with permission_denied",
             "responses-worker runbook permission_denied", False),
        ),
    ],
)  # fmt: skip
def test_failures_that_are_no_fault_of_callers(
    minute: Span, hour: Span, kept: int, trouble: tuple[str, str, bool]
) -> None:
    assert told(troubles_of(seen(minute=minute, hour=hour, failed=kept))) == [trouble]


def test_callers_own_mistakes_and_redriven_failures_are_no_trouble() -> None:
    assert troubles_of(seen(minute=answers(30, 3, "invalid_request"), hour=answers(30, 3, "invalid_request"))) == []
    assert troubles_of(seen(hour=answers(30, 3), failed=0)) == []


def test_a_route_that_is_shut_beside_one_that_is_open() -> None:
    """Work goes on, and the command is about that route alone."""
    gate = upstream(state="authentication_failed", code="authentication_failed", since_ms=180_000, next_call_ms=40_000)
    here = seen(upstreams=OPEN | {"two": gate})
    troubles = troubles_of(here)

    assert told(troubles) == [
        (
            "route two: the gateway is shut for 3 min: authentication_failed; it is tried again in 40 s",
            "responses-worker runbook authentication_failed --route two", False,
        )
    ]  # fmt: skip
    assert verdict_of(troubles, here.lanes.values(), here.workers) == Verdict(
        ok=True, text="idle: nothing waits, and 1 worker is there", command=troubles[0].command
    )


def test_an_empty_wallet_shuts_every_route_of_its_account() -> None:
    """The routes' own states are open then; nothing moves once the other account is shut as well."""
    empty = upstream(state="quota_exhausted", code="quota_exhausted", next_call_ms=1_000)

    assert decisive(OPEN | {"shared": empty}, PLACES).state == "open"
    both = seen(upstreams=OPEN | {"shared": empty, "own": empty})
    assert both.decisive.state == "quota_exhausted"
    assert {(trouble.command, trouble.is_grave) for trouble in troubles_of(both)} == {
        ("responses-worker runbook quota_exhausted --account shared", True),
        ("responses-worker runbook quota_exhausted --route own", True),
    }


def test_accounts_add_up() -> None:
    """Calls are counted once: the shared account has those of its routes."""
    budget = Budget(limit=600, rate=500.0, used=20)
    states = {
        "one": upstream(in_flight=2),
        "two": upstream(in_flight=3),
        "own": upstream(in_flight=4, in_flight_limit=10, requests=budget),
        "shared": upstream(in_flight=5, requests=budget),
    }
    whole = together(states, PLACES)

    assert (whole.in_flight, whole.in_flight_limit) == (9, 0)
    assert whole.requests == Budget(limit=1200, rate=1000.0, used=40)


def test_the_smaller_troubles() -> None:
    """Each has a line and a command; none of them stops the fleet."""
    here = seen(
        MOVING,
        worker(id="gone", host="node-7", silent_ms=20_000),
        lanes={"interactive": lane(3, oldest_age_ms=300_000)},
        streams={"responses:results": Stream(entries=1, groups={"shop": Group(unread=200_000, pending=5)})},
        dead=3,
    )

    assert told(troubles_of(here)) == [
        (
            "lane interactive: the next request has waited for 5 min; the target is 60 s",
            "responses-worker runbook queue_age", False,
        ),
        ("silent workers: 1 (node-7)", "responses-worker runbook workers_silent", False),
        (
            "group shop has not read 200,005 results of responses:results",
            "responses-worker runbook results_high_water --group shop", False,
        ),
        ("dead letters: 3", "responses-worker dead list", False),
    ]  # fmt: skip


def test_what_requests_wait_for_comes_first() -> None:
    troubles = troubles_of(seen(MOVING, lanes={"interactive": lane(3, oldest_age_ms=300_000), "batch": lane(2)}))

    assert [trouble.is_grave for trouble in troubles] == [True, False]
    assert troubles[0].command == "responses-worker runbook lane_unserved --lane batch"
