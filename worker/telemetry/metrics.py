"""The worker's metrics: a closed list, and one registry per process.

Counters exist at 0 from the start, so that `rate()` sees their first step. Labels are closed sets: never a tenant, a
request id, a raw model name or a text. Buckets fit model calls, which take minutes (those of OpenTelemetry's GenAI
conventions end at 82 s).
"""

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

from api_contracts import ErrorCode
from worker import __version__
from worker.failures.classes import FAILURES, fault

PREFIX: Final = "responses_worker_"

WaitReason = Literal[
    "requests",
    "tokens",
    "concurrency",
    "share",
    "throttled",
    "authentication_failed",
    "quota_exhausted",
    "breaker_open",
    "paused",
    "redis_lost",
    "results_high_water",
    "draining",
    "process_full",
    "other",
]
"""The runbook explains each (`runbook.WAITS`)."""
WAIT_REASONS: Final[tuple[WaitReason, ...]] = WaitReason.__args__  # pyright: ignore[reportAttributeAccessIssue]  # of a Literal

UPSTREAM_STATES: Final = ("open", "authentication_failed", "quota_exhausted", "breaker_open", "paused")
CALL_SECONDS: Final = (0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600)
WAIT_SECONDS: Final = (0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200, 21600, 86400)
LAG_SECONDS: Final = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5, 15)


