"""Shapes described as data, in JSON Schema, made into validators of pydantic's core.

A union is decided by the JSON type of a value and, between objects, by their `type`. So a mistake is told at its
place, and not once for each alternative. Of JSON Schema this knows what `openai_shapes.json` uses, and nothing else.
"""

import json
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any, Final, cast

from pydantic_core import CoreSchema, PydanticKnownError, SchemaValidator, core_schema

from api_contracts.fields import whole
from api_contracts.violations import UNION_STEP, RefusedValue

Json = dict[str, Any]
Picker = Callable[[Mapping[str, Any]], object]
"""The definition, by name or by `type`, that an object of a union is meant to be."""

_NULL: Final[Json] = {"type": "null"}
_JSON_TYPES: Final[Mapping[type, str]] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
    NoneType: "null",
}
_WORDS: Final = {
    "boolean": "true or false",
    "integer": "an integer",
    "number": "a number",
    "string": "a string",
    "array": "an array",
    "object": "an object",
}
_OTHER: Final = "*"
"""The alternative that is open to every `type` that no other one has."""
_UNTYPED: Final = "untyped"
_MISTYPED: Final = "mistyped"


class Shapes:
    """One document: the shapes of `fields`, and the `$defs` that they refer to.

    `pickers` decide the unions that `type` does not, by the name of their definition.
    """

    def __init__(self, document: Json, pickers: Mapping[str, Picker]) -> None:
        self.fields: dict[str, Json] = document["fields"]
        self._definitions: dict[str, Json] = document["$defs"]
        self._pickers = pickers
        self._validators: dict[str, SchemaValidator] = {}

    def validate(self, field: str, value: object) -> Any:
        """The value, if it is of the field's shape. Raises pydantic's ValidationError."""
        if field not in self._validators:
            self._validators[field] = SchemaValidator(self._built(self.fields[field]))
        return self._validators[field].validate_python(value)

    def below(self, schema: Json) -> dict[str, Json]:
        """All definitions that a schema refers to, directly or not, by name."""
        found: dict[str, Json] = {}
        waiting: list[object] = [schema]
        while waiting:
            here = waiting.pop()
            if isinstance(here, dict):
                known = cast("Json", here)
                if (name := _target(known)) and name not in found:
                    found[name] = self._definitions[name]
                    waiting.append(found[name])
                waiting.extend(known.values())
            elif isinstance(here, list):
                waiting.extend(cast("list[object]", here))
        return dict(sorted(found.items()))

    def _built(self, schema: Json) -> CoreSchema:
        definitions = [
            cast("CoreSchema", {**self._core(definition, name), "ref": name})
            for name, definition in self.below(schema).items()
        ]
        return core_schema.definitions_schema(self._core(schema), definitions)

    def _core(self, schema: Json, name: str = "") -> CoreSchema:
        if target := _target(schema):
            return core_schema.definition_reference_schema(target)
        if "anyOf" in schema:
            return self._any_of(schema["anyOf"], self._pickers.get(name))
        if "enum" in schema:
            return _one_of(schema["enum"])
        if "not" in schema and not schema["not"]:
            return _refusal("does not belong here")
        return self._plain(schema)

    def _plain(self, schema: Json) -> CoreSchema:
        bounds = {"ge": schema.get("minimum"), "le": schema.get("maximum")}
        match schema.get("type"):
            case "string":
                built = core_schema.str_schema(strict=True, max_length=schema.get("maxLength"))
            case "boolean":
                built = core_schema.bool_schema(strict=True)
            case "integer":
                number = core_schema.int_schema(strict=True, **bounds)
                built = core_schema.no_info_before_validator_function(whole, number)
            case "number":
                built = core_schema.float_schema(strict=True, allow_inf_nan=False, **bounds)
            case "array":
                built = core_schema.list_schema(self._core(schema["items"]), strict=True, fail_fast=True)
            case "object":
                built = self._object(schema)
            case _:
                built = core_schema.any_schema()
        return built

    def _object(self, schema: Json) -> CoreSchema:
        if "properties" not in schema:
            keys = core_schema.str_schema(strict=True, **_length(schema.get("propertyNames", {})))
            values = self._core(schema.get("additionalProperties", {}))
            return core_schema.dict_schema(keys, values, strict=True, max_length=schema.get("maxProperties"))
        required = schema.get("required", ())
        fields = {
            name: core_schema.typed_dict_field(self._core(field), required=name in required)
            for name, field in schema["properties"].items()
        }
        return core_schema.typed_dict_schema(fields, strict=True, extra_behavior="allow")

    def _any_of(self, parts: list[Json], picker: Picker | None) -> CoreSchema:
        if _NULL in parts:
            return core_schema.nullable_schema(self._any_of([part for part in parts if part != _NULL], picker))
        if len(parts) == 1 or {} in parts:
            return self._core(parts[0] if len(parts) == 1 else {})
        choices = {tag: self._core(part) for part in parts for tag in self._tags(part)}
        kinds = dict.fromkeys(_WORDS.get(tag, _WORDS["object"]) for tag in choices)
        faults = {
            _MISTYPED: _refusal(f"must be {_listed(list(kinds))}"),
            _UNTYPED: _needs_type([tag for tag in choices if tag not in _WORDS]),
        }
        return core_schema.tagged_union_schema(
            {UNION_STEP + tag: choice for tag, choice in (choices | faults).items()},
            discriminator=_stepper(frozenset(choices), picker or _type_of),
        )

    def _tags(self, part: Json) -> list[str]:
        """The names that lead to a part of a union: a JSON type, or a definition's name and its values of `type`."""
        name = _target(part)
        schema = self._definitions[name] if name else part
        if "enum" in schema:
            return [_JSON_TYPES[type(each)] for each in schema["enum"][:1]]
        if schema["type"] != "object" or "type" not in schema.get("properties", {}):
            return [schema["type"]]
        kind = schema["properties"]["type"]
        types = [each for one in kind.get("anyOf", [kind]) for each in one.get("enum", ())]
        return [name, *types] if types else [_OTHER]


