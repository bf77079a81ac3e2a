"""A caller of the simulated gateway, for tests of the gateway itself."""

import ssl
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import httpx

from support.producer import body
from worker.devtools.devstack import Simulator, simulated_gateway

KEY = "sk-canary-1"


class Caller:
    """Asks one gateway, over one client."""

    def __init__(self, gateway: Simulator, client: httpx.Client) -> None:
        self.gateway = gateway
        self._client = client

    def ask(self, prompt: str, *, key: str = KEY, timeout: float = 5, **fields: Any) -> httpx.Response:
        """`POST /v1/responses`; `fields` are further fields of the body."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return self._client.post("/v1/responses", json=body(prompt, **fields), headers=headers, timeout=timeout)

    def get(self, path: str) -> httpx.Response:
        return self._client.get(path)

    def statuses(self, *prompts: str, **fields: Any) -> list[int]:
        """The gateway's answers, one after the other."""
        return [self.ask(prompt, **fields).status_code for prompt in prompts]


@contextmanager
def calling() -> Generator[Caller]:
    """A caller of a perfect gateway that nobody has called yet."""
    # A TLS context without certificates: loading them would be most of what a test costs.
    no_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with simulated_gateway() as gateway, httpx.Client(base_url=gateway.url, verify=no_tls) as client:
        yield Caller(gateway, client)
