"""What never leaves: prompts, outputs, keys. Exceptions are told by type and place, because their text may quote any.

pydantic puts the input into its messages, Redis the arguments of a wrong command, httpx the URL with its query.
Of all these only the words of the operating system are known to hold nothing of ours.
"""

import os
import re
import traceback
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

MAX_TEXT_CHARS: Final = 500
MAX_FRAMES: Final = 30
WITHHELD: Final = "[withheld]"

_CONTENT: Final = frozenset(
    {"body", "input", "output", "prompt", "response", "metadata", "message_body", "api_key", "authorization", "headers"}
)
_SECRETS: Final = (
    (re.compile(r"\b(?:sk-|Bearer\s+)[\w.*-]{4,}"), "[key]"),
    (re.compile(r"(\w+://)[^/@\s'\"]+@"), r"\1"),
    (re.compile(r"(\w+://[^\s?#'\"]+)\?[^\s'\"]+"), r"\1?[query]"),
)
_ROOT: Final = str(Path(__file__).parents[2]) + os.sep


def without_content(event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The second line of defence: whatever is called like content, or like a key, does not leave."""
    for name in event.keys() & _CONTENT:
        event[name] = WITHHELD
    return event


def clean(text: str) -> str:
    """Words of a library, cut, without keys, passwords and URL queries."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text if len(text) <= MAX_TEXT_CHARS else f"{text[:MAX_TEXT_CHARS]}..."


def words(error: BaseException) -> str:
    """What may be told of an exception's text: the operating system's own words, or nothing."""
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else WITHHELD


def name(error: BaseException) -> str:
    """The exception's qualified type, such as `redis.exceptions.ConnectionError`."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def described(error: BaseException) -> list[Mapping[str, Any]]:
    """The exception and its causes, outermost first: type, permitted words, and where, innermost frame last."""
    return [
        {"type": name(link), "text": words(link), "frames": list(_frames(link))[-MAX_FRAMES:]} for link in chain(error)
    ]


def chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, then what caused it, as a traceback would show, of a group the first; each once."""
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
    """A path from the package on, as it reads the same on every machine."""
    return filename.removeprefix(_ROOT).rpartition("site-packages" + os.sep)[2]


def _frames(error: BaseException) -> Iterator[str]:
    for frame in traceback.extract_tb(error.__traceback__):
        yield place(frame)
