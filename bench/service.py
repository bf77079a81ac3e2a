"""The time from a token to a reader of a web service: `python -m bench.service [--streams 100] [--per-second 15]`.

`examples/fastapi_service.py` under uvicorn, as `make test-services` installs it; one worker; an embedded Valkey; a
gateway that streams; and curl, which reads all streams at once. Each has a process of its own. The gateway writes into
each event when it was sent: over loopback that is when it arrives at the worker's socket. The time ends where curl's
output is read. All share the cores of the machine, so the CPU of each, and the time for which it had none, is told.
"""

import argparse
import json
import os
import subprocess
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, NamedTuple

from support.command_line import environment
from support.polling import wait_until
from support.redis_parts import free_port
from support.worker_process import Fleet

from bench import ROOT
from bench.clients import percentile, spread
from bench.deltas_gateway import gateway_process
from bench.throughput_probe import Processes
from worker.devtools.devstack import embedded_valkey

TARGET_MS: Final = 15.0
SECONDS, THINKS_S = 10.0, 2.0
PYTHON: Final = ROOT / ".venv" / "services" / "bin" / "python"


class Token(NamedTuple):
    """One delta as curl printed it: its stream, and its age in ms."""

    stream: str
    age_ms: float


def tokens(lines: Iterable[bytes]) -> Iterator[Token]:
    for line in lines:
        if line.startswith(b"data: ") and b'"response.output_text.delta"' in line:
            now_ns, event = time.monotonic_ns(), json.loads(line[6:])
            yield Token(event["item_id"], (now_ns - event["sent_ns"]) / 1e6)


def read(port: int, streams: int) -> list[Token]:
    """All tokens of so many streams, which one curl asks for at once."""
    url = f"http://127.0.0.1:{port}/stream?question=story[1-{streams}]"
    command = ["curl", "-NZ", "--no-progress-meter", "--parallel-immediate", "--parallel-max", str(streams), url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=1024 * 1024) as curl:
        return list(tokens(curl.stdout or []))


@contextmanager
def service(redis_url: str) -> Generator[tuple[int, int]]:
    """Its process id and its port, once it answers."""
    port = free_port()
    command = [PYTHON, "-m", "uvicorn", "--app-dir", "examples", "--port", str(port), "--log-level", "warning"]
    settings = environment(WORKER_REDIS_URL=redis_url, PYTHONPATH=str(ROOT))
    with subprocess.Popen([*command, "fastapi_service:app"], env=settings, cwd=ROOT) as server:
        try:
            wait_until(lambda: _listens(port), within_s=30, what="the service")
            yield server.pid, port
        finally:
            server.terminate()


def _listens(port: int) -> bool:
    return subprocess.run(["curl", "-so", os.devnull, f"http://127.0.0.1:{port}/"], check=False).returncode == 0


def measure(streams: int, per_second: float) -> tuple[list[Token], dict[str, tuple[float, float]]]:
    """The tokens; and of each process the CPU that it had and that it waited for, as shares of one core."""
    with ExitStack() as stack:
        valkey = stack.enter_context(embedded_valkey())
        gateway = stack.enter_context(gateway_process(per_second, SECONDS, THINKS_S))
        fleet = stack.enter_context(Fleet(valkey.url, gateway, forked=False))
        worker = fleet.start(concurrency=streams, requests_per_minute=600_000)
        pid, port = stack.enter_context(service(valkey.url))
        read(port, 1)  # connections are open and code is warm
        watched = {"worker": worker.process.pid, "service": pid, "Valkey": valkey.pid}
        processes = {name: Processes(pid) for name, pid in watched.items()}
        before = {name: (process.cpu_s, process.waited_s) for name, process in processes.items()}
        started = time.monotonic()
        found = read(port, streams)
        took_s = time.monotonic() - started
        shares = {
            name: ((process.cpu_s - before[name][0]) / took_s, (process.waited_s - before[name][1]) / took_s)
            for name, process in processes.items()
        }
    return found, shares


def firsts(found: Sequence[Token]) -> list[float]:
    """The age of the first token of each stream."""
    first: dict[str, float] = {}
    for token in found:
        first.setdefault(token.stream, token.age_ms)
    return list(first.values())


def main() -> None:
    parser = argparse.ArgumentParser(description="How old a token is when a reader of a web service sees it.")
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--per-second", type=float, default=15.0, help="tokens a second and stream")
    asked = parser.parse_args()
    found, shares = measure(asked.streams, asked.per_second)
    first = firsts(found)
    print(f"{asked.streams} streams of {asked.per_second:g} tokens/s through FastAPI to curl, age of a token at curl")
    print(f"first token of {len(first)} streams: {spread(first)}")
    print(f"all {len(found):,} tokens: {spread([token.age_ms for token in found])}")
    print(f"p99 of first tokens within {TARGET_MS:.0f} ms: {'yes' if percentile(first, 99) <= TARGET_MS else 'NO'}")
    print(
        "of one core: "
        + ", ".join(f"{name} {had:.0%} ({lacked:.0%} waited for)" for name, (had, lacked) in shares.items())
    )


if __name__ == "__main__":
    main()
