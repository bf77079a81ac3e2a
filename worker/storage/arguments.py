"""The arguments of script commands, as Redis takes them."""

from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, Final

Argument = str | bytes | int | float | None
Kind = type[str | bytes | int | float | None] | UnionType
"""Of an argument. `int | None` is a number that may be missing."""

Encoder = Callable[[Argument], bytes]


def encoders_of(args: Mapping[str, Kind]) -> tuple[tuple[str, Encoder], ...]:
    """A writer for each argument, in their order."""
    return tuple((name, _encoder(name, kind)) for name, kind in args.items())


def _encoder(name: str, kind: Kind) -> Encoder:
    """Writes one argument as Redis takes it; raises TypeError, naming the argument, for a value of another type."""
    types, encode = _ENCODINGS[kind]

    def encoded(value: Argument) -> bytes:
        if type(value) in types or (isinstance(value, str) and str in types):
            return encode(value)
        raise TypeError(f"{name} must be {getattr(kind, '__name__', kind)}, not {type(value).__name__}")

    return encoded


def _text(value: Any) -> bytes:
    return value if type(value) is bytes else value.encode()


def _number(value: Any) -> bytes:
    return b"" if value is None else repr(value).encode()


_ENCODINGS: Final[dict[Kind, tuple[tuple[type[Any], ...], Encoder]]] = {
    str: ((str, bytes), _text),
    bytes: ((str, bytes), _text),
    bool: ((bool,), lambda flag: b"1" if flag else b"0"),
    int: ((int,), _number),
    float: ((int, float), _number),
    int | None: ((int, type(None)), _number),
    float | None: ((int, float, type(None)), _number),
}
