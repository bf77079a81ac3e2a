"""A response object in the shape that the contract promises, where what it says is plain.

| in the object                             | becomes                                     | reported in            |
|-------------------------------------------|---------------------------------------------|------------------------|
| `output` null, missing or empty           | the items that the stream had finished      | new-api#4362           |
|                                           | else a message of the stream's text         | 9router#705            |
|                                           | else a message of `output_text`             | openai-python#3286     |
| a message without its streamed text       | that text                                   | agentgateway#2281      |
| `output` an object                        | a list of it                                |                        |
| an item or part that is null              | nothing                                     | opencode#45330         |
| an item or part that is a string          | a message or part of that text              |                        |
| `content` a string or an object           | a list of one part                          |                        |
| a part of type `text`, or of no type      | `output_text`                               |                        |
| a status not final, in the terminal event | the status that the event's name tells      |                        |
| a final status in capitals, or spaced     | that status                                 |                        |
| no status we know, every item `completed` | `completed`                                 |                        |
| no `id`                                   | the id that the stream began with, if any   |                        |

(QuantumNous/new-api, decolua/9router, openai/openai-python, agentgateway/agentgateway, anomalyco/opencode.)
Every other byte stays as it was written.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from io import StringIO
from operator import is_
from typing import Any, Final, cast

from worker.gateway.members import member_bytes, replaced
from worker.gateway.repair import TOO_MANY, Document, Unreadable, parsed, read_json, written

MAX_PARTS: Final = 20_000
"""Items and parts of items that an answer may have: a consumer holds a kilobyte for each, and a worker reads that many
in less than 50 ms."""
_FINAL: Final = frozenset({"completed", "incomplete", "failed", "cancelled"})
_UNDER_WAY: Final = frozenset({"in_progress", "queued"})
STATED: Final = {
    "response.completed": "completed",
    "response.done": "completed",  # openai/codex reads it as the former
    "response.incomplete": "incomplete",
}
"""The status that the name of a terminal event tells."""
_WRAPPERS: Final = ("response", "result", "data")

Object = dict[str, Any]


@dataclass(slots=True)
class Streamed:
    """A stream's content before its terminal event: finished items by their index, text, and the id.

    Items stay as they were written, because most are told again by the terminal event and never looked at.
    """

    items: dict[int, bytes] = field(default_factory=dict[int, bytes])
    texts: dict[int, StringIO] = field(default_factory=dict[int, StringIO])
    response_id: str | None = None

    def finished(self) -> dict[int, Object]:
        """The items that the stream finished, in the shape of the table."""
        return {index: _item(cast("Object", parsed(item))) for index, item in self.items.items()}

    def output(self) -> list[Object]:
        """The items in order; text that streamed for no finished item is a message of its own."""
        items = self.finished()
        return [self._filled(index, items.get(index)) for index in sorted(items.keys() | self.texts.keys())]

    def filled(self, items: list[Object]) -> list[Object]:
        """The terminal event's own items, with the text that streamed where a message lacks it."""
        full = [self._filled(index, item) for index, item in enumerate(items)]
        return items if all(map(is_, full, items)) else full

    def _filled(self, index: int, item: Object | None) -> Object:
        text = self.texts[index].getvalue() if index in self.texts else ""
        if item is None:
            return _message(text)
        if not text or item.get("type") != "message" or _has_words(item):
            return item
        return item | {"content": [_part(text)]}


NOTHING_STREAMED: Final = Streamed()


def is_final(status: object) -> bool:
    """Whether a response of this status changes no more."""
    return isinstance(status, str) and status in _FINAL


def unwrapped(document: Document) -> tuple[Document, str]:
    """The response object inside of a plain answer, and the status that its wrapping tells.

    It may stand in its own terminal event, in an envelope (api.cloudflare.com has `result`), in a list that ends
    with it, or in a string (matthewhand/mcp-openapi-proxy#12).
    """
    value = document.value
    if isinstance(value, str) and value.lstrip().startswith("{"):
        inner = read_json(value.encode(errors="replace"))
        return (document if isinstance(inner, Unreadable) else inner), ""
    if isinstance(value, list) and value and isinstance(last := cast("list[object]", value)[-1], dict):
        return unwrapped(Document(cast("Object", last), written(cast("Object", last))))
    if not isinstance(value, dict) or "output" in (outer := cast("Object", value)):
        return document, ""
    for name in _WRAPPERS:
        inside = cast("Object", outer[name]) if isinstance(outer.get(name), dict) else {}
        if "output" in inside or is_final(inside.get("status")):
            found = Document(inside, member_bytes(document.raw, name) or b"{}")
            return found, STATED.get(str(outer.get("type")), "")
    return document, ""


