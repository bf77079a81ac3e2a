"""A Celery message, protocol 2, without Celery: what any language may push onto a lane.

(docs.celeryq.dev/en/stable/internals/protocol.html; kombu's Redis transport takes from the right of a list.)
"""

import base64
import json
import sys
import uuid
from collections.abc import Mapping
from typing import Any, Final

from api_contracts.queues import TASK_NAME, lane_queue

_NO_CANVAS: Final = b'{"callbacks":null,"errbacks":null,"chain":null,"chord":null}'


def encode(
    document: bytes,
    *,
    task_id: str,
    lane: str,
    priority: int = 0,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """The bytes that Celery's JSON serializer would have pushed for an envelope in JSON.

    `headers` may carry `sentry-trace` and `baggage`.
    """
    arguments = b"[[" + document + b"],{}," + _NO_CANVAS + b"]"
    message = {
        "body": base64.b64encode(arguments).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py",
            "task": TASK_NAME,
            "id": task_id,
            "root_id": task_id,
            "argsrepr": "[redacted]",  # Celery's own would show the prompt to whoever lists tasks
            "kwargsrepr": "{}",
            **(headers or {}),
        },
        "properties": {
            "correlation_id": task_id,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": lane_queue(lane)},
            "priority": priority,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }
    return json.dumps(message, separators=(",", ":")).encode()


def trace_headers() -> dict[str, str]:
    """The caller's trace, where its process has Sentry: never a reason to import it."""
    sentry: Any = sys.modules.get("sentry_sdk")
    if sentry is None:
        return {}
    found = {"sentry-trace": sentry.get_traceparent(), "baggage": sentry.get_baggage()}
    return {name: value for name, value in found.items() if value}
