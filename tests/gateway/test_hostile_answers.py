"""Reading any answer never raises, costs in proportion to its length, and publishes nothing unreadable."""

import gzip
import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.distortions import BYTES, DOCUMENTS, SNAPSHOTS, encoded, response, streamed
from support.examples import examples
from support.raw_gateway import BODY, calling, event, gzipped, replies

from api_contracts.errors import ErrorCode
from api_contracts.responses import ResponseObject
from worker.failures.failure import Failure, Route, from_http
from worker.gateway.answers import Answer, read_document
from worker.gateway.sse import Decoder, Event
from worker.gateway.stream import StreamReader

MEGABYTE: Final = 1024 * 1024
GOOD: Final = encoded(response("h\u00e9"))


def in_output(items: bytes) -> bytes:
    return encoded(response("x") | {"output": 1}).replace(b'"output": 1', b'"output": [' + items + b"]")


def read_stream(data: bytes) -> Answer | Failure | None:
    decoder, reader = Decoder(16 * MEGABYTE), StreamReader({}, 200, 16 * MEGABYTE)
    for start in range(0, len(data), 65536):
        for told in decoder.feed(data[start : start + 65536]):
            if (outcome := reader.take(told)) is not None:
                return outcome
    return None


def assert_sound(outcome: Answer | Failure | None) -> None:
    """Every answer that would be published can be read by the client; a failure has one attached only if it can."""
    raw = outcome.raw if isinstance(outcome, Answer) else outcome.response if outcome else None
    if raw is not None:
        ResponseObject.model_validate_json(raw)


PIECES: Final = b'" { } [ ] \\ \\u \\ud800 null , : \x00 \xff data: NaN'.split()
SPLICES = st.tuples(
    st.integers(0, 4000), st.integers(0, 30), st.binary(max_size=12) | st.sampled_from([*PIECES, b"\n"])
)


def mutated(data: bytes, splices: list[tuple[int, int, bytes]]) -> bytes:
    for place, length, new in splices:
        at = place % (len(data) + 1)
        data = data[:at] + new + data[at + length :]
    return data


@settings(max_examples=examples(100))
@given(st.sampled_from(sorted(DOCUMENTS)), st.sampled_from(sorted(BYTES)), st.lists(SPLICES, max_size=4))
def test_any_document_is_read_without_an_exception(
    shape: str, spoilt: str, splices: list[tuple[int, int, bytes]]
) -> None:
    assert_sound(
        read_document(mutated(BYTES[spoilt](encoded(DOCUMENTS[shape](response("h\u00e9")))), splices), {}, 200)
    )


@settings(max_examples=examples(100))
@given(st.sampled_from(sorted(SNAPSHOTS)), st.sampled_from(sorted(BYTES)), st.lists(SPLICES, max_size=4))
def test_any_stream_is_read_without_an_exception(
    shape: str, spoilt: str, splices: list[tuple[int, int, bytes]]
) -> None:
    assert_sound(read_stream(mutated(streamed("h\u00e9", SNAPSHOTS[shape], BYTES[spoilt]), splices)))


@settings(max_examples=examples(100))
@given(st.integers(300, 599), st.lists(SPLICES, max_size=4))
def test_any_error_is_judged_without_an_exception(status: int, splices: list[tuple[int, int, bytes]]) -> None:
    error = b'{"error": {"message": "limit 1, requested 2", "type": "invalid_request_error", "code": "x"}}'

    assert from_http(status, {}, mutated(error, splices)).http_status == status


