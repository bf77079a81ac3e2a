"""Codes before statuses before words: each name is met where nothing else could have decided the same."""

import pytest

from api_contracts.errors import ErrorCode as Code
from worker.failures.error_classifier import judge
from worker.failures.error_reader import ReportedError

DECISIVE = {
    Code.QUOTA_EXHAUSTED: """
        insufficient_quota credit_balance_exhausted project_spend_limit_exceeded billing_not_active
        organization_usage_limit_exceeded billing_hard_limit_reached insufficient_user_quota
        pre_consume_token_quota_failed entitlement_missing token_quota_exhausted insufficient_balance
        insufficient_credits
    """,
    Code.RATE_LIMITED: """
        slow_down rate_limit_exceeded rate_limit_error model_rate_limit rate_limited too_many_requests
        resource_exhausted requests tokens request_concurrency_limited
    """,
    Code.REQUEST_TOO_LARGE: "request_too_large payload_too_large request_entity_too_large",
    Code.CONTEXT_LENGTH_EXCEEDED: "context_length_exceeded string_above_max_length",
    Code.CONTENT_REJECTED: """
        content_filter content_policy_violation image_content_policy_violation misalignment_policy_violation
        invalid_prompt bio_policy sensitive_words_detected prompt_blocked
    """,
    Code.MODEL_UNAVAILABLE: "model_not_found deployment_not_found no_available_channel unsupported_model",
    Code.AUTHENTICATION_FAILED: """
        invalid_api_key authentication_error unauthenticated unauthorized invalid_authentication
        account_deactivated
    """,
    Code.PERMISSION_DENIED: """
        access_denied permission_denied permission_error ip_not_allowed group_not_allowed model_not_allowed
        unsupported_country_region_territory data_residency_mismatch
    """,
    Code.UPSTREAM_OVERLOADED: """
        server_is_overloaded overloaded_error overloaded engine_overloaded service_unavailable_error
    """,
    Code.INVALID_REQUEST: """
        count_token_failed model_price_error convert_request_failed bad_request_body read_request_body_failed
        unsupported_parameter unknown_parameter missing_required_parameter invalid_image_url image_too_small
    """,
}
VAGUE = {
    Code.UPSTREAM_ERROR: """
        server_error internal_error internal_server_error do_request_failed get_channel_failed
        query_data_error update_data_error vector_store_timeout
    """,
    Code.UPSTREAM_TIMEOUT: "timeout request_timeout timeout_error deadline_exceeded",
    Code.INVALID_REQUEST: "invalid_request invalid_request_error invalid_argument bad_request",
}


def pairs(table: dict[Code, str]) -> list[tuple[str, Code]]:
    return [(name, code) for code, names in table.items() for name in names.split()]


def verdict(status: int | None, *names: str, text: str = "") -> Code:
    return judge(ReportedError(status=status, names=names, text=text)).code


@pytest.mark.parametrize(("name", "code"), pairs(DECISIVE))
@pytest.mark.parametrize("status", [None, 302, 400, 500])
def test_a_decisive_name_wins_over_any_status(name: str, code: Code, status: int | None) -> None:
    assert verdict(status, "upstream_error", name) is code


@pytest.mark.parametrize(("name", "code"), pairs(VAGUE))
def test_a_vague_name_decides_only_where_the_status_does_not(name: str, code: Code) -> None:
    assert verdict(302, name) is code
    assert verdict(429, name) is Code.RATE_LIMITED
    assert verdict(502, name) is Code.UPSTREAM_ERROR
    assert verdict(503, name) is Code.UPSTREAM_ERROR


STATUSES = {
    400: Code.INVALID_REQUEST,
    401: Code.AUTHENTICATION_FAILED,
    402: Code.QUOTA_EXHAUSTED,
    403: Code.PERMISSION_DENIED,
    451: Code.PERMISSION_DENIED,
    500: Code.UPSTREAM_ERROR,
    529: Code.UPSTREAM_OVERLOADED,
    599: Code.UPSTREAM_ERROR,
    600: Code.UPSTREAM_ERROR,  # an invalid status counts as 5xx: RFC 9110, section 15
    999: Code.UPSTREAM_ERROR,
    None: Code.UPSTREAM_ERROR,
}


@pytest.mark.parametrize(("status", "code"), STATUSES.items())
def test_an_unknown_name_leaves_the_decision_to_the_status(status: int | None, code: Code) -> None:
    assert verdict(status, "new_in_2027") is code


WORDED = {
    "wallet, of 429": (429, "insufficient account balance", Code.QUOTA_EXHAUSTED),
    "wallet, of 403": (403, "账户余额不足", Code.QUOTA_EXHAUSTED),
    "load balancer, of 401": (401, "refused by the load balancer", Code.AUTHENTICATION_FAILED),
    "content, of 403": (403, "against the content policy", Code.CONTENT_REJECTED),
    "context, of 400": (400, "the maximum context length is 9", Code.CONTEXT_LENGTH_EXCEEDED),
    "model, of 400": (400, "model `x` not found", Code.MODEL_UNAVAILABLE),
    "busy, of 500": (500, "系统繁忙", Code.UPSTREAM_OVERLOADED),
    "slow, of 502": (502, "timeout awaiting response headers", Code.UPSTREAM_TIMEOUT),
    "limit just met": (429, "limit 3, used 3, requested 3", Code.RATE_LIMITED),
}


@pytest.mark.parametrize(("status", "text", "code"), WORDED.values(), ids=WORDED)
def test_words_correct_what_a_status_decided(status: int, text: str, code: Code) -> None:
    assert verdict(status, text=text) is code


def test_words_do_not_correct_what_a_name_decided_save_where_names_are_known_to_lie() -> None:
    wallet = "you exceeded your current quota"

    assert verdict(429, "rate_limit_exceeded", text=wallet) is Code.RATE_LIMITED
    assert verdict(403, "access_denied", text="quota, content policy") is Code.PERMISSION_DENIED
    assert verdict(413, "request_too_large", text="context length") is Code.REQUEST_TOO_LARGE
    assert verdict(400, "unknown_parameter", text="content policy, context length") is Code.INVALID_REQUEST
    assert verdict(400, "unsupported_value", text="model `x` does not exist") is Code.INVALID_REQUEST
    assert verdict(429, "rate_limit_exceeded", text="request too large") is Code.REQUEST_TOO_LARGE
    assert verdict(401, "invalid_api_key", text=wallet) is Code.QUOTA_EXHAUSTED


def test_only_a_bare_status_counts_as_decided_by_it() -> None:
    assert judge(ReportedError(status=400, names=("new_in_2027",), text="no")).by_status
    assert not judge(ReportedError(status=400, names=("bio_policy",), text="")).by_status
    assert not judge(ReportedError(status=400, names=(), text="maximum context length")).by_status


def test_the_first_name_wins_whatever_the_order_of_the_table() -> None:
    assert verdict(429, "rate_limit_exceeded", "insufficient_quota") is Code.RATE_LIMITED
    assert verdict(429, "insufficient_quota", "rate_limit_exceeded") is Code.QUOTA_EXHAUSTED
