"""We publish the gateway's own words: the official SDK reads the one like the other."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from openai import OpenAI
from support.producer import Producer, body
from support.worker_process import Fleet

from worker.devtools.devstack import Simulator


@contextmanager
def replaying(response: bytes) -> Generator[str]:
    """A server that answers every POST with these bytes."""

    class Replay(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(response)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class' name for it
            pass

    server = HTTPServer(("127.0.0.1", 0), Replay)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


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
        replaying(published_response(fields[b"result"])) as url,
        OpenAI(base_url=url, api_key="sk-test", max_retries=0) as replayed,
    ):
        actual = replayed.responses.create(model="gpt-5.4-mini", input=[{"role": "user", "content": prompt}])

    assert actual.output_text == expected.output_text
    assert prompt.strip() in actual.output_text
    assert actual.usage == expected.usage
