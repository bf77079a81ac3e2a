"""The simulator's faults, straight and through LiteLLM's proxy: nothing good is lost, and most codes survive.

A target of its own: the proxy has a virtual environment beside ours, is in no lock, and never runs in CI.
"""

import asyncio
import json
import os
import socket
import subprocess
import urllib.request
from collections.abc import Generator
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from support.polling import wait_until
from support.producer import body

from worker.devtools.devstack import simulated_gateway
from worker.devtools.simulator import FAULTS
from worker.gateway.upstream import Answer, Upstream

PROXY: Final = Path(__file__).parents[2] / ".venv" / "litellm" / "bin" / "litellm"
KEY: Final = "sk-litellm-master-key"
NEEDS_A_NUMBER: Final = ("slow", "tokens")
LOST: Final = {
    "302": "it follows redirects, and reports what it found there",
    "524": "it reports a 408, in the words that it has for a real 408",
    "empty-200": "it reports an error of its own",
    "broken-json": "it reports an error of its own",
    "cut": "it reports an error of its own",
    "in-progress": "it reports an error of its own",
}
"""Faults whose code does not survive, and why nothing can be done about it here."""

pytestmark = pytest.mark.skipif(not PROXY.exists(), reason="make test-gateway installs it")


class Seen(NamedTuple):
    """The end of one call: its code or status, and how often a request may make it."""

    code: str
    allowed: int | None


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[str, str]]:
    """Of the simulator, and of the proxy in front of it."""
    room = tmp_path_factory.mktemp("litellm")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with simulated_gateway() as simulator, (room / "log").open("wb") as log:
        parameters = {"model": "openai/gpt-5.4-mini", "api_base": f"{simulator.url}/v1", "api_key": "sk-upstream"}
        config = {
            "model_list": [{"model_name": "gpt-5.4-mini", "litellm_params": parameters}],
            "litellm_settings": {"num_retries": 0, "request_timeout": 20},
            "router_settings": {"num_retries": 0, "disable_cooldowns": True},
            "general_settings": {"master_key": KEY},
        }
        (room / "config.yaml").write_text(json.dumps(config), encoding="utf-8")
        command = [PROXY, "--config", room / "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
        offline = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "*", "OTEL_SDK_DISABLED": "true"}
        with subprocess.Popen(command, env=os.environ | offline, stdout=log, stderr=log) as proxy:
            try:
                wait_until(lambda: _answers(port), within_s=180, what="LiteLLM's proxy")
                yield simulator.url, f"http://127.0.0.1:{port}"
            finally:
                proxy.terminate()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=2):
            return True
    except OSError:
        return False


async def test_which_codes_survive_translation(urls: tuple[str, str]) -> None:
    """A table of all faults; what is completed stays so, and no fault but the listed ones changes its code."""
    straight, through = Upstream("sim", urls[0], lambda: "sk-test-key"), Upstream("proxy", urls[1], lambda: KEY)
    changed: dict[str, str] = {}
    for fault in [*FAULTS, ""]:
        marker = f"[[sim:{fault}]]" if fault and fault not in NEEDS_A_NUMBER else ""
        seen = [
            await _seen(upstream, marker, stream=stream) for stream in (False, True) for upstream in (straight, through)
        ]
        print(f"{fault or 'good':18}" + "".join(f"{one.code:>26} {one.allowed or '':1}" for one in seen))  # noqa: T201  # the table
        if [one.code for one in seen[0::2]] != [one.code for one in seen[1::2]]:
            changed[fault] = seen[1].code
    await asyncio.gather(straight.aclose(), through.aclose())

    assert changed.keys() <= LOST.keys(), changed
    print(f"{len(FAULTS) + 1} kinds, {len(FAULTS) + 1 - len(changed)} keep their code, changed: {sorted(changed)}")  # noqa: T201  # the table


async def _seen(upstream: Upstream, marker: str, *, stream: bool) -> Seen:
    request = json.dumps(body(f"Hello {marker}", stream=stream)).encode()
    outcome = (await upstream.create(request, stream=stream, timeout_s=6)).outcome
    if isinstance(outcome, Answer):
        return Seen(outcome.status, None)
    return Seen(outcome.code, outcome.max_attempts)
