"""The ways of a request from pop to answer. Together they pass every `await` of the request's room.

A way is a kind of message and of what it meets.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from celery import signals

from api_contracts.queues import cancel_key
from support.admission_parts import ask, reservations
from support.awaits import Fault
from support.processor_parts import message
from support.producer import body
from support.road import NUMBER, Road
from worker.admission.client import Admission
from worker.admission.evidence import Evidence
from worker.queue.ledger import Ledger
from worker.request.execution import Interruption
from worker.telemetry.request_observer import current

_JSON: Final = {"format": {"type": "json_object"}}
"""The simulator's answers are none, so they are rejected."""


class BugError(Exception):
    """Of our own code."""


Ready = Callable[[Road, Sequence[bytes]], Awaitable[None]]


async def queued(road: Road, messages: Sequence[bytes]) -> None:
    road.desk.redis.lpush("responses.interactive", *messages)


@dataclass(frozen=True, kw_only=True)
class Way:
    """A kind of message and of what it meets; `steps` are those of its fault."""

    name: str
    message: Callable[[int], bytes]
    ready: Ready = queued
    steps: Mapping[str, Callable[["Road"], None]] = field(default_factory=dict[str, Callable[["Road"], None]])
    together: bool = True
    """Whether one process may take many; else each has one of its own, on an empty Redis."""
    routes: int = 1
    around: Callable[[], AbstractContextManager[None]] = nullcontext
    unanswerable: bool = False
    """Whether it names nobody who could be answered."""

    def id(self, number: int) -> str:
        """The request id under which the message is answered."""
        return f"task-{number}-" if self.name == "of nobody" else f"r{number}"

    def fault(self, road: Road, **said: Any) -> Fault:
        return Fault(steps={site: partial(step, road) for site, step in self.steps.items()}, **said)


def _request(
    prompt: str = "", *, tenant: str = "acme", stream: bool = True, text: Any = None, **envelope: Any
) -> Callable[[int], bytes]:
    def made(number: int) -> bytes:
        asked = body(f"[[id:{number}]] {prompt}", stream=stream, **({"text": text} if text else {}))
        plain = {"body": asked, "request_id": f"r{number}", "tenant": tenant, **envelope}
        return message(plain, headers={"id": f"task-{number}-"})

    return made


def _rubbish(number: int) -> bytes:
    return b"rubbish task-%d-" % number


async def _conflicting(road: Road, messages: Sequence[bytes]) -> None:
    """Their ids were used for other bodies."""
    numbers = [int(found[1]) for each in messages if (found := NUMBER.search(each))]
    road.desk.redis.lpush("responses.interactive", *(_request("another body")(number) for number in numbers))
    await road.drive()
    road.desk.redis.delete("responses:results")
    await queued(road, messages)


async def _cancelled(road: Road, messages: Sequence[bytes]) -> None:
    """Before they were taken."""
    numbers = [int(found[1]) for each in messages if (found := NUMBER.search(each))]
    road.desk.redis.mset({cancel_key("acme", f"r{number}"): 1 for number in numbers})
    await queued(road, messages)


async def _suspected(road: Road, messages: Sequence[bytes]) -> None:
    """Two processes died with each, and a request that runs in this one must end first."""
    await queued(road, messages)
    await road.lose(2, claimed=True)
    road.processor.quarantine.enter("neighbour", None)


async def _lost(road: Road, messages: Sequence[bytes]) -> None:
    await queued(road, messages)
    await road.lose(4, claimed=False)
    await Ledger(road.service.runner).pop({"interactive": 1})


async def _refused(road: Road, messages: Sequence[bytes]) -> None:
    """The key was refused of others, and the next call finds out whether it still is."""
    admission = road.queues.admission
    assert isinstance(admission, Admission)
    now_ms = road.desk.now_ms
    asked = [ask(f"{now_ms}-{each}", now_ms=now_ms, tenant=f"t{each}", body=secrets.token_hex(4)) for each in range(2)]
    for call in reservations(admission, asked, await admission.grant("interactive", 1, asked)):
        await admission.tell(call, Evidence(verdict="authentication", used_tokens=0, code="authentication_failed"))
    road.desk.redis.hset("responses:quota:default", "probe_at", 0)
    await queued(road, messages)


def _drain(_: Road) -> None:
    execution = current()
    assert execution is not None
    execution.interrupt(Interruption.DRAINING)


def _bug(_: Road) -> None:
    raise BugError


def _neighbour_leaves(road: Road) -> None:
    asyncio.get_running_loop().call_soon(road.processor.quarantine.leave, "neighbour")


@contextmanager
def _listener() -> Generator[None]:
    """A receiver of Celery's signals, so that they are sent."""

    def listen(**_: Any) -> None: ...

    told: Any = signals.task_postrun
    told.connect(listen)
    try:
        yield
    finally:
        told.disconnect(listen)


_P: Final = "request.processor.Processor"
WAYS: Final = (
    Way(name="streamed", message=_request()),
    Way(name="plain", message=_request(stream=False)),
    Way(name="checked", message=_request(stream=False, text=_JSON, check_output=True, reask=1)),
    Way(name="retried", message=_request("[[sim:500*1]]"), together=False),
    Way(name="invalid", message=_request(timeout=-1)),
    Way(name="of nobody", message=_request(tenant="not a name!")),
    Way(name="unreadable", message=_rubbish, unanswerable=True),
    Way(name="cancelled", message=_request(), ready=_cancelled, together=False),
    Way(name="conflicting", message=_request(), ready=_conflicting),
    Way(name="lost", message=_request(), ready=_lost, together=False),
    Way(name="drained", message=_request(), steps={f"{_P}._run: self.admitting.admit": _drain}),
    Way(name="bug before the claim", message=_request(), steps={f"{_P}._claim: self.ledger.claim": _bug}),
    Way(name="bug after the claim", message=_request(), steps={f"{_P}._run: self.admitting.admit": _bug}),
    Way(name="watched", message=_request(), around=_listener),
    Way(name="probe", message=_request(), ready=_refused, together=False),
    Way(
        name="suspected",
        message=_request(),
        ready=_suspected,
        together=False,
        steps={f"{_P}._run_guarded: execution.unless_interrupted": _neighbour_leaves},
    ),
    Way(name="moved", message=_request("[[sim:500*1]]"), routes=2, together=False),
    Way(
        name="moved back",
        message=_request("[[sim:500*1]]"),
        routes=2,
        together=False,
        steps={f"{_P}._run: checked": _drain},
    ),
    Way(name="unreadable and lost", message=_rubbish, ready=_lost, together=False, unanswerable=True),
)
