"""A link between a worker and its Redis: so many bits a second each way, so many milliseconds there and back."""

import asyncio
import socket
from collections import Counter
from typing import Final

from chaos.proxy import Proxy

_CHUNK: Final = 16 * 1024
_BUFFER: Final = 64 * 1024
"""The bytes of one connection that the link holds: a sender that writes more has to wait, as on a real one."""


class _Direction:
    """One way of the link: its connections share the rate, chunk by chunk."""

    def __init__(self) -> None:
        self.free_at = 0.0
        self.bytes = 0

    def slot(self, size: int, bits_per_s: float) -> float:
        """When a chunk that comes now is through, as loop time."""
        now = asyncio.get_running_loop().time()
        self.free_at = max(now, self.free_at) + (8 * size / bits_per_s if bits_per_s else 0.0)
        self.bytes += size
        return self.free_at


class SlowLink(Proxy):
    """Forwards to `target_port` at `mbit_per_s` (0 = without limit) with a round trip of `round_trip_ms`.

    Both may be changed while it runs, from any thread. `carried` counts bytes: "up" to Redis, "down" from it.
    """

    def __init__(self, target_port: int, *, mbit_per_s: float = 0, round_trip_ms: float = 0) -> None:
        super().__init__(target_port)
        self.mbit_per_s, self.round_trip_ms = mbit_per_s, round_trip_ms
        self._up, self._down = _Direction(), _Direction()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def carried(self) -> Counter[str]:
        return Counter(up=self._up.bytes, down=self._down.bytes)

    def tune(self, *, mbit_per_s: float, round_trip_ms: float) -> None:
        self.mbit_per_s, self.round_trip_ms = mbit_per_s, round_trip_ms

    def _listener(self) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        return listener

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool = False) -> None:
        """Takes what fits on the link and lets it out at the other end when its time has come, in order."""
        way = self._down if replies else self._up
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        arriving = asyncio.create_task(_let_out(on_the_way, writer))
        loop = asyncio.get_running_loop()
        try:
            while data := await reader.read(_CHUNK):
                through = way.slot(len(data), self.mbit_per_s * 1e6)
                on_the_way.put_nowait((through + self.round_trip_ms / 2000, data))
                await asyncio.sleep(through - loop.time())  # the next chunk of this connection is behind this one
            on_the_way.put_nowait((loop.time(), b""))
            await arriving
        except OSError:
            pass
        finally:
            arriving.cancel()
            writer.transport.abort()


async def _let_out(on_the_way: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    while True:
        at, data = await on_the_way.get()
        if at > loop.time():
            await asyncio.sleep(at - loop.time())
        if not data:
            return
        writer.write(data)
        await writer.drain()
