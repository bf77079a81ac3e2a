"""Every dialect the mapping table knows, one row each: what arrives, and what must follow from it."""

import json
from collections.abc import Mapping

import pytest
from support.error_rows import (
    ANSWERED_404,
    AUTH,
    BROKEN,
    COSTLY,
    DENIED,
    HTML,
    INVALID,
    NO_CHANNEL,
    NO_MODEL,
    OVERLOADED,
    QUOTA,
    RATE,
    RATE_LIMITED,
    REJECTED,
    ROUTES,
    SATURATED,
    TIMEOUT,
    TOO_BIG,
    TOO_LARGE,
    TOO_LONG,
    Row,
    error,
)

from api_contracts.errors import ErrorCode as Code
from api_contracts.errors import UpstreamError
from worker.failures import failure as failures
from worker.failures.failure import Failure, Route, TransportKind

HTTP: dict[str, Row] = {
    "3 credit": Row(429, error("credit_balance_exhausted", type="insufficient_quota"), QUOTA),
    "3 org spend": Row(429, error("organization_spend_limit_exceeded"), QUOTA),
    "3 project spend": Row(429, error("project_spend_limit_exceeded"), QUOTA),
    "3 usage": Row(429, error("organization_usage_limit_exceeded"), QUOTA),
    "3 insufficient": Row(429, error("insufficient_quota"), QUOTA),
    "3 billing": Row(429, error("billing_not_active"), QUOTA),
    "3 unknown code, known type": Row(429, error("wallet_new_2027", type="insufficient_quota"), QUOTA),
    "3 code beats saturated text": Row(429, error("insufficient_user_quota", SATURATED), QUOTA),
    "3 only text": Row(429, error(message="You exceeded your current quota, check your plan"), QUOTA),
    "3 402": Row(402, "", QUOTA),
    "4 user quota": Row(403, error("insufficient_user_quota", type="new_api_error"), QUOTA),
    "4 token quota": Row(403, error("pre_consume_token_quota_failed"), QUOTA),
    "4 entitlement": Row(403, error("entitlement_expired"), QUOTA),
    "4 one-api text": Row(403, error(message="用户额度不足", type="one_api_error"), QUOTA),
    "5 chinese": Row(401, error("", "该令牌额度已用尽 TokenStatusExhausted[sk-abc***xyz]"), QUOTA),
    "5 english": Row(401, error("invalid_api_key", "token quota exhausted"), QUOTA),
    "6 openai": Row(401, error("invalid_api_key", "Incorrect API key", type="invalid_request_error"), AUTH),
    "6 new-api": Row(401, error("", "无效的令牌 (request id: 2026)", type="new_api_error"), AUTH),
    "6 empty": Row(401, "", AUTH),
    "6 remapped": Row(500, error("invalid_api_key"), AUTH),
    "7 denied": Row(403, error("access_denied", "您的 IP 不在允许访问的列表中"), DENIED),
    "7 model": Row(403, error(message="该令牌无权访问模型 gpt-5.4-mini"), DENIED),
    "7 region": Row(403, error("unsupported_country_region_territory"), DENIED),
    "7 wrapped": Row(403, error("bad_response_status_code", "openai_error"), DENIED),
    "8 slow down": Row(429, error("slow_down", type="rate_limit_error"), RATE_LIMITED),
    "9 tokens": Row(429, error("rate_limit_exceeded", RATE), RATE_LIMITED, {}, {"limit": "tokens"}),
    "9 by type": Row(429, error(None, type="requests"), RATE_LIMITED, {}, {"limit": "requests"}),
    "9 parallel": Row(429, error("concurrency_limit_reached"), RATE_LIMITED, {}, {"limit": "concurrency"}),
    "9 type only": Row(429, error(type="rate_limit_error"), RATE_LIMITED),
    "9 relayed": Row(429, error("upstream_error"), RATE_LIMITED, {}, {"limit": None}),
    "9 saturated": Row(429, error(None, SATURATED, type="new_api_error"), RATE_LIMITED),
    "9 empty": Row(429, "", RATE_LIMITED, {}, {"upstream": None}),
    "9 html": Row(429, HTML, RATE_LIMITED),
    "9 azure": Row(429, error("429", "exceeded token rate limit, see aka.ms/oai/quotaincrease"), RATE_LIMITED),
    "9 number": Row(500, error(429), RATE_LIMITED, {}, {"http_status": 500}),
    "9 old param": Row(500, error("bad_response_status_code", param="429"), RATE_LIMITED),
    "9 status in text": Row(502, error("upstream_error", "bad response status code 429"), RATE_LIMITED),
    "9 code in text": Row(500, error("upstream_error", json.dumps(error("rate_limit_exceeded"))), RATE_LIMITED),
    "9 cut python dict": Row(500, "Error code: 429 - {'error': {'code': 'rate_limit_exc", RATE_LIMITED),
    "9 google": Row(429, [error(429, status="RESOURCE_EXHAUSTED")], RATE_LIMITED),
    "10 openai": Row(429, error("rate_limit_exceeded", TOO_LARGE), TOO_BIG, {}, {"limit": "tokens"}),
    "10 numbers": Row(429, error(None, "TPM: Limit 8000, Requested 8391"), TOO_BIG),
    "10 413": Row(413, HTML, TOO_BIG),
    "11 code": Row(400, error("context_length_exceeded"), TOO_LONG),
    "11 too long": Row(422, error("string_above_max_length"), TOO_LONG),
    "11 text": Row(413, error(message="This model's maximum context length is 9"), TOO_LONG),
    "11 remapped": Row(500, error("context_length_exceeded"), TOO_LONG),
    "12 policy": Row(400, error("content_policy_violation"), REJECTED),
    "12 filter": Row(400, error("content_filter", innererror={"code": "RateLimitReached"}), REJECTED),
    "12 prompt": Row(400, error("invalid_prompt"), REJECTED),
    "12 bio": Row(400, error("bio_policy"), REJECTED),
    "12 gateway": Row(500, error("sensitive_words_detected", "敏感词", type="new_api_error"), REJECTED),
    "12 blocked": Row(400, error("prompt_blocked"), REJECTED),
    "12 text": Row(400, error("bad_response_status_code", "rejected by content moderation"), REJECTED),
    "13 400": Row(400, error("unknown_parameter", type="invalid_request_error"), INVALID),
    "13 415": Row(415, error("whatever"), INVALID),
    "13 418": Row(418, error("whatever"), INVALID),
    "13 422": Row(422, {"detail": [{"loc": ["body"], "msg": "field required", "type": "missing"}]}, INVALID),
    "13 unsupported": Row(500, error("unsupported_value"), INVALID),
    "13 quotes a prompt": Row(400, error("invalid_value", '{"code": "insufficient_quota"}'), INVALID),
    "14 404": Row(404, error("model_not_found"), NO_MODEL, {}, ANSWERED_404),
    "14 404 text": Row(404, error(message="The model `x` does not exist"), NO_MODEL, {}, ANSWERED_404),
    "14 503": Row(503, error("model_not_found", type="new_api_error"), NO_MODEL, {}, NO_CHANNEL),
    "14 503 text": Row(503, error(message="分组 default 下模型 x 无可用渠道"), NO_MODEL, {}, NO_CHANNEL),
    "15 request": Row(500, error("invalid_request", type="new_api_error"), INVALID),
    "15 count": Row(500, error("count_token_failed"), INVALID),
    "15 price": Row(500, error("model_price_error"), INVALID),
    "15 convert": Row(500, error("convert_request_failed"), INVALID),
    "15 body": Row(500, error("bad_request_body"), INVALID),
    "15 status in code": Row(500, error("400"), INVALID),
    "16 408": Row(408, "", BROKEN),
    "16 409": Row(409, error(type="invalid_request_error"), BROKEN),
    "16 425": Row(425, error("whatever"), BROKEN),
    "17 openai": Row(503, error("server_is_overloaded", type="service_unavailable_error"), OVERLOADED),
    "17 529": Row(529, {"type": "error", "error": {"type": "overloaded_error"}}, OVERLOADED),
    "17 text": Row(503, error(message=SATURATED), OVERLOADED),
    "18 server": Row(500, error("server_error"), BROKEN, {}, {"max_attempts": None, "maybe_billed": False}),
    "18 request failed": Row(500, error("do_request_failed"), BROKEN),
    "18 no channel": Row(500, error("get_channel_failed"), BROKEN),
    "18 bad response": Row(502, error("bad_response_body"), BROKEN),
    "18 html": Row(502, HTML, BROKEN),
    "18 empty": Row(503, "", BROKEN),
    "18 error is text": Row(500, {"error": "boom"}, BROKEN),
    "18 error is a list": Row(500, {"error": [{"code": "server_error"}]}, BROKEN),
    "18 no error": Row(500, {"success": False, "message": "数据库错误"}, BROKEN),
    "18 cloudflare": Row(520, HTML, BROKEN),
    "19 504": Row(504, HTML, TIMEOUT, {}, COSTLY),
    "19 524": Row(524, error("bad_response_status_code", "openai_error"), TIMEOUT, {}, COSTLY),
    "19 gateway gave up": Row(500, error("do_request_failed", "context deadline exceeded"), TIMEOUT, {}, COSTLY),
    "25 redirect": Row(302, HTML, Code.INVALID_RESPONSE, {}, {"route": Route.ANSWER, "maybe_billed": False}),
    "25 no content": Row(204, "", Code.INVALID_RESPONSE, {}, {"route": Route.ANSWER}),
}

