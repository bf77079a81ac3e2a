"""`dev`, `simulator --redis` and the demo's last lines: commands and snippets that work as they are printed."""

import io
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from rich.console import Console
from support.command_line import ROOT, environment, next_line, run, started

from worker.commands import terminal
from worker.devtools.demo.demo_output import next_steps

HERE = f"{sys.executable} -m worker"
README_REDIS = "redis://localhost:6379/0"
EXPORTS = ("WORKER_REDIS_URL", "WORKER_UPSTREAM_URL", "WORKER_UPSTREAM_API_KEY", "WORKER_HTTP_PORT")


def printed_commands() -> list[str]:
    """The commands that the demo prints at its end, without their explanations."""
    printed = io.StringIO()
    Console(file=printed, width=300).print(next_steps(HERE))
    return [re.split(r" {3,}", line.strip())[0] for line in printed.getvalue().splitlines() if line.startswith("  ")]


@pytest.mark.timeout(240)  # nine interpreters start one after the other
def test_what_the_demo_and_the_readme_print_works(tmp_path: Path) -> None:
    """Servers, worker and dashboard run in one terminal; every command and snippet works in another.

    README's snippets run as they are printed where port 6379 is free, and with the address replaced where it is taken.
    """
    servers, *others = printed_commands()
    arguments = servers.removeprefix(f"{HERE} ").split()
    free = _is_free(6379)
    arguments[arguments.index("--redis-port") + 1] = "6379" if free else "0"
    with started("-m", "worker", *arguments) as process:
        exports = [next_line(process) for _ in EXPORTS]
        values = dict(line.strip().removeprefix("export ").split("=", 1) for line in exports)
        snippets = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
        programs = [snippet.partition("\n    for result in")[0] for snippet in snippets]
        if not free:
            programs = [one.replace(README_REDIS, values["WORKER_REDIS_URL"]) for one in programs]
        files = [tmp_path / f"{n}.py" for n in range(len(programs))]
        for file, program in zip(files, programs, strict=True):
            file.write_text(program, encoding="utf-8")
        typed = [*others, *(f"{shlex.quote(sys.executable)} {file}" for file in files)]
        ran = _in_a_terminal("".join(exports) + "\n".join(["set -e", *typed]), tmp_path)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)

    assert process.returncode == 0, said
    assert tuple(values) == EXPORTS
    assert ran.returncode == 0, ran
    assert ran.stdout.count("Echo: Hello!") >= 2
    assert "interactive" in ran.stdout
    assert re.search(r"The dashboard: http://127\.0\.0\.1:\d+/#token=\S{20,}", said)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _in_a_terminal(script: str, directory: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "-c", script],  # noqa: S607  # the shell of whoever types it
        env=environment(PYTHONPATH=str(ROOT)),
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def test_dev_says_what_is_in_the_way() -> None:
    """A port that is taken ends it with one line, and nothing stays behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = run("dev", "--redis-port", str(taken.getsockname()[1]))
    assert ran.code == 1
    assert ran.err.startswith("dev: embedded Valkey did not start: port taken")
    assert ran.err.endswith("--redis-port 0 and --page-port 0 take any free ports\n")


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
