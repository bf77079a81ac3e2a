"""The closing mark of the older API, `data: [DONE]`, behind a stream of finished items."""

from typing import Any

import orjson
import pytest
from support.raw_gateway import BODY, calling, chunked, event, replies

from worker.gateway.upstream import Answer

_BEGUN: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "m",
    "status": "in_progress",
    "output": [],
}
_ITEM: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
}
_ERROR = {"code": "server_error", "message": "no"}
_ENDS: dict[str, dict[str, Any]] = {
    "failed": {"type": "response.failed", "response": _BEGUN | {"status": "failed", "error": _ERROR}},
    "incomplete": {
        "type": "response.incomplete",
        "response": _BEGUN
        | {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": [_ITEM]},
    },
    "cancelled": {"type": "response.cancelled", "response": _BEGUN | {"status": "cancelled"}},
    "error": {"type": "error", "error": _ERROR},
    "untyped error": {"error": _ERROR},
}


async def _status(*ends: dict[str, Any], pieces: bool) -> str:
    said: list[dict[str, Any]] = [
        {"type": "response.created", "response": _BEGUN},
        {"type": "response.output_item.added", "output_index": 0, "item": _ITEM | {"status": "in_progress"}},
        {"type": "response.output_item.done", "output_index": 0, "item": _ITEM},
        *ends,
    ]
    events = [*(event(orjson.dumps(one)) for one in said), event(b"[DONE]")]
    reply = chunked(*(events if pieces else [b"".join(events)]))
    async with calling(replies(reply)) as (upstream, _):
        outcome = (await upstream.create(BODY, stream=True, timeout_s=5)).outcome
    return outcome.status if isinstance(outcome, Answer) else "failure"


@pytest.mark.parametrize("pieces", [True, False], ids=["in pieces", "at once"])
@pytest.mark.parametrize("end", _ENDS)
async def test_the_mark_does_not_undo_an_end_that_was_told(end: str, pieces: bool) -> None:  # noqa: FBT001  # parametrized
    assert await _status(_ENDS[end], pieces=pieces) == ("incomplete" if end == "incomplete" else "failure")


@pytest.mark.parametrize("pieces", [True, False], ids=["in pieces", "at once"])
async def test_the_mark_alone_ends_an_answer_whose_items_are_finished(pieces: bool) -> None:  # noqa: FBT001  # parametrized
    assert await _status(pieces=pieces) == "completed"
