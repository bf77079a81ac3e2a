"""Ways in which gateways and proxies break a good answer, as functions; each leaves its text readable.

An answer is distorted in three places, one after another: its response object (or its stream of events), its
bytes, and its transport. Any choice of one each is an answer that somebody met.
"""

import gzip
import json
from collections.abc import Callable
from typing import Any, Final

from support.raw_gateway import chunk, event, head, plain

Object = dict[str, Any]
ID: Final = "resp_1"
USAGE: Final = {"input_tokens": 8, "output_tokens": 5, "total_tokens": 13}
DEEP: Final = json.loads("[" * 300 + "]" * 300)


def message(text: str) -> Object:
    part: Object = {"type": "output_text", "text": text, "annotations": list[Object]()}
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}


def response(text: str) -> Object:
    named: Object = {"id": ID, "object": "response", "model": "gpt-5.4-mini", "status": "completed"}
    return named | {"error": None, "output": [message(text)], "usage": USAGE}


def _without(answer: Object, *names: str) -> Object:
    return {name: value for name, value in answer.items() if name not in names}


def _text(answer: Object) -> str:
    return answer["output"][0]["content"][0]["text"]


ANYWHERE: Final[dict[str, Callable[[Object], Object]]] = {
    "none": lambda answer: answer,
    "empty error": lambda answer: answer | {"error": {"code": "", "message": ""}},
    "error of nulls": lambda answer: answer | {"error": {"code": None, "message": None}},
    "null item": lambda answer: answer | {"output": [*answer["output"], None]},
    "content as text": lambda answer: answer | {"output": [message("") | {"content": _text(answer)}]},
    "one item, no list": lambda answer: answer | {"output": answer["output"][0]},
    "no usage": lambda answer: answer | {"usage": None},
    "deep tools": lambda answer: answer | {"tools": DEEP},
    "unreadable usage": lambda answer: answer | {"usage": "much"},
}
"""Of the response object, wherever it stands."""

_DOCUMENTS_ONLY: Final[dict[str, Callable[[Object], Object]]] = {
    "no status": lambda answer: _without(answer, "status"),
    "null output": lambda answer: answer | {"output": None, "output_text": _text(answer)},
    "no output": lambda answer: _without(answer, "output") | {"output_text": _text(answer)},
    "no id": lambda answer: _without(answer, "id"),
}
DOCUMENTS: Final = ANYWHERE | _DOCUMENTS_ONLY
"""Of a plain document, which nothing came before."""

_SNAPSHOTS_ONLY: Final[dict[str, Callable[[Object], Object]]] = {
    "null status": lambda answer: answer | {"status": None},
    "status of the beginning": lambda answer: answer | {"status": "in_progress"},
    "no id": lambda answer: _without(answer, "id"),
    "null output": lambda answer: answer | {"output": None},
    "no output": lambda answer: _without(answer, "output"),
    "empty output": lambda answer: answer | {"output": []},
}
SNAPSHOTS: Final = ANYWHERE | _SNAPSHOTS_ONLY
"""Of the object inside of the terminal event."""

BYTES: Final[dict[str, Callable[[bytes], bytes]]] = {
    "none": lambda data: data,
    "mark": lambda data: b"\xef\xbb\xbf" + data,
    "NULs": lambda data: data + b"\x00\x00",
    "second document": lambda data: data + b'{"error":{"code":"x"}}',
    "NaN": lambda data: data[:-1] + b',"top_p":NaN}',
    "Infinity": lambda data: data[:-1] + b',"logprob":-Infinity}',
    "lone surrogate": lambda data: data[:-1] + b',"x":"\\ud83d"}',
    "control characters": lambda data: data[:-1] + b',"x":"\x01\t"}',
    "invalid UTF-8": lambda data: data[:-1] + b',"x":"\xff"}',
}
"""Of the bytes of one document, which ends in `}`."""

TRANSPORTS: Final[dict[str, Callable[[bytes, str], bytes]]] = {
    "plain": lambda body, kind: plain(body, kind=kind),
    "chunked": lambda body, kind: head("transfer-encoding: chunked", kind=kind) + chunk(body) + chunk(b""),
    "no last chunk": lambda body, kind: head("transfer-encoding: chunked", kind=kind) + chunk(body),
    "length too large": lambda body, kind: head(f"content-length: {len(body) + 7}", kind=kind) + body,
    "labelled gzip": lambda body, kind: plain(body, "content-encoding: gzip", kind=kind),
    "unlabelled gzip": lambda body, kind: plain(gzip.compress(body), kind=kind),
    "long header": lambda body, kind: plain(body, "x-policy: " + "x" * 9000, kind=kind),
    "length and chunked": lambda body, kind: (
        head(f"content-length: {len(body)}", "transfer-encoding: chunked", kind=kind) + chunk(body) + chunk(b"")
    ),
    "length twice": lambda body, kind: plain(body, f"content-length: {len(body)}", kind=kind),
    "space in a name": lambda body, kind: plain(body, "x cache: hit", "x-age : 1", kind=kind),
    "mislabelled": lambda body, kind: plain(body, kind="text/plain" if "json" in kind else "application/json"),
    "blanks first": lambda body, kind: plain(b"\n\n" + body, kind=kind),
}
"""Of a body and the type that it should be labelled with."""


def streamed(text: str, snapshot: Callable[[Object], Object], data: Callable[[bytes], bytes]) -> bytes:
    """The events of an answer, of which the last is distorted."""
    unfinished: Object = {"status": "in_progress", "output": [], "usage": None}
    begun = response("") | unfinished
    half = len(text) // 2
    events: list[Object] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": message("") | {"content": []}},
        {"type": "response.mcp_call.failed", "output_index": 1, "error": {"code": "x", "message": "a tool failed"}},
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": text[:half]},
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": text[half:]},
        {"type": "response.output_item.done", "output_index": 0, "item": message(text)},
    ]
    last = {"type": "response.completed", "response": snapshot(response(text))}
    return b"".join(event(encoded(told)) for told in events) + event(data(encoded(last)))


def encoded(document: Object) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()
