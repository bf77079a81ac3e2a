"""Every message of every lane can be claimed, whatever its times and whatever the settings name."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.processor_parts import message, process_with

from worker.config.settings import load
from worker.queue.claims import Delivery
from worker.queue.messages import Message, decode
from worker.request.policy import FALLBACK_DEADLINE, Policy
from worker.runtime.wiring import policy

ZONES = st.sampled_from([UTC, timezone(timedelta(hours=14)), timezone(timedelta(hours=-14))])
MOMENTS = st.datetimes(timezones=ZONES).map(datetime.isoformat)
LANES = st.sampled_from(["interactive", "batch", "other", "*"])
DURATIONS = st.timedeltas(timedelta(0), timedelta(days=3650))


def policy_with(**changes: Any) -> Policy:
    plain: dict[str, Any] = {
        "max_body": 100_000,
        "max_attempts": 3,
        "timeout": timedelta(seconds=30),
        "default_deadline": {},
        "result_ttl": timedelta(hours=1),
    }
    return Policy(**plain | changes)


def decoded(raw: bytes) -> Message:
    read = decode(raw, max_body=100_000)
    assert isinstance(read, Message)
    return read


@given(
    by_lane=st.dictionaries(LANES, DURATIONS),
    lane=LANES,
    envelope=st.fixed_dictionaries({}, optional={"enqueued_at": MOMENTS, "deadline": MOMENTS}),
    headers=st.fixed_dictionaries({}, optional={"eta": MOMENTS, "expires": MOMENTS}),
)
def test_every_message_can_be_claimed(
    by_lane: dict[str, timedelta], lane: str, envelope: dict[str, str], headers: dict[str, str]
) -> None:
    raw = message(envelope, headers)

    claim = policy_with(default_deadline=by_lane).claim(Delivery("t", lane, raw), decoded(raw))

    expected = by_lane.get(lane, by_lane.get("*", FALLBACK_DEADLINE))
    assert claim.default_deadline_ms == round(expected.total_seconds() * 1000)


@pytest.mark.parametrize(
    ("setting", "lane", "expected"),
    [
        ("interactive=30m", "batch", timedelta(hours=1)),
        ("interactive=30m", "interactive", timedelta(minutes=30)),
        ("interactive=30m,*=2h", "batch", timedelta(hours=2)),
        ("batch=3h", "other", timedelta(hours=1)),
    ],
)
def test_a_lane_that_no_setting_names_has_the_deadline_of_all_others(
    monkeypatch: pytest.MonkeyPatch, setting: str, lane: str, expected: timedelta
) -> None:
    monkeypatch.setenv("WORKER_DEFAULT_DEADLINE", setting)
    settings = load()
    raw = message()

    claim = policy(settings).claim(Delivery("t", lane, raw), decoded(raw))

    assert claim.default_deadline_ms == round(expected.total_seconds() * 1000)
    assert settings.deadline_for(lane) == expected


@pytest.mark.parametrize(
    ("patience", "lane", "expected_s"),
    [
        ({"interactive": timedelta(seconds=30)}, "batch", float("inf")),
        ({"*": timedelta(seconds=5)}, "batch", 5.0),
        ({"*": timedelta(seconds=5), "batch": None}, "batch", float("inf")),
    ],
)
async def test_patience_of_a_lane_that_no_setting_names(
    patience: dict[str, timedelta | None], lane: str, expected_s: float
) -> None:
    """`*` is every other lane here as well; without it a request waits until its deadline."""
    world = await process_with(policy_with(patience=patience), lane=lane)

    assert world.heard("admit")[0]["ask"].patience_ms == expected_s * 1000


@pytest.mark.parametrize("days", [6.99, 7.01, 8, 400, 2_900_000])
@pytest.mark.parametrize("field", ["deadline", "enqueued_at", "eta"])
async def test_a_time_beyond_seven_days_is_refused_at_once(field: str, days: float) -> None:
    """And not when it comes: no record of the request would last until then."""
    moment = {field: (datetime.now(UTC) + timedelta(days=days)).isoformat()}
    world = await process_with(policy_with(), message(headers=moment) if field == "eta" else message(moment))

    refused = world.heard("complete") and world.result["error"] and world.result["error"]["violations"]
    assert [each["field"] for each in refused or ()] == ([field] if days > 7 else [])
    assert ("park" in world.names) is (field == "eta" and days < 7)


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
async def test_a_time_at_the_edge_of_the_calendar_gets_its_answer(moment: str) -> None:
    enqueued_ms = round(datetime.fromisoformat(moment).timestamp() * 1000)
    world = await process_with(policy_with(), message({"enqueued_at": moment}), lease={"enqueued_at_ms": enqueued_ms})

    assert world.result["timing"]["enqueued_at"][:4] == moment[:4]
