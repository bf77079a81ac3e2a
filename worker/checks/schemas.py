"""Judges the schemas of a request, and an answer by them. Runs in the process apart, on bodies of any content.

Schemas are never fetched: each must hold all that it refers to. Patterns run in an engine that counts its steps. The
rest that a schema can cost, such as a tree of references that doubles at each level, is bounded by the process.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, Final, cast

import jsonschema_rs
import orjson

from worker.checks.findings import Finding

Json = Mapping[str, Any]

MAX_SCHEMA: Final = 256 * 1024
"""Bytes of one schema. The gateway's own limits are lower."""

_COMPLAINTS: Final = 5
_COMPLAINT_CHARS: Final = 400
_NAME_CHARS: Final = 64
_RULE_STEPS: Final = 12


def judge_request(body: bytes, *, tools: bool) -> Finding | None:
    """The fault of a request's schemas: of the output's, and with `tools` of the parameters of its functions."""
    request: Json = orjson.loads(body)
    schemas = dict(_output_schema(request))
    if tools:
        schemas |= {tool.field: tool.parameters for tool in _functions(request) if tool.parameters is not None}
    return next(filter(None, (_fault(field, schema) for field, schema in schemas.items())), None)


def judge_answer(body: bytes, response: bytes) -> Finding | None:
    """The fault of a completed response: of its text by the format that was asked for, or of its tool calls."""
    request, answer = cast("Json", orjson.loads(body)), cast("Json", orjson.loads(response))
    return next(_faults(request, _objects(answer.get("output"))), None)


def _faults(request: Json, output: list[Json]) -> Iterator[Finding]:
    form = _format(request)
    if form.get("type") in ("json_object", "json_schema"):
        yield from _text_faults(form, output)
    parameters = {(tool.namespace, tool.name): tool.parameters for tool in _functions(request)}
    for place, item in enumerate(output):
        schema = parameters.get((item.get("namespace"), item.get("name")))
        if item.get("type") == "function_call" and schema is not None:
            arguments = item.get("arguments")
            yield from _broken(f"response.output.{place}.arguments", schema, arguments or "{}")


def _text_faults(form: Json, output: list[Json]) -> Iterator[Finding]:
    """A refusal and a call of a tool are answers as well; so text is missing only where neither is there."""
    texts = list(_texts(output))
    if not texts and not any(item.get("type") not in ("message", "reasoning") or _refuses(item) for item in output):
        yield Finding("response.output", "holds no text", "The answer holds no text.")
    schema = form.get("schema", True) if form["type"] == "json_schema" else {"type": "object"}
    for place, text in texts:
        yield from _broken(f"response.output.{place}", schema, text)


def _texts(output: list[Json]) -> Iterator[tuple[int, str]]:
    """The text of each message that is the answer, and not a comment on the way there."""
    for place, item in enumerate(output):
        if item.get("type") == "message" and item.get("phase") in (None, "final_answer"):
            parts = [part for part in item.get("content") or () if part.get("type") == "output_text"]
            if parts:
                yield place, "".join(str(part.get("text") or "") for part in parts)


def _refuses(message: Json) -> bool:
    return any(part.get("type") == "refusal" for part in message.get("content") or ())


def _broken(field: str, schema: object, text: object) -> Iterator[Finding]:
    """The first fault of a text that must be JSON of this schema."""
    try:
        value = orjson.loads(str(text))
    except orjson.JSONDecodeError:
        yield Finding(field, "is no JSON", "The answer is not valid JSON.")
        return
    errors: list[jsonschema_rs.ValidationError] = list(
        islice(_validator(orjson.dumps(schema)).iter_errors(value), _COMPLAINTS)
    )
    if errors:
        yield Finding(field, f"breaks its schema at {_place(errors[0])}", "\n".join(map(_complaint, errors)))


def _place(error: jsonschema_rs.ValidationError) -> str:
    """The keyword that is broken, and of `required` the name; both are the schema's, and tell nothing of the answer."""
    missing = getattr(error.kind, "property", None) if type(error.kind).__name__ == "Required" else None
    return _pointer(error.schema_path) + (f" ({str(missing)[:_NAME_CHARS]})" if missing else "")


def _complaint(error: jsonschema_rs.ValidationError) -> str:
    where = "/".join(map(str, error.instance_path)) or "the whole"
    return f"- {where}: {error.message}"[:_COMPLAINT_CHARS]


def _fault(field: str, schema: object) -> Finding | None:
    written = orjson.dumps(schema)
    if len(written) > MAX_SCHEMA:
        return Finding(field, f"must have at most {MAX_SCHEMA // 1024} KiB")
    try:
        _validator(written)
    except jsonschema_rs.ValidationError as error:
        return _of_meta_schema(field, error)
    except ValueError:
        return Finding(field, "must be JSON Schema, draft 2020-12 or the one that $schema names")
    return None


def _of_meta_schema(field: str, error: jsonschema_rs.ValidationError) -> Finding:
    keyword = type(error.kind).__name__
    if keyword == "Referencing":
        return Finding(field, "must hold all that it refers to, in $defs; nothing is fetched")
    here = ".".join([field, *(str(step)[:_NAME_CHARS] for step in error.instance_path)])
    return Finding(here, f"must be JSON Schema: it breaks the meta-schema at {_pointer(error.schema_path)}")


@lru_cache(maxsize=64)
def _validator(schema: bytes) -> Any:
    """Raises ValidationError for a schema that is none; callers' schemas come again and again."""
    return jsonschema_rs.validator_for(orjson.loads(schema), retriever=_never)


def _never(uri: str) -> Any:
    raise ValueError(f"{uri} is not fetched")


def _pointer(path: list[str | int]) -> str:
    steps = [str(step)[:_NAME_CHARS] for step in path]
    return "/".join(["#", *steps[:_RULE_STEPS], *(["..."] if len(steps) > _RULE_STEPS else [])])


def _output_schema(request: Json) -> Iterator[tuple[str, object]]:
    form = _format(request)
    if form.get("type") == "json_schema":
        yield "body.text.format.schema", form.get("schema")


def _format(request: Json) -> Json:
    text = request.get("text")
    form: object = cast("Json", text).get("format") if isinstance(text, dict) else None
    return cast("Json", form) if isinstance(form, dict) else {}


class _Function:
    """A function that the model may call; gateways also take the form that chat completions have."""

    def __init__(self, field: str, tool: Json, namespace: object = None) -> None:
        nested = isinstance(tool.get("function"), dict)
        described: Json = tool["function"] if nested else tool
        self.field = f"{field}{'.function' if nested else ''}.parameters"
        self.namespace = namespace
        self.name = described.get("name")
        self.parameters: object = described.get("parameters")


def _functions(request: Json) -> Iterator[_Function]:
    for place, tool in enumerate(_objects(request.get("tools"))):
        field = f"body.tools.{place}"
        if tool.get("type") == "namespace":
            for number, inner in enumerate(_objects(tool.get("tools"))):
                if inner.get("type") == "function":
                    yield _Function(f"{field}.tools.{number}", inner, tool.get("name"))
        elif tool.get("type") == "function":
            yield _Function(field, tool)


def _objects(values: object) -> list[Json]:
    entries = cast("list[object]", values) if isinstance(values, list) else []
    return [cast("Json", entry) if isinstance(entry, dict) else {} for entry in entries]