def shaped(document: Document, stated: str = "", streamed: Streamed = NOTHING_STREAMED) -> Document | Unreadable:
    """The response object as the table says; `stated` is the status that its terminal event's name tells."""
    if not isinstance(document.value, dict):
        return document
    response = cast("Object", document.value)
    changes = _status(response, stated) | _output(response, streamed)
    if not isinstance(response.get("id"), str) and streamed.response_id:
        changes["id"] = streamed.response_id
    response = response | changes
    items = response.get("output")
    if isinstance(items, list) and _parts(cast("list[Object]", items)) > MAX_PARTS:
        return TOO_MANY
    if not changes:
        return document
    return Document(response, replaced(document.raw, {name: written(value) for name, value in changes.items()}))


def _status(response: Object, stated: str) -> Object:
    status, items = response.get("status"), response.get("output")
    if isinstance(status, str) and (plain := status.strip().lower()) in _FINAL:
        return {} if plain == status else {"status": plain}
    if stated:
        return {"status": stated}
    if (isinstance(status, str) and status in _UNDER_WAY) or not isinstance(items, list):
        return {}
    said = [item.get("status") for item in _objects(cast("list[object]", items))]
    return {"status": "completed"} if said and all(status == "completed" for status in said) else {}


def _output(response: Object, streamed: Streamed) -> Object:
    written = response.get("output")
    items = _items(written)
    found = streamed.filled(items) if items else streamed.output() or _output_text(response) or items
    return {} if found is None or found == written else {"output": found}


def _output_text(response: Object) -> list[Object]:
    text = response.get("output_text")
    return [_message(text)] if isinstance(text, str) and text else []


def _items(output: object) -> list[Object] | None:
    """The items of an `output`, itself if nothing is wrong with it; None if there is nothing to read."""
    if isinstance(output, dict):
        return [_item(cast("Object", output))] if output else None
    if not isinstance(output, list):
        return None
    written = cast("list[Any]", output)
    items = [_item(cast("Object | str", item)) for item in written if isinstance(item, dict | str)]
    return written if len(items) == len(written) and all(map(is_, items, written)) else items


def _item(item: Object | str) -> Object:
    if isinstance(item, str):
        return _message(item)
    content = item.get("content")
    if content is None:
        return item
    parts = _content(content)
    if parts and item.get("type", "message") == "message" and any(map(_lacks_its_type, parts)):
        parts = [part | {"type": "output_text"} if _lacks_its_type(part) else part for part in parts]
    return item if parts is content else item | {"content": parts}


def _lacks_its_type(part: Object) -> bool:
    return part.get("type") in (None, "text") and isinstance(part.get("text"), str)


def _content(content: object) -> list[Object] | None:
    if isinstance(content, str):
        return [_part(content)]
    if isinstance(content, dict):
        return [cast("Object", content)]
    if not isinstance(content, list):
        return None
    written = cast("list[Any]", content)
    if all(isinstance(part, dict) for part in written):
        return written
    return [_part(part) if isinstance(part, str) else part for part in written if isinstance(part, dict | str)]


def _part(text: str) -> Object:
    return {"type": "output_text", "text": text, "annotations": []}


def _message(text: str) -> Object:
    return {"type": "message", "role": "assistant", "status": "completed", "content": [_part(text)]}


def _has_words(item: Mapping[str, Any]) -> bool:
    parts = cast("list[Object]", item.get("content") or [])
    return any(part.get("text") or part.get("refusal") or part.get("type") != "output_text" for part in parts)


def _parts(items: list[Object]) -> int:
    contents = [cast("list[Object]", item.get("content") or []) for item in items]
    return len(items) + sum(map(len, contents))


def _objects(items: list[object]) -> list[Object]:
    return [cast("Object", item) for item in items if isinstance(item, dict)]
