"""The types that contracts are made of: JSON numbers, names, times, fields that may be left out or unreadable.

Requests are strict in pydantic's sense and bend it in three places: `1.0` is an integer, as in JSON Schema
(draft 2020-12, validation 6.1.1); times are RFC 3339 text; an optional field may be absent but not `null`.
"""

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from types import NoneType
from typing import Annotated, Any, Final, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    WrapValidator,
)

from api_contracts.limits import MAX_ID_CHARS, MAX_NAME_CHARS
from api_contracts.violations import RefusedValue

T = TypeVar("T")

# Section 5.6 allows lower-case letters and a space between date and time. The ranges are spelled out because
# `fromisoformat` accepts an hour of 24 from Python 3.14 on.
_RFC_3339: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)", re.ASCII
)


def rfc3339(at: datetime) -> str:
    """An aware time as contracts write it: RFC 3339, UTC, milliseconds, like `2026-01-31T09:30:00.000Z`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _instant(value: object) -> datetime:
    with suppress(ValueError, OverflowError):  # 30 February; the calendar's first and last hours, elsewhere
        if isinstance(value, str) and _RFC_3339.fullmatch(value):
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
        if isinstance(value, datetime) and value.utcoffset() is not None:
            return value.astimezone(UTC)
    raise RefusedValue("must be an RFC 3339 time with its offset, like 2026-01-31T09:30:00.000Z")


def whole(value: object) -> object:
    """A float without a fraction as the integer it is; any other value as it came."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _text_or_none(value: object) -> str | None:
    """A string. Gateways also send numbers and other types for fields that the API document calls strings."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None


def _number_or_none(value: object) -> float | None:
    return value if isinstance(value, int | float) else None


def _zero_if_null(value: object) -> object:
    return 0 if value is None else value


def _none_if_unreadable(value: object, read: Callable[[object], T]) -> T | None:
    try:
        return read(value)
    except ValidationError:
        return None


class _Omissible:
    """Drops the `None` of `T | None` from what is accepted; the annotation keeps it, for the default."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        (kind,) = (arg for arg in get_args(source) if arg is not NoneType)
        return handler(kind)


Omissible = Annotated[T | None, _Omissible()]
"""A field that may be left out. It then reads as `None`, but it is never `null` in JSON."""

Lenient = Annotated[T | None, WrapValidator(_none_if_unreadable)]
"""A field of an answer. A value of another type reads as `None`, and the other fields are kept."""

Timestamp = Annotated[
    datetime,
    PlainValidator(_instant),
    PlainSerializer(rfc3339, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""An instant: aware, in UTC. Read from RFC 3339 text with any offset, written by `rfc3339`."""

WHOLE: Final = BeforeValidator(whole)
"""Beside a strict `int`: a float without a fraction counts as the integer it is."""

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS, pattern=r"^[A-Za-z0-9._:-]+$")]
RequestId = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARS, pattern=r"^[A-Za-z0-9._:-]+$")]
TraceParent = Annotated[
    str, Field(pattern=r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?$", max_length=512)
]

LooseText = Annotated[str | None, PlainValidator(_text_or_none, json_schema_input_type=str | None)]
LooseNumber = Annotated[float | None, PlainValidator(_number_or_none, json_schema_input_type=float | None)]
TokenCount = Annotated[int, Field(ge=0), BeforeValidator(_zero_if_null)]


def tidy(schema: dict[str, Any]) -> None:
    """Keeps the JSON Schema to what the wire knows: `null` defaults and derived titles are pydantic's."""
    for field in schema.get("properties", {}).values():
        field.pop("title", None)
        if field.get("default", ...) is None:
            del field["default"]


class WireModel(BaseModel):
    """A part of a request or an answer. Its `repr`, which ends up in logs and tracebacks, shows no field of it."""

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        json_schema_extra=tidy,
    )

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return ()
