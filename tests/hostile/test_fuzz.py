"""Anybody's envelope and any gateway's answer: what is published can be read, and no input costs more than its share.

`make fuzz` runs 20,000 of each. An input is one message or one answer, and its cost is that of its whole way: decoded,
claimed, called, answered, encoded.
"""

import asyncio
import gc
import json
import time
import tracemalloc
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from support.distortions import response
from support.examples import examples
from support.hostile_json import MEMBERS, PLACES, Edit, edits, written
from support.processor_parts import POLICY, execution_of, processor
from support.processor_world import World
from support.producer import body

from api_contracts import GenerationResult
from api_contracts.celery_messages import encode
from api_contracts.schemas import json_schemas
from worker.admission.grants import NotAdmitted, Reason
from worker.failures.failure import from_http
from worker.gateway.answers import read_document
from worker.gateway.upstream import Call

EXAMPLES: Final = examples(50)
LOOP_S: Final = 0.05
"""The most CPU that one input of up to a megabyte may take of the event loop, and as much for each further one."""
MARGIN: Final = 1.5
"""CPU takes longer where others share the caches: these tests run beside each other."""
MEMORY_FACTOR: Final = 10
MEGABYTE: Final = 1024 * 1024
MEMORY_FLOOR: Final = 3 * MEGABYTE
"""Memory that an input may take beside, one input at a time. A message of up to 20,000 values is decoded, and three
bytes of JSON may be 72 of the interpreter: 6,000 short messages take 2.9 MB more than ten times their bytes. Members of
an answer are decoded up to 4 KiB, whatever they hold."""
MAX_BODY: Final = 4 * MEGABYTE
ONE_CALL: Final = replace(POLICY, max_body=MAX_BODY, max_attempts=1)
RESULT: Final[Any] = Draft202012Validator(json_schemas()["result"])

at_length = settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def loop() -> Generator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@dataclass
class Gateway(World):
    """Every port, with a gateway that says what it is told to, or repeats the request."""

    status: int = 200
    says: Callable[[bytes], bytes] = field(default=lambda body: body)
    said: int = 0

    async def create(self, body: bytes, **_: Any) -> Call:  # pyright: ignore[reportIncompatibleMethodOverride]  # of the same arguments
        said = self.says(body)
        self.said = len(said)
        headers = {"x-request-id": "req_0a1b2c3d4e5f", "content-type": "application/json"}
        outcome = (
            read_document(said, headers, self.status) if self.status == 200 else from_http(self.status, headers, said)
        )
        return Call(
            outcome=outcome, http_status=self.status, upstream_request_id="req_0a1b2c3d", duration_ms=5, headers={}
        )

    @property
    def entries(self) -> list[bytes]:
        """The entries that were published."""
        return [told["answer"].result for told in self.heard("complete")] + [
            json.dumps(told["result"]).encode() for told in self.heard("answer")
        ]


def put(document: Any, changes: list[Edit]) -> bytes:
    """The document as JSON, with each form in its place, as far as the place is there."""
    raw: dict[str, bytes] = {}
    for place, form, size in changes:
        *way, last = place
        where, mark = document, f"\x01{len(raw)}\x01"
        try:
            for step in way:
                where = where[step]
            where[last] = mark
        except (KeyError, IndexError, TypeError):
            continue
        raw[json.dumps(mark)] = written(form, size)
    text = json.dumps(document).encode()
    for mark, value in raw.items():
        text = text.replace(mark.encode(), value)
    return text


def spliced(raw: bytes, places: list[tuple[int, int, bytes]]) -> bytes:
    for place, length, piece in places:
        at = place % (len(raw) + 1)
        raw = raw[:at] + piece + raw[at + length :]
    return raw


SPLICES: Final = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 20), st.binary(max_size=8)), max_size=3)


def examine(loop: asyncio.Runner, world: Callable[[], Gateway], raw: bytes) -> None:
    """Takes one input its whole way, and holds what came of it against the bounds; the gateway's words count too."""

    def run() -> Gateway:
        made = world()
        made.grants.extend(("", NotAdmitted(Reason.TIME, 0)))  # one call: a dead key is not tried for ever
        way: Coroutine[Any, Any, object] = processor(made, ONE_CALL).process(execution_of(raw))
        loop.run(way)
        return made

    told = run()
    size = len(raw) + told.said
    assert told.events.bugs == []
    for entry in told.entries:
        GenerationResult.from_entry({b"result": entry})
        RESULT.validate(json.loads(entry))
    assert cpu_s(run) < MARGIN * LOOP_S * max(1.0, size / MEGABYTE)
    if size > 1024:
        assert peak_bytes(run) < MEMORY_FACTOR * size + MEMORY_FLOOR


def cpu_s(run: Callable[[], object]) -> float:
    """The least of some runs: others share this machine's caches and clock."""
    least = 1e9
    for _ in range(6):
        gc.collect(0)
        began = time.thread_time()
        run()
        least = min(least, time.thread_time() - began)
        if least < MARGIN * LOOP_S:
            break
    return least


def peak_bytes(run: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_way_of_a_plain_request_is_gone_to_its_end(loop: asyncio.Runner) -> None:
    """Else nothing below would be examined."""
    raw = encode(json.dumps({"body": body("hello")}).encode(), task_id="task-1", lane="interactive")
    world = Gateway(says=lambda _: json.dumps(response("hello")).encode())
    world.grants.append("")
    way: Coroutine[Any, Any, object] = processor(world, ONE_CALL).process(execution_of(raw))
    loop.run(way)

    assert world.said
    assert [GenerationResult.from_entry({b"result": entry}).outcome for entry in world.entries] == ["completed"]


@at_length
@given(changes=edits(PLACES), splices=SPLICES)
def test_any_envelope_whose_gateway_repeats_it(
    loop: asyncio.Runner, changes: list[Edit], splices: list[tuple[int, int, bytes]]
) -> None:
    """A refusal, an answer or a dead letter; the gateway answers with the request's own members."""
    document = put({"body": body("hello") | {"metadata": {"a": "b"}}, "metadata": {"note": "n"}}, changes)
    raw = spliced(encode(document, task_id="task-1", lane="interactive"), splices)
    good = json.dumps(response("hello"))[1:].encode()

    def repeated(sent: bytes) -> bytes:
        return sent.rstrip()[:-1] + b"," + good

    examine(loop, lambda: Gateway(says=repeated), raw)


@at_length
@given(changes=edits(MEMBERS), splices=SPLICES, status=st.sampled_from([200, 200, 200, 400, 401, 429, 500, 503]))
def test_any_answer(
    loop: asyncio.Runner, changes: list[Edit], splices: list[tuple[int, int, bytes]], status: int
) -> None:
    answer = response("hello") | ({"error": {"code": "c", "message": "m"}} if status != 200 else {})
    said = spliced(put(answer, changes), splices)
    raw = encode(json.dumps({"body": body("hello")}).encode(), task_id="task-1", lane="interactive")

    examine(loop, lambda: Gateway(says=lambda _: said, status=status), raw)
