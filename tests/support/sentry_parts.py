"""Incidents of a worker, reported to a Sentry receiver under a clock that the test moves."""

from typing import Any, Final

from api_contracts import ErrorCode
from support.sentry_receiver import SentryReceiver
from worker.config.sentry_settings import SentryOptions
from worker.failures.classes import Kind, State
from worker.telemetry.incidents import Incidents
from worker.telemetry.metrics import Metrics
from worker.telemetry.reports import Facts
from worker.telemetry.sentry import SentryClient

KINDS: Final[tuple[Kind, ...]] = (*ErrorCode, *State)
FACTS: Final = Facts(
    lane="interactive",
    tenant="acme",
    request_id="order-17",
    task_id="task-1",
    trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
    span_id="00f067aa0ba902b7",
    model="gpt-5.4-mini",
    http_status=502,
    retryable=True,
    attempts=5,
    upstream_code="bad_gateway",
    upstream_request_id="req-up-1",
    enqueued_at="2026-11-22T14:00:00.000Z",
    queue_ms=12,
    upstream_ms=340,
)


class Clock:
    """A clock that a test moves."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class World:
    """Everything between a failure and the receiver."""

    def __init__(self, receiver: SentryReceiver) -> None:
        self.receiver, self.clock, self.metrics = receiver, Clock(), Metrics(["interactive"])
        options = SentryOptions(
            dsn=receiver.dsn, environment="test", release="responses-worker@1", runbook_url="https://run.example/book"
        )
        self.client = SentryClient(options)
        self.incidents = Incidents(
            metrics=self.metrics,
            send=self.client.send,
            render=self.client.render,
            runbook_url=options.runbook_url,
            oldest_age_s=lambda: 73.26,
            clock=self.clock,
        )

    def pass_time(self, seconds: float) -> None:
        """Second by second, as a worker ticks."""
        end_s = self.clock.now_s + seconds
        while self.clock.now_s < end_s:
            self.clock.now_s = min(end_s, self.clock.now_s + 1)
            self.incidents.tick()

    def events(self) -> list[dict[str, Any]]:
        """All that arrived in the end."""
        self.client.close()
        return self.receiver.events()
