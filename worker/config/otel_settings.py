"""The settings of OpenTelemetry: the standard OTEL_ variables that decide here. Its SDK reads the others itself."""

from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from worker.config.environment import EnvironmentSettings, load_settings


class OtelSettings(EnvironmentSettings):
    model_config = SettingsConfigDict(env_prefix="OTEL_")

    exporter_otlp_endpoint: str = ""
    """The address of a collector, such as `http://collector:4318`; without it no trace is exported."""

    exporter_otlp_traces_endpoint: str = ""
    """The whole address for traces, where it is another one."""

    exporter_otlp_protocol: Literal["http/protobuf"] = "http/protobuf"
    """The one protocol that is spoken."""

    sdk_disabled: bool = False
    """Whether nothing is exported in spite of an address."""

    traces_sampler_arg: float = Field(1.0, ge=0, le=1)
    """Share of requests that are traced where their caller did not decide; every process picks the same."""

    @property
    def wanted(self) -> bool:
        return bool(self.exporter_otlp_endpoint or self.exporter_otlp_traces_endpoint) and not self.sdk_disabled


def load_otel() -> OtelSettings:
    """The settings of OpenTelemetry. Raises WrongSettingsError."""
    return load_settings(OtelSettings, {})