NEVER_AGAIN = {
    *(INVALID, TOO_LONG, TOO_BIG, REJECTED, NO_MODEL, DENIED, Code.DUPLICATE_CONFLICT),
    *(Code.INCOMPLETE_MAX_TOKENS, Code.DEADLINE_EXCEEDED, Code.CANCELLED),
}


@pytest.mark.parametrize("row", HTTP.values(), ids=HTTP)
def test_an_http_error_becomes_the_failure_of_its_row(row: Row) -> None:
    row.check()


@pytest.mark.parametrize("code", Code)
def test_every_code_has_consequences_that_agree_with_the_interface(code: Code) -> None:
    plain = Failure.of(code)

    assert plain.code is code
    assert plain.route is ROUTES.get(code, Route.ANSWER)
    assert plain.retryable is (code not in NEVER_AGAIN)


def response(status: str, **more: object) -> dict[str, object]:
    return {"id": "resp_1", "object": "response", "status": status, "error": None, "output": [], **more}


FILTERED = response("incomplete", incomplete_details={"reason": "content_filter"})
CUT_OFF = response("incomplete", incomplete_details={"reason": "max_output_tokens"})
FAILED = response("failed", error={"code": "rate_limit_exceeded", "message": RATE})
OBJECTS: dict[str, tuple[object, Code, Mapping[str, object]]] = {
    "21 top-level error": (error("insufficient_user_quota"), QUOTA, {"route": Route.CREDENTIAL}),
    "21 numeric": (error(429), RATE_LIMITED, {"route": Route.THROTTLE}),
    "21 error beside a response": (response("failed", error="boom", code="slow_down"), RATE_LIMITED, {}),
    "21 failed": (FAILED, RATE_LIMITED, {"limit": "tokens", "retry_after_s": 2.5, "response": None}),
    "21 failed event": ({"type": "response.failed", "response": FAILED}, RATE_LIMITED, {}),
    "21 error event": ({"type": "error", "code": "server_error", "message": "no"}, BROKEN, {}),
    "21 nested error event": ({"type": "error", "error": {"type": "overloaded_error"}}, OVERLOADED, {}),
    "21 prompt": (response("failed", error={"code": "invalid_prompt"}), REJECTED, {}),
    "21 wrapped": (error("upstream_error", "status_code=429"), RATE_LIMITED, {"http_status": 200}),
    "21 no such model": (error("model_not_found"), NO_MODEL, {"route": Route.ANSWER}),
    "21 unknown": (response("failed", error={"code": "new_in_2027"}), BROKEN, {"maybe_billed": False}),
    "21 failed late": (response("failed", usage={"total_tokens": 9}), BROKEN, {"maybe_billed": True}),
    "21 success false": ({"success": False, "message": "boom"}, BROKEN, {"route": Route.RETRY}),
    "22": (CUT_OFF, Code.INCOMPLETE_MAX_TOKENS, {"route": Route.ANSWER, "response": b"raw"}),
    "22 event": ({"type": "response.incomplete", "response": CUT_OFF}, Code.INCOMPLETE_MAX_TOKENS, {}),
    "22 unknown reason": (response("incomplete"), Code.INCOMPLETE_MAX_TOKENS, {"response": b"raw"}),
    "23": (FILTERED, REJECTED, {"route": Route.ANSWER, "response": b"raw", "upstream": None}),
    "24 running": (response("in_progress"), Code.INVALID_RESPONSE, {"response": b"raw", **COSTLY}),
    "24 queued": (response("queued"), Code.INVALID_RESPONSE, {"response": b"raw"}),
    "24 cancelled": (response("cancelled"), Code.INVALID_RESPONSE, {"response": b"raw"}),
    "24 chat": ({"object": "chat.completion"}, Code.INVALID_RESPONSE, {"response": None, **COSTLY}),
    "24 not an object": ([1], Code.INVALID_RESPONSE, {"route": Route.RETRY, "http_status": 200}),
}


