"""The common parts of all profiles' bodies: the parts that a worker reads, and `extra_body`."""

from typing import TYPE_CHECKING, Any, ClassVar, Final

from pydantic import ConfigDict, field_validator

from api_contracts.fields import WireModel
from api_contracts.shapes import Shapes
from api_contracts.violations import RefusedValue, WaysOut

SHAPED: Final = "x-shaped"
"""Marks a field in a JSON Schema of pydantic's whose schema is a shape of its own."""


class RequestPart(WireModel):
    """A part of a request: strict about what it knows, and passing on what it does not."""

    model_config = ConfigDict(strict=True)


class RequestBody(RequestPart):
    """A body of `POST /v1/responses`, as far as a worker must understand it; each profile says the rest."""

    model_config = ConfigDict(extra="forbid")

    WAYS_OUT: ClassVar[WaysOut] = ()
    """Advice where the profile takes less than callers are used to, by field and type of mistake."""

    if TYPE_CHECKING:  # fields of every profile, each at its place among the profile's own
        model: str | None
        stream: bool | None
        max_output_tokens: int | None
        extra_body: dict[str, Any] | None

    @property
    def media(self) -> object:
        """The part of the body that may hold images and files; None where a profile knows none."""
        return None

    @property
    def holds_schema(self) -> bool:
        """Whether the body holds a JSON Schema of its output."""
        return False

    @classmethod
    def shapes(cls) -> Shapes | None:
        """The shapes of those fields that are marked `SHAPED` in the JSON Schema."""
        return None

    @field_validator("extra_body", check_fields=False)
    @classmethod
    def _beyond_the_contract(cls, extra: dict[str, Any] | None) -> dict[str, Any] | None:
        reserved = sorted((extra or {}).keys() & (cls.model_fields.keys() | {"background"}))
        if "background" in reserved:
            raise RefusedValue("may not name background; the worker waits for the answer and publishes it")
        if reserved:
            raise RefusedValue(f"may not name {', '.join(reserved)}; it is for parameters newer than the contract")
        return extra
