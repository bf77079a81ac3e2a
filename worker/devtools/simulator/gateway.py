"""The simulated gateway's endpoints: who may call, what the budget says, and what was seen."""

import asyncio
import math
import time
from datetime import UTC, datetime
from hashlib import sha256
from http import HTTPStatus
from random import Random
from typing import Any, Final

from aiohttp import web

from worker.devtools.simulator.budget import SECOND_NS, Budget, Refused
from worker.devtools.simulator.calls import CLIENT_LEFT, RESET, CallLog, ReceivedCall
from worker.devtools.simulator.config import SimulatorConfig, key_alias
from worker.devtools.simulator.endings import Exchange, end, request_id, response_to
from worker.devtools.simulator.faults import FAULTS, Ending, Fault
from worker.devtools.simulator.replies import (
    answer_headers,
    fault_reply,
    invalid_request,
    limit_fault,
    rate_limit_headers,
)
from worker.devtools.simulator.requests import Asked, InvalidRequestError, estimated_tokens, parse
from worker.devtools.simulator.script import Plan, Script, prompt_hash, request_tag

_MAX_BODY: Final = 64 * 1024 * 1024


class Gateway:
    """One account at a gateway, with its limits, keys and call log. Belongs to one event loop."""

    def __init__(self, config: SimulatorConfig) -> None:
        self._config = config
        self._start_ns = time.monotonic_ns()
        self._rng = Random(config.seed)
        self._budget = Budget(config.limits(), self._now_ns())
        self._script = Script(self._rng)
        self._log = CallLog(config.call_log_size)

    def application(self) -> web.Application:
        """The endpoints: `/v1/responses` and, for tests and benches, `/simulator/*`."""
        app = web.Application(client_max_size=_MAX_BODY)
        app.router.add_post("/v1/responses", self._create)
        app.router.add_get("/simulator/config", self._show_config)
        app.router.add_post("/simulator/config", self._change_config)
        app.router.add_get("/simulator/calls", self._show_calls)
        app.router.add_get("/simulator/stats", self._show_stats)
        app.router.add_delete("/simulator/calls", self._clear)
        app.router.add_delete("/simulator/stats", self._clear)
        return app

    async def _create(self, request: web.Request) -> web.StreamResponse:
        key = _bearer(request)
        call = self._log.arrived(
            at_s=self._now_s(),
            wall=time.time(),
            key=key_alias(key) if key else "",
            in_flight=self._budget.in_flight,
        )
        status = CLIENT_LEFT
        try:
            response = await self._answered(request, key, call)
            status = RESET if _is_reset(call) else response.status
        finally:
            self._log.finished(call, status=status, at_s=self._now_s())
        return response

    async def _answered(self, request: web.Request, key: str, call: ReceivedCall) -> web.StreamResponse:
        raw = await request.read()
        call.body_sha256 = sha256(raw).hexdigest()
        if name := self._credential_fault(key):
            call.fault = name
            return self._refusal(FAULTS[name], call)
        try:
            asked = parse(raw, self._config.models)
            self._describe(call, asked)
            if refused := self._budget.admit(tokens=call.tokens, now_ns=self._now_ns()):
                return await self._over_limit(refused, call)
            return await self._admitted(request, asked, call)
        except InvalidRequestError as error:
            return self._refusal(invalid_request(str(error), error.param), call)

    def _credential_fault(self, key: str) -> str:
        config = self._config
        if not key:
            return "no-token"
        if key in config.revoked_keys or (config.keys and key not in config.keys):
            return config.revoked_key_fault
        return config.empty_wallet_fault if key in config.empty_wallets else ""

    def _describe(self, call: ReceivedCall, asked: Asked) -> None:
        call.prompt = prompt_hash(asked.prompt)
        call.tag = request_tag(asked.prompt)
        call.stream = asked.stream
        reserved = asked.max_output_tokens or self._config.default_output_tokens
        call.tokens = estimated_tokens(asked.prompt) + reserved

    async def _over_limit(self, refused: Refused, call: ReceivedCall) -> web.Response:
        call.refused_by = refused.limit
        fault = limit_fault(refused, self._config, call.tokens)
        if self._config.count_refused:
            self._budget.count_refused(self._now_ns())
        await asyncio.sleep(self._config.refusal_latency_s)
        response = self._refusal(fault, call)
        response.headers.update(rate_limit_headers(self._config, self._budget, self._now_ns()))
        return response

    async def _admitted(self, request: web.Request, asked: Asked, call: ReceivedCall) -> web.StreamResponse:
        self._log.admitted(call, self._budget.in_flight)
        try:
            plan = self._script.plan(asked.prompt, self._config.fault_rates)
            call.fault = plan.name
            response = await end(self._exchange(request, asked, plan, call))
            if response.status >= HTTPStatus.BAD_REQUEST and not self._config.count_failed:
                self._budget.refund(tokens=call.tokens, now_ns=self._now_ns())
            return response
        finally:
            self._budget.finish()

    def _exchange(self, request: web.Request, asked: Asked, plan: Plan, call: ReceivedCall) -> Exchange:
        config = self._config
        return Exchange(
            request=request,
            asked=asked,
            plan=plan,
            config=config,
            number=call.number,
            headers=answer_headers(config, self._budget, request_id(call.number), self._now_ns()),
            latency_s=self._latency_s() if plan.latency_s is None else plan.latency_s,
        )

    def _refusal(self, fault: Fault, call: ReceivedCall) -> web.Response:
        return response_to(fault_reply(fault, self._config, request_id(call.number), datetime.now(UTC)))

    def _latency_s(self) -> float:
        median_s, sigma = self._config.latency_median_s, self._config.latency_sigma
        return median_s * math.exp(sigma * self._rng.gauss()) if sigma else median_s

    def _now_ns(self) -> int:
        return time.monotonic_ns() - self._start_ns

    def _now_s(self) -> float:
        return self._now_ns() / SECOND_NS

    async def _show_config(self, _request: web.Request) -> web.Response:
        return web.json_response(self._config.public())

    async def _change_config(self, request: web.Request) -> web.Response:
        """Replace settings; calls in flight end under the old ones, and what was taken stays taken."""
        try:
            changes: dict[str, Any] = dict(await request.json())
            self._config = self._config.changed(changes)
        except (ValueError, TypeError) as error:
            return web.json_response({"error": {"message": str(error)}}, status=HTTPStatus.BAD_REQUEST)
        if "seed" in changes:
            self._rng.seed(self._config.seed)
        self._budget.relimit(self._config.limits(), self._now_ns())
        return web.json_response(self._config.public())

    async def _show_calls(self, request: web.Request) -> web.Response:
        calls = self._log.calls(request.query.get("tag"))
        return web.json_response([call.as_json() for call in calls])

    async def _show_stats(self, _request: web.Request) -> web.Response:
        return web.json_response(self._log.stats(self._budget.in_flight).as_json())

    async def _clear(self, _request: web.Request) -> web.Response:
        self._log.clear()
        self._script.forget()
        return web.Response(status=HTTPStatus.NO_CONTENT)


def _bearer(request: web.Request) -> str:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _is_reset(call: ReceivedCall) -> bool:
    return bool(call.fault) and FAULTS[call.fault].ending is Ending.RESET
