"""The forms of setting values: durations, lanes, URLs and the key file.

Every reader raises ValueError that says what to write and repeats no part of the value.
"""

import re
from datetime import timedelta
from pathlib import Path
from typing import Final, cast

from pydantic import BeforeValidator

from api_contracts import urls

LONGEST_DURATION: Final = timedelta(days=3650)
LONGEST_KEY_BYTES: Final = 16 * 1024
_UNITS: Final = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)\s*(ms|s|m|h|d|)")
_LANE: Final = re.compile(r"[A-Za-z0-9_\-]{1,64}")
_MODEL: Final = re.compile(r"[A-Za-z0-9._:/@-]{1,128}")
_WEIGHT: Final = re.compile(r"[1-9][0-9]{0,2}|1000")
_NOT_IN_URLS: Final = re.compile(r"""[\s<>"{}|\\^`]""")


def duration(text: object) -> timedelta:
    """Reads `600`, `600s`, `10m`, `1h`, `7d`; at most ten years. Raises ValueError that names the form."""
    if isinstance(text, timedelta):
        return text
    found = _DURATION.fullmatch(str(text).strip())
    if not found:
        raise ValueError("must be a duration such as 30s, 10m, 1h or 7d")
    seconds = float(found[1]) * _UNITS[found[2]]
    if seconds > LONGEST_DURATION.total_seconds():
        raise ValueError(f"must be a duration of at most {LONGEST_DURATION.days}d, such as 30s, 10m, 1h or 7d")
    return timedelta(seconds=seconds)


def duration_within(text: object, shortest: str, longest: str) -> timedelta:
    """Reads a duration that is neither shorter nor longer than the limits. Raises ValueError that names them."""
    found = duration(text)
    if not duration(shortest) <= found <= duration(longest):
        raise ValueError(f"must be a duration from {shortest} to {longest}, such as 30s, 10m, 1h or 7d")
    return found


def between(shortest: str, longest: str) -> BeforeValidator:
    """The validator of a field that holds a duration; None is for the field's own type to allow."""
    return BeforeValidator(lambda text: text if text is None else duration_within(text, shortest, longest))


def lane_weights(text: object) -> object:
    """Reads `interactive=4,batch=1`."""
    if isinstance(text, dict):
        return cast("object", text)
    pairs = _pairs(text, "interactive=4,batch=1")
    if "*" in pairs or not all(map(_WEIGHT.fullmatch, pairs.values())):
        raise ValueError("must name each lane with a whole weight from 1 to 1000, such as interactive=4,batch=1")
    return {lane: int(weight) for lane, weight in pairs.items()}


def lane_deadlines(text: object) -> object:
    """Reads `interactive=1h,batch=24h,*=1h`; a lane that is not named gets the value of `*`, by default 1 h."""
    if isinstance(text, dict):
        return cast("object", text)
    pairs = _pairs(text, "interactive=1h,batch=24h,*=1h")
    return {"*": timedelta(hours=1)} | {lane: duration_within(value, "1ms", "7d") for lane, value in pairs.items()}


def lane_targets(text: object) -> object:
    """Reads `interactive=1m,batch=6h,*=1h`; a lane that is not named gets the value of `*`, by default 1 h."""
    if isinstance(text, dict):
        return cast("object", text)
    pairs = _pairs(text, "interactive=1m,batch=6h,*=1h")
    return {"*": timedelta(hours=1)} | {lane: duration_within(value, "1s", "7d") for lane, value in pairs.items()}


def lane_patience(text: object) -> object:
    """Reads `interactive=30s,batch=deadline`; a lane that is not named gets the value of `*`, by default `deadline`."""
    if isinstance(text, dict):
        return cast("object", text)
    pairs = _pairs(text, "interactive=30s,batch=deadline,*=1h")
    return {"*": None} | {lane: _patience(value) for lane, value in pairs.items()}


def _patience(text: str) -> timedelta | None:
    return None if text == "deadline" else duration_within(text, "0s", "7d")


def model_names(text: object) -> tuple[str, ...]:
    """Reads `gpt-5.4-mini,gpt-5.5`."""
    if isinstance(text, tuple):
        return cast("tuple[str, ...]", text)
    names = [name.strip() for name in str(text).split(",")]
    if not all(map(_MODEL.fullmatch, names)):
        raise ValueError("must name models, such as gpt-5.4-mini,gpt-5.5")
    return tuple(dict.fromkeys(names))


def gateway_url(url: str, key_goes_to: str = "WORKER_UPSTREAM_API_KEY") -> str:
    """The gateway's base URL, without `/v1/responses` at its end."""
    parts = urls.split(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or _NOT_IN_URLS.search(url):
        raise ValueError("must be http:// or https:// with a host, such as https://gateway.example.com")
    if parts.username is not None or parts.query or parts.fragment or "?" in url or "@" in url:
        raise ValueError(f"must hold no name, no key and no query; the key goes into {key_goes_to}")
    if not _can_be_looked_up(parts.hostname):
        raise ValueError("must name a host that can be looked up; write letters beyond ASCII as xn--")
    return url.rstrip("/").removesuffix("/v1/responses").removesuffix("/v1")


def _can_be_looked_up(host: str) -> bool:
    """By the rules of the HTTP client, which are stricter than Python's own."""
    if host.isascii():
        return True
    import idna  # noqa: PLC0415  # its tables only for a host that needs them

    try:
        idna.encode(host.lower())
    except idna.IDNAError:
        return False
    return True


def read_key(file: Path) -> str:
    """The key that a file holds. Raises ValueError; a file that changes meanwhile is read at the next call."""
    try:
        if not file.is_file():
            raise ValueError(f"must name {'a file, not a folder' if file.is_dir() else 'a file that exists'}")
        with file.open("rb") as opened:
            key = opened.read(LONGEST_KEY_BYTES + 1)
    except OSError as error:
        raise ValueError(f"names a file that cannot be read: {error.strerror}") from None
    if len(key) > LONGEST_KEY_BYTES:
        raise ValueError("must name a file that holds the key and nothing else")
    try:
        return key.decode().strip()
    except UnicodeDecodeError:
        raise ValueError("must name a file that is UTF-8 text") from None


def _pairs(text: object, wanted: str) -> dict[str, str]:
    """Values by lane, or by `*`."""
    pairs: dict[str, str] = {}
    for part in str(text).split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not (name == "*" or _LANE.fullmatch(name)) or not value:
            raise ValueError(f"must look like {wanted}")
        if name in pairs:
            raise ValueError(f"must name each lane once, such as {wanted}")
        pairs[name] = value
    return pairs
