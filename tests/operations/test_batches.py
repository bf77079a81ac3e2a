"""Batch files: every line answered once, however often the client dies."""

import signal
from pathlib import Path

import pytest
import redis
from support.batch_parts import BatchFile, assert_each_answered_and_paid_once, custom_ids
from support.command_line import called
from support.polling import wait_until
from support.producer import Producer, body
from support.worker_process import Fleet

from api_contracts.client import BACKLOG_LIMIT, ResponsesClient
from worker.devtools.devstack import Simulator
from worker.operations.batches import Batch, Line, lines_of


@pytest.fixture
def file(tmp_path: Path, redis_url: str) -> BatchFile:
    return BatchFile(tmp_path, redis_url)


def test_a_client_that_was_stopped_goes_on_where_it_was(
    file: BatchFile, fleet: Fleet, producer: Producer, gateway: Simulator
) -> None:
    """One line per custom_id, and nothing paid twice; `make test-faults` kills it twice over a large file."""
    gateway.configure(latency_median_s=0.2)
    fleet.start(concurrency=40)
    file.write_numbered(300)

    interrupted = file.run_and_stop(signal.SIGINT, after=50)
    file.run_and_stop(signal.SIGKILL, after=100)
    done = file.run()

    assert (interrupted.code, done.code) == (130, 0), interrupted.err + done.err
    assert interrupted.err.endswith("interrupted; the same command goes on from here\n")
    assert_each_answered_and_paid_once(file, gateway, 300)
    assert producer.leftovers() == {}


class _DiedError(Exception):
    """What a kill between the write of a line and its acknowledgement comes to."""


def _die(_: int) -> None:
    raise _DiedError


def test_an_answer_that_was_written_and_not_acknowledged_is_not_written_again(
    file: BatchFile, fleet: Fleet, gateway: Simulator
) -> None:
    fleet.start()
    file.write_numbered(5)

    with ResponsesClient(file.redis_url) as client:
        with pytest.raises(_DiedError):
            Batch(client=client, source=file.source, answers=file.answers, on_progress=_die).run()
        assert len(custom_ids(file.answers)) == 1
        Batch(client=client, source=file.source, answers=file.answers).run()

    assert_each_answered_and_paid_once(file, gateway, 5)


def test_a_failure_that_an_earlier_run_did_not_read_is_not_run_anew(
    file: BatchFile, fleet: Fleet, producer: Producer, gateway: Simulator
) -> None:
    """As a run that nobody killed would have written it."""
    fleet.start(max_attempts=1)
    file.write(
        {"custom_id": "good", "body": body()},
        {"custom_id": "fails", "body": body("[[id:fails]] [[sim:500*1]] [[sim:slow=0.5]]")},
    )

    with ResponsesClient(file.redis_url) as client:
        with pytest.raises(_DiedError):
            Batch(client=client, source=file.source, answers=file.answers, on_progress=_die).run()
        wait_until(lambda: not producer.leftovers(), what="the failure")
        Batch(client=client, source=file.source, answers=file.answers).run()
    wait_until(lambda: not producer.leftovers(), what="whatever the second run asked for")

    assert (custom_ids(file.answers), custom_ids(file.errors)) == (["good"], ["fails"])
    assert len(gateway.calls("fails")) == 1


def test_a_full_lane_ends_the_command_which_can_go_on_later(file: BatchFile, valkey: redis.Redis) -> None:
    valkey.lpush("responses.batch", *["other work"] * BACKLOG_LIMIT)
    file.write_numbered(1)

    ran = called("batch", str(file.source), str(file.answers), WORKER_REDIS_URL=file.redis_url)

    assert ran.code == 1
    assert "lane batch holds 100000 messages, the limit is 100000; the same command goes on from here" in ran.err


def test_lines_without_an_answer_are_kept_apart(file: BatchFile, fleet: Fleet) -> None:
    """Bad lines and failed requests are errors; the rest is answered; the summary says how many of each."""
    fleet.start(max_attempts=1)
    file.write(
        {"custom_id": "good", "url": "/v1/responses", "body": body("Hello!")},
        {"custom_id": "fails", "url": "/v1/responses", "body": body("[[sim:400]]")},
        {"custom_id": "typo", "url": "/v1/responses", "body": body(temprature=1)},
        {"custom_id": "elsewhere", "url": "/v1/chat/completions", "body": body()},
        "no json",
    )

    done = file.run()

    assert done.code == 0, done.err
    assert custom_ids(file.answers) == ["good"]
    assert sorted(custom_ids(file.errors)) == ["elsewhere", "fails", "line-5", "typo"]
    assert "4 invalid_request" in done.err


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[]", "line 1 must be a JSON object with custom_id and body"),
        ('{"custom_id": "a"}', "line 1 must be a JSON object with custom_id and body"),
        ('{"custom_id": "' + "x" * 513 + '", "body": {}}', "line 1: custom_id must have at most 512 characters"),
    ],
    ids=["no object", "no body", "long id"],
)
def test_a_bad_line_says_what_is_wrong(tmp_path: Path, text: str, problem: str) -> None:
    """By its number, as an editor shows it."""
    source = tmp_path / "in.jsonl"
    source.write_text(text + "\n", encoding="utf-8")

    assert list(lines_of(source)) == [Line(1, "line-1", {}, problem)]
