"""uvicorn, as this page needs it: one socket, no log of requests, and a quick end while pages are open."""

import socket
from typing import Any, Final

import uvicorn

LEAVE_S: Final = 1
MOST_CONNECTIONS: Final = 200


def listening(host: str, port: int) -> socket.socket:
    """Raises OSError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def serve(app: Any, on: socket.socket) -> None:
    """Returns after SIGINT or SIGTERM."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=LEAVE_S,
        limit_concurrency=MOST_CONNECTIONS,
        lifespan="off",
        proxy_headers=False,
    )
    uvicorn.Server(config).run([on])
