"""Workers that send events and traces to a Sentry receiver of the test."""

from typing import Any

from support.sentry_receiver import SentryReceiver
from support.worker_process import Fleet


def reporting(redis_url: str, upstream_url: str, receiver: SentryReceiver, **own: str) -> Fleet:
    """Returns a fleet whose Sentry is `receiver` and that traces every request."""
    return Fleet(
        redis_url,
        upstream_url,
        forked=True,
        SENTRY_DSN=receiver.dsn,
        SENTRY_TRACES_SAMPLE_RATE="1.0",
        SENTRY_RELEASE="responses-worker@9.9",
        **own,
    )


def failures(events: list[dict[str, Any]]) -> int:
    """Returns how many failures these events stand for."""
    return sum(event["contexts"]["impact"]["failures_since_last_event"] for event in events)
