"""One call against real sockets: what is sent, what comes back, and what is never told."""

import asyncio
import logging
import urllib.request
from typing import Any

import pytest
from support.raw_gateway import (
    BODY,
    DELTA,
    INCOMPLETE,
    KEY,
    RESPONSE,
    Conversation,
    calling,
    chunked,
    error_body,
    event,
    gzipped,
    head,
    plain,
    replies,
    serve,
    terminal,
)

from api_contracts.errors import ErrorCode
from worker import __version__
from worker.failures.failure import Failure, Route
from worker.gateway.upstream import Answer, Call, Upstream

STREAM = event(DELTA, "response.output_text.delta") * 2 + event(terminal(), "response.completed") + event(b"[DONE]")


async def call(reply: bytes, *, stream: bool = False) -> Call:
    async with calling(replies(reply)) as (upstream, _):
        return await upstream.create(BODY, stream=stream, timeout_s=5)


def answer(outcome: Answer | Failure) -> Answer:
    assert isinstance(outcome, Answer), outcome
    return outcome


def failure(outcome: Answer | Failure) -> Failure:
    assert isinstance(outcome, Failure)
    return outcome


async def test_what_is_sent_is_what_was_given() -> None:
    """The body byte for byte, and exactly the headers that a gateway needs."""
    async with calling(replies(plain(RESPONSE), plain(RESPONSE))) as (upstream, gateway):
        await upstream.create(BODY, stream=False, timeout_s=5)
        await upstream.create(BODY, stream=True, timeout_s=5)

    first, second = gateway.requests
    assert (first.line, first.body) == ("POST /v1/responses HTTP/1.1", BODY)
    assert first.headers["authorization"] == f"Bearer {KEY}"
    assert first.headers["content-type"] == "application/json"
    assert first.headers["user-agent"] == f"responses-worker/{__version__}"
    assert (first.headers["accept"], second.headers["accept"]) == ("application/json", "text/event-stream")
    assert gateway.connections == 1


async def test_a_call_reports_what_it_met() -> None:
    """The answer's bytes as sent, the gateway's id, and of the headers only those about limits."""
    reply = plain(RESPONSE, "X-Request-Id: r1", "X-RateLimit-Limit-Requests: 9", "Retry-After: 2", "Server: secret")

    result = await call(reply)

    assert answer(result.outcome).raw == RESPONSE
    assert (result.http_status, result.upstream_request_id) == (200, "r1")
    assert result.headers == {"x-ratelimit-limit-requests": "9", "retry-after": "2"}
    assert 0 <= result.duration_ms < 5000


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "reply",
    [
        plain(RESPONSE),
        gzipped(RESPONSE),
        chunked(RESPONSE[:7], RESPONSE[7:], kind="application/json"),
        head("connection: close") + RESPONSE,
        plain(RESPONSE, kind="text/event-stream"),
        chunked(STREAM),
        chunked(*[STREAM[at : at + 3] for at in range(0, len(STREAM), 3)]),
        gzipped(STREAM, kind="text/event-stream"),
        plain(STREAM),
        chunked(STREAM.replace(b"\n", b"\r\n")),
        head("connection: close", kind="text/event-stream") + event(terminal()).rstrip(),
    ],
    ids="plain gzip chunked close mislabelled sse sse-drip sse-gzip sse-mislabelled sse-crlf sse-no-blank".split(),  # noqa: SIM905  # reads better
)
async def test_every_form_of_an_answer_is_read(reply: bytes, stream: bool) -> None:  # noqa: FBT001  # parametrized
    """However it is framed, labelled or compressed, and whether or not it was asked for: the same bytes come out."""
    assert answer((await call(reply, stream=stream)).outcome).raw == RESPONSE


async def test_an_incomplete_answer_carries_its_failure() -> None:
    outcome = answer((await call(plain(INCOMPLETE))).outcome)

    assert (outcome.status, outcome.raw) == ("incomplete", INCOMPLETE)
    assert outcome.failure is not None
    assert outcome.failure.code is ErrorCode.INCOMPLETE_MAX_TOKENS


