"""The response objects the gateway answers with, whole or as server-sent events.

Shapes: the gateway's OpenAPI document, and OpenAI's streaming events for the Responses API.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from worker.devtools.simulator.requests import Asked, cut_to_tokens, estimated_tokens

_UNKNOWN_FIELD: Final = (
    '"x_gateway": {"channel": 7, "ratio": 1.50, "group": "\\u9ed8\\u8ba4", "trace": 12345678901234567890}'
)
"""A field no contract knows, in JSON that no parser and printer reproduces: 1.50, escapes, a long integer.
A worker that republishes an answer byte for byte keeps it; one that decodes and encodes it does not."""

_TERMINAL_EVENTS: Final = {
    "completed": "response.completed",
    "incomplete": "response.incomplete",
    "failed": "response.failed",
}


@dataclass(frozen=True, slots=True)
class ScriptedReply:
    """One response object: its fields, and its exact text on the wire."""

    fields: Mapping[str, Any]
    text: str
    raw: str

    def broken(self) -> "ScriptedReply":
        """The same answer with JSON that stops half-way."""
        return ScriptedReply(self.fields, self.text, self.raw[: len(self.raw) // 2])


def echo(prompt: str) -> str:
    """The text of a good answer to a prompt, before `max_output_tokens` cuts it."""
    return f"Echo: {prompt}"


def answer_to(
    asked: Asked,
    *,
    response_id: str,
    now: int,
    output_tokens: int | None,
    default_output_tokens: int,
    patch: Mapping[str, Any],
) -> ScriptedReply:
    """The response object for a request.

    `output_tokens` asks for a text of that length; no text is longer than `max_output_tokens` (or the
    default). `patch` replaces fields; `now` is Unix time.
    """
    text = echo(asked.last)
    ceiling = asked.max_output_tokens or default_output_tokens
    if output_tokens is not None:
        ceiling = min(ceiling, output_tokens)
        text = f"{text} " * (ceiling // estimated_tokens(text) + 1)
    text = cut_to_tokens(text, ceiling)
    if _text_option(asked, "format", {}).get("type") == "json_object":
        text = json.dumps({"echo": text}, ensure_ascii=False)
    fields = {**_fields(asked, response_id, now, text), **patch}
    return ScriptedReply(fields, text, f"{_encoded(fields)[:-1]}, {_UNKNOWN_FIELD}}}")


def events(answer: ScriptedReply, deltas: int) -> Iterator[str]:
    """The server-sent events that carry an answer, the terminal one with the whole response object.

    An answer whose status is not final has no terminal event.
    """
    before = [*_opening(answer), *_output(answer, deltas)]
    for number, (kind, fields) in enumerate(before):
        yield frame(kind, _encoded({"type": kind, "sequence_number": number, **fields}))
    status = answer.fields["status"]
    if kind := _TERMINAL_EVENTS.get(status):
        head = _encoded({"type": kind, "sequence_number": len(before)})
        yield frame(kind, f'{head[:-1]}, "response": {answer.raw}}}')


def error_events(answer: ScriptedReply, error: Mapping[str, Any]) -> Iterator[str]:
    """The events of a stream that opens and then ends with a top-level `error`."""
    opening = _opening(answer)
    for number, (kind, fields) in enumerate(opening):
        yield frame(kind, _encoded({"type": kind, "sequence_number": number, **fields}))
    known = {name: error.get(name) for name in ("code", "message", "param")}
    yield frame("error", _encoded({"type": "error", **known, "sequence_number": len(opening)}))


def frame(event: str, data: str) -> str:
    """One server-sent event; `data` must hold no line break, as JSON text does not."""
    return f"event: {event}\ndata: {data}\n\n"


def _fields(asked: Asked, response_id: str, now: int, text: str) -> dict[str, Any]:
    body = asked.body
    reasoning: Mapping[str, Any] = body.get("reasoning") or {}
    return {
        "id": response_id,
        "object": "response",
        "created_at": now,
        "completed_at": now,
        "model": body["model"],
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "output": [_message(response_id, text)],
        "reasoning": {"effort": reasoning.get("effort", "none"), "summary": reasoning.get("summary")},
        "text": {
            "format": _text_option(asked, "format", {"type": "text"}),
            "verbosity": _text_option(asked, "verbosity", "medium"),
        },
        "max_output_tokens": asked.max_output_tokens,
        "top_p": body.get("top_p", 1.0),
        "tools": body.get("tools", []),
        "tool_choice": body.get("tool_choice", "auto"),
        "store": body.get("store", True),
        "user": body.get("user"),
        "usage": _usage(estimated_tokens(asked.prompt), estimated_tokens(text)),
    }


def _message(response_id: str, text: str) -> dict[str, Any]:
    return {
        "id": _message_id(response_id),
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    }


def _usage(input_tokens: int, output_tokens: int) -> dict[str, Any]:
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": input_tokens + output_tokens,
    }


def _opening(answer: ScriptedReply) -> list[tuple[str, dict[str, Any]]]:
    nothing_yet = dict.fromkeys(("completed_at", "usage", "error", "incomplete_details"))
    begun: dict[str, Any] = {**answer.fields, **nothing_yet, "status": "in_progress", "output": []}
    return [("response.created", {"response": begun}), ("response.in_progress", {"response": begun})]


def _output(answer: ScriptedReply, deltas: int) -> list[tuple[str, dict[str, Any]]]:
    response_id: str = answer.fields["id"]
    message = _message(response_id, answer.text)
    empty: dict[str, Any] = {**message, "status": "in_progress", "content": []}
    at = {"item_id": message["id"], "output_index": 0, "content_index": 0}
    part = message["content"][0]
    return [
        ("response.output_item.added", {"output_index": 0, "item": empty}),
        ("response.content_part.added", {**at, "part": {**part, "text": ""}}),
        *(("response.output_text.delta", {**at, "delta": delta}) for delta in _pieces(answer.text, deltas)),
        ("response.output_text.done", {**at, "text": answer.text}),
        ("response.content_part.done", {**at, "part": part}),
        ("response.output_item.done", {"output_index": 0, "item": message}),
    ]


def _pieces(text: str, most: int) -> list[str]:
    size = max(1, -(-len(text) // max(1, most)))
    return [text[start : start + size] for start in range(0, len(text), size)]


def _text_option(asked: Asked, name: str, default: Any) -> Any:
    options: Mapping[str, Any] = asked.body.get("text") or {}
    return options.get(name, default)


def _message_id(response_id: str) -> str:
    return f"msg_{response_id.removeprefix('resp_')}"


def _encoded(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
