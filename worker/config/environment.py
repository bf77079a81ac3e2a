"""Reads settings from environment variables: the base of all settings, and their only loader."""

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeVar, cast, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

S = TypeVar("S", bound="EnvironmentSettings")


class WrongSettingsError(Exception):
    """One line for each mistake: the variable, and what to write. Holds no part of any value."""


class EnvironmentSettings(BaseSettings):
    """Settings of which each is one environment variable. An empty variable counts as not set."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        populate_by_name=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _is_one_printable_line(cls, value: object) -> object:
        """Refuses control characters: copied secrets often end in a line break, which would split headers."""
        if not isinstance(value, str):
            return value
        if not value.isprintable():
            raise ValueError("must be one line without control characters; look for a line break at its end")
        if value.isspace():
            raise ValueError("is blank; give it a value, or unset it for its default")
        return value.strip()


def load_settings(settings: type[S], overrides: Mapping[str, Any]) -> S:
    """Settings from the environment; `overrides` win. Raises WrongSettingsError."""
    try:
        return settings(**overrides)
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False, include_context=False)
        lines = [_line(settings, problem["loc"], problem["type"], problem["msg"]) for problem in problems]
        raise WrongSettingsError("\n".join(lines)) from None


def variable(settings: type[EnvironmentSettings], name: str) -> str:
    """The environment variable of a field."""
    field = settings.model_fields.get(name)
    alias = field.validation_alias if field else name
    return str(alias) if alias else f"{settings.model_config.get('env_prefix', '')}{name}".upper()


def _line(settings: type[EnvironmentSettings], location: tuple[int | str, ...], kind: str, message: str) -> str:
    if not location:  # a mistake between fields; its message names them
        return message.removeprefix("Value error, ")
    name = str(location[0])
    field = settings.model_fields.get(name)
    said = message.removeprefix("Value error, ") if kind == "value_error" or field is None else _wanted(field)
    return "\n".join(f"{variable(settings, name)}: {line}" for line in said.splitlines())


def _wanted(field: FieldInfo) -> str:
    """The values that a field takes, in words: pydantic's own words repeat none of the limits."""
    kind = cast("Any", field.annotation)
    if get_origin(kind) is Literal:
        *most, last = (str(choice) for choice in get_args(kind))
        return f"must be {', '.join(most)} or {last}"
    if kind not in _NUMBERS:
        return "cannot be read"
    limits: dict[type, Any] = {type(limit): limit for limit in field.metadata}
    low = f"above {limits[Gt].gt}" if Gt in limits else f"from {limits[Ge].ge}"
    return f"must be {_NUMBERS[kind]} {low} to {limits[Le].le}"


_NUMBERS: Final = {int: "a whole number", float: "a number"}
