"""An attempt is one value: what is stored of it is read again, and is what the contract lists."""

import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_contracts import ErrorCode
from api_contracts.generation import Attempt
from worker.queue.attempts import AttemptOutcome, AttemptRecord, milliseconds, timestamp

FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999
"""The first and the last millisecond that RFC 3339 can write."""

RECORDS = st.builds(
    AttemptRecord,
    number=st.integers(1, 10**6),
    started_at_ms=st.integers(0, LAST_MS),
    upstream=st.text(max_size=20),
    waited_ms=st.integers(0, 10**9),
    outcome=st.sampled_from(get_args(AttemptOutcome)),
    duration_ms=st.none() | st.integers(0, 10**9),
    http_status=st.none() | st.integers(100, 599),
    code=st.none() | st.sampled_from(ErrorCode).map(str),
    upstream_request_id=st.none() | st.text(max_size=20),
    maybe_billed=st.booleans(),
)


@given(RECORDS)
def test_it_is_read_as_it_was_written(record: AttemptRecord) -> None:
    assert AttemptRecord.decode(record.encode()) == record
    assert AttemptRecord.decode(record.stored()) == record


@given(RECORDS)
def test_it_has_the_fields_of_the_contract(record: AttemptRecord) -> None:
    """All of them, and no other: consumers read it with the contract's own model."""
    assert json.loads(record.encode()).keys() == Attempt.model_fields.keys()
    read = Attempt.model_validate_json(record.encode())
    assert round(read.started_at.timestamp() * 1000) == record.started_at_ms


def test_fields_of_another_release_do_no_harm() -> None:
    assert AttemptRecord.decode(b'{"number":3,"region":"north","outcome":"failed"}') == AttemptRecord(
        number=3, outcome="failed"
    )


@given(st.integers(FIRST_MS, LAST_MS))
def test_a_moment_is_written_in_full(at_ms: int) -> None:
    assert milliseconds(timestamp(at_ms)) == at_ms
    assert len(timestamp(at_ms)) == len("2026-01-31T12:00:00.000Z")


@pytest.mark.parametrize(("at_ms", "year"), [(FIRST_MS - 1, "0001"), (LAST_MS + 1, "9999"), (10**18, "9999")])
def test_a_moment_beyond_the_calendar_is_its_edge(at_ms: int, year: str) -> None:
    """A caller's own `enqueued_at` must not make its answer impossible."""
    assert timestamp(at_ms).startswith(year)
