"""The HTTP proxy between workers and their gateway: one that is set, or the one that the environment names for all."""

from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from api_contracts import urls

_WANTED: Final = "must be http://host:port, with user:password@ before the host where the proxy wants them"


def proxy_url(url: str) -> str:
    """The proxy's URL as it is. Raises ValueError that says what to write and repeats no part of it."""
    parts = urls.split(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError(_WANTED)
    return url


def environment_proxy(url: str) -> str:
    """The proxy for `url` by HTTPS_PROXY or HTTP_PROXY, unless NO_PROXY names its host; empty for none.

    Raises ValueError that names the variable.
    """
    parts = urlsplit(url)
    named = "" if proxy_bypass(parts.netloc) else getproxies_environment().get(parts.scheme, "")
    try:
        return proxy_url(named if "://" in named else f"http://{named}") if named else ""
    except ValueError as error:
        raise ValueError(f"{parts.scheme.upper()}_PROXY: {error}") from None
