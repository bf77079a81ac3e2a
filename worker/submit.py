"""Enqueues requests and waits for their answers: one plain Celery message in, one hash read until it is final.

The hash of a request may already be there when its message is sent, so waiting asks two things beside "is it
answered?": is it the answer to this body (an id belongs to the first body that used it), and is it newer than the
retryable failure that this request runs anew?
"""

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from celery import Celery

from api_contracts import GenerationRequest, rfc3339
from api_contracts.fingerprints import fingerprint
from api_contracts.queues import TASK_NAME, lane_queue, request_key

_FINAL: Final = frozenset({b"completed", b"incomplete", b"failed"})
_FIRST_LOOK_S: Final = 0.02
_LAST_LOOK_S: Final = 0.25
"""One HMGET each: a hundred who wait for minutes cost Redis less than one worker does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What tells the answer to one enqueued request from all others."""

    tenant: str
    request_id: str
    fingerprint: bytes = field(repr=False)
    outdated: bytes | None = None
    """The delivery whose retryable failure was there before, and is not the answer."""

    @property
    def key(self) -> str:
        return request_key(self.tenant, self.request_id)


class NotAnsweredError(TimeoutError):
    """There is no answer yet; `state` is where the request was last seen, or None if no worker has taken it."""

    def __init__(self, state: str | None) -> None:
        super().__init__(state or "queued")
        self.state = state


class NoAnswerError(Exception):
    """There will be no answer to this request under its id; the message says why."""


class Submitter:
    """Talks to the workers through Redis alone; `app` needs its broker there, `redis` may be any client of it."""

    def __init__(self, app: Celery, redis: Any) -> None:
        self._app: Any = app  # Celery has no types
        self._redis = redis

    def enqueue(self, envelope: Mapping[str, Any], *, lane: str) -> Ticket:
        """Raises ContractViolation, and enqueues nothing, where a worker would refuse the request."""
        request = GenerationRequest.parse(envelope)
        task_id = str(uuid.uuid4())
        request_id = request.request_id or task_id
        ticket = Ticket(
            tenant=request.tenant,
            request_id=request_id,
            fingerprint=fingerprint(envelope["body"]).encode(),
            outdated=self._outdated(request_key(request.tenant, request_id)),
        )
        stamped = {"enqueued_at": rfc3339(datetime.now(UTC)), **envelope}
        self._app.send_task(TASK_NAME, args=[stamped], queue=lane_queue(lane), task_id=task_id)
        return ticket

    def wait(self, ticket: Ticket, *, timeout_s: float, on_state: Callable[[str | None], None] | None = None) -> bytes:
        """The result, JSON as the worker wrote it; `on_state` hears where the request is at every look.

        Raises NotAnsweredError after `timeout_s`, and NoAnswerError where waiting longer is of no use.
        """
        give_up_at = time.monotonic() + timeout_s
        look_again_s = _FIRST_LOOK_S
        while True:
            state, result = self._look(ticket)
            if result is not None:
                return result
            if on_state:
                on_state(state)
            left_s = give_up_at - time.monotonic()
            if left_s <= 0:
                raise NotAnsweredError(state)
            time.sleep(min(look_again_s, left_s))
            look_again_s = min(look_again_s * 1.5, _LAST_LOOK_S)

    def _look(self, ticket: Ticket) -> tuple[str | None, bytes | None]:
        state, token, fingerprint, result = self._redis.hmget(ticket.key, "state", "token", "fingerprint", "result")
        if state is None:
            return None, None
        if fingerprint != ticket.fingerprint:
            raise NoAnswerError("duplicate_conflict: this request_id belongs to a request with another body")
        if token == ticket.outdated:
            return None, None
        if state not in _FINAL:
            return state.decode(), None
        if result is None:
            raise NoAnswerError("this request_id was answered before and its result is no longer kept")
        return state.decode(), result

    def _outdated(self, key: str) -> bytes | None:
        state, token, retryable = self._redis.hmget(key, "state", "token", "retryable")
        return token if state in _FINAL and retryable == b"1" else None
