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

from dataclasses import dataclass, field
from io import StringIO
from typing import Any, Final, cast

import orjson

from worker.gateway.items import MAX_PARTS, Item, conforms, filled, has_words, item_of, listed, message
from worker.gateway.members import BULK, TooManyError, elements, member_bytes, replaced, value
from worker.gateway.repair import Document, Unreadable, read_json

_FINAL: Final = frozenset({"completed", "incomplete", "failed", "cancelled"})
_COMPLETED: Final = b'"completed"'
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

    def finished(self) -> dict[int, Item]:
        """The items that the stream finished, in the shape of the table."""
        items = {index: item_of(item) for index, item in self.items.items()}
        return {index: item for index, item in items.items() if item is not None}

    def output(self) -> list[Item]:
        """The items in order; text that streamed for no finished item is a message of its own."""
        items = self.finished()
        return [self._filled(index, items.get(index)) for index in sorted(items.keys() | self.texts.keys())]

    def filled(self, items: list[Item]) -> list[Item]:
        """The terminal event's own items, with the text that streamed where a message lacks it."""
        return [self._filled(index, item) for index, item in enumerate(items)] if self.texts else items

    def _filled(self, index: int, item: Item | None) -> Item:
        text = self.texts[index].getvalue() if index in self.texts else ""
        if item is None:
            return message(text)
        return item if not text or item.type != b'"message"' or has_words(item) else filled(item, text)


NOTHING_STREAMED: Final = Streamed()


def is_final(status: object) -> bool:
    """Whether a response of this status changes no more."""
    return isinstance(status, str) and status in _FINAL


def unwrapped(document: Document) -> tuple[Document, str]:
    """The response object inside of a plain answer, and the status that its wrapping tells.

    It may stand in its own terminal event, in an envelope (api.cloudflare.com has `result`), in a list that ends
    with it, or in a string (matthewhand/mcp-openapi-proxy#12).
    """
    said = document.value
    if isinstance(said, str) and said.lstrip().startswith("{"):
        inner = read_json(said.encode(errors="replace"))
        return (document if isinstance(inner, Unreadable) else inner), ""
    if isinstance(said, list) and said:
        last = bytes(elements(document.raw)[-1])
        return unwrapped(Document(value(last), last)) if last.startswith(b"{") else (document, "")
    if not isinstance(said, dict) or "output" in (outer := cast("Object", said)):
        return document, ""
    for name in _WRAPPERS:
        inside = cast("Object", outer[name]) if isinstance(outer.get(name), dict) else {}
        if "output" in inside or is_final(inside.get("status")):
            return Document(inside, member_bytes(document.raw, name) or b""), STATED.get(str(outer.get("type")), "")
    return document, ""


def shaped(document: Document, stated: str = "", streamed: Streamed = NOTHING_STREAMED) -> Document:
    """The response object as the table says; `stated` is the status that its terminal event's name tells.

    Raises TooManyError. The items of `output` stay in the bytes: of the value it tells whether there are any.
    """
    if not isinstance(document.value, dict):
        return document
    response = cast("Object", document.value)
    if is_final(response.get("status")) and not streamed.texts and conforms(document.raw):
        changes, response = dict[str, bytes](), response | {"output": BULK}
    else:
        changes, response = _changes(response, document.raw, stated, streamed)
    if not isinstance(response.get("id"), str) and streamed.response_id:
        changes["id"] = orjson.dumps(streamed.response_id)
    known = {name: orjson.loads(value) for name, value in changes.items() if name != "output"}
    return Document(response | known, replaced(document.raw, changes) if changes else document.raw)


def _changes(response: Object, raw: bytes, stated: str, streamed: Streamed) -> tuple[dict[str, bytes], Object]:
    """The members that must be written anew, and the response with the mark of whether it has output."""
    output = member_bytes(raw, "output") or b""
    written = listed(output) if output[:1] == b"[" else None
    own = _items([output] if response.get("output") and output[:1] == b"{" else written)
    items = streamed.filled(own) if own else streamed.output() or _output_text(response) or own
    changes = _status(response, stated, own if written else None)
    if items is None:
        return changes, response
    if (raws := [item.raw for item in items]) != written:
        changes["output"] = b"[%s]" % b",".join(raws)
    return changes, response | {"output": BULK if items else []}


def _status(response: Object, stated: str, items: list[Item] | None) -> dict[str, bytes]:
    status = response.get("status")
    if isinstance(status, str) and (plain := status.strip().lower()) in _FINAL:
        return {} if plain == status else {"status": orjson.dumps(plain)}
    if stated:
        return {"status": orjson.dumps(stated)}
    if (isinstance(status, str) and status in _UNDER_WAY) or not items:
        return {}
    said = {item.status for item in items if item.status is not None}
    return {"status": _COMPLETED} if said == {_COMPLETED} else {}


def _items(written: list[bytes] | None) -> list[Item] | None:
    """The items of an `output`; None if there is nothing to read. Raises TooManyError."""
    if written is None:
        return None
    items, parts = list[Item](), 0
    for each in written:
        if (item := item_of(each)) is None:
            continue
        parts += 1 + item.parts
        if parts > MAX_PARTS:
            raise TooManyError
        items.append(item)
    return items


def _output_text(response: Object) -> list[Item]:
    text = response.get("output_text")
    return [message(text)] if isinstance(text, str) and text else []
