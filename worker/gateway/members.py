"""JSON as bytes: the members that somebody reads are cut out and decoded, all others are passed over.

So that an answer costs what its bytes cost, however many values they hold, and that what the upstream wrote is
published byte for byte around the one member that needed mending. `document` must be valid JSON here, unless it says
otherwise.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, cast

import msgspec
import orjson

from api_contracts.limits import depth, structure

MAX_DEPTH: Final = 190
"""Levels of an answer. The client's parser (jiter) stops at 200, and a result wraps a few around the answer."""
SMALL_BYTES: Final = 4 * 1024
"""Of a value that is decoded, whatever it holds: it may take fifty times as much."""
MAX_ELEMENTS: Final = 1_024
"""Elements of a list of nearly nothing: less than ten bytes each."""
MAX_MEMBERS: Final = 10_000
"""Members of an object one of which must be written anew."""
BULK: Final[list[None]] = [None]
"""The stand-in for a value of more parts than anybody reads: a list that says nothing."""

_TOLD: Final = (
    *("id", "object", "status", "model", "created_at", "completed_at", "error", "incomplete_details", "usage"),
    *("output", "output_text", "choices", "response", "result", "data", "item", "delta", "text", "output_index"),
    *("code", "type", "param", "message", "msg", "detail", "details", "errors", "extensions", "success"),
)
"""Members of answers, errors and events that somebody reads."""
_NESTED: Final = frozenset({"response", "result", "data", "item", "error"})
_LEVELS: Final = 3
"""A response in its event, its error, and what that one quotes."""

_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_MEMBER: Final = re.compile(rb"[\s,{]*+(" + _STRING + rb")\s*+:\s*+", re.DOTALL)
_SCALAR: Final = re.compile(_STRING + rb"|[^\s,\]}]++", re.DOTALL)
_BRACKET: Final = re.compile(rb'(?:[^"{}\[\]]++|' + _STRING + rb")*+(?:([{\[])|([}\]])|.*+)", re.DOTALL)
_TRAILING: Final = re.compile(r"trailing characters \(byte (\d+)\)")


class Member(NamedTuple):
    """The place of one member of an object: its name as decoded, and its value's first byte and end."""

    name: str
    start: int
    end: int


def cutter(*names: str) -> "msgspec.json.Decoder[Any]":
    """Reads an object as a struct of these members, each as it was written and b"" where there is none."""
    fields = [(name, msgspec.Raw, msgspec.Raw(b"")) for name in names]
    return msgspec.json.Decoder(msgspec.defstruct("Cut", fields))


_CUT: Final = {name: cutter(name) for name in _TOLD}
_ALL: Final = cutter(*_TOLD)
_VALUE: Final = msgspec.json.Decoder()
_RAW: Final = msgspec.json.Decoder(msgspec.Raw)
_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])
_FEW: Final = msgspec.json.Decoder(
    msgspec.defstruct(
        "Few",
        [(f"_{index}", msgspec.Raw | None, None) for index in range(MAX_ELEMENTS)],
        array_like=True,
        forbid_unknown_fields=True,
    )
)
"""The length of a list is looked at once the list is built, but that of a struct on the way."""


class TooManyError(ValueError):
    """A list or an object holds more than anybody should have to read."""


def decoded(document: bytes) -> Any:
    """The value of the JSON, all of it. Raises ValueError if it is none, or has a number beyond a double.

    orjson takes half the time for a small one, and twelve times the size of a large one.
    """
    return orjson.loads(document) if len(document) <= SMALL_BYTES else _VALUE.decode(document)


