"""A TCP proxy that can cut what goes through it: a network, on demand."""

import asyncio
import contextlib
import socket
import ssl
import threading
from typing import Self


class Proxy:
    """Forwards one local port to another, from TLS if it is given; runs on a thread of its own."""

    def __init__(self, target_port: int, tls: ssl.SSLContext | None = None) -> None:
        self._target_port = target_port
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._refusing = False
        self.port = 0

    def __enter__(self) -> Self:
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    def reset(self) -> None:
        """Resets every connection; new ones work at once."""
        self._loop.call_soon_threadsafe(self._reset)

    def cut(self) -> None:
        """Resets every connection and refuses new ones until `mend`."""
        self._refusing = True
        self.reset()

    def mend(self) -> None:
        self._refusing = False

    def _reset(self) -> None:
        for writer in list(self._writers):
            transport = writer.transport
            transport.abort()

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(started))
        self._loop.close()

    async def _serve(self, started: threading.Event) -> None:
        self._stopped = asyncio.Event()
        server = await asyncio.start_server(self._accept, sock=self._listener(), ssl=self._tls)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await self._stopped.wait()
        server.close()
        self._reset()
        await asyncio.sleep(0.1)  # aborted transports report to their readers
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _listener(self) -> socket.socket:
        return socket.create_server(("127.0.0.1", 0))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, upstream_writer}
        await asyncio.gather(self._pipe(reader, upstream_writer), self._pipe(upstream_reader, writer, replies=True))
        self._writers -= {writer, upstream_writer}

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool = False) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while data := await reader.read(65536):
                await self._forward(data, writer, replies=replies)
        writer.transport.abort()

    async def _forward(self, data: bytes, writer: asyncio.StreamWriter, *, replies: bool) -> None:  # noqa: ARG002  # for worse networks
        writer.write(data)
        await writer.drain()
