"""The decoder agrees with the standard, however the bytes are cut."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.gateway.sse import Decoder, Event, EventTooLargeError

LIMIT = 1000
LINES = st.sampled_from(
    ["data: a", "data:b", "data:  c", "data", "data: [DONE]", "event: x", "event:", ": ping", "id: 1", "retry: 5"]
) | st.sampled_from(["nonsense", "data : d", "", "", "data: \u2028"])


def decode(stream: bytes, *cuts: int) -> list[Event]:
    """The events of a whole stream that arrives cut at these places."""
    decoder = Decoder(LIMIT)
    edges = [0, *sorted(cuts), len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(edges)]
    events = [event for piece in pieces for event in decoder.feed(piece)]
    last = decoder.end()
    return events if last is None else [*events, last]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [Event("", b"a")]),
        (b"event: e\ndata: a\n\n", [Event("e", b"a")]),
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [Event("", b"YHOO\n+2\n10")]),
        (b"data\n\ndata\ndata\n\ndata:\n\n", [Event("", b""), Event("", b"\n"), Event("", b"")]),
        (b"data:test\n\ndata: test\n\ndata:  test\n\n", [Event("", b"test")] * 2 + [Event("", b" test")]),
        (b": ping\n\nevent: lonely\n\ndata: a\n\n", [Event("", b"a")]),
        (b"\xef\xbb\xbfdata: a\n\ndata: \xef\xbb\xbfb\n\n", [Event("", b"a"), Event("", b"\xef\xbb\xbfb")]),
        (b"data: a\r\n\r\ndata: b\r\rdata: c\n\n", [Event("", b"a"), Event("", b"b"), Event("", b"c")]),
        (b'data: {"a":": b"}\nid: 7\nretry: 9\ndatum: x\n\n', [Event("", b'{"a":": b"}')]),
        (b"data: a\r\n\ndata: b\r\r\n", [Event("", b"a"), Event("", b"b")]),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [Event("", b"a")]),
        (b"", []),
        (b"\n\n\r\n", []),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, bytes) else "",
)
def test_reads_what_the_standard_says(stream: bytes, events: list[Event]) -> None:
    """The standard's own examples, and the corners gateways use; at once, and byte by byte."""
    assert decode(stream) == decode(stream, *range(len(stream))) == events


@given(st.lists(LINES), st.sampled_from(["\n", "\r\n", "\r"]), st.data())
def test_cuts_and_line_ends_change_nothing(lines: list[str], line_end: str, data: st.DataObject) -> None:
    """The same lines give the same events for any chunking, and under any of the three line ends."""
    stream = "".join(line + line_end for line in lines).encode()
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))

    events = decode(stream, *cuts)

    assert events == decode("".join(line + "\n" for line in lines).encode())
    assert events == decode(stream, *range(len(stream)))


def test_an_open_event_is_handed_out_at_the_end() -> None:
    """Gateways forget the last blank line, or even the last line end."""
    assert decode(b"data: a\n\nevent: x\ndata: b\n") == [Event("", b"a"), Event("x", b"b")]
    assert decode(b"event: x\ndata: b") == [Event("x", b"b")]
    assert decode(b"event: x") == []


@pytest.mark.parametrize("line", [b"data: " + b"x" * 2000, b"data: xxxxxxxxx\n" * 100, b": " + b"x" * 2000])
def test_an_event_too_large_is_refused_before_it_is_held(line: bytes) -> None:
    """One long line, many short ones and an endless comment: no peer fills our memory."""
    with pytest.raises(EventTooLargeError):
        decode(line, *range(0, len(line), 10))


def test_many_events_may_exceed_the_limit_of_one() -> None:
    """The limit is on memory held, not on the length of a stream."""
    assert len(decode(b"data: 0123456789\n\n" * 500)) == 500


def test_a_large_event_in_tiny_chunks_takes_linear_time() -> None:
    """Four times the bytes take about four times as long; a buffer copied per chunk would take sixteen."""
    assert _cpu_s(b"x" * 2_000_000) < 8 * _cpu_s(b"x" * 500_000)


def _cpu_s(data: bytes) -> float:
    decoder = Decoder(len(data) * 2)
    stream = b"data: " + data + b"\n\n"
    started = time.process_time()
    events = [event for start in range(0, len(stream), 50) for event in decoder.feed(stream[start : start + 50])]
    assert events == [Event("", data)]
    return time.process_time() - started