def value(document: bytes, levels: int = _LEVELS) -> Any:
    """The value if it is small, or text; else of an object its members that somebody reads, and `BULK` for a list.

    Raises ValueError if it is no JSON; a text that nobody reads may hold bytes that are not UTF-8.
    """
    opening = document.lstrip()[:1]
    if len(document) <= SMALL_BYTES or opening == b'"':
        return decoded(document)
    if not levels:
        return BULK
    if opening != b"{":
        _RAW.decode(document)
        return BULK
    told = _ALL.decode(document)
    return {
        name: value(bytes(raw), levels - 1 if name in _NESTED else 0) for name in _TOLD if (raw := getattr(told, name))
    }


def member_bytes(document: bytes, name: str) -> bytes | None:
    """The value of one of the members that somebody reads, as it was written; None if there is none."""
    return bytes(getattr(_CUT[name].decode(document), name)) or None


def elements(document: bytes) -> list[msgspec.Raw]:
    """The elements of a list, as they were written. Raises TooManyError."""
    if document.count(b",") < max(MAX_ELEMENTS, len(document) // 10):
        return _LIST.decode(document)
    try:
        few = _FEW.decode(document)
    except msgspec.ValidationError:
        raise TooManyError from None
    return [each for each in msgspec.structs.astuple(few) if each is not None]


def replaced(document: bytes, values: Mapping[str, bytes]) -> bytes:
    """The object with these values in place of its own; a member that it lacks is put before its first.

    Every other byte stays.
    """
    return _spliced(document, members(document), values)


def shallow(document: bytes, levels: int = 2) -> bytes:
    """The object with `null` for whatever in its first `levels` is nested too deep; as it came if it is not JSON."""
    try:
        found = [*members(document)]
        values = {member.name: document[member.start : member.end] for member in found}
        deep = {name: value for name, value in values.items() if depth(structure(value)) >= MAX_DEPTH}
        cut = {
            name: shallow(value, levels - 1) if levels and value.startswith(b"{") else b"null"
            for name, value in deep.items()
        }
        return _spliced(document, found, cut)
    except (AttributeError, IndexError, ValueError):
        return document


def members(document: bytes) -> Iterator[Member]:
    """The object's own members in order, each as often as it is written. Raises TooManyError."""
    position, left = 0, MAX_MEMBERS
    while key := _MEMBER.match(document, position):
        if not (left := left - 1):
            raise TooManyError
        position = _value_end(document, key.end())
        yield Member(_VALUE.decode(key[1]), key.end(), position)


def document_end(document: bytes, start: int = 0) -> int:
    """The end of the JSON that stands at `start`, whatever follows it. Raises ValueError if none does."""
    try:
        _RAW.decode(memoryview(document)[start:])
    except msgspec.DecodeError as error:
        if told := _TRAILING.search(str(error)):
            return start + int(told[1]) - 1  # it counts from one
        raise
    return len(document)


def _value_end(document: bytes, start: int) -> int:
    if document[start] not in b"{[":
        return cast("re.Match[bytes]", _SCALAR.match(document, start)).end()
    try:
        return document_end(document, start)
    except (ValueError, RecursionError):
        return _closing_bracket(document, start)


def _closing_bracket(document: bytes, start: int) -> int:
    """The end of an array or object that is nested too deep for a parser, or has values that are not JSON."""
    level = 0
    for bracket in _BRACKET.finditer(document, start):
        if bracket.lastindex is None:
            break
        level += 1 if bracket.lastindex == 1 else -1
        if not level:
            return bracket.end()
    raise ValueError


def _spliced(document: bytes, found: Iterable[Member], values: Mapping[str, bytes]) -> bytes:
    pieces, position, missing = list[bytes](), 0, dict(values)
    for name, start, end in found:
        if name in values:
            pieces += (document[position:start], values[name])
            position = end
            missing.pop(name, None)
    rest = b"".join((*pieces, document[position:]))
    if not missing:
        return rest
    opening = rest.index(b"{") + 1
    added = b",".join(b"%s:%s" % (orjson.dumps(name), value) for name, value in missing.items())
    comma = b"," if rest[opening:].lstrip()[:1] != b"}" else b""
    return rest[:opening] + added + comma + rest[opening:]