async def test_events_are_handed_on_and_the_connection_is_kept() -> None:
    """`on_event` sees the data of every event; what follows the last one is read, so the next call needs no TLS."""
    events: list[bytes] = []
    stream, end = chunked(STREAM)[:-5], chunked(STREAM)[-5:]

    async def script(peer: Conversation) -> None:
        while await peer.request():
            await peer.send(stream, end, every_s=0.05)

    async with calling(script) as (upstream, gateway):
        await upstream.create(BODY, stream=True, timeout_s=5, on_event=events.append)
        await upstream.create(BODY, stream=True, timeout_s=5)

    assert events == [DELTA, DELTA, terminal()]
    assert gateway.connections == 1


async def test_an_answer_is_not_kept_waiting_by_what_follows_it() -> None:
    """A gateway that neither ends nor closes its stream delays the answer by a moment, even past the timeout."""

    async def script(peer: Conversation) -> None:
        await peer.request()
        await peer.send(chunked(STREAM).removesuffix(b"0\r\n\r\n"))
        await peer.hang()

    async with calling(script) as (upstream, gateway):
        result = await upstream.create(BODY, stream=True, timeout_s=0.2)
        await asyncio.wait_for(gateway.peer_left.wait(), 1)

    assert answer(result.outcome).raw == RESPONSE
    assert result.duration_ms < 1000


async def test_an_error_is_told_by_its_status_and_body() -> None:
    reply = plain(error_body("insufficient_quota"), "x-oneapi-request-id: g1", status="429 Too Many Requests")

    result = await call(reply)

    assert failure(result.outcome).code is ErrorCode.QUOTA_EXHAUSTED
    assert (result.http_status, result.upstream_request_id) == (429, "g1")


async def test_an_error_whose_text_never_comes_is_told_by_its_status() -> None:
    """A proxy that stalls or cuts its error page must not turn a 429 into a timeout."""

    async def script(peer: Conversation) -> None:
        await peer.request()
        await peer.send(head("content-length: 900", "retry-after: 7", status="429 Too Many Requests") + b'{"err')
        await peer.hang()

    async with calling(script, silence_s=0.2) as (upstream, _):
        result = await upstream.create(BODY, stream=False, timeout_s=5)

    assert failure(result.outcome).route is Route.THROTTLE
    assert failure(result.outcome).retry_after_s == 7


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (plain(b"<html>secret</html>", kind="text/html"), "it is not JSON"),
        (plain(b""), "it is empty"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "it is empty"),
        (plain(b"\x1f\x8b" + RESPONSE, "content-encoding: gzip"), "it cannot be decoded"),
    ],
    ids=["html", "empty", "204", "not-gzip"],
)
async def test_a_200_without_an_answer_is_an_invalid_response(reply: bytes, reason: str) -> None:
    outcome = failure((await call(reply)).outcome)

    assert outcome.code is ErrorCode.INVALID_RESPONSE
    assert reason in outcome.message


@pytest.mark.parametrize("reply", [plain(RESPONSE), chunked(event(terminal()))], ids=["body", "event"])
async def test_an_answer_without_end_is_refused_for_good(reply: bytes) -> None:
    """No peer fills our memory, and the same request would only bring the same answer again."""
    async with calling(replies(reply), max_answer_bytes=100) as (upstream, _):
        outcome = failure((await upstream.create(BODY, stream=False, timeout_s=5)).outcome)

    assert (outcome.code, outcome.route) == (ErrorCode.INVALID_RESPONSE, Route.ANSWER)
    assert "too large" in outcome.message


async def test_a_large_body_arrives_whole_and_with_its_length() -> None:
    """Written in steps, without the warning that aiohttp has for large bytes."""
    body = bytes(range(256)) * 16 * 1024
    async with calling(replies(plain(RESPONSE))) as (upstream, gateway):
        result = await upstream.create(body, stream=False, timeout_s=5)

    answer(result.outcome)
    assert gateway.requests[0].body == body


