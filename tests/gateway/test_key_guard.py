"""A key that a gateway sends back goes nowhere: neither into results, nor into what is logged of a call."""

import base64
import json
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

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
    "PHP's JSON": lambda key: key.replace("/", "\\/"),
    "a quoted document": lambda key: json.dumps(key.replace("/", "\\/"))[1:-1],
    "one letter": lambda key: f"\\u{ord(key[0]):04x}{key[1:]}",
    "a URL": lambda key: quote(key, safe="").replace("%2F", "%2f"),
    "a URL in a URL": lambda key: quote(quote(key, safe=""), safe=""),
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


ESCAPES: Final[tuple[Callable[[str], str], ...]] = (
    str,
    lambda char: f"\\u{ord(char):04x}",
    lambda char: f"\\\\u{ord(char):04X}",
    lambda char: f"%{ord(char):02x}",
    lambda char: f"%25{ord(char):02X}",
    lambda char: f"&#{ord(char)};",
    lambda char: f"&#x{ord(char):X};",
    lambda char: char.replace("/", "\\/"),
)
FORMS: Final = (KEY, base64.b64encode(f"?{KEY}".encode()).decode())


@given(st.sampled_from(FORMS), st.data(), st.sampled_from(['"', " caf\\u00e9 ", "100 %", "\\\\"]))
def test_a_key_in_any_mix_of_escapes_is_taken_out(form: str, data: st.DataObject, around: str) -> None:
    told = "".join(data.draw(st.sampled_from(ESCAPES))(char) for char in form)

    left = KeyGuard(KEY).clean(f"{around}{told}{around}".encode())

    assert b"[key]" in left
    assert len(left) < 2 * len(around) + 70  # the ends of Base64 hold bits of its neighbours


@pytest.mark.parametrize("form", [KEY.replace("/", "\\/"), KEY.replace("+", "\\u002B"), quote(KEY, safe="")])
def test_a_key_with_usual_escapes_is_taken_out_of_any_size(form: str) -> None:
    left = KeyGuard(KEY).clean(b"x" * 10**6 + form.encode())

    assert left == b"x" * 10**6 + b"[key]"


@given(st.binary(max_size=200))
def test_what_holds_no_key_stays_byte_for_byte(data: bytes) -> None:
    assert KeyGuard(KEY).clean(data) == data
    assert KeyGuard("short").clean(b"a short key is a word") == b"a short key is a word"
