"""The names that gateways use: ordered tables over names, statuses and words, each row with its public source.

`openai-docs` is developers.openai.com/docs/guides/error-codes, `openrouter-docs` is openrouter.ai/docs/errors,
`anthropic-docs` is docs.anthropic.com/en/api/errors, `groq-docs` is console.groq.com/docs (errors and
flex-processing). `new-api` is QuantumNous/new-api, `one-api` is songquanpeng/one-api, `litellm` is
BerriAI/litellm; a number is an issue or pull request, a path is a file.
"""

import re
from collections.abc import Callable
from typing import Final, Literal

from api_contracts.errors import ErrorCode

Limit = Literal["requests", "tokens", "concurrency"]
Scope = Literal["request", "account", "model", "unknown"]
Shows = Callable[[str], object]

NAMED: Final = {
    # openai-docs; new-api types/error.go; litellm#4606 and #37000 (budget_exceeded); openrouter-docs
    ErrorCode.QUOTA_EXHAUSTED: """
        insufficient_quota credit_balance_exhausted *_spend_limit_exceeded *_usage_limit_exceeded billing_*
        insufficient_user_quota pre_consume_token_quota_failed entitlement_* *quota_exhausted
        insufficient_balance insufficient_credits *budget_exceeded key_limit_exceeded
    """,
    # openai-docs; Google's RESOURCE_EXHAUSTED: google-gemini/gemini-cli#8437
    ErrorCode.RATE_LIMITED: """
        slow_down *rate_limit* too_many_requests resource_exhausted requests tokens
        *concurrency_limit*
    """,
    # anthropic-docs; RFC 9110 15.5.14
    ErrorCode.REQUEST_TOO_LARGE: "request_too_large payload_too_large request_entity_too_large",
    # openai-docs; openrouter-docs
    ErrorCode.CONTEXT_LENGTH_EXCEEDED: """
        context_length_exceeded string_above_max_length string_too_long token_limit_exceeded
    """,
    # openai-docs; new-api types/error.go; openrouter-docs: moderation, guardrails, refusals; and for inspection
    # help.aliyun.com/en/model-studio/error-code
    ErrorCode.CONTENT_REJECTED: """
        content_filter *policy_violation invalid_prompt bio_policy sensitive_words_detected prompt_blocked
        *moderation* content_blocked refusal *guardrail* *safety_violation* data_inspection_failed
    """,
    # openai-docs; new-api middleware/distributor.go
    ErrorCode.MODEL_UNAVAILABLE: """
        model_not_found deployment_not_found no_available_channel unsupported_model
    """,
    # openai-docs; anthropic-docs
    ErrorCode.AUTHENTICATION_FAILED: """
        invalid_api_key authentication_error unauthenticated unauthorized invalid_authentication
        account_deactivated
    """,
    # openai-docs; new-api middleware/auth.go
    ErrorCode.PERMISSION_DENIED: """
        ip_not_allowed group_not_allowed model_not_allowed
        unsupported_country_region_territory data_residency_mismatch
    """,
    # openai-docs; anthropic-docs; groq-docs: no flex capacity; and for flex of OpenAI
    # developers.openai.com/api/docs/guides/flex-processing
    ErrorCode.UPSTREAM_OVERLOADED: """
        server_is_overloaded overloaded_error overloaded engine_overloaded service_unavailable_error
        *capacity_exceeded resource_unavailable
    """,
    # new-api types/error.go; openai-docs
    ErrorCode.INVALID_REQUEST: """
        count_token_failed model_price_error convert_request_failed bad_request_body read_request_body_failed
        unsupported_* unknown_parameter missing_required_parameter *image*
    """,
}
"""Names that decide whatever the status says. Order matters only where patterns overlap."""

GENERIC: Final = {
    # anthropic-docs; new-api types/error.go. A wallet or a filter may stand behind them:
    # clacky-ai/openclacky#100, openrouter-docs.
    ErrorCode.PERMISSION_DENIED: "access_denied permission_denied permission_error",
}
"""Names that decide where no other name does, and that plain words of a wallet or a filter correct."""

