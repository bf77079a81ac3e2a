"""Redis with faults: behind a bad network, paused, with a shifted clock, and under a sentinel."""

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import redis
from chaos.proxy import Proxy

from support.polling import wait_until
from worker.devtools.devstack import EmbeddedValkey
from worker.storage.scripts import Script

MASTER: Final = "requests"
_SENTINEL: Final = """\
port {port}
bind 127.0.0.1
dir {directory}
logfile {directory}/log
sentinel monitor {master} 127.0.0.1 {watched} 1
sentinel down-after-milliseconds {master} 600000
sentinel failover-timeout {master} 3000
"""

SHIFT: Final = "test:shift_ms"
_SHIFTED: Final = f"""
local redis = setmetatable({{ call = function(command, ...)
  local reply = redis.call(command, ...)
  if command == 'TIME' then reply[1] = reply[1] + (redis.call('GET', '{SHIFT}') or 0) / 1000 end
  return reply
end }}, {{ __index = redis }})
"""

ON_SHIFTED_CLOCK: Final = """
import sys
from support.redis_parts import on_shifted_clock
from worker import app
from worker.storage.scripts import Script
from worker.config.settings import load

for name, module in list(sys.modules.items()):
    if name.startswith("worker."):
        scripts = {name: value for name, value in vars(module).items() if isinstance(value, Script)}
        vars(module).update({name: on_shifted_clock(script) for name, script in scripts.items()})

app.run(load())
"""
"""A worker whose Redis lives in another hour."""


class BadNetwork(Proxy):
    """Between a worker and its Redis."""

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port)
        self._stranded: set[asyncio.StreamWriter] = set()
        self._to_break = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def strand(self) -> None:
        """Nothing comes through the connections there are, and nobody is told; new ones work."""
        self._stranded |= self._writers

    def break_replies(self, count: int) -> None:
        """Resets a connection in the middle of each of the next so many replies."""
        self._to_break = count

    @property
    def broken(self) -> bool:
        """Whether all of them have been."""
        return self._to_break == 0

    async def _forward(self, data: bytes, writer: asyncio.StreamWriter, *, replies: bool) -> None:
        if writer in self._stranded:
            return
        if replies and self._to_break:
            self._to_break -= 1
            writer.write(data[: len(data) // 2])
            await writer.drain()
            raise ConnectionResetError
        await super()._forward(data, writer, replies=replies)


def stays(check: Callable[[], bool], *, for_s: float) -> None:
    """Fails as soon as `check` is false."""
    ends = time.monotonic() + for_s
    wait_until(lambda: not check() or time.monotonic() > ends, within_s=for_s + 5)
    assert check()


@contextmanager
def stopped(server: EmbeddedValkey) -> Generator[None]:
    """It does not run meanwhile: the kernel takes connections for it, and nothing is answered."""
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def sentinel(watched: EmbeddedValkey) -> Generator[int]:
    """One that would decide alone, on the port given back, and waits for `fail_over`; it is the same binary."""
    with redis.Redis(port=watched.port) as client, TemporaryDirectory() as directory:
        server: Any = client.info("server")  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
        port, settings = free_port(), Path(directory) / "sentinel.conf"
        settings.write_text(
            _SENTINEL.format(port=port, directory=directory, master=MASTER, watched=watched.port), encoding="utf-8"
        )
        with subprocess.Popen([server["executable"], str(settings), "--sentinel"]) as process:
            try:
                wait_until(lambda: knows_a_master(port), what="a sentinel that knows who is primary")
                yield port
            finally:
                process.kill()


def knows_a_master(port: int) -> bool:
    with redis.Redis(port=port) as client:
        try:
            masters: Any = client.sentinel_masters()  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
        except redis.ConnectionError:
            return False
        return MASTER in masters


def fail_over(port: int) -> None:
    """The sentinel may notice now that its primary is down."""
    with redis.Redis(port=port) as client:
        client.sentinel_set(MASTER, "down-after-milliseconds", 300)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs


def sentinel_url(*ports: int) -> str:
    return ";".join(f"sentinel://127.0.0.1:{port}" for port in ports) + f"/0?master_name={MASTER}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def on_shifted_clock(script: Script) -> Script:
    """The same script, for which the server's clock is wrong by what the key SHIFT says."""

    def shifted(text: str) -> str:
        head, body = text.split("\n", 1)
        return f"{head}\n{_SHIFTED}{body}"

    return replace(script, refusing=shifted(script.refusing), insisting=shifted(script.insisting))
