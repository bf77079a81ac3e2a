"""The world the admission controller is judged in: one upstream with a limit of its own, and N pumping processes."""

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from oracles.sim_controller import Controller

from bench.sim_report import Call, Report, Work

PUMP_MS, IDLE_MS = 20, 50  # a process asks for grants this often, unless told to come back later
BATCH = 50

Processes = list[tuple[float, list[tuple[str, ...]]]]  # from when on, which live, each by the lanes it serves


@dataclass(slots=True)
class Gateway:
    """An upstream that serves `per_minute`: a bucket of so many seconds' worth, or windows so many seconds wide."""

    per_minute: float
    kind: Literal["bucket", "window", "sliding"] = "bucket"
    seconds: float = 10.0
    phase_ms: float = 0.0
    refusal_ms: float = 200.0
    failures_count: bool = False
    charges: Literal["requests", "reserved", "used"] = "requests"
    advertised_rpm: tuple[float, ...] = ()  # what x-ratelimit-limit-requests says, one of these per response
    steps: list[tuple[float, float]] = field(default_factory=list)  # (from ms, per minute)
    frozen_ms: tuple[float, float] = (0.0, 0.0)  # refuses all, and says until when
    moody: float = 0.0  # share of calls that it refuses whatever their rate
    moods: random.Random = field(default_factory=random.Random)
    level: float = 0.0
    at_ms: float = 0.0
    window: int = -1
    served_ms: deque[float] = field(default_factory=deque)  # what a sliding window remembers

    @classmethod
    def drawn(cls, rng: random.Random, kind: tuple[str, float], per_minute: float, **known: object) -> "Gateway":
        """One of that kind and width (0: draw a burst), random in the rest."""
        seconds = kind[1] or rng.uniform(1, 30)
        drawn = {
            "kind": kind[0],
            "seconds": seconds,
            "phase_ms": rng.uniform(0, seconds * 1_000),
            "refusal_ms": rng.uniform(20, 800),
            "failures_count": rng.random() < 0.3,
        }
        return cls(per_minute, **(drawn | known))  # type: ignore[arg-type]  # the draw mixes types by field

    def __post_init__(self) -> None:
        self.level = self.capacity

    @property
    def capacity(self) -> float:
        """The burst that can pass after a long silence."""
        return max(1.0, self.per_minute / 60 * self.seconds)

    def offer(self, now_ms: float, tokens: int) -> bool:
        """Whether a call arriving now is served."""
        self.advance(now_ms)
        if self.retry_after_ms(now_ms) or self.moods.random() < self.moody:
            return False
        cost = {"requests": 1.0, "reserved": float(tokens), "used": 0.0}[self.charges]
        served = self.level > 0 if self.charges == "used" else self.level >= cost
        if served or self.failures_count:
            self.level = max(self.level - cost, -self.capacity / 2)
            self.served_ms.append(now_ms)
        return served

    def retry_after_ms(self, now_ms: float) -> float:
        """The wait that a refusal names; 0, as gateways do, for mere overload."""
        start_ms, end_ms = self.frozen_ms
        return end_ms - now_ms if start_ms <= now_ms < end_ms else 0.0

    def finish(self, now_ms: float, used: int) -> None:
        """Charges what a call used, if that is how this upstream counts."""
        if self.charges == "used":
            self.advance(now_ms)
            self.level -= used

    def advance(self, now_ms: float) -> None:
        """Earns what time has brought."""
        while self.steps and now_ms >= self.steps[0][0]:
            step_ms, per_minute = self.steps.pop(0)
            self._earn(step_ms)
            self.per_minute = per_minute
            self.level = min(self.level, self.capacity)
        self._earn(now_ms)

    def _earn(self, now_ms: float) -> None:
        if self.kind == "bucket":
            earned = (now_ms - self.at_ms) * self.per_minute / 60_000
            self.level = min(self.capacity, self.level + earned)
        elif self.kind == "sliding":
            while self.served_ms and self.served_ms[0] <= now_ms - self.seconds * 1_000:
                self.served_ms.popleft()
            self.level = self.capacity - len(self.served_ms)
        else:
            window = int((now_ms + self.phase_ms) // (self.seconds * 1_000))
            if window != self.window:
                self.window, self.level = window, self.capacity
        self.at_ms = now_ms

    def fastest_s(self, now_ms: float, calls: int) -> float:
        """Least time in which so many calls can still pass from now on."""
        self.advance(now_ms)
        missing = max(0.0, calls - self.level)
        if self.kind == "bucket" or not missing:
            return missing / self.per_minute * 60
        width_ms = self.seconds * 1_000
        rest_ms = width_ms - (now_ms + self.phase_ms) % width_ms
        return (rest_ms + (-(-missing // self.capacity) - 1) * width_ms) / 1_000


class Fleet:
    """Processes that ask one controller for grants and call one gateway."""

    def __init__(
        self,
        rng: random.Random,
        controller: Controller,
        gateway: Gateway,
        work: dict[str, Work],
        processes: Processes,
        *,
        use: Callable[[random.Random, int], int] | None = None,  # tokens used, of those reserved
        latency_s: float = 0.8,
        skew_ms: float = 40,
        capacity: int = 500,
        limit_s: float = 7_200,
    ) -> None:
        self.rng, self.controller, self.gateway = rng, controller, gateway
        self.use, self.latency_s, self.skew_ms, self.capacity = use, latency_s, skew_ms, capacity
        self.limit_ms = limit_s * 1_000
        self.report = Report(total=sum(len(w.tokens) for w in work.values()))
        self.weights = {name: w.weight for name, w in work.items()}
        self.queues: dict[str, deque[tuple[int, float]]] = {name: deque() for name in work}
        self.serves: dict[int, tuple[str, ...]] = {}
        self.in_flight: dict[int, int] = {}
        self.now_ms = 0.0
        self.granted = 0
        self.events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self.scheduled = 0
        for name, w in work.items():
            for tokens, at_ms in zip(w.tokens, w.at_ms, strict=True):
                self.at(at_ms, self.enqueue, name, tokens)
        for at_ms, alive in processes:
            self.at(at_ms, self.scale_to, alive)

    def at(self, when_ms: float, do: Callable[..., None], *args: object) -> None:
        """Schedules an event."""
        self.scheduled += 1
        heapq.heappush(self.events, (when_ms, self.scheduled, do, args))

    def simulate(self) -> Report:
        """Runs until all is answered, or time is up."""
        while self.events and self.report.lost:
            self.now_ms, _, do, args = heapq.heappop(self.events)
            if self.now_ms > self.limit_ms:
                break
            do(*args)
        return self.report

    def enqueue(self, lane: str, tokens: int) -> None:
        self.queues[lane].append((tokens, self.now_ms))

    def scale_to(self, alive: list[tuple[str, ...]]) -> None:
        before, self.serves = self.serves, dict(enumerate(alive))
        for process in self.serves:
            self.in_flight.setdefault(process, 0)
            if process not in before:
                self.at(self.now_ms + self.rng.uniform(0, IDLE_MS), self.pump, process)

    def pump(self, process: int) -> None:
        if process not in self.serves:
            return  # scaled in: what it called still answers
        nap_ms = 1_000.0
        for lane in self.serves[process]:
            queue = self.queues[lane]
            room = min(BATCH, len(queue), self.capacity - self.in_flight[process])
            if room <= 0:
                nap_ms = min(nap_ms, IDLE_MS)
                continue
            costs = [queue[i][0] for i in range(room)]
            self.report.polls += 1
            granted, wait_ms = self.grants(lane, costs)
            for _ in range(granted):
                self.granted += 1
                self.start(Call(process, lane, *queue.popleft(), self.now_ms, self.granted))
            nap_ms = min(nap_ms, wait_ms if granted < room else PUMP_MS)
        self.at(self.now_ms + max(nap_ms, PUMP_MS) + self.rng.uniform(0, 20), self.pump, process)

    def grants(self, lane: str, costs: list[int]) -> tuple[int, float]:
        """The number of these that may start now, and when the others may ask."""
        return self.controller.admit(self.now_ms, lane, self.weights[lane], costs)

    def granted_since(self, call: Call) -> int:
        """Calls granted after this one."""
        return self.granted - call.number

    def start(self, call: Call) -> None:
        self.in_flight[call.process] += 1
        self.report.grants_ms.append(self.now_ms)
        self.report.waits_ms.setdefault(call.lane, []).append(self.now_ms - call.since_ms)
        self.at(self.now_ms + self.rng.uniform(2, self.skew_ms), self.arrive, call)

    def arrive(self, call: Call) -> None:
        report = self.report
        report.calls += 1
        report.first_ms = self.now_ms if report.first_ms < 0 else report.first_ms
        report.last_ms = self.now_ms
        if self.gateway.offer(self.now_ms, call.tokens):
            if self.now_ms - report.first_ms <= 30_000:
                report.served_in_30s += 1
                report.fastest_rest_s = self.gateway.fastest_s(self.now_ms, report.total - report.served_in_30s)
            latency_ms = 1_000 * self.latency_s * self.rng.lognormvariate(-0.125, 0.5)
            self.at(self.now_ms + latency_ms, self.answer, call)
        else:
            report.refused += 1
            delay_ms = self.gateway.refusal_ms * self.rng.uniform(0.8, 1.25) + self.rng.uniform(1, 20)
            self.at(self.now_ms + delay_ms, self.refuse, call, self.gateway.retry_after_ms(self.now_ms))

    def answer(self, call: Call) -> None:
        self.in_flight[call.process] -= 1
        self.report.done += 1
        self.controller.ended(self.now_ms, call.granted_at_ms, passed=True)
        if self.use:
            used = self.use(self.rng, call.tokens)
            self.controller.settle(self.now_ms, call.tokens, used)
            self.gateway.finish(self.now_ms, used)
        if self.gateway.advertised_rpm:
            self.controller.learn(self.rng.choice(self.gateway.advertised_rpm))

    def refuse(self, call: Call, retry_after_ms: float) -> None:
        self.in_flight[call.process] -= 1
        self.queues[call.lane].appendleft((call.tokens, call.since_ms))
        since = self.granted_since(call)
        self.controller.ended(self.now_ms, call.granted_at_ms, passed=False)
        self.controller.throttled(self.now_ms, call.granted_at_ms, call.tokens, retry_after_ms, since)
        if retry_after_ms and self.report.told_to_pause_ms < 0:
            self.report.told_to_pause_ms = self.now_ms
