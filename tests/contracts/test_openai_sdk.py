"""We publish the gateway's own words: the official SDK reads the one like the other."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from openai import OpenAI
from openai.types.responses import Response
from support.loopback import Loopback, Reply, Request
from support.producer import Producer, body
from support.sdk_calls import ANSWER, answered, recorded
from support.sdk_items import every_call
from support.worker_process import Fleet

from worker.devtools.devstack import Simulator


@dataclass
class Answering(Loopback):
    """Answers every POST with what `content_of` makes of its body, and a content type."""

    content_of: Callable[[bytes], tuple[bytes, str]]

    def answer(self, request: Request) -> Reply:
        content, kind = self.content_of(request.body)
        return Reply(200, content, {"content-type": kind})


def published_response(entry: bytes) -> bytes:
    """The bytes between `"response":` and what follows it, as they were published."""
    start = entry.index(b'"response":') + len(b'"response":')
    _, end = json.JSONDecoder().raw_decode(entry[start:].decode())
    return entry[start:].decode()[:end].encode()


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_the_openai_sdk_reads_our_bytes_like_the_gateways(
    fleet: Fleet, producer: Producer, gateway: Simulator, *, stream: bool
) -> None:
    """Text and usage are equal, whether the SDK asks the gateway or a server that replays our result."""
    fleet.start()
    prompt = 'Grüße, 世界 \U0001f680 \\ " \n'
    producer.enqueue({"body": body(prompt, stream=stream)})
    producer.results(1)
    ((_, fields),) = producer.redis.xrange("responses:results")

    with OpenAI(base_url=f"{gateway.url}/v1", api_key="sk-test", max_retries=0) as direct:
        expected = direct.responses.create(model="gpt-5.4-mini", input=[{"role": "user", "content": prompt}])
    with (
        Answering(lambda _: (published_response(fields[b"result"]), "application/json")) as server,
        OpenAI(base_url=f"{server.url}/v1", api_key="sk-test", max_retries=0) as replayed,
    ):
        actual = replayed.responses.create(model="gpt-5.4-mini", input=[{"role": "user", "content": prompt}])

    assert actual.output_text == expected.output_text
    assert prompt.strip() in actual.output_text
    assert actual.usage == expected.usage


def test_a_worker_sends_what_the_sdk_writes_and_the_sdk_reads_what_it_publishes(
    redis_url: str, producer: Producer
) -> None:
    """Every call of the corpus through one worker process: the same bytes upstream, and results of the SDK's type."""
    written = [sent for call in every_call().values() for sent in recorded(call)]
    arrived: list[bytes] = []

    def answer(sent: bytes) -> tuple[bytes, str]:
        arrived.append(sent)
        return answered(json.loads(sent))

    with Answering(answer) as server, Fleet(redis_url, server.url) as fleet:
        fleet.start(contract="openai")
        for sent in written:
            producer.enqueue({"body": json.loads(sent)})
        results = producer.results(len(written), within_s=60)

    assert len(written) > 80
    assert sorted(arrived) == sorted(written)
    assert {result["outcome"] for result in results} == {"completed"}
    expected = Response.model_validate(ANSWER)
    assert all(Response.model_validate(result["response"]) == expected for result in results)


def test_a_worker_checks_answers_and_asks_once_more(redis_url: str, producer: Producer) -> None:
    """Through a real worker and its process apart: refused before a call, told, and mended by a second call."""
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    arrived: list[bytes] = []

    def answer(sent: bytes) -> tuple[bytes, str]:
        arrived.append(sent)
        text = '{"age": 7}' if b"keep to the schema" in sent else '{"age": "canary-f3a9"}'
        output = [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}]
        return json.dumps(ANSWER | {"output": output}).encode(), "application/json"

    def ask(name: str, schema: object, **envelope: object) -> None:
        form = {"type": "json_schema", "name": "n", "schema": schema}
        asked = {"model": "gpt-5.4-mini", "input": name, "text": {"format": form}}
        producer.enqueue({"request_id": name, "body": asked, "check_output": True, **envelope})

    with Answering(answer) as server, Fleet(redis_url, server.url) as fleet:
        worker = fleet.start(contract="openai")
        ask("broken", {"type": "strnig"})
        ask("told", schema)
        ask("mended", schema, reask=1)
        results = {result["request_id"]: result for result in producer.results(3)}
        assert "canary-f3a9" not in worker.log

    codes = {name: result["error"] and result["error"]["code"] for name, result in results.items()}
    assert codes == {"broken": "invalid_request", "told": "output_invalid", "mended": None}
    assert results["told"]["response"]["output"][0]["content"][0]["text"] == '{"age": "canary-f3a9"}'
    assert [attempt["code"] for attempt in results["mended"]["attempts"]] == ["output_invalid", None]
    assert len(arrived) == 3
