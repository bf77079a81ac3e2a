"""Batch files: every line answered once, however often the client dies."""

import json
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
from worker.operations.batch_files import BatchError, Output, lines_of
from worker.operations.batches import Batch


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
    wait_until(lambda: producer.leftovers() == {}, what="the copies of answered requests are taken")


class _DiedError(Exception):
    """A kill may fall between the write of a line and its acknowledgement."""


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
    assert "lane batch would hold 100001 messages, the limit is 100000; the same command goes on from here" in ran.err


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
    assert sorted(map(str, custom_ids(file.errors))) == ["None", "elsewhere", "fails", "typo"]
    assert "4 invalid_request" in done.err


GOOD = json.dumps({"custom_id": "a", "body": body()})
FORM = "must be a JSON object with custom_id and body"


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"[]", FORM),
        (b'{"custom_id": "a"}', FORM),
        (b"no json", FORM),
        (b"[" * 100_000, FORM),
        (b'{"custom_id": "Gr\xfc\xdfe", "body": {}}', "must be UTF-8"),
        (b'{"custom_id": "a", "body": {"top_p": NaN}}', "must be strict JSON: no NaN and no infinity"),
        (b'{"custom_id": null, "body": {}}', "must have a custom_id of 1 to 512 characters"),
        (b'{"custom_id": "' + b"x" * 513 + b'", "body": {}}', "must have a custom_id of 1 to 512 characters"),
        (b'{"custom_id": "a", "url": "/v1/other", "body": {}}', "must have the url /v1/responses"),
        (b'{"custom_id": "a", "body": {}}', "is not valid: body.model is required"),
        (GOOD.replace("Hello", "\\ud800").encode(), "is not valid: body must be strict JSON (RFC 8259)"),
        (b'{"custom_id": "a", "body": "' + b"x" * 12_000_000 + b'"}', "must have at most 4259840 bytes"),
    ],
)
def test_a_bad_line_says_what_is_wrong(tmp_path: Path, raw: bytes, problem: str) -> None:
    """By its number, as an editor shows it; the line after it is read."""
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"\xef\xbb\xbf\r\n" + raw + b"\r\n\r\n" + GOOD.replace('"a"', '"good"').encode())

    bad, good = lines_of(source)

    assert bad.problem.startswith(f"line 2 {problem}")
    assert (good.number, good.custom_id, good.problem) == (4, "good", "")


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"\xef\xbb\xbf" + GOOD.encode() + b"\n")

    assert [line.custom_id for line in lines_of(source)] == ["a"]


def test_an_id_that_looks_like_a_line_number_is_the_users_own(file: BatchFile, fleet: Fleet) -> None:
    fleet.start()
    file.write("no json", {"custom_id": "line-1", "body": body("mine")}, {"custom_id": 7, "body": body("seven")})

    done = file.run()

    assert done.code == 0, done.err
    assert sorted(custom_ids(file.answers)) == ["7", "line-1"]
    assert custom_ids(file.errors) == [None]


def test_an_edited_file_keeps_what_did_not_change(file: BatchFile, fleet: Fleet, gateway: Simulator) -> None:
    """Answers whose lines changed or went are moved aside; no answer stands for another question."""
    fleet.start()
    file.write(*({"custom_id": f"{n}", "body": body(f"[[id:{n}]] first")} for n in range(4)))
    assert file.run().code == 0
    file.write(
        {"custom_id": "0", "body": body("[[id:0]] first")},
        {"custom_id": "1", "body": body("[[id:1]] second")},
        {"custom_id": "new", "body": body("[[id:new]]")},
    )

    done = file.run()

    assert done.code == 0, done.err
    assert sorted(custom_ids(file.answers)) == ["0", "1", "new"]
    assert sorted(custom_ids(file.directory / "out.stale.jsonl")) == ["1", "2", "3"]
    assert "second" in next(line for line in file.answers.read_text().splitlines() if '"custom_id": "1"' in line)
    assert len(gateway.calls("0")) == 1


def test_the_same_file_to_another_output_ends(file: BatchFile, fleet: Fleet, gateway: Simulator) -> None:
    """Answers that are still kept are published there as well."""
    fleet.start()
    file.write_numbered(5)
    assert file.run().code == 0
    other = file.directory / "other.jsonl"

    done = called("batch", str(file.source), str(other), WORKER_REDIS_URL=file.redis_url)

    assert done.code == 0, done.err
    assert sorted(custom_ids(other)) == sorted(custom_ids(file.answers))
    assert len(gateway.calls()) == 5


def test_answers_that_are_no_longer_kept_are_asked_for_anew(
    file: BatchFile, fleet: Fleet, producer: Producer, gateway: Simulator
) -> None:
    fleet.start()
    file.write_numbered(3)
    assert file.run().code == 0
    for key in producer.redis.scan_iter("responses:request:*"):
        producer.redis.hdel(key, "result")
    other = file.directory / "other.jsonl"

    done = called("batch", str(file.source), str(other), WORKER_REDIS_URL=file.redis_url)

    assert done.code == 0, done.err
    assert len(custom_ids(other)) == 3
    assert len(gateway.calls()) == 6


def test_one_run_at_a_time_writes_an_output(file: BatchFile, redis_url: str) -> None:
    file.write_numbered(1)
    with ResponsesClient(redis_url) as client, Output(file.answers).open(set()):
        other = Batch(client=client, source=file.source, answers=file.answers)

        with pytest.raises(BatchError, match="another run writes this file"):
            other.run()


def test_the_input_is_never_the_output(file: BatchFile, redis_url: str) -> None:
    file.write_numbered(1)
    with ResponsesClient(redis_url) as client, pytest.raises(BatchError, match="another file than the input"):
        Batch(client=client, source=file.source, answers=file.source).run()
