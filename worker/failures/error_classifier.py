"""What refusals mean: ordered tables over codes, statuses and words; the first match wins.

Asked in this order, because none can be trusted alone: new-api and one-api answer an empty wallet with 401, a
bad request with 500, a relayed 429 with whatever status an operator configured, and often in Chinese.
Sources: developers.openai.com/docs/guides/error-codes; QuantumNous/new-api `types/error.go`,
`middleware/auth.go`, `middleware/distributor.go`; songquanpeng/one-api `model/token.go`.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from api_contracts.errors import ErrorCode
from worker.failures.error_reader import ReportedError, any_of

Limit = Literal["requests", "tokens", "concurrency"]
Shows = Callable[[str], object]

NAMED: Final = {
    ErrorCode.QUOTA_EXHAUSTED: """
        insufficient_quota credit_balance_exhausted *_spend_limit_exceeded *_usage_limit_exceeded billing_*
        insufficient_user_quota pre_consume_token_quota_failed entitlement_* *quota_exhausted
        insufficient_balance insufficient_credits
    """,
    ErrorCode.RATE_LIMITED: """
        slow_down *rate_limit* too_many_requests resource_exhausted requests tokens
        *concurrency_limit*
    """,
    ErrorCode.REQUEST_TOO_LARGE: "request_too_large payload_too_large request_entity_too_large",
    ErrorCode.CONTEXT_LENGTH_EXCEEDED: "context_length_exceeded string_above_max_length",
    ErrorCode.CONTENT_REJECTED: """
        content_filter *policy_violation invalid_prompt bio_policy sensitive_words_detected prompt_blocked
    """,
    ErrorCode.MODEL_UNAVAILABLE: """
        model_not_found deployment_not_found no_available_channel unsupported_model
    """,
    ErrorCode.AUTHENTICATION_FAILED: """
        invalid_api_key authentication_error unauthenticated unauthorized invalid_authentication
        account_deactivated
    """,
    ErrorCode.PERMISSION_DENIED: """
        access_denied permission_denied permission_error ip_not_allowed group_not_allowed model_not_allowed
        unsupported_country_region_territory data_residency_mismatch
    """,
    ErrorCode.UPSTREAM_OVERLOADED: """
        server_is_overloaded overloaded_error overloaded engine_overloaded service_unavailable_error
    """,
    ErrorCode.INVALID_REQUEST: """
        count_token_failed model_price_error convert_request_failed bad_request_body read_request_body_failed
        unsupported_* unknown_parameter missing_required_parameter *image*
    """,
}
"""Names that decide whatever the status says. Order matters only where patterns overlap."""

VAGUE: Final = {
    ErrorCode.UPSTREAM_ERROR: """
        server_error internal_error internal_server_error do_request_failed get_channel_failed
        query_data_error update_data_error vector_store_timeout
    """,
    ErrorCode.UPSTREAM_TIMEOUT: "*timeout* deadline_exceeded",
    ErrorCode.INVALID_REQUEST: "invalid_request invalid_request_error invalid_argument bad_request",
}
"""Names that say less than a telling status: OpenAI's 401 and 404 are of type `invalid_request_error` too."""

TELLING_STATUS: Final = {
    401: ErrorCode.AUTHENTICATION_FAILED,
    402: ErrorCode.QUOTA_EXHAUSTED,
    403: ErrorCode.PERMISSION_DENIED,
    408: ErrorCode.UPSTREAM_ERROR,
    409: ErrorCode.UPSTREAM_ERROR,
    413: ErrorCode.REQUEST_TOO_LARGE,
    425: ErrorCode.UPSTREAM_ERROR,
    429: ErrorCode.RATE_LIMITED,
    451: ErrorCode.PERMISSION_DENIED,
    502: ErrorCode.UPSTREAM_ERROR,
    503: ErrorCode.UPSTREAM_ERROR,
    504: ErrorCode.UPSTREAM_TIMEOUT,
    524: ErrorCode.UPSTREAM_TIMEOUT,
    529: ErrorCode.UPSTREAM_OVERLOADED,
}
CALLER_STATUS: Final = frozenset({400, 404, 405, 415, 422})

_LIMIT_AND_ASKED: Final = re.compile(r"\blimit:? (\d{1,12})\b.{0,80}?\brequested:? (\d{1,12})\b", re.ASCII)


def _never_fits(text: str) -> bool:
    """Whether a 429 is about this one request, larger than the whole bucket, and not about the rate."""
    found = _LIMIT_AND_ASKED.search(text)
    return "request too large" in text or (found is not None and int(found[2]) > int(found[1]))


