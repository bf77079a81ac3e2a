"""A key that a gateway sends back goes nowhere: neither into results, nor into what is logged of a call."""

import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.distortions import encoded, message, response
from support.raw_gateway import BODY, calling, chunked, event, plain, replies, terminal

from worker.gateway.key_guard import KeyGuard
from worker.gateway.upstream import Answer

KEY = "a1B2c3D4-not/like+a=key"
ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "basic": lambda key: base64.b64encode(f"user:{key}".encode()).decode(),
    "url-safe": lambda key: base64.urlsafe_b64encode(f"a{key}b".encode()).decode(),
    "hex": lambda key: key.encode().hex(),
    "percent": lambda key: "".join(f"%{ord(char):02X}" for char in key),
    "reversed": lambda key: key[::-1],
}


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
async def test_a_key_that_comes_back_is_taken_out_everywhere(encode: Callable[[str], str]) -> None:
    """In headers, error codes and messages, ids, models, text and events, in any common encoding."""
    echo = encode(KEY)
    inner = echo[4:-4]
    spoilt = response(f"your key: {echo}") | {"id": echo, "model": echo, "output": [message(echo)]}
    error = encoded({"error": {"code": echo, "message": f"bad key {echo}"}})
    delta = encoded({"type": "response.output_text.delta", "delta": echo})
    events: list[bytes] = []
    told = [
        plain(encoded(spoilt), f"x-request-id: {echo}"),
        plain(error, f"x-request-id: {echo}", status="400 Bad Request"),
        chunked(event(delta), event(terminal(encoded(spoilt)))),
    ]
    async with calling(replies(*told), api_key=lambda: KEY) as (upstream, _):
        calls = [await upstream.create(BODY, stream=True, timeout_s=5, on_event=events.append) for _ in told]

    for call in calls:
        raw = call.outcome.raw if isinstance(call.outcome, Answer) else str(call.outcome.upstream).encode()
        assert inner.encode() not in raw
        assert inner not in f"{call!r} {call.headers} {call.upstream_request_id}"
        assert b"[key]" in raw
    assert events
    assert not [data for data in events if inner.encode() in data]


@given(st.binary(max_size=200))
def test_what_holds_no_key_stays_byte_for_byte(data: bytes) -> None:
    assert KeyGuard(KEY).clean(data) == data
    assert KeyGuard("short").clean(b"a short key is a word") == b"a short key is a word"
