"""Reads settings from exactly one environment."""

from collections.abc import Mapping
from typing import Final

import pytest

from worker.config.environment import EnvironmentSettings, variable
from worker.config.sentry_settings import SentrySettings, load_sentry
from worker.config.settings import Settings, load

VARIABLES: Final = {
    variable(settings, name): settings for settings in (Settings, SentrySettings) for name in settings.model_fields
}


def read(environment: Mapping[str, str]) -> EnvironmentSettings:
    """The settings of this environment; those of Sentry if its last variable is one of them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        for name, text in environment.items():
            patch.setenv(name, text)
        loaders = {Settings: load, SentrySettings: load_sentry}
        return [loaders[VARIABLES[name]]() for name in environment][-1] if environment else load()
