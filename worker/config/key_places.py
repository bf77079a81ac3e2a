"""A look at the places of keys, before a worker starts."""

from collections.abc import Iterator

from worker.config.environment import WrongSettingsError, variable
from worker.config.routing import Routing
from worker.config.settings import Settings
from worker.config.values import read_key


def check_keys(settings: Settings) -> None:
    """Looks at keys in files and variables, and at proxies, before a worker starts; other commands need none.

    Raises WrongSettingsError with a line for each.
    """
    try:
        for route in settings.routing.routes.values():
            settings.proxy_for(route.url)
    except ValueError as error:
        raise WrongSettingsError(str(error)) from None
    if settings.config_file is None:
        _check_key_file(settings)
    elif mistakes := list(_missing_keys(settings.routing)):
        raise WrongSettingsError("\n".join(f"{variable(Settings, 'config_file')}: {line}" for line in mistakes))


def _missing_keys(routing: Routing) -> Iterator[str]:
    for route in routing.routes.values():
        try:
            route.key.checked()
        except ValueError as error:
            yield f"routes.{route.name}.{'key_file' if route.key.file else 'key_env'}: {error}"


def _check_key_file(settings: Settings) -> None:
    if settings.upstream_api_key_file is None:
        return
    try:
        read_key(settings.upstream_api_key_file)
    except ValueError as error:
        raise WrongSettingsError(f"{variable(Settings, 'upstream_api_key_file')}: {error}") from None
