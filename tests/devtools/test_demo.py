"""The demo plays the whole job, judges it, and leaves nothing behind however it ends."""

import signal
import uuid
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from support.command_line import ROOT, Ran, run, started
from support.polling import wait_until

from api_contracts import ErrorCode, GenerationResult, MappedError
from worker.devtools.demo.scenarios import SCENES, Report, Request, Scene, problems, requests_of
from worker.devtools.devstack import Simulator

EXAMPLES = ROOT / "examples"


class Mark:
    """The heritage of every process of one demo: a variable, and the place of its temporary directories."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.settings = {"DEMO_MARK": uuid.uuid4().hex, "TMPDIR": str(directory)}

    def processes(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if self._bears(process)]

    def _bears(self, process: psutil.Process) -> bool:
        try:
            # Valkey writes its title over its environment, but works in its data directory.
            inside = process.cwd().startswith(str(self.directory))
            return inside or process.environ().get("DEMO_MARK") == self.settings["DEMO_MARK"]
        except (psutil.Error, OSError):
            return False

    def worker_runs(self) -> bool:
        return any(process.cmdline()[-1:] == ["run"] for process in self.processes())


@pytest.fixture
def mark(tmp_path: Path) -> Mark:
    return Mark(tmp_path)


def test_every_request_of_the_demo_gets_the_one_result_it_should(mark: Mark) -> None:
    played = run("demo", **mark.settings, WORKER_CONCURRENCY="wrong settings of real life do not count")

    assert played.code == 0, played
    assert "40 requests, each answered exactly once" in played.out
    assert "36 completed, 1 incomplete, 3 failed" in played.out
    assert "Grüße aus Köln! 世界よ、こんにちは。" in played.out
    for code in ("invalid_request", "content_rejected", "incomplete_max_tokens", "upstream_error"):
        assert code in played.out
    assert played.err == ""
    assert mark.processes() == []
    assert list(mark.directory.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_interrupted_stops_what_it_started(mark: Mark, number: signal.Signals) -> None:
    with started("-m", "worker", "demo", **mark.settings) as demo:
        wait_until(mark.worker_runs, within_s=30, what="a worker")
        demo.send_signal(number)
        _, complaint = demo.communicate(timeout=20)

    assert demo.returncode == 130
    assert complaint == "Interrupted; everything that was started is stopped.\n"
    assert mark.processes() == []
    assert list(mark.directory.iterdir()) == []


def test_with_a_key_the_demo_calls_the_real_gateway_and_never_shows_the_key(mark: Mark, gateway: Simulator) -> None:
    """Only what a real gateway can answer is played."""
    gateway.configure(keys=["sk-canary"])

    played = _against(gateway, mark)

    assert played.code == 0, played
    assert f"{gateway.url} with your key" in played.out
    assert "5 requests, each answered exactly once" in played.out
    assert "[[sim:" not in played.out
    assert "sk-canary" not in played.out + played.err
    assert gateway.stats().calls == 4


def test_a_demo_that_goes_wrong_says_what_and_keeps_the_log(mark: Mark, gateway: Simulator) -> None:
    gateway.configure(fault_rates={"404": 1.0})

    played = _against(gateway, mark)

    assert played.code == 1
    assert "hello: model_unavailable instead of completed" in played.out
    assert "Try next" not in played.out
    log = Path(played.err.strip().removeprefix("The worker's log: "))
    assert "worker.started" in log.read_text(encoding="utf-8")
    assert mark.processes() == []


def test_wrong_settings_for_a_real_gateway_stop_the_demo_before_it_starts(mark: Mark) -> None:
    played = run("demo", **mark.settings, WORKER_UPSTREAM_API_KEY="sk-canary", WORKER_PATIENCE="wrong")

    assert played.code == 2
    assert played.err.startswith("WORKER_PATIENCE: ")
    assert list(mark.directory.iterdir()) == []


def test_the_demo_plays_every_example_there_is() -> None:
    assert {scene.file for scene in SCENES} == {file.stem for file in EXAMPLES.glob("*.json")}
    assert len({request.request_id for request in requests_of(EXAMPLES, simulated=True)}) == 40
    assert not any("[[sim:" in request.prompt for request in requests_of(EXAMPLES, simulated=False))


GOOD = GenerationResult.model_validate(
    {
        "contract_version": "1.0",
        "request_id": "one",
        "tenant": "default",
        "lane": "interactive",
        "outcome": "completed",
        "response": {
            "status": "completed",
            "output": [{"type": "message", "content": [{"type": "output_text", "text": "Echo: Hi!"}]}],
        },
        "timing": {
            "enqueued_at": "2026-01-31T09:30:00.000Z",
            "enqueued_at_source": "caller",
            "claimed_at": "2026-01-31T09:30:00.000Z",
            "finished_at": "2026-01-31T09:30:00.000Z",
            "queue_ms": 0,
            "throttle_ms": 0,
            "upstream_ms": 0,
            "total_ms": 0,
        },
    }
)
FAILED = GOOD.model_copy(
    update={
        "outcome": "failed",
        "response": None,
        "error": MappedError(code=ErrorCode.UPSTREAM_ERROR, message="", retryable=True),
    }
)
GARBLED = GOOD.model_copy(update={"response": GOOD.response and GOOD.response.model_copy(update={"output": []})})


@pytest.mark.parametrize(
    ("results", "left", "calls", "expected"),
    [
        ([GOOD], 0, {}, []),
        ([], 0, {}, ["one: 0 results instead of 1"]),
        ([GOOD, GOOD], 0, {}, ["one: 2 results instead of 1"]),
        ([FAILED], 0, {}, ["one: upstream_error instead of completed"]),
        ([GARBLED], 0, {}, ["one: the answer does not echo the prompt"]),
        ([GARBLED], 0, None, []),
        ([GOOD], 2, {}, ["2 messages were left without an answer"]),
        ([GOOD], 0, {"200": 3}, ["0 attempts were recorded, but the gateway took 3 calls"]),
    ],
)
def test_the_verdict_names_what_went_wrong(
    results: Sequence[GenerationResult], left: int, calls: dict[str, int] | None, expected: list[str]
) -> None:
    envelope = {"request_id": "one", "body": {"input": [{"role": "user", "content": "Hi!"}]}}
    request = Request(scene=Scene(file="one"), request_id="one", envelope=envelope)

    assert problems(Report(requests=[request], results=results, left=left, took_s=0, calls=calls)) == expected


def _against(gateway: Simulator, mark: Mark) -> Ran:
    return run("demo", **mark.settings, WORKER_UPSTREAM_URL=gateway.url, WORKER_UPSTREAM_API_KEY="sk-canary")
