"""One row per dialect of error: what arrives, and what must follow from it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from api_contracts.errors import ErrorCode as Code
from worker.failures import failure as failures
from worker.failures.failure import Failure, Route

SATURATED = "当前分组上游负载已饱和"
TPM = "on tokens per min (TPM): Limit 30000"
TOO_LARGE = f"Request too large for gpt-5.4-mini {TPM}, Requested 34307."
RATE = f"Rate limit reached for gpt-5.4-mini {TPM}, Used 29000, Requested 4000. Please try again in 2.5s."
HTML = "<html><head><title>502 Bad Gateway</title></head><body><center>nginx</center></body></html>"


def error(code: object = None, message: object = "no", **more: object) -> dict[str, object]:
    return {"error": {"message": message, "code": code, **more}}


@dataclass(frozen=True)
class Row:
    status: int
    body: object
    code: Code
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    then: Mapping[str, object] = field(default_factory=dict[str, object])

    def failure(self) -> Failure:
        body = self.body if isinstance(self.body, str) else json.dumps(self.body, ensure_ascii=False)
        return failures.from_http(self.status, self.headers, body.encode())

    def check(self) -> None:
        """The row's statement holds; where it says nothing, the route is that of its code."""
        failure = self.failure()
        assert failure.code is self.code
        expected = {"route": ROUTES.get(self.code, Route.ANSWER), "http_status": self.status, **self.then}
        assert {name: getattr(failure, name) for name in expected} == expected


QUOTA, RATE_LIMITED, TIMEOUT = Code.QUOTA_EXHAUSTED, Code.RATE_LIMITED, Code.UPSTREAM_TIMEOUT
AUTH, INVALID, BROKEN = Code.AUTHENTICATION_FAILED, Code.INVALID_REQUEST, Code.UPSTREAM_ERROR
REJECTED, OVERLOADED, NO_MODEL = Code.CONTENT_REJECTED, Code.UPSTREAM_OVERLOADED, Code.MODEL_UNAVAILABLE
TOO_LONG, TOO_BIG, DENIED = Code.CONTEXT_LENGTH_EXCEEDED, Code.REQUEST_TOO_LARGE, Code.PERMISSION_DENIED
ANSWERED_404 = {"route": Route.ANSWER, "retryable": False, "max_attempts": None}
NO_CHANNEL = {"route": Route.RETRY, "retryable": True, "max_attempts": 3}
COSTLY = {"max_attempts": 2, "maybe_billed": True}

RETRIED = (BROKEN, OVERLOADED, TIMEOUT, Code.UPSTREAM_UNREACHABLE, Code.INVALID_RESPONSE)
PAUSED = {QUOTA: Route.CREDENTIAL, AUTH: Route.CREDENTIAL, RATE_LIMITED: Route.THROTTLE}
ROUTES = PAUSED | dict.fromkeys(RETRIED, Route.RETRY)
