"""The cost of watching one request, in this process: the observer's whole part in it, at a rate of traces."""

import io
import json
import logging
import sys
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

from api_contracts.responses import Usage
from worker.config.sentry_settings import SentryOptions
from worker.gateway.upstream import Answer, Call
from worker.queue.claims import Claim, Delivery, Lease, Standing
from worker.queue.messages import Message, decode
from worker.request.execution import Execution
from worker.telemetry import configure
from worker.telemetry.incidents import Incidents
from worker.telemetry.metrics import Metrics
from worker.telemetry.request_observer import RequestObserver
from worker.telemetry.sentry import start

_ENVELOPE: Final[Mapping[str, Any]] = {
    "body": {"model": "gpt-5.4-mini", "input": [{"role": "user", "content": "Hello! " * 40}], "max_output_tokens": 64},
    "tenant": "acme",
}
_ANSWER: Final = Answer(
    raw=b"{}" * 500, status="completed", usage=Usage(input_tokens=70, output_tokens=40), model="gpt-5.4-mini",
    response_id="resp_1",
)  # fmt: skip
_CALL: Final = Call(outcome=_ANSWER, http_status=200, upstream_request_id="req-1", duration_ms=812, headers={})


def messages(count: int) -> list[tuple[bytes, Message]]:
    """As Celery writes them, and decoded."""
    made: list[tuple[bytes, Message]] = []
    for _ in range(count):
        raw = json.dumps(
            {
                "body": json.dumps([[_ENVELOPE], {}, {}]),
                "content-type": "application/json",
                "headers": {"task": "responses.create", "id": str(uuid.uuid4())},
                "properties": {},
            }
        ).encode()
        message = decode(raw, max_body=1 << 20)
        if isinstance(message, Message):
            made.append((raw, message))
    return made


def execution_of(raw: bytes, message: Message) -> Execution:
    """A request that was claimed, called once and answered."""
    delivery = Delivery(f"{message.task_id}.interactive.1", "interactive", raw)
    now_ms = round(time.time() * 1000)
    claim = Claim(
        tenant=message.tenant,
        request_id=message.request_id,
        task_id=message.task_id,
        fingerprint=message.fingerprint,
        enqueued_at_ms=now_ms - 900,
        deadline_ms=None,
        default_deadline_ms=3_600_000,
        longest_deadline_ms=604_800_000,
        stream="responses:results",
    )
    lease = Lease(
        delivery=delivery,
        claim=claim,
        standing=Standing.RUNNABLE,
        now_ms=now_ms - 850,
        enqueued_at_ms=now_ms - 900,
        enqueued_at_source="worker",
        deadline_ms=now_ms + 3_600_000,
        claimed_at_ms=now_ms - 850,
        failures=0,
        crashes=0,
        throttle_ms=0,
        own=0,
        attempts=(),
    )
    execution = Execution(delivery, message)
    execution.adopt(lease)
    execution.waited(3)
    execution.start_attempt("default")
    execution.end_attempt(_CALL)
    execution.finish(None)
    return execution


def observer(dsn: str, rate: float) -> RequestObserver:
    metrics = Metrics(["interactive"])
    sentry = start(SentryOptions(dsn=dsn, release="responses-worker@bench", trace_rate=rate))
    incidents = Incidents(metrics=metrics, send=sentry.send, render=sentry.render)
    return RequestObserver(metrics=metrics, incidents=incidents, sentry=sentry, server="gateway.example")


def cost_ms(dsn: str, rate: float, requests: int) -> float:
    """CPU of this process, all its threads, per request: the observer's three calls, and Sentry's sender."""
    configure("json", "INFO", out=io.BytesIO(), service="responses-worker", environment="bench")
    watching = observer(dsn, rate)
    executions = [execution_of(raw, message) for raw, message in messages(requests)]
    started = time.process_time()
    for execution in executions:
        watching.request_began(execution)
        watching.call_ended(execution, _CALL)
        watching.request_finished(execution, "completed")
        if rate == 1.0:
            time.sleep(0.002)  # what is sent is paid for as well; a full queue would drop it
    watching.sentry.close()
    spent = time.process_time() - started
    logging.getLogger().handlers.clear()
    return spent * 1000 / requests


if __name__ == "__main__":
    print(cost_ms(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
