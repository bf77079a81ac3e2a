"""Writes `api_contracts/openai_shapes.json`: the shapes that the OpenAI SDK types, as JSON Schema without its prose.

The SDK of the development lock is the source, and a test compares the file with it. Four things are ours: `LEFT_OUT`,
`BOUNDS`, the messages of assistants, and nulls that the SDK's own answers hold, because answers are sent back as input.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, get_type_hints

from openai.types.responses import response_create_params, response_output_item

from docgen.type_hints import NULL, Definitions, Json

FILE: Final = Path(__file__).parents[2] / "api_contracts" / "openai_shapes.json"

LEFT_OUT: Final = {
    "FunctionTool": ("strict", "parameters"),
    "InputImage": ("detail",),
    "ImageGenerationCall": ("result", "status"),
}
"""Fields that the SDK types as required, that OpenAI's own guides leave out, and that the API fills in."""

BOUNDS: Final[dict[str, Json]] = {
    "max_output_tokens": {"minimum": 1},
    "temperature": {"minimum": 0, "maximum": 2},
    "top_logprobs": {"minimum": 0, "maximum": 20},
    "top_p": {"minimum": 0, "maximum": 1},
}
"""Bounds that the SDK states in prose."""

METADATA: Final[Json] = {
    "type": "object",
    "maxProperties": 16,
    "propertyNames": {"maxLength": 64},
    "additionalProperties": {"type": "string", "maxLength": 512},
}

ASSISTANT: Final[dict[str, Json]] = {
    "AssistantMessage": {
        "type": "object",
        "required": ["role", "content"],
        "properties": {
            "role": {"enum": ["assistant"]},
            "content": {
                "type": "array",
                "items": {
                    "anyOf": [
                        {"$ref": f"#/$defs/{part}"}
                        for part in ("InputText", "InputImage", "InputFile", "AssistantText", "OutputRefusal")
                    ]
                },
            },
            "phase": {"anyOf": [{"enum": ["commentary", "final_answer"]}, {"type": "null"}]},
            "type": {"enum": ["message"]},
            "id": {"not": {}},
            "status": {"not": {}},
        },
    },
    "AssistantText": {
        "type": "object",
        "required": ["text", "type"],
        "properties": {"text": {"type": "string"}, "type": {"enum": ["output_text"]}},
    },
}
"""Parts of an answer that agents keep: its text, without the ids that the SDK's type of a whole answer requires."""


def document() -> Json:
    """The whole file: `fields` of a body, and `$defs` that they refer to."""
    definitions = Definitions()
    hints = get_type_hints(response_create_params.ResponseCreateParamsBase)
    hints.pop("model")
    fields = {name: definitions.schema(hint) for name, hint in hints.items()}
    fields["metadata"] = {"anyOf": [METADATA, NULL]}
    fields["background"] = {"enum": [False, None]}  # the worker waits for the answer
    fields["verbosity"] = {"anyOf": [{"enum": ["low", "medium", "high"]}, NULL]}  # `responses.parse` writes it here
    fields["stream"] = {"anyOf": [{"type": "boolean"}, NULL]}
    for name, bounds in BOUNDS.items():
        fields[name]["anyOf"][0] = fields[name]["anyOf"][0] | bounds
    _admit_answers(fields["input"]["anyOf"][1]["items"], definitions)
    definitions.by_name |= ASSISTANT
    _keep_messages(fields["input"]["anyOf"][1], definitions.by_name)
    for name, left_out in LEFT_OUT.items():
        required = definitions.by_name[name]["required"]
        definitions.by_name[name]["required"] = [each for each in required if each not in left_out]
    shapes = {"fields": fields, "$defs": definitions.by_name}
    return _reachable(_without_twins(shapes))


def _keep_messages(items: Json, definitions: dict[str, Json]) -> None:
    """One kind of message for all roles, in place of two; and a name for what an item may be."""
    definitions["Message"] = definitions.pop("EasyInputMessage")
    definitions["Message"]["properties"]["status"] = {"enum": ["in_progress", "completed", "incomplete"]}
    definitions["ItemReference"]["properties"] |= {"role": {"not": {}}}
    kinds = [kind for kind in items["items"]["anyOf"] if not kind["$ref"].endswith("/EasyInputMessage")]
    known = [tag for kind in kinds for tag in _tags(definitions[_target(kind)])]
    definitions["UnknownItem"] = {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"type": "string", "not": {"enum": sorted(set(known))}}},
    }
    extra = [{"$ref": f"#/$defs/{name}"} for name in ("AssistantMessage", "UnknownItem")]
    definitions["InputItem"] = {"anyOf": [*kinds, *extra]}
    items["items"] = {"$ref": "#/$defs/InputItem"}