_MONEY: Final = re.compile(r"额度|額度|余额|餘額|欠费|quota|balance(?!r)|exhausted|\bcredits?\b").search
# On a 429 only whole phrases count: Azure advertises a "quota increase" in every plain rate limit.
_EMPTY_WALLET: Final = re.compile(
    r"exceeded your current quota|insufficient (?:account )?(?:balance|quota|credit)"
    r"|quota (?:has been|is) exhausted|(?:余额|额度|餘額|額度)(?:不足|已用尽|已用盡)|欠费"
).search
_CONTEXT: Final = re.compile(r"context length|context window|上下文长度").search
_CONTENT: Final = re.compile(
    r"content (?:management |moderation )?policy|content moderation|safety system|敏感词|敏感詞|违规|違規"
).search
_NO_MODEL: Final = re.compile(
    r"no available channel|无可用渠道|無可用管道"
    r"|\bmodel\b.{1,80} (?:does not exist|not found)|模型.{0,40}不存在"
).search
_BUSY: Final = re.compile(r"overloaded|at capacity|负载已饱和|負載已飽和|繁忙").search
_TOO_SLOW: Final = re.compile(r"context deadline exceeded|awaiting (?:response )?headers|请求超时").search

WORDED: Final[tuple[tuple[ErrorCode, bool, Shows, ErrorCode], ...]] = (
    (ErrorCode.RATE_LIMITED, True, _never_fits, ErrorCode.REQUEST_TOO_LARGE),
    (ErrorCode.AUTHENTICATION_FAILED, True, _MONEY, ErrorCode.QUOTA_EXHAUSTED),
    (ErrorCode.RATE_LIMITED, False, _EMPTY_WALLET, ErrorCode.QUOTA_EXHAUSTED),
    (ErrorCode.PERMISSION_DENIED, False, _MONEY, ErrorCode.QUOTA_EXHAUSTED),
    (ErrorCode.PERMISSION_DENIED, False, _CONTENT, ErrorCode.CONTENT_REJECTED),
    (ErrorCode.REQUEST_TOO_LARGE, False, _CONTEXT, ErrorCode.CONTEXT_LENGTH_EXCEEDED),
    (ErrorCode.INVALID_REQUEST, False, _CONTEXT, ErrorCode.CONTEXT_LENGTH_EXCEEDED),
    (ErrorCode.INVALID_REQUEST, False, _CONTENT, ErrorCode.CONTENT_REJECTED),
    (ErrorCode.INVALID_REQUEST, False, _NO_MODEL, ErrorCode.MODEL_UNAVAILABLE),
    (ErrorCode.UPSTREAM_ERROR, False, _NO_MODEL, ErrorCode.MODEL_UNAVAILABLE),
    (ErrorCode.UPSTREAM_ERROR, False, _BUSY, ErrorCode.UPSTREAM_OVERLOADED),
    (ErrorCode.UPSTREAM_ERROR, False, _TOO_SLOW, ErrorCode.UPSTREAM_TIMEOUT),
)
"""Words correct what was decided so far: (decided, even if by a name, what the text shows, what it is)."""

_NAMED: Final = tuple((code, any_of(globs)) for code, globs in NAMED.items())
_VAGUE: Final = tuple((code, any_of(globs)) for code, globs in VAGUE.items())


@dataclass(frozen=True, slots=True)
class Classification:
    """`by_status` means that the status alone decided: neither a name nor the text had a say."""

    code: ErrorCode
    by_status: bool


def judge(evidence: ReportedError) -> Classification:
    """What went wrong. Total: what nobody has seen before is judged by the class of its status."""
    named = _listed(_NAMED, evidence.names)
    decided = (
        named
        or TELLING_STATUS.get(evidence.status or 0)
        or _listed(_VAGUE, evidence.names)
        or _status_class(evidence.status)
    )
    for before, even_if_named, shows, after in WORDED:
        if decided is before and (even_if_named or not named) and shows(evidence.text):
            return Classification(after, by_status=False)
    return Classification(decided, by_status=named is None)


def _listed(table: Iterable[tuple[ErrorCode, re.Pattern[str]]], names: Iterable[str]) -> ErrorCode | None:
    """The first *name* the table knows wins, not the first row: codes go before types, outer before inner."""
    return next((code for name in names for code, pattern in table if pattern.fullmatch(name)), None)


def _status_class(status: int | None) -> ErrorCode:
    if status in CALLER_STATUS:
        return ErrorCode.INVALID_REQUEST
    if status is None or status in range(500, 600):
        return ErrorCode.UPSTREAM_ERROR
    return ErrorCode.INVALID_RESPONSE


_LIMITS: Final[tuple[tuple[Limit, Shows], ...]] = (
    ("concurrency", re.compile(r"concurren|并发").search),
    ("tokens", re.compile(r"\btokens? (?:per|rate)\b|\btp[md]\b").search),
    ("requests", re.compile(r"\brequests? (?:per|rate)\b|\brp[md]\b").search),
)


def limit_named(evidence: ReportedError) -> Limit | None:
    """Which limit was met, where the error says so: OpenAI does by type, most others in their text."""
    for limit, shows in _LIMITS:
        if limit in evidence.names or shows(evidence.text) or any(map(shows, evidence.names)):
            return limit
    return None
