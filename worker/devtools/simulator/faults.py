"""Every fault of a gateway, as one table.

Bodies follow what OpenAI documents and what new-api gateways answer (QuantumNous/new-api `types/error.go`,
`middleware/auth.go`, `service/error.go`, `relay/channel/openai/relay_responses.go`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

JSON_TYPE: Final = "application/json; charset=utf-8"
HTML_TYPE: Final = "text/html; charset=utf-8"


class Ending(StrEnum):
    """The kinds of end of a call."""

    REPLY = "reply"
    """An HTTP answer of `status` and `error` or `body`; streamed, a 200 with `error` is an `error` event."""
    OBJECT = "object"
    """HTTP 200 with a response object, some of its fields replaced by `patch`."""
    BROKEN = "broken"
    """HTTP 200, complete as HTTP, whose JSON stops half-way."""
    CUT = "cut"
    """HTTP 200 whose connection closes half-way through the body."""
    RESET = "reset"
    """A TCP reset once the request has been read."""
    HANG = "hang"
    """No answer for as long as the client stays."""
    GOOD = "good"
    """A good answer with one detail changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way to fail, the same whether a marker, a probability or a rule of the gateway asks for it."""

    summary: str
    """One line for the manual."""
    ending: Ending = Ending.REPLY
    status: int = 200
    error: Mapping[str, Any] | None = None
    """The `error` object of the body."""
    body: bytes = b""
    """The whole body, where there is no `error`."""
    content_type: str = JSON_TYPE
    patch: Mapping[str, Any] = field(default_factory=dict[str, Any])
    retry_after_s: float | None = None
    argument: str = ""
    """The meaning of the number in `[[sim:name=number]]`; empty for a fault without one."""

    @property
    def is_refusal(self) -> bool:
        """True for an HTTP error: the gateway's own rules may answer with it."""
        return self.ending is Ending.REPLY and self.status >= HTTPStatus.BAD_REQUEST


def _error(status: int, code: str | None, kind: str, message: str, note: str = "", **more: Any) -> Fault:
    summary = f"{status} with `{code}`" if code else str(status)
    error = {"message": message, "type": kind, "param": None, "code": code}
    return Fault(summary=f"{summary}: {note}" if note else summary, status=status, error=error, **more)


def _throttle(status: int, code: str, kind: str, message: str) -> Fault:
    note = "a Retry-After of 1 or SECONDS"
    return _error(status, code, kind, message, note, retry_after_s=1.0, argument="SECONDS")


def _page(status: int, title: str, note: str) -> Fault:
    body = f"<html>\r\n<head><title>{status} {title}</title></head>\r\n<body>{title}</body>\r\n</html>\r\n"
    return Fault(summary=f"{status}: {note}", status=status, body=body.encode(), content_type=HTML_TYPE)


def _object(summary: str, **patch: Any) -> Fault:
    return Fault(summary=summary, ending=Ending.OBJECT, patch=patch)


def _failed(code: str, message: str) -> Fault:
    error = {"code": code, "message": message}
    return _object(f"200 with status `failed`, `{code}`", status="failed", error=error, output=[], usage=None)


def _incomplete(reason: str) -> Fault:
    summary = f"200 with status `incomplete`, `{reason}`"
    return _object(summary, status="incomplete", incomplete_details={"reason": reason})


_CLIENT: Final = "invalid_request_error"
_SERVER: Final = "server_error"
_NEW_API: Final = "new_api_error"
_WALLET_IS_EMPTY: Final = "用户额度不足, 剩余额度: ＄0.000000"  # noqa: RUF001  # the gateway's own text
_NOTHING_IS_LEFT: Final = "该令牌额度已用尽 TokenStatusExhausted"
_TOO_DEAR: Final = "This request requires more credits, or fewer max_tokens. You can only afford 27342."
_PREPAID_IN_PART: Final = "预扣费额度失败, 用户剩余额度: ＄2.533620, 需要预扣费额度: ＄2.627750"  # noqa: RUF001  # the gateway's own text
_GROUP_IS_SATURATED: Final = "当前分组上游负载已饱和，请稍后再试"  # noqa: RUF001  # likewise

_REFUSED_REQUESTS: Final = {
    "302": Fault(summary="302: a login page elsewhere", status=302, content_type=HTML_TYPE),
    "400": _error(400, "invalid_value", _CLIENT, "Invalid value."),
    "404": _error(404, "model_not_found", _CLIENT, "The model does not exist."),
    "408": _error(408, "request_timeout", _SERVER, "Request timeout."),
    "context": _error(400, "context_length_exceeded", _CLIENT, "Your input exceeds the context window."),
    "filter": _error(400, "content_policy_violation", _CLIENT, "Your request was rejected."),
    "sensitive-500": _error(
        500, "sensitive_words_detected", _NEW_API, "sensitive words detected", "a final refusal all the same"
    ),
    "invalid-500": _error(
        500, "invalid_request", _NEW_API, "field input is required", "the client's error all the same"
    ),
}

