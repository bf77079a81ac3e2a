"""Words of strangers on an operator's terminal: they are shown, and nothing of them is obeyed."""

import json
from typing import Any

import pytest
import redis
from support.command_line import called
from support.terminals import HOSTILE, hidden, on_terminal

from api_contracts.client import Delta
from api_contracts.queues import DEAD_STREAM, RESULT_STREAM
from worker.commands.answers import print_deltas

BEGINNING = "]0;owned"


def entry(text: str, **more: Any) -> dict[str, Any]:
    """A result entry whose every free text is `text`."""
    at = "2026-11-25T10:00:00.000Z"
    result: dict[str, Any] = {
        "contract_version": "1.0",
        "request_id": "r-1",
        "tenant": "default",
        "lane": "interactive",
        "outcome": "completed",
        "response": {
            "id": text,
            "model": text,
            "status": "completed",
            "output": [{"type": "message", "content": [{"type": "output_text", "text": text}]}],
        },
        "error": None,
        "attempts": [],
        "timing": {
            "enqueued_at": at,
            "enqueued_at_source": "caller",
            "claimed_at": at,
            "finished_at": at,
            "queue_ms": 0,
            "throttle_ms": 0,
            "upstream_ms": 0,
            "total_ms": 0,
        },
        "metadata": {"note": text},
        "trace_id": "0" * 32,
        **more,
    }
    return {"request_id": "r-1", "result": json.dumps(result, ensure_ascii=False)}


def failed(text: str) -> dict[str, Any]:
    error: dict[str, Any] = {
        "code": "upstream_error",
        "message": text,
        "retryable": False,
        "http_status": 500,
        "upstream": {"code": text, "type": text, "message": text, "request_id": text},
        "violations": [],
    }
    return entry(text, outcome="failed", response=None, error=error)


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["tables", "json"])
def test_status_shows_any_name_of_a_consumer_group(valkey: redis.Redis, redis_url: str, options: list[str]) -> None:
    names = [HOSTILE, "[/red]", "[bold]plain", b"\xff\xfe\x80", "a" * 5000, "\\[/]"]
    for name in names:
        valkey.xgroup_create(RESULT_STREAM, name, id="0", mkstream=True)

    code, written = on_terminal("status", *options, WORKER_REDIS_URL=redis_url)
    piped = called("status", *options, WORKER_REDIS_URL=redis_url)

    assert (code, piped.code) == (0, 0)
    assert not hidden(written)
    assert "[/red]" in written
    assert "[bold]plain" in written
    assert "\\xff" in written


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["lines", "json"])
def test_results_of_a_stranger_are_only_shown(valkey: redis.Redis, redis_url: str, options: list[str]) -> None:
    strange: list[dict[Any, Any]] = [entry(HOSTILE), failed(HOSTILE), {"result": HOSTILE}, {HOSTILE: HOSTILE}]
    for one in strange:
        valkey.xadd(RESULT_STREAM, one)

    code, written = on_terminal("results", *options, WORKER_REDIS_URL=redis_url)

    assert code == 0
    assert not hidden(written)
    assert BEGINNING in written or options
    if options:
        first = next(line for line in written.splitlines() if line.startswith("{"))
        assert json.loads(first)["metadata"]["note"] == HOSTILE


def test_dead_letters_of_a_stranger_are_only_shown(valkey: redis.Redis, redis_url: str) -> None:
    names = ("lane", "tenant", "request_id", "reason", "message")
    entry_id = valkey.xadd(DEAD_STREAM, dict.fromkeys(names, HOSTILE))
    assert isinstance(entry_id, bytes)

    for arguments in (["list"], ["list", "--json"], ["show", entry_id.decode(), "--content"]):
        code, written = on_terminal("dead", *arguments, WORKER_REDIS_URL=redis_url)
        assert code == 0, written
        assert not hidden(written)
        assert BEGINNING in written


@pytest.mark.parametrize("address", ["\x1b[2J", "[/red]", "\u202egnp.exe"], ids=["escape", "markup", "bidi"])
def test_a_mistake_that_is_quoted_is_only_shown(address: str, redis_url: str) -> None:
    """Arguments come from scripts, and scripts copy names from Redis."""
    for arguments in (["runbook", address], ["dead", "show", address], ["doctor"]):
        _, written = on_terminal(*arguments, WORKER_REDIS_URL=redis_url, WORKER_UPSTREAM_URL="http://127.0.0.1:1")
        assert not hidden(written)
        assert "Traceback" not in written


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b"[]",
        b"null",
        b"",
        b"\xff\xfe",
        b'{"delta": null}',
        b'{"delta": {"a": 1}}',
        b'{"delta": "\\ud800"}',
        b"[" * 5000,
        b'{"type": 3, "delta": "x"}',
    ],
)
def test_a_delta_without_text_prints_nothing(data: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    """And the next one is printed as ever; with text in none of them the whole answer is still to be printed."""
    nothing = Delta("1-1", "response.output_text.delta", data)
    good = Delta("1-2", "response.output_text.delta", b'{"type":"response.output_text.delta","delta":"h\xc3\xa9"}')

    assert print_deltas([nothing]) is False
    assert print_deltas([nothing, good]) is True
    assert capsys.readouterr().out == "hé\n"
