"""Workers that report to a receiver of ours and trace everything."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest

from support.harness import Fleet
from support.sentry_receiver import SentryReceiver


@contextmanager
def reporting(redis_url: str, upstream_url: str, receiver: SentryReceiver, env: pytest.MonkeyPatch) -> Generator[Fleet]:
    """A fleet whose Sentry is `receiver`."""
    env.setenv("SENTRY_DSN", receiver.dsn)
    env.setenv("SENTRY_TRACES_SAMPLE_RATE", "1.0")
    env.setenv("SENTRY_RELEASE", "responses-worker@9.9")
    with Fleet(redis_url, upstream_url) as fleet:
        yield fleet


def failures(events: list[dict[str, Any]]) -> int:
    """How many failures these events stand for."""
    return sum(event["contexts"]["impact"]["failures_since_last_event"] for event in events)
