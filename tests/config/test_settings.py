"""Settings are right, or one clear line says which variable is wrong and what to write; no line repeats a secret."""

import os
import ssl
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from kombu.connection import Connection
from support.settings_reader import VARIABLES, read

from worker.config.environment import WrongSettingsError
from worker.config.key_places import check_keys
from worker.config.sentry_settings import SentrySettings, load_sentry
from worker.config.settings import Settings

KEY: Final = "sk-live-9Q7ZK9XW2V"


def worker(**environment: str) -> Settings:
    settings = read({f"WORKER_{name}": text for name, text in environment.items()})
    assert isinstance(settings, Settings)
    return settings


def complaint(environment: Mapping[str, str]) -> str:
    with pytest.raises(WrongSettingsError) as caught:
        read(environment)
    return str(caught.value)


def test_defaults_are_settings() -> None:
    """A worker starts without any variable, and every default is a value that could be given."""
    settings = worker()

    assert settings.lanes == {"interactive": 4, "batch": 1}
    assert settings.redis.hosts == (("127.0.0.1", 6379),)
    assert settings.api_key() == ""
    again = Settings.model_validate({name: getattr(settings, name) for name in Settings.model_fields})
    assert again == settings


def test_empty_variables_are_not_set() -> None:
    """Charts and compose files pass them along."""
    assert read({name: "" for name in VARIABLES if VARIABLES[name] is Settings}) == worker()
    assert read({name: "" for name in VARIABLES if VARIABLES[name] is SentrySettings}) == load_sentry()


WRONG: Final = [
    ("WORKER_REDIS_URL", "redis://:pass/word9Q7@host", "%2F for /"),
    ("WORKER_REDIS_URL", "redis://:12/word9Q7@host", "%2F for /"),
    ("WORKER_REDIS_URL", "redis://user:pa#word9Q7@host/0", "%23 for #"),
    ("WORKER_REDIS_URL", "redis://:pa?word9Q7@host/0", "%3F for ?"),
    ("WORKER_REDIS_URL", "redis://:word9Q7@[::1/0", "SCHEME://HOST:PORT"),
    ("WORKER_REDIS_URL", "redis://:word9Q7@host:70000/0", "a port from 0 to 65535"),
    ("WORKER_REDIS_URL", "redis://:word9Q7@host..example/0", "SCHEME://HOST:PORT"),
    ("WORKER_REDIS_URL", "redis://:word9Q7@ho\u2100st/0", "SCHEME://HOST:PORT"),
    ("WORKER_REDIS_URL", "redis://:word9Q7@host/zero", "must be a number"),
    ("WORKER_REDIS_URL", "redis://:word9Q7@host/" + "9" * 5000, "must be a number"),
    ("WORKER_REDIS_URL", "http://:word9Q7@host", "must start with redis://"),
    ("WORKER_REDIS_URL", "sentinel://:word9Q7@host/0", "master_name"),
    ("WORKER_REDIS_URL", "redis://host/0?password=word9Q7", "no other options behind its ? than db"),
    ("WORKER_REDIS_URL", "redis://host/0?word9Q7=", "no other options"),
    ("WORKER_REDIS_URL", "redis://:word9Q7@host/0?ssl_cert_reqs=none", "no other options"),
    ("WORKER_REDIS_URL", "rediss://:word9Q7@host/0?socket_timeout=5", "ssl_cert_reqs, ssl_ca_certs"),
    ("WORKER_REDIS_URL", "sentinel://a?x=word9Q7;sentinel://b/0?master_name=m", "than db, master_name"),
    ("WORKER_UPSTREAM_URL", "https://\u0661.example", "xn--"),
    ("WORKER_UPSTREAM_URL", "https://gateway:x", "SCHEME://HOST:PORT"),
    ("WORKER_UPSTREAM_URL", "https://", "with a host"),
    ("WORKER_UPSTREAM_URL", "gateway.example.com", "http:// or https://"),
    ("WORKER_UPSTREAM_URL", "https://user:word9Q7@gateway", "no name, no key"),
    ("WORKER_UPSTREAM_URL", "https://gateway/v1?key=word9Q7", "no query"),
    ("WORKER_UPSTREAM_URL", "https://gate way", "with a host"),
    ("WORKER_UPSTREAM_API_KEY", "sk-word9Q7\n", "one line"),
    ("WORKER_UPSTREAM_API_KEY", "sk-\x1bword9Q7", "one line"),
    ("WORKER_UPSTREAM_API_KEY", "   ", "blank"),
    ("WORKER_UPSTREAM_URL", "https://gateway\r\nx-evil: 1", "one line"),
    ("WORKER_LANES", "interactive", "interactive=4,batch=1"),
    ("WORKER_LANES", "interactive=0", "from 1 to 1000"),
    ("WORKER_LANES", "interactive=" + "9" * 5000, "from 1 to 1000"),
    ("WORKER_LANES", "interactive=4,interactive=5", "each lane once"),
    ("WORKER_LANES", "*=4", "from 1 to 1000"),
    ("WORKER_DEFAULT_DEADLINE", "batch=deadline", "such as 30s"),
    ("WORKER_DEFAULT_DEADLINE", "batch=8d", "from 1ms to 7d"),
    ("WORKER_PATIENCE", "wrong", "interactive=30s"),
    ("WORKER_REQUEST_TIMEOUT", "100000000000000d", "such as 30s"),
    ("WORKER_REQUEST_TIMEOUT", "999999999999d", "at most 3650d"),
    ("WORKER_REQUEST_TIMEOUT", "9" * 400, "such as 30s"),
    ("WORKER_REQUEST_TIMEOUT", "0", "from 1ms to 7d"),
    ("WORKER_RESULTS_RETENTION", "3651d", "at most 3650d"),
    ("WORKER_DUPLICATE_WINDOW", "deadline", "such as 30s"),
    ("WORKER_DUPLICATE_WINDOW", "0s", "from 1ms to 3650d"),
    ("WORKER_HTTP_PORT", "65536", "a whole number from 0 to 65535"),
    ("WORKER_HTTP_PORT", "http", "a whole number from 0 to 65535"),
    ("WORKER_CONCURRENCY", "0", "from 1 to 10000"),
    ("WORKER_REQUESTS_PER_MINUTE", "1e400", "from 0 to 1000000000"),
    ("WORKER_REQUESTS_PER_MINUTE", "9" * 5000, "from 0 to 1000000000"),
    ("WORKER_BURST_SECONDS", "nan", "a number above 0 to 60"),
    ("WORKER_LOG_LEVEL", "LOUD", "DEBUG, INFO, WARNING or ERROR"),
    ("SENTRY_DSN", "https://word9Q7@host:x/1", "https://key@sentry.example.com/1"),
    ("SENTRY_DSN", "https://sentry.example.com/word9Q7", "https://key@sentry.example.com/1"),
    ("SENTRY_TRACES_SAMPLE_RATE", "2", "a number from 0 to 1"),
    ("SENTRY_ENVIRONMENT", "prod\nuction", "one line"),
    ("WORKER_RUNBOOK_URL", "https://run\x7f", "one line"),
]


