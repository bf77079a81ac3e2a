"""The first lines of a worker's log: settings that let it start, and are probably mistakes."""

from collections.abc import Iterable

from worker.config.names import unknown_names
from worker.config.settings import Settings
from worker.telemetry import log

_LONGEST_NAME = 100
_MOST_NAMES = 20


def report_settings(settings: Settings, environment: Iterable[str]) -> None:
    """Writes one warning for a missing key and one for each unknown WORKER_ variable, the first 20 of them.

    Names are shown and values never: a misspelt variable may hold the key.
    """
    if settings.config_file is None and not settings.api_key():
        log("key.missing", "warning", reason="set WORKER_UPSTREAM_API_KEY, or WORKER_UPSTREAM_API_KEY_FILE to its file")
    for name, nearest in list(unknown_names(environment).items())[:_MOST_NAMES]:
        hint = {"nearest": nearest} if nearest else {}
        log("setting.unknown", "warning", variable=name[:_LONGEST_NAME], **hint)
