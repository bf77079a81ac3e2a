"""Requests, pods and a gateway with a budget, second by second.

Two kinds of workers, because the number of pods means something else to each. `shared`: ours; a call starts when the
fleet's common budget lets it, so pods beyond the budget wait. `blind`: a worker that learns of the budget from 429s
and tries again, as SDKs and Celery recipes do; pods beyond the budget earn 429s.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Kind = Literal["shared", "blind"]

QUICK_START_S: Final = 2.0
"""A worker of ours takes no more than the budget can start within this (WORKER_BURST_SECONDS)."""
PARKED_S: Final = (30.0, 60.0)
"""The time after which interrupted work comes back."""
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 1.0, 60.0


@dataclass(eq=False, slots=True)
class Pod:
    ready_at: float
    calling: int = 0
    waiting: int = 0
    leaving: bool = False

    @property
    def held(self) -> int:
        return self.calling + self.waiting


@dataclass(eq=False, slots=True)
class Request:
    arrived_at: float
    refusals: int = 0


@dataclass(slots=True)
class World:
    """`settings` and `scenario` as in autoscale.toml."""

    settings: Mapping[str, Any]
    scenario: Mapping[str, Any]
    kind: Kind
    random: random.Random
    pods: list[Pod] = field(default_factory=list[Pod])
    lane: deque[Request] = field(default_factory=deque[Request])
    room: deque[tuple[Pod, Request]] = field(default_factory=deque[tuple[Pod, Request]])
    """Taken, waiting for the shared budget; first come, first served."""
    waits: list[float] = field(default_factory=list[float])
    refused: int = 0
    done_at: float = 0.0
    tokens: float = 0.0
    _calls: list[tuple[float, int, Pod, Request]] = field(default_factory=list[tuple[float, int, Pod, Request]])
    _retries: list[tuple[float, int, Pod, Request]] = field(default_factory=list[tuple[float, int, Pod, Request]])
    _parked: list[tuple[float, int, Request]] = field(default_factory=list[tuple[float, int, Request]])
    _arrivals: deque[float] = field(default_factory=deque[float])
    _count: int = 0

    def __post_init__(self) -> None:
        times = [
            part["at"] + n * part.get("lasting", 0) / part["requests"]
            for part in self.scenario["arrivals"]
            for n in range(part["requests"])
        ]
        self._arrivals = deque(sorted(times))

    @property
    def counts(self) -> dict[str, float]:
        """The values that KEDA finds in Redis."""
        inflight = sum(pod.held for pod in self.pods)
        return {"ready": float(len(self.lane)), "inflight": float(inflight), "parked": float(len(self._parked))}

    def step(self, now: float) -> None:
        """One second passes."""
        per_second = self.settings["requests_per_minute"] / 60
        burst_s = QUICK_START_S if self.kind == "shared" else self.settings["burst"]
        self.tokens = min(self.tokens + per_second, per_second * burst_s)
        while self._arrivals and self._arrivals[0] <= now:
            self.lane.append(Request(self._arrivals.popleft()))
        while self._parked and self._parked[0][0] <= now:
            self.lane.appendleft(heapq.heappop(self._parked)[2])
        if self._down(now):
            self._interrupt(now)
        self._finish(now)
        self._take(now)
        if not self._down(now):
            self._start(now)
        self.pods = [pod for pod in self.pods if not (pod.leaving and not pod.held)]

    def resize(self, now: float, replicas: int) -> None:
        """As a ReplicaSet does: pods that are not ready go first, then the youngest; who goes finishes its calls."""
        staying = [pod for pod in self.pods if not pod.leaving]
        for _ in range(replicas - len(staying)):
            start_s = self.settings["pod_start_median"] * math.exp(
                self.random.gauss(0, self.settings["pod_start_sigma"])
            )
            self.pods.append(Pod(now + start_s))
        for pod in sorted(staying, key=lambda pod: -pod.ready_at)[: max(0, len(staying) - replicas)]:
            self._leave(pod)

    def _leave(self, pod: Pod) -> None:
        pod.leaving = True
        back = [request for owner, request in self.room if owner is pod]
        self.room = deque((owner, request) for owner, request in self.room if owner is not pod)
        back += [request for _, _, owner, request in self._retries if owner is pod]
        self._retries = [entry for entry in self._retries if entry[2] is not pod]
        heapq.heapify(self._retries)
        self.lane.extendleft(back)
        pod.waiting = 0

    def _down(self, now: float) -> bool:
        return any(out["at"] <= now < out["at"] + out["lasting"] for out in self.scenario.get("outages", ()))

    def _interrupt(self, now: float) -> None:
        for _, _, pod, request in self._calls:
            pod.calling -= 1
            self._count += 1
            heapq.heappush(self._parked, (now + self.random.uniform(*PARKED_S), self._count, request))
        self._calls.clear()

    def _finish(self, now: float) -> None:
        while self._calls and self._calls[0][0] <= now:
            self.done_at, _, pod, _ = heapq.heappop(self._calls)
            pod.calling -= 1

    def _take(self, now: float) -> None:
        quick = math.ceil(self.settings["requests_per_minute"] / 60 * QUICK_START_S)
        serving = [pod for pod in self.pods if pod.ready_at <= now and not pod.leaving]
        while self.lane:
            most = quick if self.kind == "shared" else self.settings["concurrency"]
            open_ = [pod for pod in serving if pod.held < self.settings["concurrency"] and pod.waiting < most]
            if not open_:
                return
            for pod in open_:
                if self.lane:
                    pod.waiting += 1
                    self.room.append((pod, self.lane.popleft()))

    def _start(self, now: float) -> None:
        while self._retries and self._retries[0][0] <= now:
            _, _, pod, request = heapq.heappop(self._retries)
            self.room.append((pod, request))
        while self.room and (self.tokens >= 1 or self.kind == "blind"):
            pod, request = self.room.popleft()
            if self.tokens >= 1:
                self.tokens -= 1
                self._call(now, pod, request)
            else:
                self._refuse(now, pod, request)

    def _call(self, now: float, pod: Pod, request: Request) -> None:
        latency_s = self.settings["latency_median"] * math.exp(self.random.gauss(0, self.settings["latency_sigma"]))
        pod.waiting -= 1
        pod.calling += 1
        self.waits.append(now - request.arrived_at)
        self._count += 1
        heapq.heappush(self._calls, (now + latency_s, self._count, pod, request))

    def _refuse(self, now: float, pod: Pod, request: Request) -> None:
        """A 429: tried again in place, after full jitter."""
        self.refused += 1
        backoff_s = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2**request.refusals) * self.random.uniform(0.5, 1.0)
        request.refusals += 1
        self._count += 1
        heapq.heappush(self._retries, (now + backoff_s, self._count, pod, request))
