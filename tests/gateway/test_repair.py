"""A document that is nearly JSON: what is wrong is written anew, every other byte stays, and its cost is bounded."""

import json
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Final

import pytest
from support.distortions import encoded, response

from api_contracts.responses import ResponseObject
from worker.failures.failure import Failure
from worker.gateway.answers import Answer, read_document
from worker.gateway.repair import Document, read_json
from worker.gateway.sse import Event
from worker.gateway.stream import StreamReader

MEGABYTE: Final = 1024 * 1024
FAULTS: Final = {
    b"NaN": b"null",
    b"-Infinity": b"null",
    b"1e309": b"null",
    b"-2.5E+999": b"null",
    b"9" * 400: b"null",
    b'"\\ud83d"': b'"\\ufffd"',
    b'"\\ude00\\ud83d"': b'"\\ufffd\\ufffd"',
    b'"\xff"': b'"\xef\xbf\xbd"',
    b'"a\x00\tb"': b'"a\\u0000\\u0009b"',
}
FINE: Final = (
    *(b"1e308", b"-1E+22", b"1e-999", b"9" * 60, b'"1e999"', b'"NaN, -Infinity"', b'"\\\\ud83d"', b'"\\ud83d\\ude00"'),
    *(b'" 1e999, "', b'"msg_9e123"', b'"' + b"9" * 400 + b'"', b'"\\"NaN\\\\"', b"[ 1 ,\n\t2 ]"),
)
"""Members that look like faults and are none."""


def around(value: bytes, padding: int) -> bytes:
    """An answer with the value in a member that nobody reads, spaced as no writer of ours would."""
    return encoded(response("h\u00e9"))[:-1] + b' ,\n"x" :%s, "y":"%s" }' % (value, b"p" * padding)


@pytest.mark.parametrize("padding", [0, 10_000], ids=["small", "large"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: repr(fault[:12]))
def test_nothing_changes_but_what_is_wrong(fault: bytes, padding: int) -> None:
    answer = read_document(around(fault, padding), {}, 200)

    assert isinstance(answer, Answer)
    assert answer.raw == around(FAULTS[fault], padding)
    json.loads(answer.raw, parse_constant=pytest.fail)


@pytest.mark.parametrize("padding", [0, 10_000], ids=["small", "large"])
@pytest.mark.parametrize("fine", FINE, ids=lambda fine: repr(fine[:12]))
def test_what_only_looks_wrong_stays(fine: bytes, padding: int) -> None:
    for beside in (b"1", b"NaN"):
        answer = read_document(around(b"[%s,%s]" % (fine, beside), padding), {}, 200)

        assert isinstance(answer, Answer)
        assert answer.raw == around(b"[%s,%s]" % (fine, FAULTS.get(beside, beside)), padding)


@pytest.mark.parametrize("behind", [b"\x00\x00", b'{"error": {"code": "x"}}', b" garbage", b"NaN", b'"'])
def test_a_document_ends_where_it_ends(behind: bytes) -> None:
    """The parser tells the place in the words of its error: this fails should they change."""
    for good in (b'{"a":[1]}', b"[1, 2]", b'{"a":"%s"}' % (b"p" * 10_000)):
        read = read_json(good + behind)

        assert isinstance(read, Document)
        assert read.raw.rstrip() == good


def test_a_large_answer_is_read_as_a_small_one_is() -> None:
    """Only the members that somebody reads are decoded in it."""
    for padding in (0, 10_000):
        mended = response("x") | {"id": 7, "model": ["m"], "usage": {"input_tokens": None}, "pad": "p" * padding}
        answer = read_document(encoded(mended | {"output": [None, "first", {"type": 3, "content": "second"}]}), {}, 200)

        assert isinstance(answer, Answer)
        read = ResponseObject.model_validate_json(answer.raw)
        assert (answer.response_id, answer.model, read.output_text) == ("7", None, "firstsecond")
        assert [item.type for item in read.output] == ["message", "3"]


def test_a_usage_that_is_too_large_to_be_one_is_none() -> None:
    usage = {f"k{key}": key for key in range(10_000)} | {"input_tokens": 5}
    answer = read_document(encoded(response("x") | {"usage": usage}), {}, 200)

    assert isinstance(answer, Answer)
    assert (answer.usage, json.loads(answer.raw)["usage"]) == (None, None)


def test_an_error_that_is_no_json_is_told_in_a_stream() -> None:
    outcome = StreamReader({}, 200, 1000).take(Event("error", b"overloaded, try later"))

    assert isinstance(outcome, Failure)


def listed(value: bytes) -> bytes:
    return around(b"[" + b",".join([value] * (MEGABYTE // (len(value) + 1))) + b",NaN]", 0)


KEYS: Final = b",".join(b'"k%d":%d' % (key, key) for key in range(65_536))
COSTLY: Final[dict[str, bytes]] = {
    **{fault[:12].decode("latin-1"): listed(fault) for fault in FAULTS},
    "controls": around(b'"%s"' % (b"\x01" * MEGABYTE), 0),
    "halves": around(b'"%s"' % (b"\\ud800" * 170_000), 0),
    "brackets in strings": listed(b'"["'),
    "brackets between strings": listed(b'"]",[]'),
    "escaped quotes": listed(b'"\\""'),
    "a second document": around(b"[%s]" % b",".join([b"[]"] * 300_000), 0) + b"{}",
    "wide, with a wrong id": encoded(response("x") | {"id": 7})[:-1] + b"," + KEYS + b"}",
    "one key again": encoded(response("x") | {"id": 7})[:-1] + b',"a":[]' * 150_000 + b"}",
    "a wide item": encoded(response("x") | {"output": 1}).replace(b'"output": 1', b'"output":[{"id":7,%s}]' % KEYS),
    "many wrong items": encoded(response("x") | {"output": [{"id": 7, "type": "message", "status": 5}] * 4000}),
    "annotations": encoded(response("x") | {"output": [{"content": [{"annotations": [{}] * 100_000}]}]}),
    "numbers, then an answer": b"[" + b"1," * 500_000 + encoded(response("x")) + b"]",
    "deltas, then an answer": b"[" + b'{"type":"x","delta":"y"},' * 40_000 + encoded(response("x")) + b"]",
    "deep objects": around(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 0),
    "towers": around(b"[%s]" % b",".join([b"[" * 185 + b"]" * 185] * 2000), 0),
}

TIMES: Final = 4
"""So often what `json` takes to read a megabyte of numbers: 50 ms where that takes 12, more on a slower machine."""
SLOWED: Final = 4 if sys.gettrace() else 1.5
"""Other tests run beside these, and coverage traces every line."""


def least_s(work: Callable[[], object]) -> float:
    """The least CPU time of five tries."""

    def spent_s() -> float:
        began = time.thread_time()
        work()
        return time.thread_time() - began

    return min(spent_s() for _ in range(5))


@pytest.mark.parametrize("body", COSTLY.values(), ids=COSTLY)
def test_a_megabyte_costs_four_times_what_json_takes_and_ten_megabytes_at_most(body: bytes) -> None:
    plain_s = least_s(lambda: json.loads(b"{%s}" % KEYS))
    read_s = least_s(lambda: read_document(body, {}, 200))
    tracemalloc.start()
    read_document(body, {}, 200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert read_s < SLOWED * TIMES * plain_s * max(1.0, len(body) / MEGABYTE)
    assert peak < 10 * len(body) + MEGABYTE
