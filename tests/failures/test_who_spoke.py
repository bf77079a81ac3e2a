"""The speaker of an error decides on blame, owner and alert: one row each."""

import json

import pytest
from support.error_rows import (
    AUTH,
    BROKEN,
    COSTLY,
    DENIED,
    HTML,
    INVALID,
    NO_MODEL,
    OVERLOADED,
    QUOTA,
    RATE_LIMITED,
    REJECTED,
    TOO_BIG,
    Row,
    error,
)

from api_contracts.errors import ErrorCode as Code
from worker.failures.failure import Route

FLAGGED = "Your chosen model requires moderation and your input was flagged for violence"
PAST_DUE = "Budget has been exceeded! Current cost: 26.1, Max budget: 0.2"
AFFORD = (
    "This request requires more credits, or fewer max_tokens. You requested up to 32000 tokens, but can only afford"
)
GEMINI = "You exceeded your current quota, please check your plan. Please retry in 45.578569677s."
WALLET = json.dumps(error("insufficient_user_quota", "用户额度不足"), ensure_ascii=False)
PREPAID = "预扣费额度失败, 用户剩余额度: \uff042.533620, 需要预扣费额度: \uff042.627750"
PREPAID_EMPTY = PREPAID.replace("2.533620", "-0.000002")

SPOKEN: dict[str, Row] = {
    "an ingress's 404": Row(404, "default backend - 404", BROKEN),
    "a proxy's 405": Row(405, HTML, BROKEN),
    "a CDN's 403": Row(403, "<html><title>Just a moment...</title></html>", BROKEN),
    "a bare 400": Row(400, "", BROKEN, {}, {"retryable": True}),
    "a teapot": Row(418, "", BROKEN),
    "an error of blanks": Row(400, error("", ""), BROKEN),
    "a refused method": Row(405, error(None, "Method not allowed", type="invalid_request_error"), BROKEN),
    "an address": Row(403, error("access_denied", "您的 IP 不在允许访问的列表中"), DENIED, {}, {"scope": "account"}),
    "an empty object": Row(404, {}, BROKEN),
    "kong's 404": Row(404, {"message": "no Route matched with those values"}, BROKEN),
    "FastAPI's 404": Row(404, {"detail": "Not Found"}, BROKEN),
    "Spring's 405": Row(405, {"timestamp": 1, "status": 405, "error": "Method Not Allowed", "path": "/v1"}, BROKEN),
    "error-pages' 404": Row(404, {"error": True, "code": "404", "message": "Not Found"}, BROKEN),
    "new-api's wrong path": Row(404, error("", "Invalid URL (POST /v1/x)", type="invalid_request_error"), BROKEN),
    "misdirected": Row(421, error("whatever"), BROKEN),
    "dependency": Row(424, error("ModelErrorException"), BROKEN),
    "client closed": Row(499, "", BROKEN),
    "flex of groq": Row(498, error("capacity_exceeded"), OVERLOADED, {}, {"scope": "request"}),
    "413 of nginx": Row(413, HTML, TOO_BIG),
    "a server's words": Row(500, error(None, "The server had an error", type="invalid_request_error"), BROKEN),
    "a caller's mistake": Row(500, error(None, "'input' is missing", type="invalid_request_error"), INVALID),
    "moderation": Row(403, error(403, FLAGGED), REJECTED, {}, {"scope": "request"}),
    "moderation by name": Row(403, error("content_moderation_failed"), REJECTED),
    "guardrail": Row(403, error("permission_denied", "Request blocked: prompt injection patterns detected"), REJECTED),
    "inspection": Row(400, error("DataInspectionFailed"), REJECTED),
    "budget by type": Row(400, error("400", PAST_DUE, type="budget_exceeded"), QUOTA),
    "budget by words": Row(400, error(400, PAST_DUE, type="auth_error"), QUOTA),
    "key limit": Row(403, error(403, "Key limit exceeded (monthly limit)."), QUOTA, {}, {"scope": "account"}),
    "nested wallet": Row(403, error(None, WALLET, type="permission_error"), QUOTA),
    "nested object": Row(
        403, error(None, {"error": {"code": "insufficient_user_quota"}}, type="permission_error"), QUOTA
    ),
    "plain permission": Row(403, error(None, "no", type="permission_error"), DENIED, {}, {"scope": "unknown"}),
    "too dear": Row(402, error(402, f"{AFFORD} 27342."), QUOTA, {}, {"scope": "request"}),
    "nothing left": Row(402, error(402, f"{AFFORD} 0."), QUOTA, {}, {"scope": "account"}),
    "prepaid": Row(403, error("access_denied", PREPAID), QUOTA, {}, {"scope": "request"}),
    "prepaid, empty": Row(403, error("access_denied", PREPAID_EMPTY), QUOTA, {}, {"scope": "account"}),
    "flex": Row(429, error("resource_unavailable"), OVERLOADED, {}, {"scope": "request"}),
    "flex in words": Row(429, error(None, "Resource Unavailable"), OVERLOADED, {}, {"scope": "request"}),
    "a stated wait": Row(429, error(429, GEMINI), RATE_LIMITED, {}, {"scope": "account"}),
    "a wait in a header": Row(429, error(message="exceeded your current quota"), RATE_LIMITED, {"retry-after": "9"}),
    "of a model": Row(
        429, error(None, "You have exhausted your capacity on this model."), RATE_LIMITED, {}, {"scope": "model"}
    ),
    "no such model": Row(404, error("model_not_found"), NO_MODEL, {}, {"scope": "model", "route": Route.ANSWER}),
    "a refused key": Row(401, error("invalid_api_key"), AUTH, {}, {"scope": "account"}),
    "a broken server": Row(500, "", BROKEN, {}, {"scope": "unknown"}),
}


