"""The words of a refusal: bodies with request ids, Retry-After, x-ratelimit headers."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Final

from worker.devtools.simulator.budget import SECOND_NS, Budget, Meter, Refused
from worker.devtools.simulator.config import Dialect, RetryAfter, SimulatorConfig
from worker.devtools.simulator.faults import FAULTS, JSON_TYPE, Fault

_MILLISECOND_NS: Final = 1_000_000
_REQUEST_ID_HEADERS: Final[Mapping[Dialect, str]] = {
    "new-api": "X-Oneapi-Request-Id",
    "openai": "x-request-id",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer, ready to be written."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def fault_reply(fault: Fault, config: SimulatorConfig, request_id: str, now: datetime) -> Reply:
    """The answer that a fault of ending `REPLY` makes; new-api repeats the request id in the message."""
    body = fault.body
    if fault.error is not None:
        suffix = f" (request id: {request_id})" if config.dialect == "new-api" else ""
        error = {**fault.error, "message": f"{fault.error['message']}{suffix}"}
        body = json.dumps({"error": error}, ensure_ascii=False).encode()
    headers = {"Content-Type": fault.content_type, **request_id_header(config, request_id)}
    if fault.retry_after_s is not None and config.headers != "none":
        headers |= retry_after_headers(fault.retry_after_s, config.retry_after, now)
    if 300 <= fault.status < 400:  # noqa: PLR2004  # the class of redirects
        headers["Location"] = "/login"
    return Reply(fault.status, headers, body)


def limit_fault(refused: Refused, config: SimulatorConfig, needed_tokens: int) -> Fault:
    """The fault that a call over a limit meets: the configured one, worded by OpenAI if that is `429`."""
    retry_after_s = None if refused.too_large else refused.retry_after_s
    fault = replace(FAULTS[config.rate_limit_fault], retry_after_s=retry_after_s)
    if config.rate_limit_fault != "429":
        return fault
    limit, name = {
        "requests": (config.requests_per_minute, "requests per min (RPM)"),
        "tokens": (config.tokens_per_minute, "tokens per min (TPM)"),
        "concurrency": (config.max_in_flight, "concurrent requests"),
    }[refused.limit]
    if refused.too_large:
        message = f"Request too large on {name}: Limit {limit}, Requested {needed_tokens}."
    else:
        wait = duration(math.ceil(refused.retry_after_s * SECOND_NS))
        message = f"Rate limit reached on {name}: Limit {limit}. Please try again in {wait}."
    error = {"message": message, "type": refused.limit, "param": None, "code": "rate_limit_exceeded"}
    return replace(fault, error=error)


def invalid_request(message: str, param: str | None) -> Fault:
    """The 400 for a body the gateway does not take."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": "invalid_value"}
    return replace(FAULTS["400"], error=error)


def answer_headers(config: SimulatorConfig, budget: Budget, request_id: str, now_ns: int) -> dict[str, str]:
    """The headers of a good answer, x-ratelimit-* among them where configured."""
    headers = {"Content-Type": JSON_TYPE, **request_id_header(config, request_id)}
    return headers | rate_limit_headers(config, budget, now_ns)


def rate_limit_headers(config: SimulatorConfig, budget: Budget, now_ns: int) -> dict[str, str]:
    """OpenAI's x-ratelimit-{limit,remaining,reset}-{requests,tokens} for the limits there are."""
    if config.headers != "openai":
        return {}
    return _meter_headers("requests", budget.requests, now_ns) | _meter_headers("tokens", budget.tokens, now_ns)


def retry_after_headers(seconds: float, form: RetryAfter, now: datetime) -> dict[str, str]:
    """Retry-After (RFC 9110 10.2.3: whole seconds or a date, rounded up) or OpenAI's retry-after-ms."""
    whole = math.ceil(seconds)
    milliseconds = {"retry-after-ms": str(math.ceil(seconds * 1000))}
    if form == "ms":
        return milliseconds
    if form == "date":
        date = now.replace(microsecond=0) + timedelta(seconds=math.ceil(seconds + now.microsecond / 1e6))
        return {"Retry-After": format_datetime(date.astimezone(UTC), usegmt=True)}
    return {"Retry-After": str(whole)} | (milliseconds if form == "seconds+ms" else {})


def request_id_header(config: SimulatorConfig, request_id: str) -> dict[str, str]:
    """The one header by which the gateway's operators find a call."""
    return {_REQUEST_ID_HEADERS[config.dialect]: request_id}


def duration(nanoseconds: int) -> str:
    """A time span as OpenAI's headers write it: `12ms`, `8.64s`, `6m0s`, `1h0m0s`; rounded up."""
    milliseconds = -(-nanoseconds // _MILLISECOND_NS)
    if milliseconds < 1000:  # noqa: PLR2004  # a second
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:g}s"
    if minutes or hours:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text


def _meter_headers(name: str, meter: Meter | None, now_ns: int) -> dict[str, str]:
    if meter is None:
        return {}
    return {
        f"x-ratelimit-limit-{name}": str(meter.limit.per_minute),
        f"x-ratelimit-remaining-{name}": str(meter.remaining(now_ns)),
        f"x-ratelimit-reset-{name}": duration(meter.reset_ns(now_ns)),
    }
