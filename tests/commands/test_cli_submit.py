"""`responses-worker submit`: processes in front of a real worker."""

import json
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from support.command_line import Ran, called, run, started
from support.producer import Producer, body
from support.worker_process import Fleet

from worker.devtools.devstack import Simulator, embedded_valkey


@dataclass(frozen=True)
class Desk:
    """A Redis with a worker behind it."""

    redis_url: str
    gateway: Simulator

    def run(self, *arguments: str, stdin: str = "") -> Ran:
        return run(*arguments, stdin=stdin, WORKER_REDIS_URL=self.redis_url)

    def submit(self, *arguments: str, stdin: str = "") -> Ran:
        return self.run("submit", *arguments, stdin=stdin)


@pytest.fixture(scope="module")
def desk(gateway_server: Simulator) -> Generator[Desk]:
    """One worker for all tests that only ask; each uses ids of its own."""
    with embedded_valkey() as valkey, Fleet(valkey.url, gateway_server.url) as fleet:
        fleet.start()
        yield Desk(valkey.url, gateway_server)


def test_submit_waits_for_the_text_and_prints_nothing_else(desk: Desk) -> None:
    ran = desk.submit("Grüße, 世界!", "--wait")

    assert ran == Ran(0, "Echo: Grüße, 世界!\n", "")


def test_submit_without_wait_prints_the_id_that_the_result_will_have(desk: Desk) -> None:
    request_id = desk.submit("Hello!", "--tenant", "acme", "--lane", "batch").out.strip()

    with Producer(desk.redis_url) as producer:
        result = producer.result(request_id)
    assert result["tenant"] == "acme"
    assert result["lane"] == "batch"
    assert result["timing"]["enqueued_at_source"] == "caller"


def test_an_error_is_explained_and_exits_1(desk: Desk) -> None:
    ran = desk.submit("Hello! [[sim:filter]]", "--wait")

    assert ran.code == 1
    assert ran.out == ""
    assert ran.err.startswith("content_rejected: ")
    assert "The gateway said: " in ran.err
    assert "Asking the same again cannot help." in ran.err


def test_an_incomplete_answer_is_printed_with_its_error_beside_it(desk: Desk) -> None:
    ran = desk.submit("Hello! [[sim:incomplete]]", "--wait")

    assert ran.code == 1
    assert ran.out.startswith("Echo: Hello!")
    assert ran.err.startswith("incomplete_max_tokens: ")


def test_a_streamed_answer_is_printed_while_it_is_generated(desk: Desk) -> None:
    asked = ("submit", "Tell me a story. [[id:story]] [[sim:slow=8]]", "--stream")

    with started("-m", "worker", *asked, WORKER_REDIS_URL=desk.redis_url) as process:
        assert process.stdout
        assert process.stdout.read(5) == "Echo:"
        (call,) = desk.gateway.calls("story")

    assert call.status is None


def test_a_stream_that_was_cut_is_printed_from_its_beginning_again(desk: Desk) -> None:
    ran = desk.submit("Once upon a time there was a stream [[sim:cut*1]]", "--stream")

    broken, whole = ran.out.splitlines()
    assert whole == "Echo: Once upon a time there was a stream [[sim:cut*1]]"
    assert whole.startswith(broken)
    assert ran.err == "The gateway broke off; once more from the beginning:\n"


def test_nobody_is_shown_what_another_request_streamed_under_the_same_id(desk: Desk) -> None:
    first = desk.submit("The first", "--request-id", "streamed", "--stream")

    again = desk.submit("The first", "--request-id", "streamed", "--stream")
    other = desk.submit("The second", "--request-id", "streamed", "--stream")

    assert first == again == Ran(0, "Echo: The first\n", "")
    assert (other.code, other.out) == (1, "")
    assert other.err.startswith("duplicate_conflict: ")


def test_json_is_the_result_as_the_worker_wrote_it(desk: Desk) -> None:
    ran = desk.submit("Hello!", "--wait", "--json", "--stream", "--max-output-tokens", "9")

    assert ran.code == 0
    assert '"ratio": 1.50' in ran.out  # the gateway's own bytes: no parser and printer keeps the zero
    assert json.loads(ran.out)["response"]["max_output_tokens"] == 9


