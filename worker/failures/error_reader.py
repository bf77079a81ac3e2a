"""An error's words in body and headers, whatever shape it came in: read only, nothing is judged here.

`error` may be an object, a string, a list or missing; `code` any JSON type, often the true status; the real
code may sit in JSON quoted by a message (new-api `service/error.go`, LiteLLM); bodies may be HTML or empty.
"""

import fnmatch
import http.client
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Final, cast

import msgspec

EXAMINED_BYTES: Final = 64 * 1024
"""An error body is read no further: real ones are under 4 KB, and a hostile one must not cost a core."""
EXAMINED_CHARS: Final = 8 * 1024
NESTING: Final = 4
SIBLINGS: Final = 4
MAX_RETRY_AFTER_S: Final = 7 * 24 * 3600
"""No deadline is further away. A larger Retry-After is a mistake (an epoch, an overflow) and says nothing."""


def any_of(globs: str) -> re.Pattern[str]:
    """One pattern for a space-separated list of globs."""
    return re.compile("|".join(fnmatch.translate(glob) for glob in globs.split()))


WRAPPERS: Final = any_of("""
    upstream_error bad_response* openai_error *_api_error api_error error unknown_error failed
    server_error internal_server_error permission_error auth_error
""")
"""Names under which a gateway passes on somebody else's error. Only beneath these is a message searched for
the code and status it quotes: under any other name a quotation may be the caller's own prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedError:
    """An error in one shape: `status` is the one it names, else that of HTTP; None under HTTP 200.

    `names` are snake_case: codes before types, outer before inner, those quoted by a message last. `text` is
    all it says, in lower case. `code`, `type` and `message` are its own first words, for people.
    """

    status: int | None
    names: tuple[str, ...]
    text: str = field(repr=False)
    code: str | None = None
    type: str | None = None
    message: str | None = field(default=None, repr=False)
    spoken: bool = True
    """Whether an API said it, in an error object, and not something in front of it."""


def read_body(status: int, body: bytes) -> ReportedError:
    """Reads the body of an HTTP error; never raises, whatever the bytes."""
    text = body[:EXAMINED_BYTES].decode("utf-8-sig", "replace").strip()
    try:
        document: object = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        document = None
    said = list(_said(document)) or [("message", _readable(text))] * bool(text)
    return replace(_weigh(status, said), spoken=_is_api_error(document, status))


def _is_api_error(document: object, status: int) -> bool:
    """Whether an API wrote this: an `error` with something in it, or a message beside a code or a type.

    Routers and error pages write JSON too (kong/kong `{"message": "no Route matched"}`, FastAPI `{"detail":
    "Not Found"}`, tarampampam/error-pages#176), but they say no more than the status does.
    """
    if isinstance(document, list) and document:
        document = cast("list[object]", document)[0]
    if not isinstance(document, dict):
        return False
    said = cast("dict[str, object]", document)
    reason = http.client.responses.get(status, "").lower()
    if isinstance(error := said.get("error"), dict):
        return any(_says_more_than(reason, part, status) for part in cast("dict[str, object]", error).values())
    told = [key for key in _WORDS if _says_more_than(reason, said.get(key), status)]
    labelled = any(said.get(key) for key in ("code", "type")) or "error" in {str(said.get("object")), *told}
    return bool(told) and (labelled or "detail" in told or "errors" in told or said.get("success") is False)


def _says_more_than(reason: str, value: object, status: int = 0) -> bool:
    if isinstance(value, str):
        return value.strip(". ").lower() not in ("", reason, str(status))
    return value not in (None, 0, status, True, False, [], {})


_WORDS: Final = ("error", "detail", "message", "msg", "errors")


def read_error(error: object) -> ReportedError:
    """Reads an error that came under HTTP 200: the value of `error`, or an SSE event that is one."""
    return _weigh(None, list(_said(error)))


_NAME_KEYS: Final = ("code", "type", "status")
_KEYS: Final = (*_NAME_KEYS, "param", "message", "msg", "detail", "details", "error", "errors", "extensions")


def _said(value: object, key: str = "message", nesting: int = NESTING) -> Iterator[tuple[str, str]]:
    """The scalars an error is made of, each with its key, outer ones first, bounded in depth and breadth."""
    if isinstance(value, dict) and nesting:
        fields = cast("dict[str, object]", value)
        for name in _KEYS:
            yield from _said(fields.get(name), name, nesting - 1)
    elif isinstance(value, list) and nesting:
        for item in cast("list[object]", value)[:SIBLINGS]:
            yield from _said(item, key, nesting - 1)
    elif text := _scalar(cast("object", value)):
        yield key, text


def _scalar(value: object) -> str:
    """The text of a JSON scalar; empty for null, and for numbers that no code would be."""
    if isinstance(value, str):
        return value[:EXAMINED_CHARS].strip()
    if isinstance(value, int | float) and abs(value) < 1e9:  # noqa: PLR2004  false for NaN and infinity too
        return str(int(value))
    return ""


_RELAYED: Final = re.compile(r"litellm\.\w{1,40}error: .{0,120}exception - ", re.IGNORECASE | re.DOTALL)
"""The beginning of a message in which LiteLLM quotes the upstream, beside any names of its own."""
_STATUS: Final = re.compile(r"[45]\d\d", re.ASCII)
_QUOTED_STATUS: Final = re.compile(r"\b(?:status[ _]code|error code)[ :=]{1,3}([45]\d\d)\b", re.ASCII | re.IGNORECASE)
# The quotes may be single (a printed Python dict) or escaped (JSON in JSON).
_QUOTED_NAME: Final = re.compile(
    r"""["'](code|type|status)\\{0,4}["'] {0,2}: {0,2}\\{0,4}["']([A-Za-z][\w.:-]{2,63})""", re.ASCII
)


def _weigh(http_status: int | None, said: list[tuple[str, str]]) -> ReportedError:
    """Sorts what was said into codes, types and words; under a wrapper, what it quotes counts too."""
    codes = [text for key, text in said if key == "code"]
    types = [text for key, text in said if key in ("type", "status") and text != "error"]
    words = [text for key, text in said if key not in (*_NAME_KEYS, "param")]
    statuses = [text for key, text in said if key in (*_NAME_KEYS, "param") and _STATUS.fullmatch(text)]
    names = [_snake(name) for name in (*codes, *types) if not name.isdecimal()]
    text = "\n".join(words)[:EXAMINED_CHARS]
    if all(map(WRAPPERS.fullmatch, names)) or _RELAYED.match(text):
        statuses += _QUOTED_STATUS.findall(text)[:1]
        quoted = sorted(islice(_QUOTED_NAME.finditer(text), SIBLINGS), key=lambda name: name[1] != "code")
        names = [*(_snake(name[2]) for name in quoted), *names]
    return ReportedError(
        status=int(statuses[0]) if statuses else http_status,
        names=tuple(names),
        text=text.lower(),
        code=next(iter(codes), None),
        type=next(iter(types), None),
        message=next(iter(words), None),
    )


_HUMP: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
_TAG: Final = re.compile(r"<[^<>]{0,400}>")


def _snake(name: str) -> str:
    """Azure writes `RateLimitReached`, Google `RESOURCE_EXHAUSTED`: one spelling for all."""
    return _HUMP.sub("_", name[:128]).lower().replace("-", "_").replace(" ", "_")


def _readable(text: str) -> str:
    return " ".join(_TAG.sub(" ", text[:EXAMINED_CHARS]).split())


def lowered(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers under names in lower case, as everything below expects them."""
    return {name.lower(): value for name, value in headers.items()}


_REQUEST_ID: Final = re.compile(r"\(request id: ([\w.:-]{1,128})\)")


def request_id(headers: Mapping[str, str], message: str = "") -> str | None:
    """The id to quote to the gateway's support.

    The gateway's own goes first: `x-request-id` may be that of an upstream of its, copied through.
    """
    if header := headers.get("x-oneapi-request-id") or headers.get("x-request-id"):
        return header[:128]
    found = _REQUEST_ID.search(message)
    return found[1] if found else None


def server_time(headers: Mapping[str, str]) -> datetime:
    """The server's own clock where it tells: that is the one its HTTP-dates are meant by."""
    return _http_date(headers.get("date", "")) or datetime.now(UTC)


def parse_retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """The wait in seconds asked for, from 0 to `MAX_RETRY_AFTER_S`; None if absent or without sense.

    `retry-after-ms` goes before `retry-after`, in (fractional) seconds or as an HTTP-date (RFC 9110 10.2.3).
    """
    values = lowered(headers)
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        wait_s = _number(values.get(name, "")) * unit_s
        if 0 <= wait_s <= MAX_RETRY_AFTER_S:
            return wait_s
    date = _http_date(values.get("retry-after", ""))
    wait_s = (date - now).total_seconds() if date else math.inf
    return max(0.0, wait_s) if wait_s <= MAX_RETRY_AFTER_S else None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _http_date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


_TRY_AGAIN: Final = re.compile(
    r"(?:try again|retry) (?:in|after) "
    r"(?:(\d{1,3})h)?(?:(\d{1,4})m(?!s))?(?:(\d{1,6}(?:\.\d{1,12})?) ?(m?)s)?",
    re.ASCII,
)


def wait_in_words_s(text: str) -> float | None:
    """The wait that a text in lower case asks for: "try again in 1m2.5s", "retry after 30 seconds"."""
    found = _TRY_AGAIN.search(text)
    if found is None or not any(found.group(1, 2, 3)):
        return None
    hours, minutes, seconds, milli = found.groups()
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds or 0) / (1000 if milli else 1)
