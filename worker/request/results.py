"""The one answer, as bytes: our envelope around the gateway's own, untouched response."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from api_contracts import CONTRACT_VERSION, MappedError


def timestamp(at_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds."""
    moment = datetime.fromtimestamp(at_ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z"


def encode_attempt(
    number: int,
    *,
    started_at_ms: int,
    upstream: str,
    waited_ms: int,
    outcome: str = "started",
    duration_ms: int | None = None,
    http_status: int | None = None,
    code: str | None = None,
    upstream_request_id: str | None = None,
    maybe_billed: bool = False,
) -> bytes:
    """One entry of `attempts`; without an outcome, a call that is under way."""
    return orjson.dumps(
        {
            "number": number,
            "started_at": timestamp(started_at_ms),
            "duration_ms": duration_ms,
            "upstream": upstream,
            "outcome": outcome,
            "http_status": http_status,
            "code": code,
            "upstream_request_id": upstream_request_id,
            "waited_ms": waited_ms,
            "maybe_billed": maybe_billed,
        }
    )


def encode_result(
    *,
    request_id: str,
    tenant: str,
    lane: str,
    outcome: str,
    response: bytes | None,
    error: MappedError | None,
    attempts: Sequence[bytes],
    timing: Mapping[str, Any],
    metadata: Mapping[str, str],
    trace_id: str | None,
) -> bytes:
    """The result's JSON; `response` is spliced in byte for byte, so unknown fields and order survive."""
    return orjson.dumps(
        {
            "contract_version": CONTRACT_VERSION,
            "request_id": request_id,
            "tenant": tenant,
            "lane": lane,
            "outcome": outcome,
            "response": None if response is None else orjson.Fragment(response),
            "error": None if error is None else error.model_dump(mode="json"),
            "attempts": [orjson.Fragment(attempt) for attempt in attempts],
            "timing": timing,
            "metadata": metadata,
            "trace_id": trace_id,
        }
    )