def test_a_file_may_hold_an_envelope_and_options_win_over_it(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    envelope = {"body": body("From a file", max_output_tokens=5), "tenant": "acme", "metadata": {"order": "17"}}
    file.write_text(json.dumps(envelope))

    ran = desk.submit("-f", str(file), "--tenant", "other", "--max-output-tokens", "50", "--wait", "--json")

    result = json.loads(ran.out)
    assert (result["tenant"], result["metadata"]) == ("other", {"order": "17"})
    assert result["response"]["max_output_tokens"] == 50


def test_standard_input_may_hold_only_the_body(desk: Desk) -> None:
    ran = desk.submit("--file", "-", "--wait", stdin=json.dumps(body("From a pipe")))

    assert ran.out == "Echo: From a pipe\n"


@pytest.mark.parametrize(
    ("arguments", "stdin", "complaint"),
    [
        ((), "", "give either TEXT or --file"),
        (("Hello!", "--file", "-"), "{}", "give either TEXT or --file"),
        (("--file", "-"), '{"body":', "-: EOF while parsing"),
        (("--file", "-"), '{"body": {"top_p": NaN}}', "-: "),
        (("--file", "-"), "[]", "-: must hold a JSON object"),
        (("--file", "missing.json"), "", "missing.json: No such file or directory"),
        (("Hello!", "--lane", "inter active"), "", "--lane: must be a name"),
        (("Hello!", "--tenant", "a b"), "", "tenant must match"),
    ],
)
def test_what_cannot_be_a_request_is_refused_with_exit_2(
    redis_url: str, arguments: tuple[str, ...], stdin: str, complaint: str
) -> None:
    ran = called("submit", *arguments, stdin=stdin, WORKER_REDIS_URL=redis_url)

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(complaint)


def test_an_invalid_request_is_refused_field_by_field_and_never_enqueued(valkey: redis.Redis, redis_url: str) -> None:
    wrong = {"model": "gpt-5.4-mini", "input": [{"role": "robot", "content": "secret"}], "max_output_token": 1}

    ran = called("submit", "--file", "-", "--wait", stdin=json.dumps(wrong), WORKER_REDIS_URL=redis_url)

    assert ran.code == 2
    assert [line.split()[0] for line in ran.err.splitlines()] == ["body.input.0.role", "body.max_output_token"]
    assert "did you mean max_output_tokens?" in ran.err
    assert not valkey.exists("responses.interactive")


def test_the_same_request_again_waits_for_the_first_answer(desk: Desk) -> None:
    """So a wait that was broken off is taken up by the same command."""
    desk.gateway.reset()
    asked = ("Once only [[id:again]]", "--request-id", "again", "--wait")

    assert desk.submit(*asked) == desk.submit(*asked)
    assert len(desk.gateway.calls("again")) == 1


def test_another_request_under_a_taken_id_is_not_given_its_answer(desk: Desk) -> None:
    assert desk.submit("The first", "--request-id", "taken", "--wait").code == 0

    ran = desk.submit("The second", "--request-id", "taken", "--wait")

    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("duplicate_conflict: ")


def test_a_retryable_failure_is_not_mistaken_for_the_new_answer(desk: Desk) -> None:
    """The first result is still kept under the id while the request runs anew."""
    once = json.dumps({"body": body("Second time lucky [[sim:500*1]] [[sim:slow=0.3]]"), "max_attempts": 1})
    asked = ("--file", "-", "--request-id", "anew", "--wait")

    assert desk.submit(*asked, stdin=once).code == 1
    assert desk.submit(*asked, stdin=once).out.startswith("Echo: Second time lucky")


def test_no_answer_within_the_timeout_is_exit_3_and_says_how_to_wait_on(redis_url: str) -> None:
    ran = called("submit", "Anybody?", "--wait", "--timeout", "0.1", WORKER_REDIS_URL=redis_url)

    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith("no answer yet: queued; ")
    assert "--request-id " in ran.err