VAGUE: Final = {
    # new-api types/error.go; openai-docs
    ErrorCode.UPSTREAM_ERROR: """
        server_error internal_error internal_server_error do_request_failed get_channel_failed
        query_data_error update_data_error vector_store_timeout
    """,
    # anthropic-docs; google.rpc.Code
    ErrorCode.UPSTREAM_TIMEOUT: "*timeout* deadline_exceeded",
    # openai-docs; google.rpc.Code
    ErrorCode.INVALID_REQUEST: "invalid_request invalid_request_error invalid_argument bad_request",
}
"""Names that say less than a telling status: OpenAI's 401 and 404 are of type `invalid_request_error` too."""

TELLING_STATUS: Final = {
    401: ErrorCode.AUTHENTICATION_FAILED,
    402: ErrorCode.QUOTA_EXHAUSTED,
    403: ErrorCode.PERMISSION_DENIED,
    # The method, the address and the headers are ours and always the same, so no caller can be wrong in them.
    405: ErrorCode.UPSTREAM_ERROR,
    406: ErrorCode.UPSTREAM_ERROR,
    407: ErrorCode.UPSTREAM_ERROR,
    408: ErrorCode.UPSTREAM_ERROR,
    409: ErrorCode.UPSTREAM_ERROR,
    411: ErrorCode.UPSTREAM_ERROR,
    413: ErrorCode.REQUEST_TOO_LARGE,
    414: ErrorCode.UPSTREAM_ERROR,
    417: ErrorCode.UPSTREAM_ERROR,
    421: ErrorCode.UPSTREAM_ERROR,  # a proxy sent us to the wrong backend: RFC 9110 15.5.20
    424: ErrorCode.UPSTREAM_ERROR,  # something the gateway called failed: groq-docs
    425: ErrorCode.UPSTREAM_ERROR,
    426: ErrorCode.UPSTREAM_ERROR,
    429: ErrorCode.RATE_LIMITED,
    431: ErrorCode.UPSTREAM_ERROR,
    451: ErrorCode.PERMISSION_DENIED,
    498: ErrorCode.UPSTREAM_OVERLOADED,  # no flex capacity: groq-docs
    499: ErrorCode.UPSTREAM_ERROR,  # the gateway's own client went away: nginx ngx_http_request.h
    502: ErrorCode.UPSTREAM_ERROR,
    503: ErrorCode.UPSTREAM_ERROR,
    504: ErrorCode.UPSTREAM_TIMEOUT,
    524: ErrorCode.UPSTREAM_TIMEOUT,
    529: ErrorCode.UPSTREAM_OVERLOADED,
}
"""Statuses that decide where no name does (RFC 9110 15, and the unregistered ones of nginx and Cloudflare)."""

MEANT_WITHOUT_WORDS: Final = frozenset({401, 402, 408, 409, 413, 425, 429})
"""Statuses of 4xx that mean the same from a proxy. Any other, without an error of the API, is trouble in front
of it: an ingress without a route (kubernetes/ingress-nginx#3888), a CDN's page (openai/codex#4284)."""

_LIMIT_AND_ASKED: Final = re.compile(r"\blimit:? (\d{1,12})\b.{0,80}?\brequested:? (\d{1,12})\b", re.ASCII)


def _never_fits(text: str) -> bool:
    """Whether a 429 is about this one request, larger than the whole bucket, and not about the rate."""
    found = _LIMIT_AND_ASKED.search(text)
    return "request too large" in text or (found is not None and int(found[2]) > int(found[1]))