async def test_a_key_is_read_for_every_call() -> None:
    """A mounted secret may change; the newline at its end is no part of it."""
    keys = iter(["old\n", "new\n"])
    async with calling(replies(plain(RESPONSE), plain(RESPONSE)), api_key=lambda: next(keys)) as (upstream, gateway):
        for _ in range(2):
            await upstream.create(BODY, stream=False, timeout_s=5)

    assert [request.headers["authorization"] for request in gateway.requests] == ["Bearer old", "Bearer new"]


def _unreadable() -> str:
    raise PermissionError("/run/secrets/key")


@pytest.mark.parametrize("api_key", [_unreadable, lambda: "", lambda: "\n", lambda: "a\nb", lambda: "cl\u00e9"])
async def test_without_a_usable_key_nothing_is_sent(api_key: Any) -> None:
    """It is the credential's failure, and spends no attempt."""
    async with calling(replies(plain(RESPONSE)), api_key=api_key) as (upstream, gateway):
        outcome = failure((await upstream.create(BODY, stream=False, timeout_s=5)).outcome)

    assert (outcome.code, outcome.route) == (ErrorCode.AUTHENTICATION_FAILED, Route.CREDENTIAL)
    assert not outcome.maybe_billed
    assert gateway.connections == 0


@pytest.mark.parametrize("reply", [plain(RESPONSE), b"nonsense\r\n\r\n", plain(b"", status="401 Unauthorized")])
async def test_keys_prompts_and_outputs_are_told_to_nobody(reply: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Neither by what a call returns nor by any logger below us, at any level."""
    caplog.set_level(logging.DEBUG)
    async with calling(replies(reply)) as (upstream, _):
        result = await upstream.create(b'{"prompt": "canary-prompt"}', stream=False, timeout_s=5)
        told = f"{upstream!r} {result!r} {caplog.text}"

    assert not [secret for secret in (KEY, "canary-prompt", "output_text") if secret in told]


async def test_cookies_redirects_and_proxies_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call goes where it was configured to go, and leaves nothing behind for the next."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert urllib.request.getproxies()["http"] == "http://127.0.0.1:9"
    moved = plain(b"", "location: /elsewhere", "set-cookie: stick=1; Path=/", status="307 Temporary Redirect")

    async with calling(replies(moved, plain(RESPONSE))) as (upstream, gateway):
        first = await upstream.create(BODY, stream=False, timeout_s=5)
        answer((await upstream.create(BODY, stream=False, timeout_s=5)).outcome)

    assert first.http_status == 307
    assert failure(first.outcome).route is Route.ANSWER
    assert [request.line for request in gateway.requests] == ["POST /v1/responses HTTP/1.1"] * 2
    assert not any("cookie" in request.headers for request in gateway.requests)


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
async def test_the_version_in_the_base_url_is_optional(path: str) -> None:
    """Both `https://host` and the `https://host/v1` of OpenAI's clients are meant the same."""
    async with serve(replies(plain(RESPONSE))) as gateway:
        upstream = Upstream("default", f"{gateway.url}/gpt{path}", lambda: KEY)
        await upstream.create(BODY, stream=False, timeout_s=5)
        await upstream.aclose()

    assert gateway.requests[0].line == "POST /gpt/v1/responses HTTP/1.1"


@pytest.mark.parametrize(
    "url", ["", "gateway", "ftp://gateway", "https://user:pw@gateway", "http://a..b", "http://gateway:x"]
)
def test_a_url_that_cannot_work_is_refused_at_once(url: str) -> None:
    """Without quoting the password that may be in it."""
    with pytest.raises(ValueError, match="an upstream URL is") as refusal:
        Upstream("default", url, lambda: KEY)

    assert "pw" not in str(refusal.value)
