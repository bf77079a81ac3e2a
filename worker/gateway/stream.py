"""The outcome of a stream of events, event by event, without I/O.

Only the types of event in `_ENDS` end a stream. An `error` inside of any other typed `response.*` event belongs to
what that event is about, such as a tool that failed, and the stream goes on. An error of no type ends it,
because that is how gateways report theirs. Once output has streamed, the call was paid for in part, so every
failure from there on counts as costly.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import StringIO
from typing import Any, Final, cast

from api_contracts.responses import TERMINAL_EVENTS
from worker.failures.failure import Failure, costly
from worker.failures.stated_error import stated_error
from worker.gateway.answers import TOO_LARGE, Answer, read_document, read_response, unusable
from worker.gateway.members import TooManyError, member_bytes
from worker.gateway.repair import TOO_MANY, Document, Unreadable, read_json
from worker.gateway.shape import STATED, Streamed, is_final
from worker.gateway.sse import Event

_ENDS: Final = TERMINAL_EVENTS | STATED.keys() | {"response.error", "response.cancelled"}
_BEFORE_OUTPUT: Final = frozenset({"response.created", "response.queued", "response.in_progress"})
_TYPE: Final = re.compile(rb'\s*\{\s*"type"\s*:\s*"([\w.]{1,40})"')
_BLANK: Final = b"\xef\xbb\xbf\x00 \t\r\n"
MAX_INDICES: Final = 10_000
"""Items of a stream that are told apart."""

Object = dict[str, Any]


@dataclass(slots=True)
class StreamReader:
    """Takes the events of one stream in order; its memory of them is bounded by `max_bytes`."""

    headers: Mapping[str, str]
    http_status: int
    max_bytes: int
    on_event: Callable[[bytes], None] = lambda _: None
    """Gets the data of every event that is a JSON object, the terminal one included, and must not raise."""
    generated: bool = False
    """Whether any output has come, finished or not."""
    _streamed: Streamed = field(default_factory=Streamed)
    _ended: bool = False
    """Whether an event has told an outcome: the closing mark behind it adds nothing."""
    _begun: Document | None = None
    """The response object as the stream began with it."""
    _open: set[int] = field(default_factory=set[int])
    _item_bytes: int = 0
    _delta_bytes: int = 0

    def take(self, event: Event) -> Answer | Failure | None:
        """The outcome that this event tells; None if the stream goes on."""
        try:
            return self._taken(event)
        except TooManyError:
            return self._judged(unusable(TOO_MANY, self.http_status))

    def _taken(self, event: Event) -> Answer | Failure | None:
        if not event.data.lstrip(_BLANK).startswith(b"{"):
            return self._untyped(event)  # told without a parser's failure, which takes as long as a thousand bytes
        document = read_json(event.data)
        if isinstance(document, Unreadable) or not isinstance(document.value, dict):
            return self._untyped(event)
        self.on_event(document.raw)
        said = cast("Object", document.value)
        if event.name == "error" or not isinstance(said.get("type"), str):
            said["type"] = event.name
        kind: str = said["type"]
        if kind in _ENDS:
            return self._judged(self._terminal(kind, said, document))
        if kind.startswith("response."):
            return self._remember(kind, said, document.raw)
        if stated_error(said) is None and not ("output" in said and is_final(said.get("status"))):
            return None
        return self._judged(read_response(document, self.headers, self.http_status, streamed=self._streamed))

    def take_document(self, body: bytes) -> Answer | Failure:
        """The outcome of a plain document that stands where events should."""
        return self._judged(read_document(body, self.headers, self.http_status))

    def _untyped(self, event: Event) -> Answer | Failure | None:
        """The outcome of text that is no object: an error, the closing mark, or an end that is empty or was cut.

        Such an end counts once all output has come.
        """
        if event.name == "error":
            said = {"type": "error", "message": event.data.decode(errors="replace")}
            return self._judged(read_response(Document(said, b"{}"), self.headers, self.http_status))
        if event.data.strip(b'" ') == b"[DONE]":
            return None if self._ended else self._marked_done()
        cut = _TYPE.match(event.data)
        kind = cut[1].decode() if cut else event.name
        if STATED.get(kind) != "completed" or self._open or not (self._streamed.items or self._streamed.texts):
            return None
        return self._judged(self._terminal(kind, {}, Document({}, b"{}")))

    def _terminal(self, kind: str, said: Object, document: Document) -> Answer | Failure:
        response, stated = said.get("response"), STATED.get(kind, "")
        if isinstance(response, dict) and (raw := member_bytes(document.raw, "response")):
            document = Document(cast("object", response), raw)
        elif stated and self._begun is not None and "output" not in said:
            document = self._begun
        return read_response(document, self.headers, self.http_status, stated=stated, streamed=self._streamed)

    def _judged(self, outcome: Answer | Failure) -> Answer | Failure:
        self._ended = True
        return costly(outcome) if self.generated and isinstance(outcome, Failure) else outcome

    def _remember(self, kind: str, said: Object, raw: bytes) -> Failure | None:
        self.generated = self.generated or kind not in _BEFORE_OUTPUT
        index = said.get("output_index")
        index = index if isinstance(index, int) else len(self._streamed.items)
        delta, text = said.get("delta"), said.get("text")
        if kind in _BEFORE_OUTPUT and isinstance(response := said.get("response"), dict):
            self._begin(cast("Object", response), raw)
        elif kind == "response.output_item.added" and len(self._open) < MAX_INDICES:
            self._open.add(index)
        elif kind == "response.output_item.done" and isinstance(said.get("item"), dict):
            self._open.discard(index)
            self._keep_item(index, member_bytes(raw, "item") or b"{}")
        elif isinstance(delta, str):
            return self._keep_delta(kind, index, delta)
        elif kind == "response.output_text.done" and isinstance(text, str) and index not in self._streamed.texts:
            return self._keep_delta("response.output_text.delta", index, text)
        return None

    def _begin(self, response: Object, raw: bytes) -> None:
        if begun := member_bytes(raw, "response"):
            self._begun = Document(response, begun)
        if isinstance(response_id := response.get("id"), str):
            self._streamed.response_id = response_id

    def _keep_item(self, index: int, item: bytes) -> None:
        """Items beyond the limit are forgotten, all of them: some of an output would pass for the whole."""
        self._item_bytes += len(item)
        if self._item_bytes <= self.max_bytes:
            self._streamed.items[index] = item
        else:
            self._streamed.items.clear()

    def _keep_delta(self, kind: str, index: int, delta: str) -> Failure | None:
        self._delta_bytes += len(delta)
        if self._delta_bytes > self.max_bytes:
            return unusable(TOO_LARGE, self.http_status)
        texts = self._streamed.texts
        if kind == "response.output_text.delta" and delta and (index in texts or len(texts) < MAX_INDICES):
            texts.setdefault(index, StringIO()).write(delta)
        return None

    def _marked_done(self) -> Answer | Failure | None:
        """Some gateways close with the mark of the older API and leave out `response.completed`.

        With every item finished, that is an answer (moeru-ai/airi#2589), unless a terminal event told another end.
        """
        items = self._streamed.finished().values()
        finished = {item.status for item in items if item.type in (b'"message"', b'"function_call"')}
        if self._begun is None or self._open or finished != {b'"completed"'}:
            return None
        return read_response(self._begun, self.headers, self.http_status, stated="completed", streamed=self._streamed)
