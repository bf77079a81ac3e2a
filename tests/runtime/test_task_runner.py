"""Celery's task signals, for every way in which a delivery can end, and what a listener is never told."""

import asyncio
import json
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from celery import signals
from support.processor_parts import message

from api_contracts import ErrorCode, MappedError
from worker.failures.failure import Failure
from worker.queue.celery_message import task_name
from worker.queue.claims import Delivery
from worker.request.charges import Spent
from worker.request.execution import Execution
from worker.request.processor import Disposition
from worker.runtime.task_runner import RequestFailedError, TaskRunner

NAMES = ("received", "prerun", "postrun", "success", "failure", "retry", "revoked")
CANARY = "a canary prompt"
CELERY: Any = signals
"""Celery has no types."""

Heard = list[tuple[str, dict[str, Any]]]


class StandIn:
    """A task object as Celery makes them: a name, and the coroutine as `run`."""

    def __init__(self, name: str, ended: Disposition | BaseException, **changes: Any) -> None:
        self.name, self.ended, self.changes, self.ran = name, ended, changes, 0

    async def run(self, _processor: Any, execution: Execution) -> Disposition:
        self.ran += 1
        for field, value in self.changes.items():
            setattr(execution, field, value)
        if isinstance(self.ended, BaseException):
            raise self.ended
        return self.ended


@contextmanager
def listening(*names: str) -> Generator[Heard]:
    """Real receivers for these signals, and what they are told, in order."""
    heard: Heard = []
    with ExitStack() as stack:
        for name in names:

            def receive(name: str = name, **arguments: Any) -> None:
                heard.append((name, arguments))

            signal = getattr(CELERY, f"task_{name}")
            signal.connect(receive, weak=False)
            stack.callback(signal.disconnect, receive)
        yield heard


def execution(**headers: Any) -> Execution:
    raw = message({"metadata": {"note": CANARY}}, {"root_id": "root-1", "argsrepr": CANARY, **headers})
    return Execution(Delivery("token-1", "interactive", raw))


def run(task: StandIn, whose: Execution | None = None) -> Disposition:
    runner = TaskRunner(
        processor=None,  # pyright: ignore[reportArgumentType]  # the stand-in asks it nothing
        tasks={"responses.create": task},
        hostname="first@here",
        consumer=lambda: "the consumer",
    )
    return asyncio.run(runner.run(whose or execution()))


def failed(code: ErrorCode) -> MappedError:
    return Failure.of(code).mapped()


ENDS: dict[str, tuple[StandIn, str, str]] = {
    "completed": (StandIn("t", Disposition.COMPLETED), "success", "SUCCESS"),
    "incomplete": (StandIn("t", Disposition.INCOMPLETE), "success", "SUCCESS"),
    "retry": (StandIn("t", Disposition.RETRY_SCHEDULED, spent=Spent(failures=2)), "retry", "RETRY"),
    "dead": (StandIn("t", Disposition.DEAD_LETTERED), "failure", "FAILURE"),
    "bug": (StandIn("t", ValueError(CANARY)), "failure", "FAILURE"),
    "failed without a claim": (StandIn("t", Disposition.FAILED), "failure", "FAILURE"),
    **{
        code: (StandIn("t", Disposition.FAILED, error=failed(code)), "failure", "FAILURE")
        for code in ErrorCode
        if code not in (ErrorCode.CANCELLED, ErrorCode.DEADLINE_EXCEEDED)
    },
    "cancelled": (StandIn("t", Disposition.FAILED, error=failed(ErrorCode.CANCELLED)), "revoked", "REVOKED"),
    "expired": (StandIn("t", Disposition.FAILED, error=failed(ErrorCode.DEADLINE_EXCEEDED)), "revoked", "REVOKED"),
    "delayed": (StandIn("t", Disposition.DELAYED), "", "REJECTED"),
    "released": (StandIn("t", Disposition.RELEASED), "", "REJECTED"),
    "stranded": (StandIn("t", asyncio.CancelledError()), "", "REJECTED"),
    "duplicate": (StandIn("t", Disposition.DUPLICATE), "", "IGNORED"),
    "republished": (StandIn("t", Disposition.REPUBLISHED), "", "IGNORED"),
    "busy": (StandIn("t", Disposition.BUSY), "", "IGNORED"),
    "superseded": (StandIn("t", Disposition.SUPERSEDED), "", "IGNORED"),
}


