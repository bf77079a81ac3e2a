"""One item of an output as the contract has it, from its bytes: only the fields that the contract knows are looked at.

Readers in Python pass over an `id` that is a list, and read the number 7 as "7". A reader made from the exported schema
cannot. So a known field of a wrong type becomes what the contract reads in it, mostly null. Every other byte stays.
"""

import re
from typing import Any, Final, NamedTuple

import msgspec

from worker.gateway.members import TooManyError, cutter, elements, replaced

MAX_PARTS: Final = 4_096
"""Items and parts of items that an answer may have: a consumer holds a kilobyte for each, and one costs 8 us here."""
_TEXTS_OF_ITEM: Final = ("id", "type", "role", "status")
_TEXTS_OF_PART: Final = ("type", "text")
_ITEM: Final = cutter(*_TEXTS_OF_ITEM, "content")
_PART: Final = cutter(*_TEXTS_OF_PART, "refusal", "annotations")
_TEXT_OR_NULL: Final = (b"", b'"', b"n")
_INTEGER: Final = re.compile(rb"-?\d+")
_MESSAGE: Final = (b"", b'"message"')
_UNTYPED: Final = (b"", b"null", b'"text"')
_NO_WORDS: Final = (b"", b"null", b'""')


class Item(NamedTuple):
    """One item of an output: its JSON, and as much of it as decides about the answer."""

    raw: bytes
    parts: int = 1
    type: bytes = b'"message"'
    status: bytes | None = None


class _Note(msgspec.Struct, gc=False):
    """Anything, so long as it is an object."""


class _Part(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None
    annotations: list[_Note] | None = None


class _Item(msgspec.Struct, gc=False):
    id: str | None = None
    type: str | None = None
    role: str | None = None
    status: str | None = None
    content: list[_Part] | None = None


class _Output(msgspec.Struct, gc=False):
    output: list[_Item]


_CONFORMING: Final = msgspec.json.Decoder(_Output)


def conforms(response: bytes) -> bool:
    """Whether a response has output, and all of it as the contract has it: most do, and that is told in one pass."""
    if response.count(b"{") > MAX_PARTS:
        return False
    try:
        output = _CONFORMING.decode(response).output
    except ValueError:
        return False
    return bool(output) and all(part.type not in (None, "text") for item in output for part in item.content or ())


def message(text: str) -> Item:
    """A message of a text that came without one."""
    return _message_of(msgspec.json.encode(text))


def item_of(raw: bytes) -> Item | None:
    """The item, of the same bytes if they conform; None for what is no item. Raises TooManyError."""
    if raw[:1] == b'"':
        return _message_of(raw)
    if raw[:1] != b"{":
        return None
    item = _ITEM.decode(raw)
    changes, kind, content = _as_texts(item, _TEXTS_OF_ITEM), bytes(item.type), bytes(item.content)
    written = listed(content) if content[:1] == b"[" else [content] if content[:1] in (b'"', b"{") else []
    parts = [mended for part in written if (mended := _part(part, of_message=kind in _MESSAGE))]
    if content[:1] not in (b"", b"n") and (content[:1] != b"[" or parts != written):
        changes["content"] = b"[%s]" % b",".join(parts) if written or content[:1] == b"[" else b"null"
    return Item(replaced(raw, changes) if changes else raw, len(parts), kind, bytes(item.status))


def listed(output: bytes) -> list[bytes]:
    """The items or parts in a list, as they were written. Raises TooManyError."""
    found = elements(output)
    if len(found) > MAX_PARTS:
        raise TooManyError
    return [*map(bytes, found)]


def has_words(item: Item) -> bool:
    """Whether a message says anything."""
    content = bytes(_ITEM.decode(item.raw).content)
    return content[:1] == b"[" and any(map(_says_something, map(_PART.decode, listed(content))))


def filled(item: Item, text: str) -> Item:
    """The message with this text for its content."""
    return item._replace(raw=replaced(item.raw, {"content": b"[%s]" % _part_of(msgspec.json.encode(text))}))


def _says_something(part: Any) -> bool:
    said = {bytes(part.text), bytes(part.refusal)}
    return not said.issubset(_NO_WORDS) or bytes(part.type) != b'"output_text"'


def _part(raw: bytes, *, of_message: bool) -> bytes:
    """The part, the same bytes if they conform; b"" for what is no part."""
    if raw[:1] == b'"':
        return _part_of(raw)
    if raw[:1] != b"{":
        return b""
    part = _PART.decode(raw)
    changes = _as_texts(part, _TEXTS_OF_PART)
    if of_message and bytes(part.type) in _UNTYPED and bytes(part.text)[:1] == b'"':
        changes["type"] = b'"output_text"'
    if not _is_notes(bytes(part.annotations)):
        changes["annotations"] = b"null"
    return replaced(raw, changes) if changes else raw


def _is_notes(raw: bytes) -> bool:
    return raw[:1] in (b"", b"n") or (raw[:1] == b"[" and all(bytes(note)[:1] == b"{" for note in elements(raw)))


def _as_texts(cut: Any, names: tuple[str, ...]) -> dict[str, bytes]:
    """The contract's reading of fields that should be texts: numbers as text, anything else as null."""
    wrong = {name: raw for name in names if (raw := bytes(getattr(cut, name)))[:1] not in _TEXT_OR_NULL}
    return {name: b'"%s"' % raw if _INTEGER.fullmatch(raw) else b"null" for name, raw in wrong.items()}


def _message_of(text: bytes) -> Item:
    return Item(b'{"type":"message","role":"assistant","status":"completed","content":[%s]}' % _part_of(text))


def _part_of(text: bytes) -> bytes:
    """The part of a text that is JSON already: decoded and encoded again it would take twenty times its size."""
    return b'{"type":"output_text","text":%s,"annotations":[]}' % text
