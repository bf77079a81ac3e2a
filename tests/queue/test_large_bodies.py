"""A large body is read in fewer steps than a small one: its bytes, its fingerprint and its refusals are the same."""

import base64
import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.producer import body

from api_contracts import fingerprints
from api_contracts.celery_messages import encode
from worker.queue import celery_message
from worker.queue.celery_message import task_name
from worker.queue.fingerprints import fingerprint
from worker.queue.messages import Message, Unreadable, decode

BODIES = {
    "plain": body("x" * 2000),
    "escapes": body('"\\\n\t😀日本' * 200),
    "digits": body("9" * 2000),
    "an integer beyond a double": body(extra_body={"n": 10**400, "pad": "x" * 2000}),
    "odd floats": body("x" * 2000, top_p=1e-7, extra_body={"a": 1e16, "b": -0.0}),
    "too deep": body(tools=[json.loads('{"a":' * 200 + "1" + "}" * 200)]),
    "no request": {"pad": "x" * 2000},
}
KEYS = ("body", "content-encoding", "content-type", "headers", "properties")
ODD = st.sampled_from([1e16, 1e-4, 1e-5, 2**64, 2**63, -(2**63) - 1])
INTEGERS = st.integers(-(10**40), 10**40)


def json_of(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves | st.booleans() | st.none(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
        max_leaves=8,
    )


def as_sent(content: Any, first: int = 0, **envelope: Any) -> bytes:
    """A message with its members in another order."""
    message = json.loads(encode(json.dumps({"body": content} | envelope).encode(), task_id="task-1", lane="batch"))
    return json.dumps({key: message[key] for key in KEYS[first:] + KEYS[:first]}).encode()


def nowhere(_: bytes) -> tuple[int, int]:
    return 0, 0


def read_whole(raw: bytes, monkeypatch: pytest.MonkeyPatch) -> Message | Unreadable:
    """The message as it is read where no part of it is read by itself."""
    with monkeypatch.context() as patch:
        patch.setattr(celery_message, "_middle", nowhere)
        return decode(raw, max_body=10_000)


def traceless(message: Message | Unreadable) -> Message | Unreadable:
    return replace(message, trace_id="") if isinstance(message, Message) else message


@pytest.mark.parametrize("first", range(len(KEYS)))
@pytest.mark.parametrize("content", BODIES.values(), ids=BODIES.keys())
def test_a_body_that_is_read_by_itself_is_the_same(content: Any, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = as_sent(content, first)

    assert traceless(decode(raw, max_body=10_000)) == traceless(read_whole(raw, monkeypatch))


@pytest.mark.parametrize(
    ("pattern", "instead"),
    [
        (rb"\}$", rb', "body": ""}'),
        (rb"\}$", rb', "body": "AAAA"}'),
        (rb"\}$", rb', "x": NaN}'),
        (rb"\}$", b', "x": "\xff"}'),
        (rb"\}$", rb"}}"),
        (rb"\}$", b', "x": %s}' % (b"[" * 140 + b"]" * 140)),
        (rb"\}$", b', "x": [%s1]}' % (b"1," * 20_000)),
        (rb"\}$", b', "x": 1%s}' % (b"0" * 400)),
        (rb'"body"', rb'"bodies"'),
        (rb'"body": "', rb'"body": "\\"'),
        (rb'"body": "', rb'"body": "%'),
        (rb'"body": "', rb'"body": "A'),
        (rb'"body": "', rb'"body": "\\u0057'),
        (rb'"body": ("[^"]*")', rb'"body": [\1]'),
        (rb'"body": ("[^"]*")', rb'\1: "body"'),
        (rb"W", rb"\\u0057"),
        (rb"/", rb"\\/"),
        (rb'"base64"', rb'"none"'),
        (rb'"properties"', rb'"other"'),
        (rb'"headers"', rb'"other"'),
        (rb'"responses.create"', rb'"responses.delete"'),
    ],
)
def test_a_message_that_is_not_as_celery_writes_it_is_read_as_before(
    pattern: bytes, instead: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = re.sub(pattern, instead, as_sent(body("?>?>" * 500)))

    assert traceless(decode(raw, max_body=10_000)) == traceless(read_whole(raw, monkeypatch))


def test_digits_of_a_body_and_a_large_integer_beside_it_are_refused_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Together they look like an integer that nobody reads."""
    raw = re.sub(rb'"body": "[^"]*"', b'"body": "%s", "x": %d' % (b"1234" * 500, 2**70), as_sent(body()))

    read = decode(raw, max_body=10_000)

    assert traceless(read) == traceless(read_whole(raw, monkeypatch))
    assert isinstance(read, Message)
    assert read.violations[0].field == "message"


def test_a_body_without_an_envelope_has_the_fingerprint_of_its_text() -> None:
    """Duplicates of a refused message are told by it."""
    message = json.loads(as_sent(body()))
    message["body"] = base64.b64encode(b'[["%s"], {}, {}]' % (b"x" * 1000)).decode()

    read = decode(json.dumps(message).encode(), max_body=10_000)

    assert isinstance(read, Message)
    assert read.fingerprint == fingerprints.fingerprint(message["body"])


@given(json_of(ODD | INTEGERS | st.floats() | st.text(st.characters(codec=None))))
def test_a_fingerprint_is_that_of_the_standard_library(content: Any) -> None:
    """A request that an older release knows is known by the same one."""
    assert fingerprint(content) == fingerprints.fingerprint(content)


@given(st.lists(st.sampled_from([b'"task"', b'"', b":", b"x", b'"t.name"', b" ", b"xxxxxxxx"])).map(b"".join))
def test_the_name_of_a_task_is_that_of_its_first_member_of_that_name(raw: bytes) -> None:
    place = raw.find(b'"task"')
    found = re.compile(rb'"task"\s*:\s*"([A-Za-z0-9_.\-]{1,128})"').match(raw, place) if place >= 0 else None

    assert task_name(raw) == (found[1].decode() if found else None)
