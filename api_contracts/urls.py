"""Reads URLs that may hold a password: no error repeats any part of them."""

from typing import Final
from urllib.parse import SplitResult, urlsplit

_ILL_FORMED: Final = (
    "is no well-formed URL; write SCHEME://HOST:PORT with a port from 0 to 65535, and in names and passwords "
    "%2F for /, %3A for :, %3F for ?, %23 for #, %40 for @, %25 for %"
)


def split(url: str) -> SplitResult:
    """The parts of a URL; `hostname` and `port` of the result cannot fail. Raises ValueError."""
    try:
        parts = urlsplit(url)
        _ = parts.port
        (parts.hostname or "localhost").encode("idna")  # as a connection does
    except ValueError:  # UnicodeError is one
        raise ValueError(_ILL_FORMED) from None
    return parts


def refuse_stray_password(parts: SplitResult) -> None:
    """Raises ValueError where an @ follows the host: then a password holds a / or ? or # that ended the host early."""
    if "@" in parts.path + parts.query + parts.fragment:
        raise ValueError(_ILL_FORMED)
