"""Batch files to answer, and batch clients that a test kills."""

import json
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.command_line import Ran, run, started
from support.polling import wait_until
from support.producer import body
from worker.devtools.devstack import Simulator


@dataclass(frozen=True)
class BatchFile:
    """Lines in and lines out, in one directory."""

    directory: Path
    redis_url: str

    @property
    def source(self) -> Path:
        return self.directory / "in.jsonl"

    @property
    def answers(self) -> Path:
        return self.directory / "out.jsonl"

    @property
    def errors(self) -> Path:
        return self.directory / "out.errors.jsonl"

    def write(self, *lines: Any) -> None:
        """Each as JSON; text as it is."""
        texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
        self.source.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")

    def write_numbered(self, count: int) -> None:
        """Requests whose calls the gateway can be asked for by number."""
        self.write(*({"custom_id": f"line {n}", "body": body(f"[[id:{n}]] Grüße {n}")} for n in range(count)))

    def run(self) -> Ran:
        return run("batch", str(self.source), str(self.answers), WORKER_REDIS_URL=self.redis_url)

    def run_and_stop(self, how: signal.Signals, *, after: int) -> Ran:
        """Sends the signal once so many answers are on disk."""
        command = ("-m", "worker", "batch", str(self.source), str(self.answers))
        with started(*command, WORKER_REDIS_URL=self.redis_url) as client:
            wait_until(lambda: self._written() >= after, within_s=60, what=f"{after} answers")
            client.send_signal(how)
            out, err = client.communicate(timeout=30)
        return Ran(client.returncode, out, err)

    def _written(self) -> int:
        return self.answers.read_bytes().count(b"\n") if self.answers.exists() else 0


def custom_ids(path: Path) -> list[str]:
    return [json.loads(line)["custom_id"] for line in path.read_text(encoding="utf-8").splitlines()]


def assert_each_answered_and_paid_once(file: BatchFile, gateway: Simulator, count: int) -> None:
    """One line for every `custom_id`, and one call."""
    assert Counter(custom_ids(file.answers)) == Counter(f"line {n}" for n in range(count))
    assert Counter(call.tag for call in gateway.calls()) == Counter(str(n) for n in range(count))
    assert file.errors.read_bytes() == b""
