"""The simulated gateway's endpoints: who may call, what the budget says, and what was seen."""

import asyncio
import math
import time
from dataclasses import dataclass
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
GIVES_UP: Final = 1.5
"""Times the calls in flight that it stands, a gateway that collapses answers 503."""


@dataclass(slots=True)
class Account:
    """One account: the settings of its calls, and what is left of its limits."""

    config: SimulatorConfig
    budget: Budget

    def latency_s(self, rng: Random) -> float:
        median_s, sigma = self.config.latency_median_s, self.config.latency_sigma
        usual_s = median_s * math.exp(sigma * rng.gauss()) if sigma else median_s
        return usual_s * max(1.0, self.excess) ** 2

    @property
    def excess(self) -> float:
        """The calls in flight over those that the gateway stands; 0 where it stands any number."""
        return self.budget.in_flight / self.config.collapse_above if self.config.collapse_above else 0.0

    def plan(self, script: Script, prompt: str) -> Plan:
        """The fate of an admitted call."""
        if self.excess > GIVES_UP:
            return Plan(name="503", fault=FAULTS["503"], latency_s=0.0)
        return script.plan(prompt, self.config.fault_rates)

    def credential_fault(self, key: str) -> str:
        config = self.config
        if not key:
            return "no-token"
        if key in config.revoked_keys or (config.keys and key not in config.keys):
            return config.revoked_key_fault
        return config.empty_wallet_fault if key in config.empty_wallets else ""


class Gateway:
    """The accounts of a gateway, and its call log. Belongs to one event loop."""

    def __init__(self, config: SimulatorConfig) -> None:
        self._config = config
        self._start_ns = time.monotonic_ns()
        self._rng = Random(config.seed)
        self._accounts: dict[str, Account] = {}
        self._by_key: dict[str, str] = {}
        self._open_accounts()
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

    def _open_accounts(self) -> None:
        """Makes every account what the settings say; what was taken of its limits stays taken. "" is the first."""
        names = ["", *self._config.accounts]
        for name in names:
            config = self._config.account(name) if name else self._config
            if name in self._accounts:
                self._accounts[name].config = config
                self._accounts[name].budget.relimit(config.limits(), self._now_ns())
            else:
                self._accounts[name] = Account(config, Budget(config.limits(), self._now_ns()))
        self._by_key = {key: name for name in names[1:] for key in self._accounts[name].config.keys}

    @property
    def _in_flight(self) -> int:
        return sum(account.budget.in_flight for account in self._accounts.values())

    async def _create(self, request: web.Request) -> web.StreamResponse:
        key = _bearer(request)
        name = self._by_key.get(key, "")
        call = self._log.arrived(
            at_s=self._now_s(),
            wall=time.time(),
            key=key_alias(key) if key else "",
            in_flight=self._in_flight,
        )
        call.account = name
        status = CLIENT_LEFT
        try:
            response = await self._answered(request, key, self._accounts[name], call)
            status = RESET if _is_reset(call) else response.status
        finally:
            self._log.finished(call, status=status, at_s=self._now_s())
        return response

    async def _answered(
        self, request: web.Request, key: str, account: Account, call: ReceivedCall
    ) -> web.StreamResponse:
        raw = await request.read()
        call.body_sha256 = sha256(raw).hexdigest()
        if name := account.credential_fault(key):
            call.fault = name
            return self._refusal(FAULTS[name], account, call)
        try:
            asked = parse(raw, account.config.models)
            self._describe(call, account, asked)
            if refused := account.budget.admit(tokens=call.tokens, now_ns=self._now_ns()):
                return await self._over_limit(refused, account, call)
            return await self._admitted(request, asked, account, call)
        except InvalidRequestError as error:
            return self._refusal(invalid_request(str(error), error.param), account, call)

    def _describe(self, call: ReceivedCall, account: Account, asked: Asked) -> None:
        call.prompt = prompt_hash(asked.prompt)
        call.tag = request_tag(asked.prompt)
        call.model, call.stream = asked.model, asked.stream
        reserved = asked.max_output_tokens or account.config.default_output_tokens
        call.tokens = estimated_tokens(asked.prompt) + reserved

    async def _over_limit(self, refused: Refused, account: Account, call: ReceivedCall) -> web.Response:
        call.refused_by = refused.limit
        fault = limit_fault(refused, account.config, call.tokens)
        if account.config.count_refused:
            account.budget.count_refused(self._now_ns())
        await asyncio.sleep(account.config.refusal_latency_s)
        response = self._refusal(fault, account, call)
        response.headers.update(rate_limit_headers(account.config, account.budget, self._now_ns()))
        return response

    async def _admitted(
        self, request: web.Request, asked: Asked, account: Account, call: ReceivedCall
    ) -> web.StreamResponse:
        self._log.admitted(call, self._in_flight)
        try:
            plan = account.plan(self._script, asked.prompt)
            call.fault = plan.name
            response = await end(self._exchange(request, asked, plan, account, call))
            if response.status >= HTTPStatus.BAD_REQUEST and not account.config.count_failed:
                account.budget.refund(tokens=call.tokens, now_ns=self._now_ns())
            return response
        finally:
            account.budget.finish()

    def _exchange(
        self, request: web.Request, asked: Asked, plan: Plan, account: Account, call: ReceivedCall
    ) -> Exchange:
        config = account.config
        return Exchange(
            request=request,
            asked=asked,
            plan=plan,
            config=config,
            number=call.number,
            headers=answer_headers(config, account.budget, request_id(call.number), self._now_ns()),
            latency_s=account.latency_s(self._rng) if plan.latency_s is None else plan.latency_s,
        )

    def _refusal(self, fault: Fault, account: Account, call: ReceivedCall) -> web.Response:
        return response_to(fault_reply(fault, account.config, request_id(call.number), datetime.now(UTC)))

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
        self._open_accounts()
        return web.json_response(self._config.public())

    async def _show_calls(self, request: web.Request) -> web.Response:
        calls = self._log.calls(request.query.get("tag"))
        return web.json_response([call.as_json() for call in calls])

    async def _show_stats(self, _request: web.Request) -> web.Response:
        return web.json_response(self._log.stats(self._in_flight).as_json())

    async def _clear(self, _request: web.Request) -> web.Response:
        self._log.clear()
        self._script.forget()
        return web.Response(status=HTTPStatus.NO_CONTENT)


def _bearer(request: web.Request) -> str:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _is_reset(call: ReceivedCall) -> bool:
    return bool(call.fault) and FAULTS[call.fault].ending is Ending.RESET
