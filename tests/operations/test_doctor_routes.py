"""The doctor reads a configuration file and tries each route."""

from pathlib import Path
from typing import Any

import pytest
from support.doctor_findings import levels, one

from worker.config.settings import load
from worker.devtools.devstack import Simulator
from worker.operations.doctor import judge_settings
from worker.operations.findings import Finding, Severity
from worker.operations.routes_health import examine_routes

KEY = "sk-canary-key-77b0"


def file_of(tmp_path: Path, url: str, **keys: str) -> Path:
    """A file with one route for each key, all of one account."""
    lines = ["[accounts.main]", "requests_per_minute = 60"]
    for name, key in keys.items():
        (tmp_path / name).write_text(key)
        lines += [f"[routes.{name}]", f'url = "{url}"', 'account = "main"', f'key_file = "{tmp_path}/{name}"']
    file = tmp_path / "routes.toml"
    file.write_text("\n".join(lines))
    return file


def judged(file: Path, **settings: Any) -> list[Finding]:
    return list(judge_settings(load(config_file=file, **settings), {}))


def test_each_route_is_tried_with_its_own_key(tmp_path: Path, gateway: Simulator) -> None:
    gateway.configure(keys=[KEY])
    routing = load(config_file=file_of(tmp_path, gateway.url, good=KEY, dead="sk-another-77b0")).routing

    findings = list(examine_routes(routing))

    found = levels(findings)
    assert found["routes.good"] is found["routes.dead"] is found["routes.good.key"] is Severity.OK
    assert found["routes.dead.key"] is Severity.FAIL
    assert KEY not in repr(findings)


def test_a_route_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    findings = examine_routes(load(config_file=file_of(tmp_path, "http://127.0.0.1:1", lost=KEY)).routing)

    assert "correct routes.lost.url" in one(findings, "routes.lost").change


def test_a_good_file_is_all_well(tmp_path: Path) -> None:
    findings = judged(file_of(tmp_path, "https://gateway.example", good=KEY), shutdown_grace="600s")

    assert {finding.level for finding in findings} == {Severity.OK}


@pytest.mark.parametrize(
    ("url", "key", "settings", "check", "seen"),
    [
        ("http://gateway.example", KEY, {}, "routes.good.url", "travel unencrypted"),
        ("https://gateway.example", "", {}, "routes.good.key", "is empty"),
        ("https://gateway.example", "a b", {}, "routes.good.key", "no header can carry"),
        (
            "https://gateway.example",
            KEY,
            {"requests_per_minute": 60},
            "settings.config_file",
            "WORKER_REQUESTS_PER_MINUTE do nothing beside WORKER_CONFIG_FILE",
        ),
    ],
)
def test_suspicious_routes_are_told(  # noqa: PLR0917  # pytest names them
    tmp_path: Path, url: str, key: str, settings: dict[str, Any], check: str, seen: str
) -> None:
    finding = one(judged(file_of(tmp_path, url, good=key), **settings), check)

    assert finding.level is not Severity.OK
    assert seen in finding.seen
    assert finding.change


def test_accounts_without_a_limit_or_a_route_are_told(tmp_path: Path) -> None:
    file = file_of(tmp_path, "https://gateway.example", good=KEY)
    file.write_text(file.read_text().replace("requests_per_minute = 60", "[accounts.idle]"))

    findings = judged(file)

    assert "no limit" in one(findings, "accounts.main").seen
    assert "no route" in one(findings, "accounts.idle").seen
