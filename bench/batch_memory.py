"""Memory of the client for a large batch file: `python -m bench.batch_memory [--lines 50000]`.

`responses-worker batch` in a process of its own, whose peak of resident memory the kernel counts (ru_maxrss); one real
worker, a gateway that answers at once, an embedded Valkey. Prompts of 1 kB.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from support.worker_process import Fleet

from worker.devtools.devstack import embedded_valkey, simulator_process

TARGET_MB = 100
PROMPT = "All work and no play makes Jack a dull boy. " * 23


def write(path: Path, lines: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for number in range(lines):
            body = {"model": "gpt-5.4-mini", "input": [{"role": "user", "content": f"{number}: {PROMPT}"}]}
            file.write(json.dumps({"custom_id": f"line-{number}", "body": body}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="What a large batch file takes in the client.")
    parser.add_argument("--lines", type=int, default=50_000)
    lines = parser.parse_args().lines
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write(directory / "in.jsonl", lines)
        valkey = stack.enter_context(embedded_valkey())
        gateway = stack.enter_context(simulator_process({"call_log_size": 10}))
        stack.enter_context(Fleet(valkey.url, gateway.url, forked=False)).start(requests_per_minute=6_000_000)
        command = [sys.executable, "-m", "worker", "batch", directory / "in.jsonl", directory / "out.jsonl"]
        started = time.monotonic()
        client = subprocess.Popen(command, env=os.environ | {"WORKER_REDIS_URL": valkey.url})
        _, status, used = os.wait4(client.pid, 0)
        took_s = time.monotonic() - started
        with (directory / "out.jsonl").open("rb") as out:
            answered = sum(1 for _ in out)
        size_mb = (directory / "in.jsonl").stat().st_size / 1e6
    peak_mb = used.ru_maxrss * 1024 / 1e6
    print(f"{answered:,} of {lines:,} lines ({size_mb:.0f} MB) answered in {took_s:.0f} s, exit {status}")
    print(f"client: peak {peak_mb:.0f} MB, CPU {used.ru_utime + used.ru_stime:.0f} s")
    print(f"under {TARGET_MB} MB: {'yes' if peak_mb < TARGET_MB else 'NO'}")


if __name__ == "__main__":
    main()
