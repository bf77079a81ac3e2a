"""Batch files: every line answered once, however often the client dies."""

import json
import signal
from collections import Counter
from pathlib import Path

import pytest
from commands import run, started
from harness import Fleet, Producer, body, wait_until

from worker.batches import Line, lines_of
from worker.devstack import Simulator


def write(path: Path, count: int) -> Path:
    lines = [
        {"custom_id": f"line {n}", "method": "POST", "url": "/v1/responses", "body": body(f"[[id:{n}]] Grüße {n}")}
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_killed_client_goes_on_where_it_stopped(
    fleet: Fleet, producer: Producer, gateway: Simulator, redis_url: str, tmp_path: Path
) -> None:
    """Killed twice and resumed: one output line per custom_id, and nothing paid twice."""
    gateway.configure(latency_median_s=0.2)
    fleet.start(concurrency=40)
    source, answers = write(tmp_path / "in.jsonl", 600), tmp_path / "out.jsonl"

    for so_far in (100, 300):
        with started("-m", "worker", "batch", str(source), str(answers), WORKER_REDIS_URL=redis_url) as client:
            wait_until(lambda least=so_far: answers.exists() and len(read_whole(answers)) >= least, within_s=30)
            client.send_signal(signal.SIGKILL)
            client.wait()
    done = run("batch", str(source), str(answers), WORKER_REDIS_URL=redis_url)

    assert done.code == 0, done.err
    assert Counter(line["custom_id"] for line in read(answers)) == Counter(f"line {n}" for n in range(600))
    assert Counter(call.tag for call in gateway.calls()) == Counter(str(n) for n in range(600))
    assert producer.leftovers() == {}


def read_whole(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_lines_without_an_answer_are_kept_apart(fleet: Fleet, redis_url: str, tmp_path: Path) -> None:
    """Bad lines and failed requests are errors; the rest is answered; the summary says how many of each."""
    fleet.start(max_attempts=1)
    source, answers = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [
        {"custom_id": "good", "url": "/v1/responses", "body": body("Hello!")},
        {"custom_id": "fails", "url": "/v1/responses", "body": body("[[sim:400]]")},
        {"custom_id": "typo", "url": "/v1/responses", "body": body(temprature=1)},
        {"custom_id": "elsewhere", "url": "/v1/chat/completions", "body": body()},
    ]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines) + "no json\n", encoding="utf-8")

    done = run("batch", str(source), str(answers), WORKER_REDIS_URL=redis_url)

    assert done.code == 0, done.err
    assert [line["custom_id"] for line in read(answers)] == ["good"]
    errors = read(tmp_path / "out.errors.jsonl")
    assert sorted(line["custom_id"] for line in errors) == ["elsewhere", "fails", "line-5", "typo"]
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
