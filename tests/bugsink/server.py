"""A real Bugsink for as long as a test or a demo wants it: errors arrive, are grouped, and can be read back.

It lives in a virtual environment of its own (`make test-sentry` makes it): it pins packages that we do not. Set-up
takes half a minute once; its database is kept there as a template.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final

from support.polling import wait_until

KEY: Final = "0123456789abcdef0123456789abcdef"
PROJECT: Final = 1
HOST: Final = "127.0.0.1"
ENVIRONMENT: Final = Path(__file__).parents[2] / ".venv" / "bugsink"
"""The place where `make test-sentry` installs it."""

_HERE: Final = Path(__file__).parent
_START_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Bugsink:
    """A running server and a token that may read everything."""

    port: int
    token: str

    @property
    def dsn(self) -> str:
        return f"http://{KEY}@{HOST}:{self.port}/{PROJECT}"

    def issues(self) -> list[dict[str, Any]]:
        """As the issue list shows them, the newest first."""
        return self._get(f"issues/?project={PROJECT}")["results"]

    def events(self, issue: str) -> list[dict[str, Any]]:
        """Every event of an issue, as it was sent."""
        found = self._get(f"events/?issue={issue}")["results"]
        return [self._get(f"events/{event['id']}/")["data"] for event in found]

    def _get(self, path: str) -> Any:
        return json.loads(_fetched(self.port, f"/api/canonical/0/{path}", {"Authorization": f"Bearer {self.token}"}))


def is_installed() -> bool:
    return (ENVIRONMENT / "bin" / "gunicorn").exists()


@contextmanager
def bugsink(directory: Path) -> Generator[Bugsink]:
    """A server with one empty project; its data is in `directory`."""
    port = _free_port()
    settings = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("SENTRY_", "DJANGO_"))},
        "DJANGO_SETTINGS_MODULE": "bugsink_conf",
        "PYTHONPATH": str(_HERE),
        "BUGSINK_DATA": str(directory),
        "BUGSINK_URL": f"http://{HOST}:{port}",
        "BUGSINK_KEY": KEY,
    }
    token = _prepare(directory, settings)
    command = [
        *(str(ENVIRONMENT / "bin" / "gunicorn"), "bugsink.wsgi", "--bind", f"{HOST}:{port}"),
        *("--workers", "1", "--threads", "4", "--graceful-timeout", "1", "--log-level", "error"),
    ]
    log = (directory / "server.log").open("wb")
    with log, subprocess.Popen(command, env=settings, cwd=directory, stdout=log, stderr=log) as server:
        try:
            _wait_ready(port, server)
            yield Bugsink(port, token)
        finally:
            server.send_signal(signal.SIGTERM)


def _prepare(directory: Path, settings: dict[str, str]) -> str:
    """Copies the template's databases, after making it where there is none; returns the token."""
    template = ENVIRONMENT / "template"
    if not (template / "token").exists():
        shutil.rmtree(template, ignore_errors=True)
        template.mkdir()
        own = settings | {"BUGSINK_DATA": str(template)}
        subprocess.run([str(ENVIRONMENT / "bin" / "python"), str(_HERE / "bootstrap.py")], env=own, check=True)
    shutil.copytree(template, directory, dirs_exist_ok=True)
    return (directory / "token").read_text(encoding="ascii")


def _wait_ready(port: int, server: "subprocess.Popen[bytes]") -> None:
    def ready() -> bool:
        if server.poll() is not None:
            raise RuntimeError("Bugsink did not start")
        with suppress(OSError, HTTPException):
            _fetched(port, "/health/ready", {})
            return True
        return False

    wait_until(ready, within_s=_START_S, what="a Bugsink that is ready")


def _fetched(port: int, path: str, headers: Mapping[str, str]) -> bytes:
    with closing(HTTPConnection(HOST, port, timeout=30)) as connection:
        connection.request("GET", path, headers=dict(headers))
        response = connection.getresponse()
        body = response.read()
    if response.status != HTTPStatus.OK:
        raise HTTPException(f"{response.status} for {path}")
    return body


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as server:
        return server.getsockname()[1]