def _one_of(values: list[object]) -> CoreSchema:
    """One of these values. Python's 0 and 1 equal False and True; JSON's do not."""

    def exactly(value: object, literal: core_schema.ValidatorFunctionWrapHandler) -> object:
        if type(found := literal(value)) is not type(value):
            raise PydanticKnownError("literal_error", {"expected": " or ".join(map(json.dumps, values))})
        return found

    schema = core_schema.literal_schema(values)
    return core_schema.no_info_wrap_validator_function(exactly, schema) if bool in map(type, values) else schema


def _stepper(choices: frozenset[str], picker: Picker) -> Callable[[Any], str]:
    """Tells the alternative of a value, as a step of a path."""

    def step(value: object) -> str:
        return UNION_STEP + _tag(choices, picker, value)

    return step


def _tag(choices: frozenset[str], picker: Picker, value: object) -> str:
    kind = _JSON_TYPES.get(type(value), _MISTYPED)
    if kind == "object" and kind not in choices and not choices.issubset(_WORDS):
        tag = picker(cast("Mapping[str, Any]", value))
        if not isinstance(tag, str):
            return _UNTYPED
        return tag if tag in choices else _OTHER if _OTHER in choices else _UNTYPED
    if kind == "integer" and kind not in choices:
        kind = "number"
    return kind if kind in choices else _MISTYPED


def _type_of(value: Mapping[str, Any]) -> object:
    return value.get("type")


def _needs_type(types: list[str]) -> CoreSchema:
    """For an object whose `type` is missing or not known."""
    known = core_schema.str_schema(strict=True)
    if _OTHER not in types:
        known = core_schema.literal_schema([tag for tag in types if tag[:1].islower()] or [""])
    return core_schema.typed_dict_schema({"type": core_schema.typed_dict_field(known)}, extra_behavior="allow")


def _refusal(why: str) -> CoreSchema:
    def refuse(_value: object) -> None:
        raise RefusedValue(why)

    return core_schema.no_info_plain_validator_function(refuse)


def _listed(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _length(schema: Json) -> dict[str, Any]:
    return {"max_length": schema["maxLength"]} if schema else {}


def _target(schema: Json) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]
