"""A worker's first lines name a missing key and misspelt settings, and show no value."""

import json
from pathlib import Path

import pytest
from support.command_line import started
from support.worker_process import WorkerProcess, worker_environment

from worker.config.names import KNOWN, unknown_names
from worker.devtools.devstack import Simulator

CANARY = "sk-canary-4711"
WRONG = {"WORKER_UPSTREAM_APIKEY": CANARY, "WORKER_COLOUR": CANARY, "WORKER_UPSTREAM_API_KEY": ""}


def test_a_worker_without_a_key_says_so_before_all_else(redis_url: str, gateway: Simulator, tmp_path: Path) -> None:
    worker = WorkerProcess(worker_environment(redis_url, gateway.url, **WRONG), tmp_path / "log")
    try:
        lines = [json.loads(line) for line in worker.wait_started().log.splitlines() if line.startswith("{")]
    finally:
        worker.close()

    first = [(line["event"], line.get("variable"), line.get("nearest")) for line in lines[:3]]
    assert first == [
        ("key.missing", None, None),
        ("setting.unknown", "WORKER_COLOUR", None),
        ("setting.unknown", "WORKER_UPSTREAM_APIKEY", "WORKER_UPSTREAM_API_KEY"),
    ]
    assert "WORKER_UPSTREAM_API_KEY" in lines[0]["reason"]
    assert {line["level"] for line in lines[:3]} == {"warning"}
    assert CANARY not in worker.log


def test_a_worker_with_good_settings_begins_with_no_warning(redis_url: str, gateway: Simulator, tmp_path: Path) -> None:
    own = {"WORKER_RUNBOOK_URL": "https://run.example/book"}
    worker = WorkerProcess(worker_environment(redis_url, gateway.url, **own), tmp_path / "log")
    try:
        worker.wait_started()
        assert worker.events("key.missing") == worker.events("setting.unknown") == []
    finally:
        worker.close()


def test_a_key_file_that_cannot_be_read_ends_the_start_with_one_line(tmp_path: Path) -> None:
    with started("-m", "worker", "run", WORKER_UPSTREAM_API_KEY_FILE=str(tmp_path)) as process:
        _, said = process.communicate(timeout=30)

    assert (process.returncode, said.count("\n")) == (2, 1)
    assert said.startswith("WORKER_UPSTREAM_API_KEY_FILE: ")


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_every_setting_with_a_slip_is_found_and_named(name: str) -> None:
    slip = name[:-2] + name[-1]

    assert unknown_names([name, slip, "PATH"]) == {slip: name}
