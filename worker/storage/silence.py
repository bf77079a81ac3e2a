"""A time limit on silence: an exchange may take as long as bytes still move, and ends soon after they stop.

The kernel counts what the peer acknowledged and what it sent (Linux `struct tcp_info`, include/uapi/linux/tcp.h). These
counters grow during a large reply, and during a large request that the peer has not begun to answer. Where there are
none, as on a Unix socket or on another system, the limit is on the whole exchange.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

_TCP_INFO: Final = getattr(socket, "TCP_INFO", None)
_COUNTERS: Final = struct.Struct("QQ")
_COUNTERS_AT: Final = 120
"""Offsets of `tcpi_bytes_acked` and `tcpi_bytes_received` in `struct tcp_info`, since Linux 4.1."""

_LOOKS: Final = 4
"""The number of looks at the counters within the limit."""


@asynccontextmanager
async def unless_silent(connection: Any, within_s: float) -> AsyncGenerator[None]:
    """Raises TimeoutError once the peer of this redis-py connection moved no byte for `within_s`, or a quarter more."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        seen: object = None
        silent = 0

        def look() -> None:
            nonlocal seen, silent, timer
            now = moved(connection)
            silent = silent + 1 if now == seen else 0
            seen = now
            if silent >= _LOOKS:
                limit.reschedule(loop.time())
            else:
                timer = loop.call_later(within_s / _LOOKS, look)

        timer = loop.call_later(within_s / _LOOKS, look)
        try:
            yield
        finally:
            timer.cancel()


def moved(connection: Any) -> tuple[int, int] | None:
    """Bytes that the peer acknowledged and bytes that it sent so far; None where nobody counts them."""
    writer = connection._writer  # noqa: SLF001  # redis-py has no public way to the socket
    if _TCP_INFO is None or writer is None:
        return None
    try:
        info = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 256)
        return _COUNTERS.unpack_from(info, _COUNTERS_AT)
    except (OSError, AttributeError, struct.error):  # closed, no TCP, or a kernel that counts less
        return None
