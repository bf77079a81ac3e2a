"""The worker's settings, from the environment, read once at the edge.

A wrong setting stops the start with one clear line for each mistake. Only `app` and `commands` read the environment.
"""

import contextlib
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from api_contracts import MODELS, contract
from api_contracts.envelope import Envelope
from api_contracts.profiles import DEFAULT_PROFILE, Profile
from worker.config.config_file import read_config_file
from worker.config.environment import EnvironmentSettings, WrongSettingsError, load_settings
from worker.config.proxies import environment_proxy, proxy_url
from worker.config.routing import Budget, Routing
from worker.config.values import (
    between,
    gateway_url,
    lane_deadlines,
    lane_patience,
    lane_targets,
    lane_weights,
    model_names,
    read_key,
)
from worker.storage.connection import RedisTarget

__all__ = ["Settings", "WrongSettingsError", "load"]


class Settings(EnvironmentSettings):
    model_config = SettingsConfigDict(env_prefix="WORKER_")

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """The Redis of lanes and results: `redis://`, `rediss://`, `unix://`, or `sentinel://a:26379;sentinel://b:26379/0?master_name=NAME`."""

    fleet: str = Field("default", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    """The fleet whose budget and gate these workers share; a name of its own for each gateway key on one Redis."""

    config_file: Path | None = None
    """A TOML file of accounts, routes and prices, for several keys or gateways; then the next six do nothing."""

    upstream_url: str = "https://www.anyfast.ai"
    """The OpenAI-compatible gateway; `/v1/responses` is appended."""

    contract: Profile = DEFAULT_PROFILE
    """The bodies that are taken: `anyfast`, as the gateway's document allows, or `openai`, as the OpenAI SDK writes."""

    models: Annotated[tuple[str, ...], NoDecode, BeforeValidator(model_names)] = MODELS
    """The models that requests may name, such as `gpt-5.4-mini,gpt-5.5`, beside those that routes of the file name."""

    upstream_api_key: SecretStr | None = None
    """The gateway's key. Secret; never logged."""

    upstream_api_key_file: Path | None = None
    """A file that holds the key instead (a mounted secret); read again when the key is refused."""

    upstream_proxy: SecretStr | None = None
    """The HTTP proxy that calls go through, such as `http://proxy:3128`. Without it `HTTPS_PROXY`, `HTTP_PROXY` and
    `NO_PROXY` decide."""

    requests_per_minute: int = Field(0, ge=0, le=10**9)
    """The gateway's request limit for this key, shared by the fleet; 0 = unknown."""

    tokens_per_minute: int = Field(0, ge=0, le=10**12)
    """The gateway's token limit for this key, shared by the fleet; 0 = unknown."""

    max_in_flight: int = Field(0, ge=0, le=10**9)
    """Calls in flight, fleet-wide, that the gateway allows; 0 = unknown."""

    burst_seconds: float = Field(2.0, gt=0, le=60)
    """Seconds of unused budget that may start at once."""

    concurrency: int = Field(100, ge=1, le=10_000)
    """Calls in flight per process."""

    lanes: Annotated[dict[str, int], NoDecode, BeforeValidator(lane_weights)] = Field({"interactive": 4, "batch": 1})
    """The lanes this worker serves and their weights."""

    default_deadline: Annotated[dict[str, timedelta], NoDecode, BeforeValidator(lane_deadlines)] = Field(
        {"interactive": timedelta(hours=1), "batch": timedelta(hours=24), "*": timedelta(hours=1)}
    )
    """Per lane: the time after `enqueued_at` in which an answer is useful, if the caller does not say."""

    patience: Annotated[dict[str, timedelta | None], NoDecode, BeforeValidator(lane_patience)] = Field(
        {"interactive": timedelta(seconds=30), "batch": None, "*": None}
    )
    """Per lane: the time that a request may wait on a dead key, an empty wallet or a broken gateway.
    `deadline`, the default, means until its deadline."""

    queue_target: Annotated[dict[str, timedelta], NoDecode, BeforeValidator(lane_targets)] = Field(
        {"interactive": timedelta(minutes=1), "batch": timedelta(hours=6), "*": timedelta(hours=1)}
    )
    """Per lane: the time within which 95 of 100 requests should start; the alert on queue age compares with it."""

    max_attempts: int = Field(5, ge=1, le=20)
    """Upstream calls that may fail, where the caller does not say; throttling spends none."""

    request_timeout: Annotated[timedelta, between("1ms", "7d")] = timedelta(seconds=600)
    """One upstream call, in all, where the caller does not say."""

    idle_timeout: Annotated[timedelta, between("0s", "7d")] = timedelta(0)
    """Silence allowed within an answer that has begun; 0 = as long as the call's own timeout allows."""

    max_answer: int = Field(16 * 1024 * 1024, ge=64 * 1024, le=512 * 1024 * 1024)
    """Largest answer that is read, in bytes; a larger one is a failure that is not called for again."""

    max_body: int = Field(4 * 1024 * 1024, ge=1024, le=512 * 1024 * 1024)
    """Largest request body, encoded, in bytes."""

    body_memory: int = Field(128 * 1024 * 1024, ge=1024 * 1024, le=2**40)
    """Bytes of request bodies and answers at which a process takes no more work; it needs about 150 MB beside them."""

    max_pause: Annotated[timedelta, between("1ms", "7d")] = timedelta(minutes=15)
    """The longest pause that the gateway may ask for."""

    probe_interval: Annotated[timedelta, between("1ms", "7d")] = timedelta(seconds=60)
    """The time between two probes of a dead key, an empty wallet or an open breaker."""

    results_retention: Annotated[timedelta, between("1ms", "3650d")] = timedelta(days=7)
    """Age at which results go from streams that no consumer group reads."""

    results_high_water: int = Field(1_000_000, ge=1, le=10**12)
    """Unread results in one stream at which the fleet takes no more work, and reports it."""

    result_ttl: Annotated[timedelta, between("1ms", "3650d")] = timedelta(hours=1)
    """The time that a result is also kept under its request id."""

    duplicate_window: Annotated[timedelta | None, between("1ms", "3650d")] = None
    """The time after its answer for which a request is remembered, to know duplicates; never less than
    `WORKER_RESULT_TTL`. Without it, until one hour after its deadline."""

    failed_body_ttl: Annotated[timedelta, between("0s", "30d")] = timedelta(hours=24)
    """The time that a request which ended in a retryable failure is kept whole, for `redrive`; 0 = never."""

    republish: Literal["tenant", "never"] = "tenant"
    """The reader of a kept result on a second stream, by id and body with another `reply_to`: its tenant, or nobody."""

    shutdown_grace: Annotated[timedelta, between("0s", "7d")] = timedelta(seconds=25)
    """The time that calls in flight may go on after SIGTERM before they are handed back."""

    celery_events: bool = False
    """Whether Celery's events are sent, for Flower and `celery events`; a few Redis commands for each request."""

    scaling_file: Path | None = None
    """A JSON file of worker groups: the fleet keeps in Redis how many pods each of them needs. The chart sets it."""

    http_port: int = Field(8080, ge=0, le=65535)
    """Port for `/livez`, `/readyz` and `/metrics`; 0 = any free port."""

    metrics_from: Literal["anywhere", "loopback"] = "anywhere"
    """The readers of `/metrics`: all that reach the port, or only its own pod, such as a scraper beside the worker."""

    dashboard_token: SecretStr | None = None
    """The token that opens `responses-worker dashboard`. Secret; never logged."""

    dashboard_token_file: Path | None = None
    """A file that holds the token instead."""

    log_format: Literal["auto", "json", "console"] = "auto"
    """`auto` is readable on a terminal and JSON elsewhere."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least severe level that is written."""

    @field_validator("redis_url")
    @classmethod
    def _redis_url_is_ours(cls, url: SecretStr) -> SecretStr:
        RedisTarget.parse(url.get_secret_value())
        return url

    @field_validator("upstream_url")
    @classmethod
    def _upstream_url_is_http(cls, url: str) -> str:
        return gateway_url(url)

    @field_validator("config_file")
    @classmethod
    def _config_file_is_right(cls, file: Path | None) -> Path | None:
        if file is not None:
            read_config_file(file)
        return file

    @field_validator("upstream_proxy")
    @classmethod
    def _upstream_proxy_is_http(cls, url: SecretStr | None) -> SecretStr | None:
        return url and SecretStr(proxy_url(url.get_secret_value()))

    @field_validator("default_deadline")
    @classmethod
    def _every_lane_has_a_deadline(cls, by_lane: dict[str, timedelta]) -> dict[str, timedelta]:
        return {"*": timedelta(hours=1), **by_lane}

    @model_validator(mode="after")
    def _key_is_given_once(self) -> "Settings":
        if self.upstream_api_key and self.upstream_api_key_file:
            raise ValueError("WORKER_UPSTREAM_API_KEY and WORKER_UPSTREAM_API_KEY_FILE: give one of them")
        return self

    @model_validator(mode="after")
    def _every_model_has_a_route(self) -> "Settings":
        """A request whose model no route serves would wait until its deadline."""
        if lost := [model for model in self.served if not self.routing.serving(model)]:
            raise ValueError(f"WORKER_MODELS: no route of WORKER_CONFIG_FILE serves {', '.join(lost)}")
        return self

    @property
    def redis(self) -> RedisTarget:
        return RedisTarget.parse(self.redis_url.get_secret_value())

    @cached_property
    def routing(self) -> Routing:
        """The file's accounts and routes; without a file, those of the environment. The file is read once."""
        if self.config_file is not None:
            return read_config_file(self.config_file)
        budget = Budget(
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
            max_in_flight=self.max_in_flight,
        )
        return Routing.single(self.upstream_url, self.api_key, budget)

    @property
    def served(self) -> tuple[str, ...]:
        """The models that requests may name: the setting's, then the routes'.

        Where every route names its own, the setting's default counts for nothing.
        """
        routing = self.routing
        asked = "models" in self.model_fields_set or any(not route.models for route in routing.routes.values())
        return tuple(dict.fromkeys((*(self.models if asked else ()), *routing.models)))

    @property
    def envelope(self) -> type[Envelope]:
        """The contract that requests are checked against."""
        return contract(self.contract, self.served)

    def api_key(self) -> str:
        """The key as it is now: a mounted file is read at every call. Empty if there is none, or none can be read."""
        if self.upstream_api_key_file:
            with contextlib.suppress(ValueError):
                return read_key(self.upstream_api_key_file)
        return self.upstream_api_key.get_secret_value() if self.upstream_api_key else ""

    def proxy_for(self, url: str) -> str:
        """The proxy that calls of this gateway go through, empty for none. Raises ValueError: see `key_places`."""
        return self.upstream_proxy.get_secret_value() if self.upstream_proxy else environment_proxy(url)

    def dashboard_key(self) -> str:
        """The token of the dashboard; empty if there is none. Raises ValueError for a file that cannot be read."""
        if self.dashboard_token_file:
            return read_key(self.dashboard_token_file)
        return self.dashboard_token.get_secret_value() if self.dashboard_token else ""

    def deadline_for(self, lane: str) -> timedelta:
        return self.default_deadline.get(lane, self.default_deadline["*"])


def load(**overrides: Any) -> Settings:
    """The worker's settings; overrides win over the environment. Raises WrongSettingsError."""
    return load_settings(Settings, overrides)
