"""A Sentry receiver and what reports to it."""

from collections.abc import Generator

import pytest
from support.sentry_fleet import reporting
from support.sentry_parts import World
from support.sentry_receiver import SentryReceiver
from support.worker_process import Fleet

from worker.devtools.devstack import Simulator


@pytest.fixture
def receiver() -> Generator[SentryReceiver]:
    with SentryReceiver() as receiver:
        yield receiver


@pytest.fixture
def told(redis_url: str, gateway: Simulator, receiver: SentryReceiver) -> Generator[Fleet]:
    """Starts worker processes that report to `receiver`."""
    with reporting(redis_url, gateway.url, receiver) as fleet:
        yield fleet


@pytest.fixture
def world(receiver: SentryReceiver) -> World:
    """Incidents in this process that are reported to `receiver`."""
    return World(receiver)
