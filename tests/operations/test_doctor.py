"""The doctor sees what is wrong, says what to change, and keeps secrets."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.command_line import called
from support.doctor_findings import levels, one
from support.redis_users import PASSWORD, url_of, users_of

from worker.config.settings import load
from worker.devtools.devstack import Simulator
from worker.operations.acl import WORKER
from worker.operations.doctor import judge_settings
from worker.operations.findings import Finding, Severity, exit_code

KEY = "sk-canary-key-77b0"
GOOD_SETTINGS: dict[str, Any] = {
    "upstream_api_key": KEY,
    "requests_per_minute": 60,
    "request_timeout": "20s",
    "shutdown_grace": "25s",
}


def settings_findings(environment: Mapping[str, str] | None = None, **settings: Any) -> list[Finding]:
    return list(judge_settings(load(**GOOD_SETTINGS | settings), environment or {}))


def test_good_settings_are_all_well() -> None:
    findings = settings_findings({"WORKER_REDIS_URL": "x", "PATH": "y"})

    assert set(levels(findings).values()) == {Severity.OK}
    assert all(finding.change == "" for finding in findings)


@pytest.mark.parametrize(
    ("check", "settings", "seen"),
    [
        ("settings.limits", {"requests_per_minute": 0}, "no limit of the gateway is known"),
        ("settings.deadlines", {"default_deadline": "batch=5s"}, "shorter than a call may take (20 s): batch"),
        ("settings.grace", {"shutdown_grace": "10s"}, "what outlasts 10 s at SIGTERM is called again"),
        ("settings.lanes", {"patience": "interactiv=5s"}, "WORKER_PATIENCE also name interactiv"),
        ("settings.upstream_url", {"upstream_url": "http://gateway.example"}, "travel unencrypted"),
    ],
)
def test_suspicious_settings_are_warned_of(check: str, settings: dict[str, Any], seen: str) -> None:
    """The worker would run with them, and somebody would wonder why."""
    finding = one(settings_findings(**settings), check)

    assert finding.level is Severity.WARN
    assert seen in finding.seen
    assert finding.change


def test_limits_of_any_kind_are_enough() -> None:
    assert one(settings_findings(requests_per_minute=0, max_in_flight=4), "settings.limits").level is Severity.OK


def test_a_loopback_gateway_needs_no_encryption() -> None:
    assert one(settings_findings(upstream_url="http://127.0.0.1:8000"), "settings.upstream_url").level is Severity.OK


def test_misspelt_variables_are_named_without_their_values() -> None:
    """A slip of the pen silently falls back to a default; what was to be set may be a secret."""
    environment = {"WORKER_UPSTREAM_APIKEY": KEY, "WORKER_COLOUR": KEY, "WORKER_LANES": "batch=1"}
    finding = one(settings_findings(environment), "settings.names")

    assert finding.level is Severity.WARN
    assert "WORKER_COLOUR, WORKER_UPSTREAM_APIKEY (did you mean WORKER_UPSTREAM_API_KEY?)" in finding.seen
    assert KEY not in str(finding)


@pytest.mark.parametrize(
    ("key", "seen"),
    [(None, "a file that exists"), (b"", "no key is set"), (b"two words", "no header can carry"), (b"\xff", "UTF-8")],
)
def test_a_key_that_cannot_be_used_fails(tmp_path: Path, key: bytes | None, seen: str) -> None:
    file = tmp_path / "key"
    if key is not None:
        file.write_bytes(key)

    finding = one(settings_findings(upstream_api_key=None, upstream_api_key_file=file), "settings.key")

    assert finding.level is Severity.FAIL
    assert seen in finding.seen


@pytest.mark.parametrize(
    ("found", "code", "strict"),
    [([], 0, 0), ([Severity.OK], 0, 0), ([Severity.WARN], 0, 1), ([Severity.WARN, Severity.FAIL], 2, 2)],
)
def test_exit_codes(found: list[Severity], code: int, strict: int) -> None:
    findings = [Finding("check", level, "seen") for level in found]

    assert (exit_code(findings, strict=False), exit_code(findings, strict=True)) == (code, strict)


def test_the_command_reads_well_and_keeps_secrets(valkey: Any, redis_url: str, gateway: Simulator) -> None:
    """One line for what was seen, one for what to change; the same facts as JSON."""
    with users_of(valkey, WORKER):
        environment = {
            "WORKER_REDIS_URL": url_of(WORKER, redis_url),
            "WORKER_UPSTREAM_URL": gateway.url,
            "WORKER_UPSTREAM_API_KEY": KEY,
        }
        plain = called("doctor", **environment)
        strict = called("doctor", "--strict", **environment)
        as_json = called("doctor", "--json", **environment)

    assert (plain.code, strict.code, as_json.code) == (0, 1, 0)
    assert "ok   redis.version" in plain.out
    assert "warn settings.limits" in plain.out
    report = json.loads(as_json.out)
    assert report["ok"] is True
    assert {"check", "level", "seen", "change"} == set(report["findings"][0])
    assert len({finding["check"] for finding in report["findings"]}) == len(report["findings"])
    for secret in (KEY, PASSWORD):
        assert secret not in plain.out + plain.err + as_json.out


def test_settings_that_stop_the_start_are_findings_too() -> None:
    ran = called("doctor", "--json", WORKER_REDIS_URL=f"http://:{PASSWORD}@nowhere", WORKER_CONCURRENCY="0")

    report = json.loads(ran.out)
    assert (ran.code, report["ok"]) == (2, False)
    assert [finding["seen"].partition(":")[0] for finding in report["findings"]] == [
        "WORKER_REDIS_URL",
        "WORKER_CONCURRENCY",
    ]
    assert PASSWORD not in ran.out