_KEYS_AND_WALLETS: Final = {
    "no-token": Fault(summary="401: no key was sent", status=401, body=b'{"error":{"message":"No token provided"}}'),
    "401": _error(401, "", _NEW_API, "Invalid token", "new-api's answer to any dead key"),
    "401-openai": _error(401, "invalid_api_key", _CLIENT, "Incorrect API key provided."),
    "exhausted-401": _error(401, "", _NEW_API, _NOTHING_IS_LEFT, "an empty wallet, in Chinese"),
    "403": _error(403, "access_denied", _NEW_API, "This token has no access to the model."),
    "quota": _error(403, "insufficient_user_quota", _NEW_API, _WALLET_IS_EMPTY, "an empty wallet at new-api"),
    "quota-429": _error(
        429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota.", "an empty wallet"
    ),
    "credit-429": _error(
        429, "credit_balance_exhausted", "insufficient_quota", "Your credit is used up.", "an empty wallet"
    ),
    "too-dear": _error(402, None, _CLIENT, _TOO_DEAR, "the wallet holds less than this request's price"),
    "prepaid": _error(403, "access_denied", _NEW_API, _PREPAID_IN_PART, "the same at new-api, in Chinese"),
}

_THROTTLED: Final = {
    "429": _throttle(429, "rate_limit_exceeded", "requests", "Rate limit reached."),
    "slow-down": _throttle(429, "slow_down", "rate_limit_error", "Slow down."),
    "429-empty": Fault(summary="429: no body, no Retry-After, as new-api's own limiter", status=429),
    "429-chinese": _error(429, None, "upstream_error", _GROUP_IS_SATURATED, "a Chinese message, no code"),
    "429-html": _page(429, "Too Many Requests", "a web page, as of a proxy"),
    "flex-429": _error(429, "resource_unavailable", "requests", "Resource unavailable.", "no room in this tier"),
    "too-large": _error(
        429,
        "rate_limit_exceeded",
        "tokens",
        "Request too large on tokens per min (TPM): Limit 1000, Requested 2000.",
        "larger than the whole limit, no wait helps",
    ),
}

_SERVER_ERRORS: Final = {
    "500": _error(500, "server_error", _SERVER, "The server had an error."),
    "html-502": _page(502, "Bad Gateway", "a web page, as of a proxy"),
    "503": _throttle(503, "server_is_overloaded", "service_unavailable_error", "The server is overloaded."),
    "no-channel-503": _error(
        503, "model_not_found", _NEW_API, "No available channel for model", "no channel at new-api"
    ),
    "504": _error(504, "bad_response_status_code", "upstream_error", "bad response status code 504", "may be billed"),
    "524": _page(524, "A timeout occurred", "a web page of Cloudflare's; may be billed"),
}

_FALSE_SUCCESSES: Final = {
    "empty-200": Fault(summary="200: no body; streamed, no events"),
    "error-200": _error(
        200, "server_error", _SERVER, "The server had an error.", "a top-level `error`, or `error` event"
    ),
    "failed-200": _failed("server_error", "The server had an error."),
    "failed-rate-200": _failed("rate_limit_exceeded", "Rate limit reached."),
    "incomplete": _incomplete("max_output_tokens"),
    "incomplete-filter": _incomplete("content_filter"),
    "in-progress": _object(
        "200 with status `in_progress`; streamed, no terminal event", status="in_progress", completed_at=None
    ),
    "schema-break": _object("200 whose `output` and `usage` break the contract", output="text", usage="none"),
    "broken-json": Fault(summary="200 whose JSON stops half-way", ending=Ending.BROKEN),
}

_CONNECTION: Final = {
    "cut": Fault(summary="200, and the connection closes half-way through the body", ending=Ending.CUT),
    "reset": Fault(summary="a TCP reset once the request has been read", ending=Ending.RESET),
    "hang": Fault(summary="no answer for as long as the client waits", ending=Ending.HANG),
}

_CHANGES: Final = {
    "slow": Fault(
        summary="an answer after SECONDS, good or the fault beside it", ending=Ending.GOOD, argument="SECONDS"
    ),
    "tokens": Fault(summary="a good answer of TOKENS output tokens", ending=Ending.GOOD, argument="TOKENS"),
}

GOOD_ANSWER: Final = Fault(summary="a good answer", ending=Ending.GOOD)

FAULTS: Final[Mapping[str, Fault]] = MappingProxyType(
    _REFUSED_REQUESTS | _KEYS_AND_WALLETS | _THROTTLED | _SERVER_ERRORS | _FALSE_SUCCESSES | _CONNECTION | _CHANGES
)
"""Every fault by the name that markers, `fault_rates` and the gateway's own rules use."""


def fault_table() -> str:
    """The table of the manual, in Markdown: every marker and what it does."""
    rows = (f"| {_markers(name, fault)} | {fault.summary} |" for name, fault in FAULTS.items())
    return "\n".join(("| marker | what the call meets |", "|---|---|", *rows))


def _markers(name: str, fault: Fault) -> str:
    plain, numbered = f"`[[sim:{name}]]`", f"`[[sim:{name}={fault.argument}]]`"
    if not fault.argument:
        return plain
    return numbered if fault.ending is Ending.GOOD else f"{plain}, {numbered}"
