"""The names of settings: finds WORKER_ variables that no setting reads."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Final

from worker.config.environment import variable
from worker.config.sentry_settings import SentrySettings
from worker.config.settings import Settings

PREFIX: Final = "WORKER_"
_ALL: Final = [variable(settings, name) for settings in (Settings, SentrySettings) for name in settings.model_fields]
KNOWN: Final = frozenset(name for name in _ALL if name.startswith(PREFIX))
"""Every WORKER_ variable that is read."""
_CLOSE: Final = 0.8


def unknown_names(environment: Iterable[str]) -> Mapping[str, str]:
    """WORKER_ variables without a setting, in order, each with the nearest setting, or with nothing near.

    Values are never read: a misspelt variable may hold the key.
    """
    unknown = sorted(name for name in environment if name.startswith(PREFIX) and name not in KNOWN)
    return {name: next(iter(difflib.get_close_matches(name, KNOWN, n=1, cutoff=_CLOSE)), "") for name in unknown}