@pytest.mark.parametrize(("body", "code", "then"), OBJECTS.values(), ids=OBJECTS)
def test_a_200_that_is_no_answer_becomes_a_failure(body: object, code: Code, then: Mapping[str, object]) -> None:
    failure = failures.from_object(body, b"raw", {})

    assert failure is not None
    assert failure.code is code
    assert {name: getattr(failure, name) for name in then} == then


def test_a_completed_response_is_no_failure() -> None:
    body = response("completed")

    assert failures.from_object(body, b"", {}) is None
    assert failures.from_object({"type": "response.completed", "response": body}, b"", {}) is None


TRANSPORT: dict[TransportKind, tuple[Code, bool, int | None]] = {
    TransportKind.UNREACHABLE: (Code.UPSTREAM_UNREACHABLE, False, None),
    TransportKind.CONNECT_TIMEOUT: (Code.UPSTREAM_UNREACHABLE, False, None),
    TransportKind.WRITE_TIMEOUT: (TIMEOUT, False, None),
    TransportKind.RESET: (BROKEN, True, 2),
    TransportKind.STALE: (BROKEN, True, None),
    TransportKind.READ_TIMEOUT: (TIMEOUT, True, 2),
    TransportKind.TOTAL_TIMEOUT: (TIMEOUT, True, 2),
    TransportKind.CUT_SHORT: (Code.INVALID_RESPONSE, True, 2),
}


