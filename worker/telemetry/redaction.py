"""Removes prompts, outputs and keys. An exception is reported by type and place: its text may quote any of them.

pydantic puts the input into its messages, Redis the arguments of a wrong command, httpx the URL with its query.
Only the texts of the operating system never hold content.
"""

import os
import re
import traceback
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

MAX_TEXT_CHARS: Final = 500
EXAMINED_CHARS: Final = 4096
"""More of a text is not looked at, because every character costs a search."""
MAX_FRAMES: Final = 30
WITHHELD: Final = "[withheld]"

_CONTENT: Final = frozenset(
    {"body", "input", "output", "prompt", "response", "metadata", "message_body", "api_key", "authorization", "headers"}
)
_SECRETS: Final = (
    (re.compile(r"\b(?:sk-|Bearer\s++)[\w.*-]{4,}+"), "[key]"),
    (re.compile(r"://[^/@\s'\"]++@"), "://"),
    (re.compile(r"(://[^\s?#'\"]{1,2048}+)\?[^\s'\"]++"), r"\1?[query]"),
)
_ROOT: Final = str(Path(__file__).parents[2]) + os.sep


def without_content(event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The second line of defence: withholds the values of fields that are named like content or like a key."""
    for name in event.keys() & _CONTENT:
        event[name] = WITHHELD
    return event


def clean(text: str) -> str:
    """The text of a library, cut, without keys, passwords and URL queries."""
    if len(text) > EXAMINED_CHARS:  # in front of its last word: half a password would not look like one
        text = text[:EXAMINED_CHARS].rpartition(" ")[0] + "..."
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text if len(text) <= MAX_TEXT_CHARS else f"{text[:MAX_TEXT_CHARS]}..."


def words(error: BaseException) -> str:
    """The text of an exception if it is the operating system's own, else a placeholder."""
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else WITHHELD


def name(error: BaseException) -> str:
    """The exception's qualified type, such as `redis.exceptions.ConnectionError`."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def described(error: BaseException) -> list[Mapping[str, Any]]:
    """The exception and its causes, outermost first: type, permitted text, and frames, innermost last."""
    return [
        {"type": name(link), "text": words(link), "frames": list(_frames(link))[-MAX_FRAMES:]} for link in chain(error)
    ]


def chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, then its causes in the order of a traceback, each once; of a group only the first exception."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = _before(link)


def _before(link: BaseException) -> BaseException | None:
    if isinstance(link, BaseExceptionGroup):
        return cast("Sequence[BaseException]", link.exceptions)[0]  # pyright: ignore[reportUnknownMemberType]  # of anything
    return link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def place(frame: traceback.FrameSummary) -> str:
    """`worker/processor.py:93 in process`: no source, no locals."""
    return f"{shortened(frame.filename)}:{frame.lineno} in {frame.name}"


def shortened(filename: str) -> str:
    """A path from the package on: the same on every machine."""
    return filename.removeprefix(_ROOT).rpartition("site-packages" + os.sep)[2]


def _frames(error: BaseException) -> Iterator[str]:
    for frame in traceback.extract_tb(error.__traceback__):
        yield place(frame)
