"""One row says everything of a failure class, and everything else follows from the row."""

import pytest

from api_contracts import ErrorCode
from worker.failures.classes import ERRORS, FAILURES, Kind, Route, State, callers, fault, ours, trace_status, upstream
from worker.failures.failure import COSTLY_ATTEMPTS, Failure
from worker.failures.next_command import filled_in
from worker.telemetry.metrics import Metrics
from worker.telemetry.runbook import ALERTS, RUNBOOK
from worker.telemetry.runbook_links import link
from worker.telemetry.runbook_pages import render

SPAN_STATUSES = {
    "ok", "cancelled", "unknown", "invalid_argument", "deadline_exceeded", "not_found", "already_exists",
    "permission_denied", "resource_exhausted", "failed_precondition", "aborted", "out_of_range", "unimplemented",
    "internal_error", "unavailable", "data_loss", "unauthenticated",
}  # fmt: skip
"""Every status that Sentry knows (develop.sentry.dev/sdk/telemetry/traces/span-statuses)."""


def test_every_name_has_one_row() -> None:
    rows = [kind for group in (callers, upstream, ours) for kind in (*group.ERRORS, *group.STATES)]

    assert sorted(rows) == sorted([*ErrorCode, *State])
    assert set(FAILURES) == set(rows)


def test_no_two_classes_share_a_name() -> None:
    """A label, an issue and a runbook page are found by the name alone."""
    assert len({str(kind) for kind in FAILURES} | ALERTS.keys()) == len(FAILURES) + len(ALERTS)


@pytest.mark.parametrize("code", ErrorCode)
def test_a_failure_follows_its_row(code: ErrorCode) -> None:
    row, failure = ERRORS[code], Failure.of(code)

    assert (failure.code, failure.route, failure.retryable, failure.message) == (
        code, row.route, row.retryable, row.message,
    )  # fmt: skip
    assert (failure.maybe_billed, failure.max_attempts) == (row.costly, COSTLY_ATTEMPTS if row.costly else None)
    assert trace_status(code) == row.trace_status
    assert row.trace_status in SPAN_STATUSES
    assert fault(code) == row.fault


@pytest.mark.parametrize("code", ErrorCode)
def test_a_row_does_not_contradict_itself(code: ErrorCode) -> None:
    """The worker repeats a call only where the caller may repeat the request as well."""
    row = ERRORS[code]

    assert row.retryable or row.route is Route.ANSWER
    assert not row.costly or row.route is Route.RETRY
    assert (row.level is None) == (row.fault in {"caller", "none"})


@pytest.mark.parametrize("kind", FAILURES, ids=str)
def test_only_what_is_told_pages_or_ends(kind: Kind) -> None:
    row = FAILURES[kind]

    assert row.level == "fatal" or not row.pages
    assert row.level or not row.end_is_told


def test_answers_without_an_error_have_neither_fault_nor_trouble() -> None:
    assert (fault(""), trace_status("")) == ("none", "ok")


def test_a_code_of_a_newer_release_is_no_crash() -> None:
    assert trace_status("invented_tomorrow") == "internal_error"


def test_every_class_that_is_told_is_counted_from_zero() -> None:
    """`rate()` sees the first step of a counter that existed before."""
    shown = {
        (sample.labels["kind"], sample.labels["action"])
        for family in Metrics(["interactive"]).registry.collect()
        for sample in family.samples
        if sample.name == "responses_worker_incidents_total"
    }

    told = {str(kind) for kind, row in FAILURES.items() if row.level}
    assert shown == {(kind, action) for kind in told for action in ("reported", "held")}


@pytest.mark.parametrize("name", RUNBOOK)
def test_every_entry_is_a_page(name: str) -> None:
    """The whole entry stands on it, under a heading that is its name."""
    entry, page = RUNBOOK[name], render(name)

    assert page.startswith(f"# `{name}`\n")
    assert page.endswith("\n")
    for text in (entry.meaning, entry.first_look, entry.remedy, f"```sh\n{filled_in(entry.command)}\n```"):
        assert text
        assert text in page


@pytest.mark.parametrize(
    ("base_url", "address"),
    [
        ("", "docs/runbook/poison.md"),
        ("https://run.example/book", "https://run.example/book/poison/"),
        ("https://run.example/book/", "https://run.example/book/poison/"),
    ],
)
def test_a_link_leads_to_the_page(base_url: str, address: str) -> None:
    assert link("poison", base_url) == address