_MONEY: Final = re.compile(r"额度|額度|余额|餘額|欠费|quota|balance(?!r)|exhausted|\bcredits?\b").search
# On a 429 only whole phrases count: Azure advertises a "quota increase" in every plain rate limit. The phrases
# are those of openai-docs, one-api#1270, new-api#7448, openclacky#100, litellm#4208 and #14144, gptme/gptme#1449
# ("key limit exceeded") and openrouter-docs.
_EMPTY_WALLET: Final = re.compile(
    r"exceeded your current quota|insufficient (?:account )?(?:balance|quota|credit|fund)"
    r"|quota (?:has been|is) exhausted|quota.{0,40}is not enough|(?:余额|额度|餘額|額度)(?:不足|已用尽|已用盡)|欠费"
    r"|预扣费|预扣额度|budget has been exceeded|exceeded ?budget|crossed budget|over budget"
    r"|(?:key|spend|spending|credit) limit (?:has been )?(?:exceeded|reached)|requires more credits"
    r"|credit balance is too low"
).search
_CONTEXT: Final = re.compile(r"context length|context window|上下文长度").search
_CONTENT: Final = re.compile(
    r"content (?:management |moderation )?policy|content moderation|safety system|敏感词|敏感詞|违规|違規"
).search
# Whole phrases that no mere permission is refused with: openrouter-docs, openai-docs.
_FLAGGED: Final = re.compile(
    r"\b(?:input|prompt|content|request|output)\b.{0,40}\bflagged\b|\bflagged (?:by|as|for)\b|requires moderation"
    r"|(?:content|our) moderation|prompt injection|safety system|usage polic(?:y|ies)"
    r"|violat\w{1,4} .{0,40}polic(?:y|ies)|敏感词|敏感詞|内容审核|违规|違規"
).search
_NO_MODEL: Final = re.compile(
    r"no available channel|无可用渠道|無可用管道"
    r"|\bmodel\b.{1,80} (?:does not exist|not found)|模型.{0,40}不存在"
).search
_BUSY: Final = re.compile(r"overloaded|at capacity|负载已饱和|負載已飽和|繁忙").search
_TOO_SLOW: Final = re.compile(r"context deadline exceeded|awaiting (?:response )?headers|请求超时").search
_NO_RESOURCES: Final = re.compile(r"resource unavailable").search
# ai-genie/chatgpt-vscode#100, anthropics/claude-code#70343: what a server says of itself.
_SERVER: Final = re.compile(
    r"server (?:had|encountered) an error|internal (?:server )?error|(?:an|unexpected|unknown) error occurred"
    r"|error (?:occurred )?while processing your request|retry your request|try again later"
    r"|upstream (?:connect )?(?:error|failed)|connection (?:reset|refused)|bad gateway|service unavailable"
    r"|temporarily unavailable|something went wrong|服务器(?:内部)?错误|内部错误"
).search
# new-api controller/relay.go; kong/kong; microsoft/autogen#3953 (Azure, about a wrong address); LiteLLM 1.106 about
# a page that is no error object.
_NO_ROUTE: Final = re.compile(
    r"invalid url \(|no route matched|^(?:resource|page) not found$"
    r"|exception - (?:404: not found|405: method not allowed|403: forbidden)"
).search

WORDED: Final[tuple[tuple[ErrorCode, bool, Shows, ErrorCode], ...]] = (
    (ErrorCode.RATE_LIMITED, True, _never_fits, ErrorCode.REQUEST_TOO_LARGE),
    (ErrorCode.AUTHENTICATION_FAILED, True, _MONEY, ErrorCode.QUOTA_EXHAUSTED),
    (ErrorCode.AUTHENTICATION_FAILED, True, _EMPTY_WALLET, ErrorCode.QUOTA_EXHAUSTED),
    (ErrorCode.RATE_LIMITED, False, _EMPTY_WALLET, ErrorCode.QUOTA_EXHAUSTED),
    (ErrorCode.RATE_LIMITED, False, _NO_RESOURCES, ErrorCode.UPSTREAM_OVERLOADED),
    (ErrorCode.PERMISSION_DENIED, True, _EMPTY_WALLET, ErrorCode.QUOTA_EXHAUSTED),
    (ErrorCode.PERMISSION_DENIED, True, _FLAGGED, ErrorCode.CONTENT_REJECTED),
    (ErrorCode.PERMISSION_DENIED, False, _MONEY, ErrorCode.QUOTA_EXHAUSTED),
    (ErrorCode.PERMISSION_DENIED, False, _CONTENT, ErrorCode.CONTENT_REJECTED),
    (ErrorCode.REQUEST_TOO_LARGE, False, _CONTEXT, ErrorCode.CONTEXT_LENGTH_EXCEEDED),
    (ErrorCode.INVALID_REQUEST, False, _CONTEXT, ErrorCode.CONTEXT_LENGTH_EXCEEDED),
    (ErrorCode.INVALID_REQUEST, False, _CONTENT, ErrorCode.CONTENT_REJECTED),
    (ErrorCode.INVALID_REQUEST, False, _FLAGGED, ErrorCode.CONTENT_REJECTED),
    (ErrorCode.INVALID_REQUEST, False, _EMPTY_WALLET, ErrorCode.QUOTA_EXHAUSTED),
    (ErrorCode.INVALID_REQUEST, False, _NO_MODEL, ErrorCode.MODEL_UNAVAILABLE),
    (ErrorCode.INVALID_REQUEST, False, _NO_ROUTE, ErrorCode.UPSTREAM_ERROR),
    (ErrorCode.UPSTREAM_ERROR, False, _NO_MODEL, ErrorCode.MODEL_UNAVAILABLE),
    (ErrorCode.UPSTREAM_ERROR, False, _BUSY, ErrorCode.UPSTREAM_OVERLOADED),
    (ErrorCode.UPSTREAM_ERROR, False, _TOO_SLOW, ErrorCode.UPSTREAM_TIMEOUT),
)
"""Words correct what was decided so far: (decided, even if by a name, what the text shows, what it is)."""