@dataclass(frozen=True, slots=True)
class Spec:
    """One metric, for the documentation and the checks of alert rules."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str


class Metrics:
    """The metrics of one process; thread-safe, an update takes about a microsecond."""

    def __init__(self, lanes: Iterable[str] = (), upstreams: Iterable[str] = ("default",)) -> None:
        self.upstreams = tuple(upstreams)
        disable_created_metrics()  # a sample for each series, of the time at which its process began
        self.registry = CollectorRegistry()
        self.specs: list[Spec] = []
        ProcessCollector(registry=self.registry)
        self._of_requests()
        self._of_calls()
        self._of_waiting()
        self._of_the_process()
        self._start_at_zero(tuple(lanes))

    def _of_requests(self) -> None:
        self.deliveries = self._counter("deliveries", "Deliveries, by disposition.", "lane", "disposition")
        self.results = self._counter(
            "results", "Answers published; `fault` is the party at fault.", "lane", "outcome", "code", "fault"
        )
        self.duration = self._histogram(
            "request_duration_seconds", "From enqueueing to the published answer.", CALL_SECONDS, "lane", "outcome"
        )
        self.queue_wait = self._histogram(
            "queue_wait_seconds", "From enqueueing to the first claim.", WAIT_SECONDS, "lane"
        )
        self.throttle_wait = self._histogram(
            "throttle_wait_seconds", "Waiting for the budget, per delivery that did.", WAIT_SECONDS, "lane"
        )
        self.dead_letters = self._counter("dead_letters", "Messages put aside as dead letters.", "reason")
        self.reclaimed = self._counter(
            "reclaimed", "Deliveries of silent workers that went back; `calling` died in a call.", "calling"
        )
        self.leases_lost = self._counter("leases_lost", "Deliveries another worker took over while held here.")

    def _of_calls(self) -> None:
        self.calls = self._counter(
            "upstream_calls",
            "Calls of the gateway, by route, HTTP status and error code.",
            "upstream",
            "model",
            "status",
            "code",
        )
        self.call_duration = self._histogram(
            "upstream_duration_seconds", "One call of the gateway.", CALL_SECONDS, "model", "status_class"
        )
        self.tokens = self._counter(
            "tokens", "Tokens used; cached is part of input, reasoning of output: never sum all.", "model", "type"
        )
        self.cost = self._counter(
            "cost_usd", "Cost of the tokens used in USD, of models whose price is configured.", "model"
        )
        self.budget_used = self._counter(
            "budget_used", "Calls granted and tokens set aside, to hold against the limit.", "budget"
        )
        self.budget_limit = self._gauge(
            "budget_limit", "The limit in force, a minute or in flight; 0 = unknown.", "budget"
        )
        self.rate = self._gauge(
            "fleet_rate_per_minute", "Requests a minute the whole fleet may start now: learned, at most the limit."
        )
        self.useful_concurrency = self._gauge(
            "useful_concurrency", "Calls in flight that the rate can keep busy: rate x p95 of recent calls x 1.25."
        )
        self.upstream_state = self._gauge("upstream_state", "1 for the state the upstream is in.", "upstream", "state")

    def _of_waiting(self) -> None:
        self.waiting = self._counter(
            "waiting_seconds", "Time in which requests held here waited and none was started, by reason.", "reason"
        )
        self.deferrals = self._counter("deferrals", "Times the budget made a request wait, by reason.", "reason")

    def _of_the_process(self) -> None:
        self.held = self._gauge(
            "requests_held", "Requests this process holds: waiting for the budget, or calling.", "phase"
        )
        self.concurrency = self._gauge("concurrency_limit", "WORKER_CONCURRENCY.")
        self.loop_lag = self._histogram("loop_lag_seconds", "How late the event loop is, once a second.", LAG_SECONDS)
        self.redis_up = self._gauge("redis_up", "Whether Redis serves this process.")
        self.incidents = self._counter(
            "incidents", "Failures reported to Sentry, and those counted in a report (`held`).", "kind", "action"
        )
        self.info = self._gauge("info", "1.", "version", "python")
        self.info.labels(__version__, platform.python_version()).set(1)
        self.redis_up.set(1)

    def _start_at_zero(self, lanes: Sequence[str]) -> None:
        for reason in WAIT_REASONS:
            self.waiting.labels(reason)
            self.deferrals.labels(reason)
        for lane in lanes:
            self.results.labels(lane, "completed", "", "none")
            for code in ErrorCode:
                self.results.labels(lane, "failed", code, fault(code))
        for kind, failure_class in FAILURES.items():
            if failure_class.level:
                self.incidents.labels(kind, "reported")
                self.incidents.labels(kind, "held")
        for upstream in self.upstreams:
            self.show_upstream(upstream, "open")

    def show_upstream(self, upstream: str, state: str) -> None:
        """Sets the given state to 1 and the others to 0."""
        for name in UPSTREAM_STATES:
            self.upstream_state.labels(upstream, name).set(name == state)

    def show_limits(self, requests_per_minute: int, tokens_per_minute: int, in_flight: int) -> None:
        """Shows the limits in force: those an operator set, else those of the settings."""
        self.budget_limit.labels("requests").set(requests_per_minute)
        self.budget_limit.labels("tokens").set(tokens_per_minute)
        self.budget_limit.labels("in_flight").set(in_flight)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(self._named(f"{name}_total", "counter", labels, text), text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(self._named(name, "gauge", labels, text), text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        full_name = self._named(name, "histogram", labels, text)
        return Histogram(full_name, text, labels, buckets=buckets, registry=self.registry)

    def _named(
        self, name: str, kind: Literal["counter", "gauge", "histogram"], labels: tuple[str, ...], text: str
    ) -> str:
        self.specs.append(Spec(PREFIX + name, kind, labels, text))
        return PREFIX + name


FLEET: Final = (
    Spec(f"{PREFIX}lane_messages", "gauge", ("lane", "state"), "Messages of a lane: ready, in_flight or parked."),
    Spec(f"{PREFIX}lane_workers", "gauge", ("lane",), "Living workers of this fleet that serve the lane."),
    Spec(f"{PREFIX}lane_target_seconds", "gauge", ("lane",), "WORKER_QUEUE_TARGET of the lane."),
    Spec(f"{PREFIX}fleet_paused", "gauge", (), "1 while an operator's pause lasts."),
    Spec(f"{PREFIX}results_unread", "gauge", ("stream", "group"), "Results a consumer group has not acknowledged."),
    Spec(f"{PREFIX}result_entries", "gauge", ("stream",), "Entries in a result stream."),
    Spec(f"{PREFIX}dead_letter_entries", "gauge", (), "Dead letters kept."),
    Spec(f"{PREFIX}fleet_calls_in_flight", "gauge", ("upstream",), "Calls in flight of the whole fleet."),
    Spec(f"{PREFIX}stray_messages", "gauge", (), "Messages under keys that no worker serves; `status` names them."),
)
"""Metrics of the fleet, read from Redis at every scrape, for every lane that exists there, served or not.

All workers show the same: take the `max`, never the `sum`.
"""

METRICS: Final = (*Metrics().specs, *FLEET)
"""Every metric."""
