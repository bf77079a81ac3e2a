"""The log: one chain for everything, closed names, no content, and never somebody else's ids."""

import asyncio
import json
import logging
import re
import subprocess
import sys
import warnings
from collections.abc import Generator
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError
from support.captured_log import Lines, captured_log

from worker.telemetry import EVENTS, log, log_exception, speaking
from worker.telemetry.logs import loop_exception, recent_warnings
from worker.telemetry.redaction import clean, described

CANARY = "canary-7f3a"


@pytest.fixture
def lines() -> Generator[Lines]:
    with captured_log() as lines:
        yield lines


def test_a_line_is_json_with_level_time_and_what_is_the_same_for_all(lines: Lines) -> None:
    """As log pipelines expect it."""
    log("worker.started", lanes=["interactive"])

    (line,) = lines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("timestamp"))
    assert line == {
        "event": "worker.started",
        "level": "info",
        "service": "responses-worker",
        "lanes": ["interactive"],
    }


def test_every_event_that_is_logged_is_in_the_closed_list() -> None:
    """A name outside it is a type error, and this is the test for those who do not run the type checker."""
    source = "\n".join(path.read_text(encoding="utf-8") for path in Path("worker").rglob("*.py"))
    used = set(re.findall(r"\blog(?:_exception)?\(\s*\"([a-z_.]+)\"", source))

    assert used
    assert used <= EVENTS


async def test_a_thousand_requests_at_once_never_mix_their_ids(lines: Lines) -> None:
    """Own lines and those of libraries, whoever logs and whatever waits in between."""

    async def request(number: int) -> None:
        speaking.set(lambda: {"request_id": f"r{number}", "trace_id": f"{number:032x}"})
        for step in range(2):
            await asyncio.sleep(0.001 * (number % 7))
            log("upstream.throttled", step=step, own=number)
            logging.getLogger("library").warning("number %d", number)

    await asyncio.gather(*(request(number) for number in range(1000)))
    found = lines()

    assert len(found) == 4000
    for line in found:
        number = line["own"] if "own" in line else int(line["message"].removeprefix("number "))
        assert (line["request_id"], line["trace_id"]) == (f"r{number}", f"{number:032x}")


async def test_lines_of_the_process_carry_no_request(lines: Lines) -> None:
    """A task may be born inside some request and outlive it; that Redis is lost is not this request's story."""
    speaking.set(lambda: {"request_id": "r1"})

    log("redis.lost", "error", error="ConnectionError")

    assert "request_id" not in lines()[0]


def _raise(error: Exception) -> Exception:
    try:
        raise error  # noqa: TRY301  # for its traceback
    except Exception as raised:  # noqa: BLE001  # whatever it is
        return raised


class _Body(BaseModel):
    prompt: int


def _pydantic() -> BaseException:
    try:
        _Body.model_validate({"prompt": CANARY})
    except ValidationError as error:
        return error
    raise AssertionError


def test_exceptions_are_told_by_type_and_place(lines: Lines) -> None:
    """Their text may be a prompt; type and stack are what finds the defect."""
    try:
        try:
            raise _pydantic()
        except ValidationError as cause:
            raise RuntimeError(CANARY) from cause
    except RuntimeError as error:
        log_exception("request.crashed", error)

    (line,) = lines()
    assert CANARY not in json.dumps(line)
    assert [link["type"] for link in line["exception"]] == [
        "RuntimeError",
        "pydantic_core._pydantic_core.ValidationError",
    ]
    assert line["exception"][0]["frames"][-1].startswith("tests/telemetry/test_logs.py:")


def test_words_of_the_operating_system_are_kept() -> None:
    """`Connection refused` helps at night and cannot quote a prompt."""
    assert described(_raise(ConnectionRefusedError(111, CANARY)))[0]["text"] == "Connection refused"


def test_of_an_exception_group_the_first_is_told() -> None:
    """TaskGroup wraps what happened; the wrapper alone explains nothing."""
    group = ExceptionGroup("unhandled errors in a TaskGroup", [_raise(KeyError(CANARY)), ValueError(CANARY)])

    assert [link["type"] for link in described(group)] == ["ExceptionGroup", "KeyError"]


def test_libraries_go_through_the_same_chain(lines: Lines) -> None:
    """One shape for all lines; what a library says is a field, and holds no key, no query, no exception's text."""
    speaking.set(lambda: {"request_id": "r1"})
    logger = logging.getLogger("library.http")
    logger.warning("GET https://user:%s@host/v1?key=%s with Bearer %s: %r", CANARY, CANARY, CANARY, OSError(CANARY))
    error = _raise(ValueError(CANARY))
    logger.error("failed: %s, really %s", error, str(error), exc_info=error)
    logger.info("told", extra={"prompt": CANARY})
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn_explicit(f"value was {CANARY}", UserWarning, "module.py", 7)
    speaking.set(None)

    found = lines()
    assert CANARY not in json.dumps(found)
    assert {line["event"] for line in found} == {"library.logged"}
    assert {line["request_id"] for line in found} == {"r1"}
    assert found[0]["message"] == "GET https://host/v1?[query] with [key]: 'OSError'"
    assert found[0]["logger"] == "library.http"
    assert found[1]["exception"][0]["type"] == "ValueError"
    assert "UserWarning at module.py:7" in found[3]["message"]


async def test_what_nobody_awaits_is_told_without_its_text(lines: Lines) -> None:
    """Asyncio's own handler prints the exception, and with it whatever it quotes."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(loop_exception)
    loop.call_exception_handler({"message": CANARY, "exception": _raise(ValueError(CANARY))})
    loop.set_exception_handler(None)

    (line,) = lines()
    assert CANARY not in json.dumps(line)
    assert (line["event"], line["error_type"]) == ("process.crashed", "ValueError")


def test_content_under_its_own_name_does_not_leave(lines: Lines) -> None:
    """The second line of defence, should somebody log a body."""
    log("ledger.refused", "error", body=CANARY, api_key=CANARY, metadata={"note": CANARY})

    assert CANARY not in json.dumps(lines())


def test_the_last_warnings_are_remembered_for_the_next_incident(lines: Lines) -> None:
    """An event shows what led to it; information is not worth a place."""
    log("redis.lost", "error", error="TimeoutError")
    log("redis.recovered")

    assert len(lines()) == 2
    assert recent_warnings[-1]["event"] == "redis.lost"


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("redis://:secret@host:6379/0", "redis://host:6379/0"),
        ("POST https://h/v1/responses?key=secret failed", "POST https://h/v1/responses?[query] failed"),
        ("Authorization: Bearer sk-abcdef123456", "Authorization: [key]"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_clean(text: str, cleaned: str) -> None:
    """Keys, passwords and queries go, wherever they stand in a sentence."""
    assert clean(text) == cleaned


def test_a_terminal_gets_readable_lines() -> None:
    """`WORKER_LOG_FORMAT=console`, or a terminal: no JSON, and tracebacks as text, without locals."""
    script = (
        "from worker.telemetry import configure, log_exception\n"
        "configure('console', 'INFO')\n"
        "prompt = 'canary'\n"
        "try:\n    raise ValueError(prompt)\n"
        "except ValueError as error:\n    log_exception('request.crashed', error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert "request.crashed" in ran.stdout
    assert "ValueError: [withheld]" in ran.stdout
    assert "canary" not in ran.stdout + ran.stderr
