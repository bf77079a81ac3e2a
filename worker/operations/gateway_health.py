"""Whether the gateway answers, takes the key and serves the model: asked with requests that generate nothing.

| request                       | answer                   | proves                                                  |
|-------------------------------|--------------------------|---------------------------------------------------------|
| `GET /v1/models`              | a list, and 401 keyless  | the key exists, is enabled, not expired, not used up    |
|                               | a list, keyless as well  | nothing about the key: the list is public               |
|                               | 401, 403                 | the key is refused, as it will be for every call        |
| `POST /v1/responses` with {}  | 400, and 401 keyless     | the key is taken; there is no model and no input to run |
| `GET /api/usage/token/`       | a `token_usage` object   | what is left of the key's own quota; new-api only       |

None of them shows whether the account behind the key has money left, or whether the model works today. Sources:
new-api's `middleware/auth.go` (`TokenAuth` looks at status, expiry, quota and address before `/v1/models` and
`/v1/responses` alike; `TokenAuthReadOnly` takes expired and used-up keys) and `controller/token.go`
(`GetTokenUsage`); platform.openai.com/docs/api-reference/models/list.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Self, cast
from urllib.parse import urlsplit

import httpx

from api_contracts import MODELS, ErrorCode
from worker import __version__
from worker.failures.failure import from_http
from worker.operations.findings import Finding, fail, ok, warn

TIMEOUT_S: Final = 10.0
EXPIRES_SOON_S: Final = 7 * 24 * 3600

_REFUSING: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_JUDGED: Final = frozenset({ErrorCode.INVALID_REQUEST, ErrorCode.MODEL_UNAVAILABLE, ErrorCode.CONTEXT_LENGTH_EXCEEDED})
"""The answers of a gateway that has looked into the request itself."""


def direct(_url: str) -> str:
    """No proxy."""
    return ""


def examine_gateway(
    base_url: str, key: str, models: Collection[str] = MODELS, proxy_for: Callable[[str], str] = direct
) -> Iterator[Finding]:
    """Every finding about the gateway; only whether it answers, where there is no key to ask with.

    `models` are those that calls name there.
    """
    where = urlsplit(base_url).netloc
    try:
        proxy = proxy_for(base_url)
    except ValueError as error:
        yield fail("gateway", str(error), "correct the variable, or set WORKER_UPSTREAM_PROXY")
        return
    with _Gateway.at(base_url, key, proxy) as gateway:
        try:
            started = time.perf_counter()
            listing = gateway.models(keyed=bool(key))
            yield _reachable(where, listing, time.perf_counter() - started)
            if key and not listing.is_redirect:
                yield from _look(gateway, listing, models)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            what = str(error) or type(error).__name__
            yield fail("gateway", f"{where}: {what}", "correct WORKER_UPSTREAM_URL, or let this machine reach it")


@dataclass(frozen=True, slots=True)
class _Gateway:
    client: httpx.Client
    key: str

    @classmethod
    def at(cls, base_url: str, key: str, proxy: str) -> "_Gateway":
        """As the worker calls: by the same proxy, without redirects, with the same trusted certificates."""
        client = httpx.Client(
            base_url=base_url,
            headers={"user-agent": f"responses-worker/{__version__}"},
            timeout=TIMEOUT_S,
            trust_env=False,
            verify=httpx.create_ssl_context(),
            proxy=proxy or None,
        )
        return cls(client, key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def models(self, *, keyed: bool) -> httpx.Response:
        return self.client.get("/v1/models", headers=self._authorization(keyed=keyed))

    def empty_request(self, *, keyed: bool) -> httpx.Response:
        return self.client.post("/v1/responses", json={}, headers=self._authorization(keyed=keyed))

    def usage(self) -> Mapping[str, Any] | None:
        """The key's own account at a new-api; None elsewhere, or where it knows no such key."""
        data = _object(self.client.get("/api/usage/token/", headers=self._authorization(keyed=True))).get("data")
        usage = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
        return usage if usage.get("object") == "token_usage" else None

    def _authorization(self, *, keyed: bool) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"} if keyed else {}


