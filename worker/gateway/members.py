"""A JSON object as bytes: its members found, cut out and replaced, and its nesting measured, never decoded.

So that what the upstream wrote is published byte for byte around the one member that needed mending.
`document` must be valid JSON wherever these look for ends: they check nothing. Nothing here recurses and
every expression is possessive, so a hostile document costs what its length costs.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple, cast

import orjson

MAX_DEPTH: Final = 190
"""Levels of an answer. The client's parser (jiter) stops at 200, and a result wraps a few around the answer."""
MAX_CONTAINERS: Final = 400_000
"""Objects and arrays of an answer. Each takes a few hundred bytes when it is read, here and at consumers."""

_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_MEMBER: Final = re.compile(rb"[\s,{]*+(" + _STRING + rb")\s*+:\s*+", re.DOTALL)
_SCALAR: Final = re.compile(_STRING + rb"|[^\s,\]}]++", re.DOTALL)
_UP_TO_BRACKET: Final = re.compile(rb'(?:[^"{}\[\]]++|' + _STRING + rb")*+", re.DOTALL)
_REST: Final = bytes(byte for byte in range(256) if byte not in b'{}[]"')
_TOO_DEEP: Final = b"[" * (MAX_DEPTH + 1)
"""Nothing but openings: the usual form of a document that is made to hurt, told without unwrapping it."""
_AS_SQUARE: Final = bytes.maketrans(b"{}", b"[]")


class Member(NamedTuple):
    """The place of one member of an object: its name as decoded, and its value's first byte and end."""

    name: str
    start: int
    end: int


class Nesting(NamedTuple):
    """The nesting of a document; `depth` counts no further than `MAX_DEPTH` + 1."""

    containers: int
    depth: int

    @property
    def too_much(self) -> bool:
        return self.containers > MAX_CONTAINERS


def members(document: bytes) -> Iterator[Member]:
    """The object's own members in order, each as often as it is written. Nested objects are never looked at."""
    position = 0
    while key := _MEMBER.match(document, position):
        position = _value_end(document, key.end())
        yield Member(cast("str", orjson.loads(key[1])), key.end(), position)


def member_bytes(document: bytes, name: str) -> bytes | None:
    """The value of the member `name`, exactly as written; None if there is none. The last one of a name counts."""
    found = [member for member in members(document) if member.name == name]
    return document[found[-1].start : found[-1].end] if found else None


def replaced(document: bytes, values: Mapping[str, bytes]) -> bytes:
    """The object with these values in place of its own; a member that it lacks is put before its first.

    Every other byte stays.
    """
    pieces, position, missing = list[bytes](), 0, dict(values)
    for name, start, end in members(document):
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


def nesting(document: bytes) -> Nesting:
    """The depth and number of a document's containers, counted without building any of it."""
    brackets = document.count(b"{") + document.count(b"[")
    if brackets <= MAX_DEPTH:
        return Nesting(brackets, 0)
    unescaped = document.replace(b"\\\\", b"").replace(b'\\"', b"").translate(_AS_SQUARE, _REST)
    bare = b"".join(unescaped.replace(b'""', b"").split(b'"')[::2])
    containers, depth = bare.count(b"["), 0
    if _TOO_DEEP in bare:
        return Nesting(containers, MAX_DEPTH + 1)
    while bare and depth <= MAX_DEPTH and containers <= MAX_CONTAINERS:
        bare, depth = bare.replace(b"[]", b""), depth + 1
    return Nesting(containers, depth)


def shallow(document: bytes, levels: int = 2) -> bytes:
    """The object with `null` for whatever in its first `levels` is nested too deep; as it came if it is not JSON."""
    try:
        values = {member.name: document[member.start : member.end] for member in members(document)}
        deep = {name: value for name, value in values.items() if nesting(value).depth >= MAX_DEPTH}
        cut = {
            name: shallow(value, levels - 1) if levels and value.startswith(b"{") else b"null"
            for name, value in deep.items()
        }
        return replaced(document, cut)
    except (AttributeError, IndexError, orjson.JSONDecodeError):
        return document


def _value_end(document: bytes, start: int) -> int:
    if document[start] not in b"{[":
        return cast("re.Match[bytes]", _SCALAR.match(document, start)).end()
    depth, position = 1, start + 1
    while depth:
        bracket = cast("re.Match[bytes]", _UP_TO_BRACKET.match(document, position)).end()
        depth += 1 if document[bracket] in b"{[" else -1
        position = bracket + 1
    return position
