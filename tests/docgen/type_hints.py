"""JSON Schemas of type hints: of TypedDicts, as requests are typed by, and of pydantic models, as answers are."""

from collections.abc import Iterable, Iterator
from itertools import chain
from types import NoneType, UnionType
from typing import Any, Final, Literal, Required, Union, cast, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from typing_extensions import is_typeddict

Json = dict[str, Any]

_PLAIN: Final[dict[Any, Json]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    NoneType: {"type": "null"},
    object: {},
    Any: {},
}
NULL: Final = _PLAIN[NoneType]


class Definitions:
    """The schemas of the types that were asked for, by name."""

    def __init__(self) -> None:
        self.by_name: dict[str, Json] = {}
        self._names: dict[Any, str] = {}

    def schema(self, hint: Any) -> Json:
        """The schema of a type hint."""
        origin, args = get_origin(hint), get_args(hint)
        if hint in _PLAIN:
            return _PLAIN[hint]
        if origin is Literal:
            return {"enum": list(args)}
        if origin in (Union, UnionType):
            return self._any_of(args)
        if origin is dict:
            values = self.schema(args[1])
            return {"type": "object"} | ({"additionalProperties": values} if values else {})
        if is_typeddict(hint) or (isinstance(hint, type) and issubclass(hint, BaseModel)):
            return {"$ref": f"#/$defs/{self._define(hint)}"}
        return self.schema(args[0]) if origin is not None and not _is_list(origin) else _list_of(self.schema(args[0]))

    def _any_of(self, parts: Iterable[Any]) -> Json:
        kinds = list(chain.from_iterable(kind.get("anyOf", [kind]) for kind in map(self.schema, parts)))
        if _PLAIN[str] in kinds:  # the literals beside it are examples
            kinds = [kind for kind in kinds if "enum" not in kind]
        kinds = [kind for place, kind in enumerate(kinds) if kind not in kinds[:place]]
        return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}

    def _define(self, kind: Any) -> str:
        if kind not in self._names:
            self._names[kind] = name = self._name(kind)
            self.by_name[name] = {}  # a type may refer to itself
            fields = dict(_fields(kind))
            required = [field for field, (needed, _) in fields.items() if needed]
            properties = {field: self.schema(hint) for field, (_, hint) in fields.items()}
            self.by_name[name] = {
                "type": "object",
                **({"required": required} if required else {}),
                "properties": properties,
            }
        return self._names[kind]

    def _name(self, kind: Any) -> str:
        plain = str(kind.__name__).removesuffix("Param").removesuffix("Param").removeprefix("Response")
        module = str(kind.__module__).rpartition(".")[2].removesuffix("_param").removeprefix("response_")
        taken = self._names.values()
        return next(
            name
            for name in (plain, f"{module.title().replace('_', '')}{plain}", f"{plain}2", f"{plain}3")
            if name not in taken
        )


def _fields(kind: Any) -> Iterator[tuple[str, tuple[bool, Any]]]:
    if not is_typeddict(kind):
        for name, field in cast("type[BaseModel]", kind).model_fields.items():
            yield field.alias or name, (field.is_required(), field.annotation)
        return
    for name, hint in get_type_hints(kind, include_extras=True).items():
        needed = get_origin(hint) is Required
        yield name, (needed, get_args(hint)[0] if needed else hint)


def _is_list(origin: Any) -> bool:
    return origin.__module__ in ("builtins", "collections.abc")


def _list_of(items: Json) -> Json:
    return {"type": "array", "items": items}
