"""Options of `celery -A worker.app worker`: honoured, or refused with one line and exit code 2; never ignored."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from celery.bin.worker import worker as celery_worker
from support.polling import wait_until
from support.producer import Producer
from support.worker_process import WorkerProcess, worker_environment

from worker.devtools.devstack import Simulator
from worker.runtime.command_line import HONOURED, REFUSED

STOCK: Any = celery_worker
"""Celery has no types."""

TRY_ALL = """
import contextlib, io, json, sys
from celery.bin.celery import celery
from celery.bin.worker import worker

own = list(worker.params)
for arguments in json.loads(sys.argv[1]):
    worker.params[:], out, code = own, io.StringIO(), None
    with contextlib.redirect_stderr(out):
        try:
            celery.main(["-A", "worker.app", *arguments], prog_name="celery")
        except SystemExit as ended:
            code = ended.code
    print(json.dumps([code, out.getvalue()]))
"""


def tried(redis_url: str, gateway: Simulator, *command_lines: list[str]) -> list[tuple[int, str]]:
    """(exit code, stderr) of each, all parsed by Celery's own command line in one process."""
    ran = subprocess.run(
        [sys.executable, "-c", TRY_ALL, json.dumps(command_lines)],
        env=worker_environment(redis_url, gateway.url),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [(code, said) for code, said in map(json.loads, ran.stdout.splitlines())]


def given(option: click.Option, name: str) -> list[str]:
    """The option with a value that Celery accepts."""
    if option.is_flag:
        return [name]
    if option.name == "pool":
        return [name, "solo"]
    if isinstance(option.type, click.Choice):
        return [name, str(option.type.choices[0])]
    return [name, "3,1" if option.name == "autoscale" else "3"]


def test_every_option_that_is_not_honoured_is_refused(redis_url: str, gateway: Simulator) -> None:
    """By each of its names, with one line that begins with the option; all that Celery has, now and later."""
    options = [option for option in STOCK.params if option.name not in HONOURED]
    names = [(option, name) for option in options for name in option.opts]
    assert len(names) > 30

    ended = tried(redis_url, gateway, *(["worker", *given(option, name)] for option, name in names))

    for (option, name), (code, said) in zip(names, ended, strict=True):
        assert (code, said.count("\n")) == (2, 1), (name, said)
        assert said.partition(": ")[0] in option.opts
        assert said.strip().endswith(REFUSED[option.name])


def test_what_leads_elsewhere_is_refused(redis_url: str, gateway: Simulator) -> None:
    """Another broker, another pool, settings behind `--`, values out of range; several at once, a line each."""
    lines = {
        "--broker: not for this worker: set WORKER_REDIS_URL": ["-b", "redis://x:1", "worker"],
        "--pool: ": ["worker", "-P", "prefork"],
        "worker.pool=solo: not for this worker": ["worker", "--", "worker.pool=solo"],
        "--loglevel: must be one of DEBUG, INFO, WARNING, ERROR": ["worker", "-l", "CRITICAL"],
        "--concurrency: ": ["worker", "-c", "10001"],
        "must be a non-negative integer": ["worker", "-c", "-3"],
        "--queues: not for this worker: set WORKER_LANES": ["worker", "-Q", "a", "-P", "solo", "-c", "4"],
    }
    ended = tried(redis_url, gateway, *lines.values())

    for wanted, (code, said) in zip(lines, ended, strict=True):
        assert code == 2
        assert wanted in said
        assert "Traceback" not in said
    assert ended[-1][1].count("\n") == 2


class CeleryWorker(WorkerProcess):
    """A worker that Celery's own command line starts."""

    def __init__(self, environment: dict[str, str], log: Path, *arguments: str) -> None:
        self.log_path = log
        command = [sys.executable, "-m", "celery", "-A", "worker.app", "worker", *arguments]
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)


def test_celery_starts_the_same_worker(
    redis_url: str, gateway: Simulator, producer: Producer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With -c, -l and -n as Celery means them, on our Redis whatever BROKER_URL says; SIGTERM drains it."""
    monkeypatch.setenv("BROKER_URL", "redis://127.0.0.1:1/0")
    own = worker_environment(redis_url, gateway.url)
    worker = CeleryWorker(own, tmp_path / "log", "-c", "7", "-l", "DEBUG", "-n", "first@here")
    try:
        worker.wait_started()
        inspect = producer.app.control.inspect(timeout=1)
        stats = wait_until(inspect.stats, what="remote control")
        assert stats["first@here"]["pool"]["max-concurrency"] == 7
        assert worker.events("worker.started")[0]["concurrency"] == 7
        assert '"level":"debug"' in worker.log
        assert producer.result(producer.ask())["outcome"] == "completed"
        worker.terminate()
        assert worker.wait() == 0
    finally:
        worker.close()


def test_wrong_settings_end_it_with_one_line(redis_url: str, gateway: Simulator) -> None:
    """As `responses-worker run` ends."""
    ran = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "worker.app", "worker"],
        env=worker_environment(redis_url, gateway.url, WORKER_CONCURRENCY="0"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith("WORKER_CONCURRENCY: ")
    assert ran.stderr.count("\n") == 1
