"""The cost of a worker, seen from outside: CPU and memory of its processes, commands its Redis ran."""

import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

_EVERY_S = 0.05
_SCRIPTS = frozenset({"evalsha", "eval"})
_BESIDE_SCRIPTS = frozenset(
    {"ping", "publish", "subscribe", "psubscribe", "brpop", "hello", "auth", "select", "client", "script"}
)
"""The commands that a process sends beside its scripts; all others that are counted ran inside one."""


class Processes:
    """A worker and its children. CPU is user and system time of all threads; memory is resident, peak of the sum."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def cpu_s(self) -> float:
        times = [process.cpu_times() for process in self._all()]
        return sum(time.user + time.system for time in times)

    @property
    def waited_s(self) -> float:
        """Time that its threads were ready to run but had no CPU (schedstat of proc(5)); 0 where that is unknown."""
        waited_ns = 0
        for process in self._all():
            for schedstat in Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
                with suppress(OSError):  # the thread is gone
                    waited_ns += int(schedstat.read_text(encoding="ascii").split()[1])
        return waited_ns / 1e9

    @property
    def peak_mb(self) -> float:
        return self._peak / 1e6

    def _all(self) -> list[psutil.Process]:
        return [self._root, *self._root.children(recursive=True)]

    def _watch(self) -> None:
        while not self._stop.wait(_EVERY_S):
            with suppress(psutil.NoSuchProcess):
                self._peak = max(self._peak, sum(process.memory_info().rss for process in self._all()))


@dataclass(frozen=True, slots=True)
class Commands:
    """Commands that reached Redis from the worker, script calls among them, and those that ran inside scripts."""

    sent: float
    scripts: float
    inside: float

    def per(self, count: float) -> "Commands":
        return Commands(self.sent / count, self.scripts / count, self.inside / count)


def main_thread_s(client: Any) -> float:
    """CPU seconds of the server's main thread until now: it runs all commands and scripts."""
    spent = client.info("cpu")
    return spent["used_cpu_user_main_thread"] + spent["used_cpu_sys_main_thread"]


class CommandCounter:
    """Counts a server's commands by INFO commandstats, less those of `client`, the bench's only connection."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._calls, self._own = self._read()

    def since_start(self) -> Commands:
        now, own = self._read()
        calls = now - self._calls
        total = calls.total() - (own - self._own)
        scripts = sum(calls[name] for name in _SCRIPTS)
        sent = sum(calls[name] for name in _SCRIPTS | _BESIDE_SCRIPTS) if scripts else total
        return Commands(sent, scripts, total - sent)

    def _read(self) -> "tuple[Counter[str], int]":
        """Calls by command, and how many commands this connection has sent (`tot-cmds`, Valkey 8.1)."""
        stats: dict[str, dict[str, int]] = self._client.info("commandstats")
        calls: Counter[str] = Counter()
        for name, numbers in stats.items():
            calls[name.removeprefix("cmdstat_").partition("|")[0]] += numbers["calls"]
        return calls, int(self._client.client_info()["tot-cmds"])