HOSTILE: Final[dict[str, bytes]] = {
    "empty items": in_output(b"{}," * (10 * MEGABYTE // 3) + b"{}"),
    "small items": in_output(b'{"a":1},' * (10 * MEGABYTE // 8) + b"{}"),
    "empty parts": in_output(b'{"content":[' + b"{}," * (10 * MEGABYTE // 3) + b"{}]}"),
    "nested arrays": in_output((b"[" * 150 + b"]" * 150 + b",") * 30_000 + b"{}"),
    "one tower": in_output(b"[" * 5 * MEGABYTE + b"]" * 5 * MEGABYTE),
    "an open tower": b'{"output":' + b"[" * 10 * MEGABYTE,
    "brackets in text": encoded(response("}{][" * (2 * MEGABYTE))),
    "quotes": b'{"a":"' + b"\\\\" * 5 * MEGABYTE,
    "many keys": b"{" + b",".join(b'"k%d":1' % n for n in range(300_000)) + b"}",
    "one number": b'{"a":' + b"9" * 5 * MEGABYTE + b"}",
    "blanks": b" " * 10 * MEGABYTE,
    "a text for a list": encoded(response("x") | {"output": [{"type": "message", "content": "x" * 10 * MEGABYTE}]}),
    "texts for items": in_output(b'"%s"' % ("\u00e9\U0001f600" * MEGABYTE).encode()),
    "no UTF-8": encoded(response("@")).replace(b"@", b"\xff" * 10 * MEGABYTE),
    "invalid and wide": b'{"a":NaN,"b":[' + b"{}," * (3 * MEGABYTE) + b"{}]}",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_ten_megabytes_cost_a_second_and_ten_times_their_size_at_most(body: bytes) -> None:
    """Measured at 0.3 s and four times; an answer of empty items once took 13 s and 2.6 GB."""
    assert _cost(lambda: assert_sound(read_document(body, {}, 200)), len(body)) < 5


def test_an_answer_of_too_many_parts_is_paid_for_once() -> None:
    """Every consumer would pay a kilobyte for each; calling again would only bring it again."""
    outcome = read_document(HOSTILE["empty items"], {}, 200)

    assert isinstance(outcome, Failure)
    assert (outcome.code, outcome.route) == (ErrorCode.INVALID_RESPONSE, Route.ANSWER)
    assert "too many parts" in outcome.message


def test_a_stream_of_large_deltas_is_given_up_at_the_limit_of_an_answer() -> None:
    told = {"type": "response.output_text.delta", "output_index": 0, "delta": "x" * MEGABYTE}
    stream = event(encoded(told)) * 40

    outcomes: list[Answer | Failure | None] = []
    _cost(lambda: outcomes.append(read_stream(stream)), len(stream))

    assert isinstance(outcome := outcomes[0], Failure)
    assert (outcome.route, "too large" in outcome.message) == (Route.ANSWER, True)


@pytest.mark.parametrize("filling", [b" ", b"x"])
async def test_a_bomb_is_inflated_no_further_than_an_answer_may_be_large(filling: bytes) -> None:
    bomb = gzipped(gzip.compress(filling * 100 * MEGABYTE))

    tracemalloc.start()
    async with calling(replies(bomb), max_answer_bytes=4 * MEGABYTE) as (upstream, _):
        outcome = (await upstream.create(BODY, stream=False, timeout_s=20)).outcome
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert isinstance(outcome, Failure)
    assert "too large" in outcome.message
    assert peak < 24 * MEGABYTE


def _cost(work: Callable[[], object], size: int) -> float:
    """CPU seconds of a first run; a second run is held to ten times `size` in memory, and a bit."""
    before_s = time.process_time()
    work()
    spent_s = time.process_time() - before_s
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * size + MEGABYTE
    return spent_s


@pytest.mark.parametrize(
    "told",
    [
        b'{"type":"response.output_text.delta","output_index":%d,"delta":"x"}',
        b'{"type":"response.output_item.added","output_index":%d,"item":{}}',
        b'{"type":"response.output_item.done","output_index":%d,"item":{"a":[{},{},{},{},{},{}]}}',
    ],
)
def test_a_stream_of_ever_new_items_is_remembered_within_bounds(told: bytes) -> None:
    reader = StreamReader({}, 200, MEGABYTE)
    tracemalloc.start()
    for index in range(60_000):
        reader.take(Event("", told % index))
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    assert held < 8 * MEGABYTE


@pytest.mark.parametrize("padding", [0, 100_000], ids=["small", "large"])
def test_numbers_that_no_writer_takes_do_not_stop_a_repair(padding: int) -> None:
    """Large bodies are read by a parser that takes more numbers than the writer does."""
    item = b'null,{"type":"message","content":"x","big":%s,"huge":1e999,"pad":"%s"}' % (b"9" * 60, b"p" * padding)

    outcome = read_document(in_output(item), {}, 200)

    assert isinstance(outcome, Answer)
    assert ResponseObject.model_validate_json(outcome.raw).output_text == "x"
    json.loads(outcome.raw, parse_constant=pytest.fail)


async def test_a_bomb_of_events_is_bounded_by_the_time_of_its_call() -> None:
    """Nothing of it waits for the network, so the reader itself must let the limit run."""
    async with calling(replies(gzipped(b"data: x\n\n" * 3_000_000, "text/event-stream"))) as (upstream, _):
        call = await upstream.create(BODY, stream=True, timeout_s=0.5)

    assert isinstance(call.outcome, Failure)
    assert call.duration_ms < 3000
