"""Every setting, from the environment, read once at the edge.

A wrong setting stops the start with one clear line per mistake; nothing below `app` and `cli` knows that
environment variables exist.
"""

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from worker.storage.connection import RedisTarget

_UNITS: Final = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)")
_LANE: Final = re.compile(r"[A-Za-z0-9_\-]{1,64}")
_HEAVIEST: Final = 1000
LONGEST_DEADLINE: Final = timedelta(days=7)


def duration(text: object) -> timedelta:
    """Reads `600`, `600s`, `10m`, `1h`, `7d`. Raises ValueError that names the form."""
    if isinstance(text, timedelta):
        return text
    found = _DURATION.fullmatch(str(text).strip())
    if not found:
        raise ValueError("must be a duration such as 30s, 10m, 1h or 7d")
    return timedelta(seconds=float(found[1]) * _UNITS[found[2]])


def _pairs(text: object, wanted: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for part in str(text).split(","):
        name, equals, value = part.strip().partition("=")
        if not equals or not (name == "*" or _LANE.fullmatch(name)) or not value:
            raise ValueError(f"must look like {wanted}")
        pairs[name] = value.strip()
    return pairs


def _lanes(text: object) -> object:
    if isinstance(text, dict):
        return cast("object", text)
    pairs = _pairs(text, "interactive=4,batch=1")
    if "*" in pairs or not all(weight.isdecimal() and 1 <= int(weight) <= _HEAVIEST for weight in pairs.values()):
        raise ValueError("must name each lane with a whole weight from 1 to 1000, such as interactive=4,batch=1")
    return {lane: int(weight) for lane, weight in pairs.items()}


def _lane_durations(text: object) -> object:
    if isinstance(text, dict):
        return cast("object", text)
    pairs = _pairs(text, "interactive=30s,batch=1h,*=1h")
    return {lane: None if value == "deadline" else duration(value) for lane, value in pairs.items()}


Duration = Annotated[timedelta, BeforeValidator(duration)]


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="WORKER_", env_ignore_empty=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """Where lanes and results live: `redis://`, `rediss://`, `unix://`, or `sentinel://a:26379;sentinel://b:26379/0?master_name=NAME`."""

    upstream_url: str = "https://www.anyfast.ai"
    """The OpenAI-compatible gateway; `/v1/responses` is appended."""

    upstream_api_key: SecretStr | None = None
    """The gateway's key. Secret; never logged."""

    upstream_api_key_file: Path | None = None
    """A file that holds the key instead (a mounted secret); read again when the key is refused."""

    requests_per_minute: int = Field(0, ge=0)
    """The gateway's request limit for this key, shared by the fleet; 0 = unknown."""

    tokens_per_minute: int = Field(0, ge=0)
    """The gateway's token limit for this key, shared by the fleet; 0 = unknown."""

    max_in_flight: int = Field(0, ge=0)
    """Calls in flight, fleet-wide, that the gateway allows; 0 = unknown."""

    burst_seconds: float = Field(2.0, gt=0, le=60)
    """How many seconds' worth of budget may start at once after a quiet time."""

    concurrency: int = Field(100, ge=1, le=10_000)
    """Calls in flight per process."""

    lanes: Annotated[dict[str, int], NoDecode, BeforeValidator(_lanes)] = {"interactive": 4, "batch": 1}
    """The lanes this worker serves and their weights."""

    default_deadline: Annotated[dict[str, timedelta], NoDecode, BeforeValidator(_lane_durations)] = {
        "interactive": timedelta(hours=1),
        "batch": timedelta(hours=24),
        "*": timedelta(hours=1),
    }
    """Per lane: how long after `enqueued_at` an answer is still useful, where the caller does not say."""

    patience: Annotated[dict[str, timedelta | None], NoDecode, BeforeValidator(_lane_durations)] = {
        "interactive": timedelta(seconds=30),
        "batch": None,
    }
    """Per lane: how long a request may wait on a dead key, an empty wallet or a broken gateway.
    `deadline`, the default, means until its deadline."""

    max_attempts: int = Field(5, ge=1, le=20)
    """Upstream calls that may fail, where the caller does not say; throttling spends none."""

    request_timeout: Duration = timedelta(seconds=600)
    """One upstream call, in all, where the caller does not say."""

    idle_timeout: Duration = timedelta(0)
    """Silence allowed within an answer that has begun; 0 = as long as the call's own timeout allows."""

    max_answer: int = Field(16 * 1024 * 1024, ge=64 * 1024)
    """Largest answer that is read, in bytes; a larger one is a failure that is not called for again."""

    max_body: int = Field(4 * 1024 * 1024, ge=1024)
    """Largest request body, encoded, in bytes."""

    max_pause: Duration = timedelta(minutes=15)
    """No pause the gateway asks for is believed beyond this."""

    probe_interval: Duration = timedelta(seconds=60)
    """How often a dead key, an empty wallet or an open breaker is tried again."""

    results_retention: Duration = timedelta(days=7)
    """Age at which results go from streams that no consumer group reads."""

    results_high_water: int = Field(1_000_000, ge=1)
    """Unread results in one stream at which this fleet stops taking work, and says so."""

    result_ttl: Duration = timedelta(hours=1)
    """How long a result is also kept under its request id."""

    shutdown_grace: Duration = timedelta(seconds=25)
    """How long calls in flight may go on after SIGTERM before they are handed back."""

    http_port: int = Field(8080, ge=0, le=65535)
    """Port for `/livez`, `/readyz` and `/metrics`; 0 = any free port."""

    log_format: Literal["auto", "json", "console"] = "auto"
    """`auto` is readable on a terminal and JSON elsewhere."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe level that is written."""

    @field_validator("redis_url")
    @classmethod
    def _redis_url_is_ours(cls, url: SecretStr) -> SecretStr:
        RedisTarget.parse(url.get_secret_value())
        return url

    @field_validator("upstream_url")
    @classmethod
    def _upstream_url_is_http(cls, url: str) -> str:
        if not re.match(r"https?://[^/@?#]+", url) or "?" in url:
            raise ValueError("must be http:// or https:// with a host, and hold no key and no query")
        return url.rstrip("/").removesuffix("/v1/responses").removesuffix("/v1")

    @model_validator(mode="after")
    def _key_is_given_once(self) -> "Settings":
        if self.upstream_api_key and self.upstream_api_key_file:
            raise ValueError("WORKER_UPSTREAM_API_KEY and WORKER_UPSTREAM_API_KEY_FILE: give one of them")
        return self

    @property
    def redis(self) -> RedisTarget:
        return RedisTarget.parse(self.redis_url.get_secret_value())

    def api_key(self) -> str:
        """The key as it stands now: a mounted file is read at every call."""
        if self.upstream_api_key_file:
            return self.upstream_api_key_file.read_text(encoding="utf-8").strip()
        return self.upstream_api_key.get_secret_value() if self.upstream_api_key else ""

    def deadline_for(self, lane: str) -> timedelta:
        fallback = self.default_deadline.get("*", timedelta(hours=1))
        return self.default_deadline.get(lane, fallback)


class WrongSettingsError(Exception):
    """One line per mistake, each naming its variable and what would be right."""


def load(**overrides: Any) -> Settings:
    """Raises WrongSettingsError."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [
            _line(problem["loc"], problem["msg"]) for problem in error.errors(include_input=False, include_url=False)
        ]
        raise WrongSettingsError("\n".join(lines)) from None


def _line(location: tuple[int | str, ...], message: str) -> str:
    text = message.removeprefix("Value error, ")
    return f"WORKER_{str(location[0]).upper()}: {text}" if location else text
