"""Running the simulated gateway: as a context, or until a signal."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from worker.devtools.simulator.config import SimulatorConfig
from worker.devtools.simulator.gateway import Gateway

HOST: Final = "127.0.0.1"
_BACKLOG: Final = 2048
"""A fleet of workers connects a thousand times at once; the kernel's usual 128 would refuse some."""


@asynccontextmanager
async def serve(config: SimulatorConfig, *, port: int = 0) -> AsyncGenerator[str]:
    """Yields the base URL of a listening gateway; leaving drops the calls in flight.

    Port 0 is any free port. Raises OSError where the port is taken.
    """
    runner = web.AppRunner(
        Gateway(config).application(),
        access_log=None,
        # A client that leaves ends its call: its place in flight is free again.
        handler_cancellation=True,
        shutdown_timeout=0.0,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port, backlog=_BACKLOG).start()
        yield f"http://{HOST}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def serve_until_signalled(config: SimulatorConfig, *, port: int, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; `ready` is told the base URL once connections are taken."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with serve(config, port=port) as url:
        ready(url)
        await stopped.wait()
