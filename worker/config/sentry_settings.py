"""The standard SENTRY_ variables, read at the edge like the worker's own settings."""

from typing import Final

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from worker import __version__
from worker.config.settings import WrongSettingsError
from worker.telemetry.sentry import SentryOptions

_PREFIX: Final = "SENTRY_"


class SentrySettings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_ignore_empty=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        populate_by_name=True,
    )

    dsn: SecretStr | None = None
    """Where incidents and traces go; without it they are lines of the log."""

    environment: str = "production"
    """Shown with every event."""

    release: str = f"responses-worker@{__version__}"
    """Shown with every event; deploys set it to `responses-worker@<version>+<commit>`."""

    traces_sample_rate: float = Field(0.01, ge=0, le=1)
    """Share of requests that are traced where their caller did not decide."""

    runbook_url: str = Field("", validation_alias="WORKER_RUNBOOK_URL")
    """Where the runbook below is published; events and alert rules link to it."""

    @field_validator("dsn")
    @classmethod
    def _dsn_is_one(cls, dsn: SecretStr | None) -> SecretStr | None:
        if dsn is None:
            return None
        from sentry_sdk.utils import BadDsn, Dsn  # noqa: PLC0415  # 0.2 s that only those pay who use it

        try:
            Dsn(dsn.get_secret_value())
        except BadDsn:
            raise ValueError("must be a Sentry DSN, such as https://key@sentry.example.com/1") from None
        return dsn

    @property
    def options(self) -> SentryOptions:
        return SentryOptions(
            dsn=self.dsn.get_secret_value() if self.dsn else "",
            environment=self.environment,
            release=self.release,
            trace_rate=self.traces_sample_rate,
            runbook_url=self.runbook_url,
        )


def load_sentry() -> SentrySettings:
    """Raises WrongSettingsError."""
    try:
        return SentrySettings()  # pyright: ignore[reportCallIssue]  # every field has a default
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False)
        lines = [f"{variable(str(one['loc'][0]))}: {one['msg'].removeprefix('Value error, ')}" for one in problems]
        raise WrongSettingsError("\n".join(lines)) from None


def variable(name: str) -> str:
    """The environment variable of a field, or of the alias it is reported by."""
    alias = SentrySettings.model_fields[name].validation_alias if name in SentrySettings.model_fields else name
    return str(alias) if alias else f"{_PREFIX}{name.upper()}"
