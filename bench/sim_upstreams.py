"""Gateways that treat requests differently, collapse, break down, or serve a stranger as well."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.sim_gateway import Gateway
from bench.sim_requests import Reply, Request

Latency = Callable[[random.Random], float]


def answers_in(seconds: float, sigma: float = 0.5) -> Latency:
    """Call times of that mean, in ms."""
    return lambda rng: 1_000 * seconds * rng.lognormvariate(-sigma * sigma / 2, sigma)


@dataclass(slots=True)
class Moody:
    """Answers everybody, but some requests with their own trouble; in an outage, nobody."""

    rng: random.Random
    latency: Latency
    outage: tuple[float, float, str] = (0.0, 0.0, "")  # from ms, until ms, verdict
    random_failures: tuple[float, str] = (0.0, "")  # share, verdict
    limit: Gateway | None = None
    quick_ms: float = 60.0

    def call(self, request: Request, now_ms: float, in_flight: int) -> Reply:  # noqa: ARG002  # as every upstream
        start_ms, end_ms, verdict = self.outage
        if start_ms <= now_ms < end_ms:
            return self.refusal(verdict)
        if request.trouble:
            return self.refusal(request.trouble)
        if self.limit and not self.limit.offer(now_ms, 0):
            return Reply("throttled", self.limit.refusal_ms * self.rng.uniform(0.8, 1.25))
        if self.rng.random() < self.random_failures[0]:
            return self.refusal(self.random_failures[1])
        return Reply("ok", self.latency(self.rng))

    def refusal(self, trouble: str) -> Reply:
        """`verdict`, `verdict slow`, `throttled 5` (Retry-After), `price` or `silence`."""
        quick_ms = self.quick_ms * self.rng.uniform(0.5, 2)
        verdict, _, detail = trouble.partition(" ")
        if verdict == "silence":
            return Reply("failed", 600_000)
        if verdict == "price":
            return Reply("quota", quick_ms, scope="request")
        if detail == "slow":
            return Reply(verdict, self.latency(self.rng))  # type: ignore[arg-type]
        return Reply(verdict, quick_ms, 1_000 * float(detail or 0))  # type: ignore[arg-type]


@dataclass(slots=True)
class Collapsing:
    """Serves `most` at once; beyond, everything takes longer, and far beyond it answers 503."""

    rng: random.Random
    latency: Latency
    most: int = 40
    steepness: float = 2.0
    gives_up: float = 1.5
    limit: Gateway | None = None

    def call(self, request: Request, now_ms: float, in_flight: int) -> Reply:  # noqa: ARG002  # as every upstream
        if in_flight > self.gives_up * self.most:
            return Reply("overloaded", 50 * self.rng.uniform(0.5, 2))
        slower = max(1.0, in_flight / self.most) ** self.steepness
        return Reply("ok", self.latency(self.rng) * slower)


@dataclass(slots=True)
class Stranger:
    """Another client of the same key, whose share of the limit wanders between 0 and 80 %."""

    rng: random.Random
    gateway: Gateway
    share: float = 0.0
    target: float = 0.0
    until_ms: float = 0.0
    at_ms: float = 0.0
    offered: int = 0
    passed: list[float] = field(default_factory=list)

    def step(self, now_ms: float) -> float:
        """Makes one call, maybe; returns in how many ms to come back."""
        if now_ms >= self.until_ms:
            self.target, self.until_ms = self.rng.uniform(0, 0.8), now_ms + self.rng.uniform(60_000, 180_000)
        left_ms = max(1.0, self.until_ms - now_ms)
        self.share += (self.target - self.share) * min(1.0, (now_ms - self.at_ms) / left_ms)
        self.at_ms = now_ms
        per_ms = self.share * self.gateway.per_minute / 60_000
        if per_ms < 1 / 2_000:
            return 500.0
        self.offered += 1
        if self.gateway.offer(now_ms, 0):
            self.passed.append(now_ms)
        return self.rng.expovariate(per_ms)