def _admit_answers(items: Json, definitions: Definitions) -> None:
    """Lets an item of input hold null where the SDK's type of the same item of an answer does."""
    answers = Definitions()
    answered = answers.schema(response_output_item.ResponseOutputItem)
    _Admission(definitions.by_name, answers.by_name).admit(items, answered)


@dataclass
class _Admission:
    ours: dict[str, Json]
    answers: dict[str, Json]
    seen: set[int] = field(default_factory=set[int])

    def admit(self, ours: Json, answer: Json) -> None:
        ours, answer = _resolved(ours, self.ours), _resolved(answer, self.answers)
        if "anyOf" in ours or "anyOf" in answer:
            for one in ours.get("anyOf", [ours]):
                for other in answer.get("anyOf", [answer]):
                    if _alike(_resolved(one, self.ours), _resolved(other, self.answers)):
                        self.admit(one, other)
        elif "items" in ours and "items" in answer:
            self.admit(ours["items"], answer["items"])
        elif "properties" in ours and "properties" in answer and id(ours) not in self.seen:
            self.seen.add(id(ours))
            for name in ours["properties"].keys() & answer["properties"].keys() - {"tools"}:  # tools are the caller's
                ours["properties"][name] = self._nullable(ours["properties"][name], answer["properties"][name])
                self.admit(ours["properties"][name], answer["properties"][name])

    def _nullable(self, ours: Json, answer: Json) -> Json:
        kinds = ours.get("anyOf", [ours])
        wanted = NULL in answer.get("anyOf", ()) and ours and NULL not in kinds
        return {"anyOf": [*kinds, NULL]} if wanted else ours


def _alike(one: Json, other: Json) -> bool:
    """Whether two schemas are of the same JSON type and, of objects, of the same `type`."""
    if "properties" in one and "properties" in other:
        return bool(set(_tags(one)) & set(_tags(other)))
    return ("items" in one) == ("items" in other) and one.get("type") == other.get("type")


def _tags(schema: Json) -> list[str]:
    tag = schema.get("properties", {}).get("type", {})
    return [str(each) for part in tag.get("anyOf", [tag]) for each in part.get("enum", ())]


def _resolved(schema: Json, definitions: dict[str, Json]) -> Json:
    return definitions[_target(schema)] if "$ref" in schema else schema


def _target(schema: Json) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


def _without_twins(shapes: Json) -> Json:
    """Definitions that say the same become one."""
    while True:
        first: dict[str, str] = {}
        twins: dict[str, str] = {}
        for name, schema in shapes["$defs"].items():
            original = first.setdefault(json.dumps(schema), name)
            if original != name:
                twins[name] = original
        if not twins:
            return shapes
        kept = {name: schema for name, schema in shapes["$defs"].items() if name not in twins}
        text = json.dumps({"fields": shapes["fields"], "$defs": kept})
        for twin, original in twins.items():
            text = text.replace(f'"#/$defs/{twin}"', f'"#/$defs/{original}"')
        shapes = json.loads(text)


def _reachable(shapes: Json) -> Json:
    definitions: dict[str, Json] = {}
    waiting = [shapes["fields"]]
    while waiting:
        text = json.dumps(waiting.pop())
        for name, schema in shapes["$defs"].items():
            if name not in definitions and f'"#/$defs/{name}"' in text:
                definitions[name] = schema
                waiting.append(schema)
    return {"fields": shapes["fields"], "$defs": dict(sorted(definitions.items()))}


def rendered() -> str:
    """The file, one field and one definition a line, so that a change of the SDK is easy to read."""
    parts = [f'"{part}": {{\n' + ",\n".join(map(_line, rows.items())) + "\n}" for part, rows in document().items()]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _line(row: tuple[str, Json]) -> str:
    return f"{json.dumps(row[0])}: {json.dumps(row[1])}"


if __name__ == "__main__":
    FILE.write_text(rendered(), encoding="utf-8")