OF_A_SERVER: Final = _SERVER
"""Words of a server about itself: under 5xx they beat a vague name that blames the request."""

OF_A_LOST_ANSWER: Final = re.compile(
    r"before any terminal event|payload is not completed|incomplete chunked read|peer closed connection"
    r"|connection reset by peer|server disconnected|stream_read_error|unexpected eof"
    r'|exception - (?:\n|\{.{0,200}"object": ?"response")'
).search
"""A gateway lost its upstream's answer midway, which may have been billed: LiteLLM 1.106, Wei-Shaw/sub2api#1471 and
#6410, new-api's words for Go's io.ErrUnexpectedEOF."""

LIMITS: Final[tuple[tuple[Limit, Shows], ...]] = (
    ("concurrency", re.compile(r"concurren|并发").search),
    ("tokens", re.compile(r"\btokens? (?:per|rate)\b|\btp[md]\b").search),
    ("requests", re.compile(r"\brequests? (?:per|rate)\b|\brp[md]\b").search),
)

SCOPES: Final[dict[ErrorCode, Scope]] = {
    ErrorCode.INVALID_REQUEST: "request",
    ErrorCode.CONTEXT_LENGTH_EXCEEDED: "request",
    ErrorCode.REQUEST_TOO_LARGE: "request",
    ErrorCode.CONTENT_REJECTED: "request",
    ErrorCode.MODEL_UNAVAILABLE: "model",
    ErrorCode.AUTHENTICATION_FAILED: "account",
    ErrorCode.QUOTA_EXHAUSTED: "account",
    ErrorCode.RATE_LIMITED: "account",
}
"""The owner of a code's trouble, where neither names nor words say otherwise; any other code is unknown."""

# More than the rest of a wallet: Taewan-P/gpt_mobile#284, openclacky#100. A wallet with nothing in it is empty
# for everybody: anomalyco/opencode#12219, new-api#7448.
_NOTHING_LEFT: Final = re.compile(
    r"can only afford 0\b|剩余额度[^\d-]{1,4}(?:-|0(?:\.0+)?(?![\d.]))|quota \[(?:-\d|0\])"
).search
_TOO_DEAR: Final = re.compile(r"can only afford|fewer max_tokens|预扣费|预扣额度|preconsumedquota").search
_OF_A_MODEL: Final = re.compile(
    r"(?:on|of|for|to) (?:this|the requested) model|access to model|per[- ]?model|exceeded budget for model"
    r"|exceeded budget for deployment|(?:访问|使用)模型"
).search
_OF_A_TIER: Final = re.compile(r"service[_ ]tier|flex (?:tier|processing)|resource unavailable").search

OF_AN_ACCOUNT: Final = re.compile(r"\bip\b|organi[sz]ation|\bgroup\b|\bregion\b|country|banned|分组|封禁").search
"""A refused permission that any request of this key would meet: new-api middleware/auth.go, openai-docs."""

WORDED_SCOPES: Final[tuple[tuple[Shows, Scope], ...]] = (
    (_NOTHING_LEFT, "account"),
    (_TOO_DEAR, "request"),
    (_OF_A_TIER, "request"),
    (_OF_A_MODEL, "model"),
)
"""The scope of the trouble that a text tells, for every code. Model: router-for-me/CLIProxyAPI#1590, litellm#14144,
continuedev/continue#10120. Tier: the flex guides of OpenAI and Groq, above."""

NAMED_SCOPES: Final[dict[str, Scope]] = {
    "resource_unavailable": "request",
    "capacity_exceeded": "request",
    "model_not_allowed": "model",
    "ip_not_allowed": "account",
    "group_not_allowed": "account",
    "unsupported_country_region_territory": "account",
}