@pytest.mark.parametrize(("name", "text", "right"), WRONG)
def test_a_wrong_setting_is_one_line_that_says_what_to_write(name: str, text: str, right: str) -> None:
    said = complaint({name: text})

    assert said.startswith(f"{name}: ")
    assert right in said
    assert "\n" not in said
    assert "word9Q7" not in said


def test_every_mistake_has_a_line_of_its_own() -> None:
    said = complaint({"WORKER_CONCURRENCY": "0", "WORKER_LANES": "x", "WORKER_MAX_PAUSE": "long"})

    assert [line.partition(":")[0] for line in said.splitlines()] == [
        "WORKER_CONCURRENCY", "WORKER_LANES", "WORKER_MAX_PAUSE",
    ]  # fmt: skip


def test_the_key_is_given_once(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY)

    said = complaint({"WORKER_UPSTREAM_API_KEY": KEY, "WORKER_UPSTREAM_API_KEY_FILE": str(file)})

    assert said == "WORKER_UPSTREAM_API_KEY and WORKER_UPSTREAM_API_KEY_FILE: give one of them"


class TestKeyFile:
    """A file without a key stops the start of a worker; a file that changes later is read again."""

    def complaint(self, file: Path) -> str:
        with pytest.raises(WrongSettingsError) as caught:
            check_keys(worker(UPSTREAM_API_KEY_FILE=str(file)))
        said = str(caught.value)
        assert said.startswith("WORKER_UPSTREAM_API_KEY_FILE: ")
        assert "\n" not in said
        return said

    def test_that_is_missing(self, tmp_path: Path) -> None:
        assert "a file that exists" in self.complaint(tmp_path / "key")

    def test_that_is_a_folder(self, tmp_path: Path) -> None:
        assert "not a folder" in self.complaint(tmp_path)

    def test_that_is_a_pipe(self, tmp_path: Path) -> None:
        """Nobody waits for it to be written."""
        os.mkfifo(tmp_path / "key")
        assert "a file that exists" in self.complaint(tmp_path / "key")

    def test_whose_name_is_too_long(self, tmp_path: Path) -> None:
        self.complaint(tmp_path / ("k" * 5000))

    @pytest.mark.parametrize(
        ("content", "right"),
        [(KEY.encode("utf-16"), "UTF-8"), (b"\xff" + KEY.encode(), "UTF-8"), (b"k" * 20_000, "nothing else")],
    )
    def test_that_holds_something_else(self, tmp_path: Path, content: bytes, right: str) -> None:
        (tmp_path / "key").write_bytes(content)
        said = self.complaint(tmp_path / "key")
        assert right in said
        assert KEY not in said

    def test_that_changes(self, tmp_path: Path) -> None:
        file = tmp_path / "key"
        file.write_text(f"{KEY}\n")
        settings = worker(UPSTREAM_API_KEY_FILE=str(file))
        assert settings.api_key() == KEY

        file.write_text("sk-next\n")
        assert settings.api_key() == "sk-next"
        for broken in (b"\xff", None):
            file.write_bytes(broken) if broken else file.unlink()
            assert settings.api_key() == ""


