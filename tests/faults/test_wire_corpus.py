"""The corpus through a real worker: one request each, answered as its index says, after as many calls as it says.

Left out is what pauses the upstream for everybody, and what counts towards its breaker: those would answer for
one another.
"""

import json
import socketserver
import threading
from collections import Counter
from collections.abc import Generator
from typing import Final, cast

import pytest
from support.producer import Producer, body
from support.wire_corpus import Specimen, specimens
from support.worker_process import Fleet

from api_contracts import GenerationResult
from api_contracts.errors import ErrorCode
from worker.admission.evidence import TROUBLES

ALL: Final = {
    specimen.name: specimen
    for specimen in specimens()
    if specimen.calls is not None and (specimen.code is None or ErrorCode(specimen.code) not in TROUBLES)
}


class Gateway(socketserver.ThreadingTCPServer):
    """Answers each request with the specimen that its `user` names, then closes the connection."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.calls: Counter[str] = Counter()


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        length = 0
        while (line := self.rfile.readline()).strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        if not length:
            return
        name = json.loads(self.rfile.read(length))["user"]
        cast("Gateway", self.server).calls[name] += 1
        self.wfile.write(ALL[name].data)


@pytest.fixture
def specimen_gateway() -> Generator[Gateway]:
    with Gateway() as gateway:
        thread = threading.Thread(target=gateway.serve_forever, daemon=True)
        thread.start()
        yield gateway
        gateway.shutdown()
        thread.join()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("stream", [False, True])
def test_every_answer_is_published_as_it_should_be_and_never_bought_again(
    redis_url: str,
    producer: Producer,
    specimen_gateway: Gateway,
    stream: bool,  # noqa: FBT001  # parametrized
) -> None:
    with Fleet(redis_url, f"http://127.0.0.1:{specimen_gateway.server_address[1]}") as fleet:
        worker = fleet.start()
        for name in ALL:
            producer.enqueue({"body": body(user=name, stream=stream), "request_id": name})
        producer.results(len(ALL), within_s=120)
        entries = [fields for _, fields in producer.redis.xrange("responses:results")]
        assert not worker.events("request.crashed")

    results = {entry.request_id: entry for entry in map(GenerationResult.from_entry, entries)}
    assert {name: _told(results[name]) for name in ALL} == {name: _expected(ALL[name]) for name in ALL}
    assert specimen_gateway.calls == Counter({name: specimen.calls or 0 for name, specimen in ALL.items()})
    right = sum(_told(results[name]) == _expected(ALL[name]) for name in ALL)
    print(f"{len(ALL)} specimens, {right} right, {specimen_gateway.calls.total()} calls")  # noqa: T201  # what is measured


def _told(result: GenerationResult) -> tuple[str, str | None, str | None]:
    text = result.response.output_text if result.response and result.outcome != "failed" else None
    return result.outcome, result.error and result.error.code, text


def _expected(specimen: Specimen) -> tuple[str, str | None, str | None]:
    return specimen.outcome, specimen.code, specimen.text
