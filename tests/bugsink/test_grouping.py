"""On call's view in the morning: one issue per failure class, with the right level, tags and counts."""

from collections.abc import Generator

import pytest
from bugsink.server import Bugsink, bugsink, is_installed
from support.polling import wait_until
from support.producer import Producer, body
from support.worker_process import Fleet

from worker.devtools.devstack import Simulator

pytestmark = pytest.mark.skipif(not is_installed(), reason="`make test-sentry` installs Bugsink")

FAILING = {"500": "upstream_error", "html-502": "upstream_error", "broken-json": "invalid_response",
           "503": "upstream_overloaded", "403": "permission_denied", "404": "model_unavailable"}  # fmt: skip
LEVELS = {"upstream_error": "error", "invalid_response": "error", "upstream_overloaded": "error",
          "permission_denied": "fatal", "model_unavailable": "error"}  # fmt: skip

GOOD = 4
"""Good answers beside each round of failures: the breaker is not what this is about."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Bugsink]:
    with bugsink(tmp_path_factory.mktemp("bugsink")) as server:
        yield server


def test_sixty_different_messages_are_one_issue_per_class(
    server: Bugsink, redis_url: str, gateway: Simulator, producer: Producer
) -> None:
    """Six failures in five classes, ten texts and tenants each; counts add up, and the rest is silence."""
    with Fleet(redis_url, gateway.url, SENTRY_DSN=server.dsn, SENTRY_RELEASE="responses-worker@9.9") as fleet:
        worker = fleet.start(max_attempts=1)
        for n in range(10):
            for _ in range(GOOD):
                producer.ask(f"number {n}")
            for marker in FAILING:
                producer.enqueue({"body": body(f"number {n} [[sim:{marker}]]"), "tenant": f"t{n}"})
        for silent in ("429=0.1*1", "400", "filter", "incomplete"):
            producer.ask(f"[[sim:{silent}]]")
        producer.enqueue("no request")
        producer.results(10 * (GOOD + len(FAILING)) + 5)
        worker.terminate()
        assert worker.wait() == 0

    wait_until(lambda: len(server.issues()) >= len(LEVELS), what="issues")
    issues = server.issues()
    assert sorted(issue["calculated_type"] for issue in issues) == sorted(LEVELS)
    for issue in issues:
        kind = issue["calculated_type"]
        events = server.events(issue["id"])
        assert {event["level"] for event in events} == {LEVELS[kind]}
        assert {event["tags"]["failure_class"] for event in events} == {kind}
        assert {event["tags"]["page"] for event in events} == {str(kind == "permission_denied").lower()}
        assert {event["release"] for event in events} == {"responses-worker@9.9"}
        told = sum(event["contexts"]["impact"]["failures_since_last_event"] for event in events)
        assert told == 10 * list(FAILING.values()).count(kind)
        assert len(events) <= 2