@pytest.mark.parametrize(
    ("text", "lane", "deadline"),
    [
        ("interactive=30m", "batch", timedelta(hours=1)),
        ("interactive=30m", "interactive", timedelta(minutes=30)),
        ("interactive=30m,*=5m", "batch", timedelta(minutes=5)),
        ("*=90", "reports", timedelta(seconds=90)),
    ],
)
def test_every_lane_has_a_deadline(text: str, lane: str, deadline: timedelta) -> None:
    settings = worker(DEFAULT_DEADLINE=text)

    assert settings.deadline_for(lane) == deadline
    assert "*" in settings.default_deadline


def test_every_lane_has_a_patience() -> None:
    assert worker(PATIENCE="interactive=5s").patience == {"interactive": timedelta(seconds=5), "*": None}
    assert worker(PATIENCE="*=1h").patience == {"*": timedelta(hours=1)}


@pytest.mark.parametrize(
    ("given_url", "base"),
    [
        ("https://gateway/v1/responses", "https://gateway"),
        ("https://gateway/v1/", "https://gateway"),
        ("http://[::1]:8000/openai/v1", "http://[::1]:8000/openai"),
        ("http://sim_gateway:80", "http://sim_gateway:80"),
        ("https://bücher.example", "https://bücher.example"),
    ],
)
def test_the_gateway_is_given_with_or_without_its_path(given_url: str, base: str) -> None:
    assert worker(UPSTREAM_URL=f" {given_url} ").upstream_url == base


@pytest.mark.parametrize("path", ["unix:///run/redis@main.sock", "redis+socket:///run/redis@main.sock"])
def test_a_socket_may_hold_an_at_sign(path: str) -> None:
    assert worker(REDIS_URL=path).redis.path == "/run/redis@main.sock"


@pytest.mark.parametrize(
    ("written", "kombus"),
    [
        ("redis://host", {"virtual_host": "0"}),
        ("redis://:p%2Fw@host:1/7", {"virtual_host": "7", "password": "p/w", "port": 1}),
        ("redis://host?db=3", {"virtual_host": "3"}),
        ("rediss://host/2", {"virtual_host": "2", "ssl": {"ssl_cert_reqs": ssl.CERT_REQUIRED}}),
        ("rediss://host?ssl_cert_reqs=CERT_none&db=2", {"virtual_host": "2", "ssl": {"ssl_cert_reqs": ssl.CERT_NONE}}),
        (
            "rediss://host?ssl_ca_certs=/etc/ca.pem",
            {"ssl": {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "/etc/ca.pem"}},
        ),
        ("unix:///run/r.sock?db=4", {"hostname": "socket:///run/r.sock?virtual_host=4"}),
        ("sentinel://a:1;sentinel://b:2/0?master_name=m", {"hostname": "a", "port": 1}),
    ],
)
def test_remote_control_reaches_the_same_redis(written: str, kombus: dict[str, Any]) -> None:
    """The broker's library reads options in words of its own, and believes any certificate unless it is told not to."""
    connection: Any = Connection(worker(REDIS_URL=written).redis.broker_url)

    assert {name: getattr(connection, name) for name in kombus} == kombus


def test_quoted_passwords_are_read() -> None:
    assert worker(REDIS_URL="redis://:p%2Fa%40s%23s@host/2").redis.password == "p/a@s#s"  # of no server


@pytest.mark.parametrize(
    ("command", "name", "text"),
    [
        (("worker", "run"), "WORKER_REDIS_URL", "redis://:pass/word9Q7@host"),
        (("worker", "run"), "WORKER_UPSTREAM_API_KEY_FILE", "/nowhere/key"),
        (("celery", "-A", "worker.app", "worker"), "SENTRY_DSN", "https://word9Q7@host:x/1"),
    ],
)
def test_a_start_with_wrong_settings_ends_in_their_lines(command: tuple[str, ...], name: str, text: str) -> None:
    """By both ways to start a worker."""
    ran = subprocess.run(
        [sys.executable, "-m", *command],
        env={"PATH": os.environ["PATH"], name: text},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    said = ran.stdout + ran.stderr
    assert ran.returncode != 0
    assert f"{name}: " in said
    assert "Traceback" not in said
    assert "word9Q7" not in said