@pytest.mark.parametrize(("task", "told", "state"), ENDS.values(), ids=ENDS)
def test_every_end_has_its_signals(task: StandIn, told: str, state: str) -> None:
    """In Celery's order, with all the arguments that its documentation names, and no word of the request."""
    with listening(*NAMES) as heard:
        try:
            run(task)
        except BaseException as error:  # noqa: BLE001  # also the one that stops a task
            assert error is task.ended  # noqa: PT017  # whatever was raised goes on

    assert [name for name, _ in heard] == ["received", "prerun", *([told] if told else []), "postrun"]
    for name, arguments in heard:
        signal = arguments.pop("signal")
        assert arguments.pop("sender") == ("the consumer" if name == "received" else task)
        assert set(arguments) >= signal.providing_args
        assert CANARY not in repr(list(arguments.values()))
        assert (arguments.get("args", ()), arguments.get("kwargs", {})) == ((), {})
        assert arguments.get("task_id", "task-1") == "task-1"
    assert heard[-1][1]["state"] == state
    request: Any = heard[0][1]["request"]
    assert CANARY not in str(request.__dict__)
    assert (request.id, request.root_id, request.args, request.kwargs) == ("task-1", "root-1", (), {})
    assert (request.hostname, request.delivery_info["routing_key"]) == ("first@here", "responses.interactive")


def test_what_the_signals_carry() -> None:
    """A failure's code, a revoked request's reason, how often a request failed."""
    with listening("failure", "revoked", "retry", "success") as heard:
        run(StandIn("t", Disposition.FAILED, error=failed(ErrorCode.CONTEXT_LENGTH_EXCEEDED)))
        run(StandIn("t", Disposition.FAILED, error=failed(ErrorCode.CANCELLED)))
        run(StandIn("t", Disposition.FAILED, error=failed(ErrorCode.DEADLINE_EXCEEDED)))
        last = Failure.of(ErrorCode.UPSTREAM_ERROR)
        run(StandIn("t", Disposition.RETRY_SCHEDULED, spent=Spent(failures=2), last_failure=last))
        run(StandIn("t", Disposition.COMPLETED))
    (_, failure), (_, cancelled), (_, expired), (_, retry), (_, success) = heard

    assert isinstance(failure["exception"], RequestFailedError)
    assert failure["exception"].code == ErrorCode.CONTEXT_LENGTH_EXCEEDED
    assert failure["traceback"] is failure["exception"].__traceback__
    assert failure["einfo"].exception.exc is failure["exception"]
    assert (cancelled["terminated"], cancelled["expired"], cancelled["signum"]) == (False, False, None)
    assert expired["expired"] is True
    assert (retry["request"].retries, str(retry["reason"])) == (2, "upstream_error: will be tried again")
    assert success["result"] == "completed"
    assert success["runtime"] >= 0


@pytest.mark.parametrize("name", NAMES)
def test_one_listener_is_enough(name: str) -> None:
    """Each signal is sent though nobody listens to the others."""
    ends = {"failure": Disposition.DEAD_LETTERED, "retry": Disposition.RETRY_SCHEDULED}
    error = failed(ErrorCode.CANCELLED) if name == "revoked" else None
    ended = Disposition.FAILED if error else ends.get(name, Disposition.COMPLETED)
    with listening(name) as heard:
        run(StandIn("t", ended, error=error))
    assert [told for told, _ in heard] == [name]


def test_nobody_listens_and_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is not parsed for signals without receivers."""

    def parsed(_: bytes) -> None:
        raise AssertionError("nobody listens")

    monkeypatch.setattr("worker.runtime.task_runner.headers_of", parsed)
    assert run(StandIn("t", Disposition.COMPLETED)) is Disposition.COMPLETED


def test_a_receiver_that_raises_harms_no_request() -> None:
    """Celery logs it and goes on."""

    def broken(**_: Any) -> None:
        raise ValueError(CANARY)

    CELERY.task_prerun.connect(broken)
    try:
        assert run(StandIn("t", Disposition.COMPLETED)) is Disposition.COMPLETED
    finally:
        CELERY.task_prerun.disconnect(broken)


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b'"task"', b'{"headers": {"task": 7}}', b'{"headers": {"task": "no such task"}}', b"\xff\x00"],
)
def test_a_message_of_no_known_task_is_answered_as_a_request(raw: bytes) -> None:
    """Its coroutine says what is wrong with it."""
    task = StandIn("t", Disposition.DEAD_LETTERED)
    with listening("prerun") as heard:
        run(task, Execution(Delivery("token-1", "interactive", raw)))
    assert task.ran == 1
    assert heard[0][1]["task_id"] is None


def test_a_name_inside_a_body_is_not_the_task() -> None:
    """Celery may write the body as plain JSON, in which quotes are escaped."""
    body = json.dumps([[{"body": '"task": "evil.task"', "task": "evil.task"}], {}, {}])
    raw = json.dumps({"body": body, "headers": {"task": "responses.create"}}).encode()
    assert task_name(raw) == "responses.create"