def litellm(kind: str, said: object) -> str:
    """LiteLLM 1.106 passes on its upstream's words like this."""
    quoted = said if isinstance(said, str) else json.dumps(said)
    return (
        f"litellm.{kind}: {kind}: OpenAIException - {quoted}\n\nLiteLLM: model group 'm' failed with the error above."
    )


INVALID_TYPE = {"type": "invalid_request_error", "param": None}
LOST = "Response payload is not completed: <ContentLengthError: 400>"
RELAYED: dict[str, Row] = {
    "no model": Row(404, error("404", litellm("NotFoundError", error("model_not_found")), **INVALID_TYPE), NO_MODEL),
    "filter": Row(400, error("400", litellm("BadRequestError", error("content_filter")), **INVALID_TYPE), REJECTED),
    "wallet": Row(
        429, error("429", litellm("RateLimitError", error("credit_balance_exhausted")), type="throttling_error"), QUOTA
    ),
    "mistake": Row(
        500,
        error(
            "500", litellm("InternalServerError", error("invalid_request", type="new_api_error")), type="server_error"
        ),
        INVALID,
    ),
    "no route": Row(404, error("404", litellm("NotFoundError", "404: Not Found"), **INVALID_TYPE), BROKEN),
    "lost": Row(500, error("500", litellm("InternalServerError", LOST), type="server_error"), BROKEN, {}, COSTLY),
    "reset": Row(
        500, error("500", litellm("InternalServerError", "[Errno 104] Connection reset by peer")), BROKEN, {}, COSTLY
    ),
    "quotes a prompt": Row(400, error("400", 'litellm: {"code": "insufficient_quota"}', **INVALID_TYPE), INVALID),
}


@pytest.mark.parametrize("row", (SPOKEN | RELAYED).values(), ids=SPOKEN | RELAYED)
def test_an_error_is_the_trouble_of_whoever_caused_it(row: Row) -> None:
    row.check()


@pytest.mark.parametrize("status", [301, 302, 304, 307, 308])
def test_a_redirect_is_the_operators_mistake_and_says_so(status: int) -> None:
    """Following it would carry the key elsewhere."""
    failure = Row(status, HTML, Code.INVALID_RESPONSE).failure()

    assert "WORKER_UPSTREAM_URL" in failure.message
    assert (failure.route, failure.maybe_billed) == (Route.ANSWER, False)
