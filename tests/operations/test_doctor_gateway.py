"""The doctor's view of a gateway; it never concludes more than an answer proves."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from support.doctor_findings import levels, one
from support.loopback import Loopback, Reply, Request

from worker.config.routing import Budget, Routing
from worker.devtools.devstack import Simulator
from worker.operations.findings import Severity
from worker.operations.gateway_health import examine_gateway
from worker.operations.routes_health import examine_routes

KEY = "sk-canary-key-77b0"
Answer = tuple[int, Any]
Answers = Callable[[str, str], Answer]
"""A gateway's answer to a path asked with this key, or with none."""


@dataclass
class Gateway(Loopback):
    """A gateway of few words, which keeps what it was asked."""

    answers: Answers
    asked: list[str] = field(default_factory=list[str])

    def answer(self, request: Request) -> Reply:
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        asked = f"{request.method} {request.path}"
        self.asked.append(f"{asked}{' keyed' if key else ''}")
        status, body = self.answers(asked, key)
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        return Reply(status, content, {"location": body} if status == 302 else {})


MODELS = (200, {"object": "list", "data": [{"id": "gpt-5.4-mini"}]})
UNAUTHORIZED = (401, {"error": {"message": "Invalid token", "type": "new_api_error"}})
INVALID = (400, {"error": {"message": "model is required", "type": "invalid_request_error"}})
NOT_FOUND = (404, {"error": {"message": "no such path"}})
USAGE = "GET /api/usage/token/"


def usage(**fields: Any) -> Answer:
    plain = {"object": "token_usage", "total_available": 10, "unlimited_quota": False, "expires_at": 0}
    return (200, {"code": True, "data": plain | fields})


def answering(keyed: Mapping[str, Answer], keyless: Answer = UNAUTHORIZED) -> Answers:
    return lambda path, key: keyed.get(path, NOT_FOUND) if key else keyless


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        pytest.param(
            answering({"GET /v1/models": MODELS, USAGE: usage()}),
            {"gateway.key": "ok", "gateway.model": "ok", "gateway.quota": "ok"},
            id="a list of models, for the key alone",
        ),
        pytest.param(
            answering({"GET /v1/models": MODELS, "POST /v1/responses": INVALID}, keyless=MODELS),
            {"gateway.key": "warn", "gateway.model": "ok"},
            id="a public list, and requests judged before keys: proves nothing",
        ),
        pytest.param(
            answering({"GET /v1/models": MODELS, "POST /v1/responses": UNAUTHORIZED}, keyless=MODELS),
            {"gateway.key": "fail"},
            id="a public list, a refused key",
        ),
        pytest.param(answering({"POST /v1/responses": INVALID}), {"gateway.key": "ok"}, id="no list, an empty request"),
        pytest.param(
            answering({"GET /v1/models": (200, "<html>"), "POST /v1/responses": INVALID}),
            {"gateway.key": "ok"},
            id="a web page for every path",
        ),
        pytest.param(answering({"POST /v1/responses": (500, "oops")}), {"gateway.key": "warn"}, id="neither works"),
        pytest.param(answering({"GET /v1/models": UNAUTHORIZED}), {"gateway.key": "fail"}, id="a refused key"),
        pytest.param(
            answering({"GET /v1/models": (200, {"data": [{"id": "other"}]})}),
            {"gateway.key": "ok", "gateway.model": "warn"},
            id="another model",
        ),
        pytest.param(
            answering({"GET /v1/models": MODELS, USAGE: usage(total_available=0)}),
            {"gateway.key": "ok", "gateway.model": "ok", "gateway.quota": "fail"},
            id="no quota left",
        ),
        pytest.param(
            answering({"GET /v1/models": MODELS, USAGE: usage(unlimited_quota=True, total_available=0)}),
            {"gateway.key": "ok", "gateway.model": "ok", "gateway.quota": "ok"},
            id="no quota of its own",
        ),
    ],
)
def test_what_each_answer_proves(answers: Answers, expected: dict[str, str]) -> None:
    """A gateway that answers is not yet one that takes the key; where nobody can tell, the doctor says so."""
    with Gateway(answers) as gateway:
        findings = list(examine_gateway(gateway.url, KEY))

    assert {check: level.value for check, level in levels(findings).items()} == {"gateway": "ok"} | expected
    assert KEY not in str(findings)
    assert len(gateway.asked) <= 5


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (usage(total_available=0), "though the gateway knows it: 0 units of quota left"),
        (usage(expires_at=1_600_000_000), "expires 2020-09-13 12:26 UTC"),
        ((200, {"success": False, "message": "no such token"}), "refused with HTTP 401 (authentication_failed)"),
    ],
)
def test_a_refused_key_is_explained_where_the_gateway_knows_it(answer: Answer, seen: str) -> None:
    """new-api answers the same 401 to a key that is wrong, expired or used up; its usage endpoint tells them apart."""
    with Gateway(answering({"GET /v1/models": UNAUTHORIZED, USAGE: answer})) as gateway:
        finding = one(examine_gateway(gateway.url, KEY), "gateway.key")

    assert finding.level is Severity.FAIL
    assert seen in finding.seen
    assert finding.change


def test_a_redirect_is_named() -> None:
    with Gateway(lambda _path, _key: (302, "https://elsewhere.example/")) as gateway:
        (finding,) = examine_gateway(gateway.url, KEY)

    assert finding.level is Severity.FAIL
    assert "redirects" in finding.seen


def test_an_unwell_gateway_is_a_warning() -> None:
    with Gateway(lambda _path, _key: (503, "")) as gateway:
        findings = list(examine_gateway(gateway.url, KEY))

    assert levels(findings) == {"gateway": Severity.WARN, "gateway.key": Severity.WARN}


def test_without_a_key_only_the_address_is_tried() -> None:
    with Gateway(answering({})) as gateway:
        findings = list(examine_gateway(gateway.url, ""))

    assert levels(findings) == {"gateway": Severity.OK}
    assert gateway.asked == ["GET /v1/models"]


def test_no_gateway_fails() -> None:
    (finding,) = examine_gateway("http://127.0.0.1:1", KEY)

    assert (finding.check, finding.level) == ("gateway", Severity.FAIL)


def test_a_check_of_the_gateway_starts_no_generation(gateway: Simulator) -> None:
    """Nothing is admitted, nothing is billed: only requests that must be refused are sent."""
    gateway.configure(keys=[KEY])

    assert one(examine_gateway(gateway.url, KEY), "gateway.key").level is Severity.OK
    assert one(examine_gateway(gateway.url, "sk-another"), "gateway.key").level is Severity.FAIL
    assert {call.status for call in gateway.calls()} == {400, 401}
    assert gateway.stats().admitted_tokens == 0


def test_a_route_for_all_models_is_asked_for_those_of_the_setting() -> None:
    """It names none of its own."""
    with Gateway(answering({"GET /v1/models": MODELS, USAGE: usage()})) as gateway:
        routing = Routing.single(gateway.url, lambda: KEY, Budget())
        findings = list(examine_routes(routing, ["gpt-5.4-mini", "gpt-6"]))

    assert one(findings, "routes.default.model").seen == "does not list gpt-6"
