"""`simulator --redis` and the demo's last lines: commands that work as they are printed."""

import io
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from rich.console import Console
from support.command_line import ROOT, environment, next_line, started

from worker.commands import terminal
from worker.devtools.demo.demo_output import next_steps

HERE = f"{sys.executable} -m worker"
EXPORTS = ("WORKER_REDIS_URL", "WORKER_UPSTREAM_URL", "WORKER_UPSTREAM_API_KEY", "WORKER_HTTP_PORT")


def printed_commands() -> list[str]:
    """The commands that the demo prints at its end, without their explanations."""
    printed = io.StringIO()
    Console(file=printed, width=300).print(next_steps(HERE))
    return [re.split(r" {3,}", line.strip())[0] for line in printed.getvalue().splitlines() if line.startswith("  ")]


def test_every_command_that_the_demo_prints_works(tmp_path: Path) -> None:
    """The first one runs in a terminal of its own, the others in another after its export lines."""
    servers, *others = printed_commands()
    arguments = servers.removeprefix(f"{HERE} ").split()
    with started("-m", "worker", *arguments) as process:
        exports = [next_line(process) for _ in EXPORTS]
        script = "".join(exports) + "\n".join(["set -e", *others, "wait"])
        ran = subprocess.run(
            ["bash", "-c", script],  # noqa: S607  # the shell of whoever types it
            env=environment(PYTHONPATH=str(ROOT)),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0

    assert [line.partition("=")[0] for line in exports] == [f"export {name}" for name in EXPORTS]
    assert ran.returncode == 0, ran
    assert "Echo: Hello!" in ran.stdout
    assert "interactive" in ran.stdout
    assert "worker.stopped" in (tmp_path / "worker.log").read_text("utf-8")


def test_a_sandbox_leaves_nothing_behind() -> None:
    with started("-m", "worker", "simulator", "--redis", "--config", '{"keys": ["it\'s"]}') as process:
        exports = [next_line(process) for _ in EXPORTS]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0

    url = exports[0].strip().removeprefix("export WORKER_REDIS_URL=")
    with pytest.raises(redis.ConnectionError), redis.Redis.from_url(url) as client:  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
        client.ping()  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
    assert exports[2] == "export WORKER_UPSTREAM_API_KEY='it'\"'\"'s'\n"


def test_the_simulator_prints_a_worker_that_its_gateway_takes() -> None:
    with started("-m", "worker", "simulator", "--config", '{"keys": ["k"]}') as process:
        url = next_line(process).strip()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)

    assert said == f"A worker that calls it: WORKER_UPSTREAM_URL={url} WORKER_UPSTREAM_API_KEY=k {HERE} run\n"


@pytest.mark.parametrize(
    ("called", "command"),
    [
        ("here/worker/__main__.py", HERE),
        ("here/.venv/bin/responses-worker", ".venv/bin/responses-worker"),
        ("here/a b/responses-worker", "'a b/responses-worker'"),
        ("path/responses-worker", "responses-worker"),
    ],
)
def test_a_printed_command_can_be_typed(
    called: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path = tmp_path / "path" / "responses-worker"
    on_path.parent.mkdir()
    on_path.touch(0o755)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PATH", str(on_path.parent))
    monkeypatch.setattr(sys, "argv", [str(tmp_path / called)])

    assert terminal.command_path() == command