def _reachable(where: str, response: httpx.Response, took_s: float) -> Finding:
    if response.is_redirect:
        return fail(
            "gateway",
            f"{where} redirects, and calls follow no redirect",
            "set WORKER_UPSTREAM_URL to where it leads",
        )
    if response.is_server_error:
        return warn("gateway", f"{where} answers HTTP {response.status_code}", "look again when the gateway is well")
    return ok("gateway", f"{where} answers in {took_s * 1000:.0f} ms")


def _look(gateway: _Gateway, listing: httpx.Response, models: Collection[str]) -> Iterator[Finding]:
    """Whether the key is taken, and what is known of its quota and of our models."""
    listed = _listed(listing)
    if listing.status_code in _REFUSING:
        yield _refused(listing, gateway.usage())
        return
    if listed is not None and gateway.models(keyed=False).status_code in _REFUSING:
        yield ok("gateway.key", "accepted: it may list the models, which without a key is refused")
    else:
        answer = gateway.empty_request(keyed=True)
        if answer.status_code in _REFUSING:
            yield _refused(answer, gateway.usage())
            return
        yield _judge_empty_request(answer, gateway)
    if listed is not None:
        yield _judge_models(listed, models)
    if usage := gateway.usage():
        yield judge_usage(usage, time.time())


def _judge_empty_request(answer: httpx.Response, gateway: _Gateway) -> Finding:
    """An empty request can only be refused; what matters is whether a missing key is refused before it."""
    seen = f"an empty request gets HTTP {answer.status_code}"
    if not answer.is_success and from_http(answer.status_code, answer.headers, answer.content).code in _JUDGED:
        if gateway.empty_request(keyed=False).status_code in _REFUSING:
            return ok("gateway.key", f"accepted: {seen}, and without a key it is refused for that")
        seen += " with and without a key"
    return warn("gateway.key", f"cannot be told: {seen}", "ask once: responses-worker submit 'Hello!' --wait")


def _refused(answer: httpx.Response, usage: Mapping[str, Any] | None) -> Finding:
    failure = from_http(answer.status_code, answer.headers, answer.content)
    seen = f"refused with HTTP {answer.status_code} ({failure.code})"
    if usage is None:
        return fail("gateway.key", seen, "correct the key, or what it may do: model, group, address, quota")
    left = judge_usage(usage, time.time())
    known = f"{seen}, though the gateway knows it: {left.seen}"
    return fail("gateway.key", known, left.change or "enable the key, or allow it this address, group and model")


def _judge_models(listed: list[str], models: Collection[str]) -> Finding:
    missing = [model for model in models if model not in listed]
    if not missing:
        return ok("gateway.model", f"serves {', '.join(models)}")
    return warn("gateway.model", f"does not list {', '.join(missing)}", "allow the key this model, or its group")


def judge_usage(usage: Mapping[str, Any], now_s: float) -> Finding:
    """The key's own quota at a new-api, in its units; the wallet behind it may hold less."""
    left, unlimited = usage.get("total_available"), usage.get("unlimited_quota") is True
    expires_s = _number(usage.get("expires_at"))
    seen = "no quota of its own" if unlimited else f"{left} units of quota left"
    if expires_s:
        seen += f", expires {time.strftime('%Y-%m-%d %H:%M', time.gmtime(expires_s))} UTC"
    if expires_s and expires_s <= now_s:
        return fail("gateway.quota", seen, "renew the key")
    if not unlimited and _number(left) <= 0:
        return fail("gateway.quota", seen, "raise the key's quota")
    if expires_s and expires_s < now_s + EXPIRES_SOON_S:
        return warn("gateway.quota", seen, "renew the key before it expires")
    return ok("gateway.quota", seen)


def _listed(response: httpx.Response) -> list[str] | None:
    """The ids of a list of models; None for any other answer, such as a web page for every path."""
    models = _object(response).get("data") if response.is_success else None
    if not isinstance(models, list):
        return None
    rows = [cast("dict[str, Any]", row) for row in cast("list[object]", models) if isinstance(row, dict)]
    return [str(row.get("id")) for row in rows]


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        body: object = response.json()
    except ValueError:
        return {}
    return cast("dict[str, Any]", body) if isinstance(body, dict) else {}


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