@pytest.mark.parametrize("kind", TransportKind)
def test_a_call_without_an_answer_is_retried_and_says_whether_it_may_cost(kind: TransportKind) -> None:
    failure = failures.from_transport(kind)

    assert (failure.code, failure.maybe_billed, failure.max_attempts) == TRANSPORT[kind]
    assert (failure.route, failure.http_status) == (Route.RETRY, None)


OVERRULED: dict[str, tuple[Row, Route]] = {
    "false ends a retry": (Row(500, "", BROKEN, {"X-Should-Retry": "false"}), Route.ANSWER),
    "false ends no pause": (Row(429, "", RATE_LIMITED, {"x-should-retry": "false"}), Route.THROTTLE),
    "true saves a bare 4xx": (Row(400, error("x"), INVALID, {"x-should-retry": "true"}), Route.RETRY),
    "true saves no named fault": (Row(400, error("bio_policy"), REJECTED, {"x-should-retry": "true"}), Route.ANSWER),
    "true saves no redirect": (Row(302, "", Code.INVALID_RESPONSE, {"x-should-retry": "true"}), Route.ANSWER),
    "nonsense is ignored": (Row(500, "", BROKEN, {"x-should-retry": "perhaps"}), Route.RETRY),
}


@pytest.mark.parametrize(("row", "route"), OVERRULED.values(), ids=OVERRULED)
def test_x_should_retry_changes_the_route_and_nothing_the_caller_is_told(row: Row, route: Route) -> None:
    failure = row.failure()

    assert failure.route is route
    assert (failure.code, failure.retryable) == (row.code, row.code not in NEVER_AGAIN)


def test_what_the_upstream_said_is_kept_apart_cut_and_without_the_key() -> None:
    body = error("invalid_api_key", "Bad key sk-abcdefghijklmnop " + "x" * 5000, type="auth")
    failure = Row(401, body, AUTH, {"X-Oneapi-Request-Id": "r-1", "x-request-id": "r-2"}).failure()
    mapped = failure.mapped()

    message = ("Bad key [key] " + "x" * 5000)[:1000]
    assert mapped.upstream == UpstreamError(code="invalid_api_key", type="auth", message=message, request_id="r-1")
    assert mapped.message == Failure.of(AUTH).message
    assert "Bad key" not in repr(failure)


def test_the_last_upstream_error_is_attached_to_a_passed_deadline() -> None:
    last = Row(503, error("server_is_overloaded"), OVERLOADED).failure()
    mapped = failures.deadline_exceeded(last).mapped()

    assert (mapped.code, mapped.retryable, mapped.http_status) == (Code.DEADLINE_EXCEEDED, False, 503)
    assert mapped.upstream == last.upstream
    assert failures.deadline_exceeded().mapped().upstream is None


def test_an_unusable_answer_says_why_in_words_of_ours() -> None:
    failure = failures.invalid_response("not JSON", 200)

    assert failure.message == "The upstream's answer is not a usable response: not JSON."
    assert (failure.route, failure.http_status, failure.max_attempts) == (Route.RETRY, 200, 2)
