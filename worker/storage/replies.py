"""Decoders of script replies: bytes and flat lists become numbers, text and named tuples."""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar, get_type_hints

R = TypeVar("R")


def number(reply: Any) -> int:
    return int(reply)


def text(reply: bytes) -> str:
    return reply.decode()


def flags(reply: Sequence[int]) -> list[bool]:
    return [bool(flag) for flag in reply]


def record(kind: Callable[..., R]) -> Callable[[Sequence[Any]], R]:
    """Decodes one flat list into a named tuple; a last field that is a tuple takes all that is left."""
    decoders, rest = _decoders(kind)

    def decode(reply: Sequence[Any]) -> R:
        fields = [decode(part) for decode, part in zip(decoders, reply, strict=not rest)]
        return kind(*fields, *([tuple(reply[len(decoders) :])] if rest else []))

    return decode


def records(kind: Callable[..., R], *, after: int = 0) -> Callable[[Sequence[Any]], list[R]]:
    """Decodes a flat list of many named tuples; the first `after` parts of the list are left out."""
    decoders, _ = _decoders(kind)

    def decode(reply: Sequence[Any]) -> list[R]:
        parts = iter(reply[after:])
        rows = zip(*[parts] * len(decoders), strict=True)
        return [kind(*(decode(part) for decode, part in zip(decoders, row, strict=True))) for row in rows]

    return decode


def _decoders(kind: Callable[..., Any]) -> tuple[list[Callable[[Any], Any]], bool]:
    types = list(get_type_hints(kind).values())
    rest = types[-1] not in _DECODERS
    return [_DECODERS[one] for one in types[: len(types) - rest]], rest


_DECODERS: Final[dict[type[Any], Callable[[Any], Any]]] = {
    int: int,
    float: float,
    bool: bool,
    str: lambda part: part.decode(errors="replace"),
    bytes: bytes,
}
