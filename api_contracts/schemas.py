"""The contract for every language: JSON Schemas of request, result and error, and an AsyncAPI 3 document over them."""

from typing import Any, Final, cast

from pydantic import BaseModel

from api_contracts.envelope import Envelope
from api_contracts.errors import MappedError
from api_contracts.generation import CONTRACT_VERSION, GenerationRequest, GenerationResult
from api_contracts.queues import DEAD_STREAM, DEFAULT_LANES, RESULT_STREAM, TASK_NAME, delta_stream, lane_queue
from api_contracts.requests import SHAPED, RequestBody

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_DEFINITIONS: Final = "#/$defs/"
_COMPONENTS: Final = "#/components/schemas/"
DELTA_ENTRY: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "data"],
    "additionalProperties": False,
    "properties": {
        "type": {
            "type": "string",
            "description": "Of the gateway's event; or `restarted`: forget what came before, an attempt was cut short; "
            "or `gap`: events are missing here, the result has them all; or `finished`: always the last one.",
        },
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "The event as the gateway wrote it; `restarted` has `attempt` and `code`, `gap` has "
            "`attempt`, `finished` has `outcome`.",
        },
    },
}
"""Fields of an entry in a stream of deltas."""


def json_schemas(request: type[Envelope] = GenerationRequest) -> dict[str, dict[str, Any]]:
    """By name: `request` is what callers write, of this contract; `result` and `error` are what workers write."""
    return {
        name: {"$schema": _DIALECT, "$comment": f"contract {CONTRACT_VERSION}", **schema}
        for name, schema in _schemas(request).items()
    }


def documents(request: type[Envelope] = GenerationRequest) -> dict[str, dict[str, Any]]:
    """Every document of a contract, by file name."""
    schemas = {f"{name}.schema.json": schema for name, schema in json_schemas(request).items()}
    return schemas | {"asyncapi.json": asyncapi(request)}


def _schemas(request: type[Envelope]) -> dict[str, dict[str, Any]]:
    models: dict[str, type[BaseModel]] = {"request": request, "result": GenerationResult, "error": MappedError}
    schemas = {name: model.model_json_schema() for name, model in models.items()}
    _put_shapes(schemas["request"], request.body_type())
    return schemas


def _put_shapes(schema: dict[str, Any], body: type[RequestBody]) -> None:
    """Puts the shapes of fields, which pydantic does not know, into the schema of a body."""
    shapes = body.shapes()
    if shapes is None:
        return
    properties = schema["$defs"][body.__name__]["properties"]
    for name in [name for name, field in properties.items() if field.pop(SHAPED, False)]:
        properties[name] |= shapes.fields[name]
        schema["$defs"] |= shapes.below(shapes.fields[name])


def asyncapi(request: type[Envelope] = GenerationRequest) -> dict[str, Any]:
    """Lanes to push to and streams to read, with the messages on them."""
    lanes = {lane: _channel(lane_queue(lane), f"Requests of the lane {lane}.", "request") for lane in DEFAULT_LANES}
    streams = {
        "results": _channel(RESULT_STREAM, "One entry per request; read it as a consumer group.", "result"),
        "resultsFor": _channel(
            f"{RESULT_STREAM}:{{reply_to}}",
            "Results of requests that name this `reply_to`.",
            "result",
            parameters={"reply_to": {"description": "As in the request."}},
        ),
        "deltas": _channel(
            delta_stream("{tenant}", "{request_id}"),
            "Events of one request with `stream: true`, as they come; kept for an hour. Entry ids are `<attempt>-<n>`, "
            "so that a reader resumes behind the last one it saw.",
            "delta",
            parameters={
                "tenant": {"description": "As in the request, `:` written as `%3A`."},
                "request_id": {"description": "As in the request; by default the id of the Celery task."},
            },
        ),
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "responses-worker",
            "version": CONTRACT_VERSION,
            "description": "Queued generation requests in, exactly one published result out. Undeliverable messages "
            f"become entries of the stream {DEAD_STREAM}.",
        },
        "servers": {"redis": {"host": "redis:6379", "protocol": "redis"}},
        "channels": lanes | streams,
        "operations": _operations(lanes, streams),
        "components": {"messages": _messages(), "schemas": _components(request)},
    }


def _channel(address: str, description: str, message: str, **more: Any) -> dict[str, Any]:
    reference = {"$ref": f"#/components/messages/{message}"}
    return {"address": address, "description": description, "messages": {message: reference}, **more}


def _operations(lanes: dict[str, Any], streams: dict[str, Any]) -> dict[str, Any]:
    """As the worker sees it: it receives from lanes and sends to streams."""
    directions = [("receive", lanes), ("send", streams)]
    return {
        f"{action}{name[:1].upper()}{name[1:]}": {"action": action, "channel": {"$ref": f"#/channels/{name}"}}
        for action, channels in directions
        for name in channels
    }


def _messages() -> dict[str, Any]:
    return {
        "request": {
            "name": TASK_NAME,
            "title": "A Celery message, protocol 2",
            "summary": "LPUSH it to the lane's list. Its body is base64 of the JSON `[[envelope], {}, {}]`; the "
            "payload described here is the envelope.",
            "contentType": "application/json",
            "payload": {"$ref": "#/components/schemas/request"},
        },
        "result": {
            "name": "result",
            "title": "A stream entry",
            "summary": "Fields `request_id`, `tenant`, `outcome` and `result`; the payload described here is the JSON "
            "in `result`.",
            "contentType": "application/json",
            "payload": {"$ref": "#/components/schemas/result"},
        },
        "delta": {
            "name": "delta",
            "title": "A stream entry",
            "summary": "The payload described here is the entry itself.",
            "payload": DELTA_ENTRY,
        },
    }


def _components(request: type[Envelope]) -> dict[str, Any]:
    """Every model once, so that references between them stay inside the document."""
    components: dict[str, Any] = {}
    for name, schema in _schemas(request).items():
        components |= schema.pop("$defs", {})
        components[name] = schema
    return cast("dict[str, Any]", _moved(components))


def _moved(schema: object) -> object:
    """The schema with its references to definitions turned into references to components."""
    if isinstance(schema, dict):
        return {key: _moved(value) for key, value in cast("dict[str, object]", schema).items()}
    if isinstance(schema, list):
        return [_moved(entry) for entry in cast("list[object]", schema)]
    if isinstance(schema, str) and schema.startswith(_DEFINITIONS):
        return _COMPONENTS + schema.removeprefix(_DEFINITIONS)
    return schema
