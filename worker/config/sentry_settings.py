"""The settings of Sentry: the standard SENTRY_ variables."""

from dataclasses import dataclass, field

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from worker import __version__
from worker.config.environment import EnvironmentSettings, load_settings


@dataclass(frozen=True, slots=True, kw_only=True)
class SentryOptions:
    """The settings as the client takes them. Without a DSN nothing is sent."""

    dsn: str = field(default="", repr=False)
    environment: str = "production"
    release: str = ""
    trace_rate: float = 0.0
    runbook_url: str = ""


class SentrySettings(EnvironmentSettings):
    model_config = SettingsConfigDict(env_prefix="SENTRY_")

    dsn: SecretStr | None = None
    """The address for incidents and traces; without it they are lines of the log."""

    environment: str = "production"
    """Shown with every event."""

    release: str = f"responses-worker@{__version__}"
    """Shown with every event; deploys set it to `responses-worker@<version>+<commit>`."""

    traces_sample_rate: float = Field(0.01, ge=0, le=1)
    """Share of requests that are traced where their caller did not decide."""

    runbook_url: str = Field("", validation_alias="WORKER_RUNBOOK_URL")
    """The address of the published runbook; events and alert rules link to `<address>/<entry>/`."""

    @field_validator("dsn")
    @classmethod
    def _dsn_is_one(cls, dsn: SecretStr | None) -> SecretStr | None:
        if dsn is None:
            return None
        from sentry_sdk.utils import Dsn  # noqa: PLC0415  # 0.2 s only with a DSN

        try:
            Dsn(dsn.get_secret_value())
        except ValueError:  # BadDsn is one; the others repeat a part of the DSN
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
    """The settings of Sentry. Raises WrongSettingsError."""
    return load_settings(SentrySettings, {})
