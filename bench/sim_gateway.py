"""The world the controller is judged in. Draft."""

import heapq
import random
from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class Gateway:
    per_minute: float
    kind: str = "bucket"  # bucket | window
    burst_s: float = 10.0
    width_s: float = 60.0
    phase_ms: float = 0.0
    tokens: bool = False
    refusal_ms: float = 200.0
    failures_count: bool = False
    schedule: list = field(default_factory=list)  # (from ms, per_minute)
    frozen: tuple = (0.0, 0.0)
    headers: float = 0.0  # advertised limit
    retry_after: bool = False
    level: float = 0.0
    at: float = 0.0
    window: int = -1
    late: bool = False

    def __post_init__(self):
        self.level = self.capacity()

    def oracle_s(self, now, n):
        """Shortest time in which `n` requests can pass from `now` on (fixed limit)."""
        if self.kind == "bucket":
            self._advance(now)
            return max(0.0, n - self.level) / self.per_minute * 60
        self._advance(now)
        width = self.width_s * 1000
        if n <= self.level:
            return 0.0
        windows = -(-(n - self.level) // self.capacity())
        return ((width - (now + self.phase_ms) % width) + (windows - 1) * width) / 1000

    def capacity(self):
        return self.per_minute / 60 * (self.burst_s if self.kind == "bucket" else self.width_s)

    def offer(self, now, tokens):
        """-> (accepted, retry_after_ms)"""
        while self.schedule and now >= self.schedule[0][0]:
            self._advance(self.schedule[0][0])
            self.per_minute = self.schedule.pop(0)[1]
            self.level = min(self.level, self.capacity())
        if self.frozen[0] <= now < self.frozen[1]:
            return False, self.frozen[1] - now
        self._advance(now)
        cost = tokens if self.tokens else 1.0
        if self.late:
            cost = 0.0
            if self.level <= 0: return False, 0.0
        if self.level >= cost:
            self.level -= cost
            return True, 0.0
        if self.failures_count:
            self.level = max(self.level - cost, -self.capacity() / 2 if self.kind == "bucket" else 0.0)
        if not self.retry_after:
            return False, 0.0
        if self.kind == "bucket":
            return False, (cost - self.level) / self.per_minute * 60_000
        width = self.width_s * 1000
        return False, width - (now + self.phase_ms) % width

    def _advance(self, now):
        if self.kind == "bucket":
            self.level = min(self.capacity(), self.level + (now - self.at) * self.per_minute / 60_000)
        else:
            window = int((now + self.phase_ms) // (self.width_s * 1000))
            if window != self.window:
                self.window, self.level = window, self.capacity()
        self.at = now


@dataclass
class Run:
    calls: int = 0
    refused: int = 0
    done: int = 0
    accepted: int = 0
    first: float = -1.0
    last: float = 0.0
    accepted_at_30s: int = 0
    grants: list = field(default_factory=list)
    pauses: list = field(default_factory=list)
    waits: dict = field(default_factory=dict)
    trace: list = field(default_factory=list)
    polls: int = 0
    oracle_s: float = -1.0


class Fleet:
    """N processes, one controller, one gateway."""

    def __init__(self, rng, controller, gateway, lanes, processes, capacity=500, limit_s=7200, latency_s=0.8, usage=None, trace=False):
        self.rng, self.c, self.g = rng, controller, gateway
        self.usage = usage
        self.latency = latency_s
        self.events = []
        self.seq = 0
        self.now = 0.0
        self.run = Run()
        self.limit_ms = limit_s * 1000
        self.lanes = {}
        self.weights = {}
        self.total = 0
        for name, (weight, costs, arrivals) in lanes.items():
            self.lanes[name] = deque()
            self.weights[name] = weight
            self.total += len(costs)
            for cost, t in zip(costs, arrivals):
                if t <= 0:
                    self.lanes[name].append((cost, 0.0))
                else:
                    self.push(t, self.enqueue, (name, cost))
        self.capacity = capacity
        self.alive = {}
        self.inflight = {}
        self.do_trace = trace
        for t, names in processes:  # (ms, list of lane lists)
            self.push(t, self.scale, names)

    def push(self, t, fn, arg):
        self.seq += 1
        heapq.heappush(self.events, (t, self.seq, fn, arg))

    def enqueue(self, arg):
        name, cost = arg
        self.lanes[name].append((cost, self.now))

    def scale(self, names):
        """names: list of lane-tuples, one per process that should live from now on."""
        for i in list(self.alive):
            if i >= len(names):
                self.alive[i] = None
        for i, lanes in enumerate(names):
            if self.alive.get(i) is None:
                self.inflight.setdefault(i, 0)
                self.push(self.now + self.rng.uniform(0, 50), self.pump, i)
            self.alive[i] = lanes

    def simulate(self):
        events = self.events
        while events and self.run.done < self.total and self.now < self.limit_ms:
            self.now, _, fn, arg = heapq.heappop(events)
            fn(arg)
        return self.run

    def pump(self, i):
        lanes = self.alive.get(i)
        if lanes is None:
            return
        rng = self.rng
        nap = 1000.0
        for name in lanes:
            queue = self.lanes[name]
            n = min(50, len(queue), self.capacity - self.inflight[i])
            if n <= 0:
                nap = min(nap, 50.0)
                continue
            costs = [queue[k][0] for k in range(n)]
            self.run.polls += 1
            granted, wait = self.c.admit(self.now, name, self.weights[name], costs)
            for _ in range(granted):
                cost, since = queue.popleft()
                self.inflight[i] += 1
                self.run.waits.setdefault(name, []).append(self.now - since)
                self.run.grants.append(self.now)
                self.push(self.now + rng.uniform(2, 40), self.arrive, (i, name, cost, since, self.now))
            nap = min(nap, wait if granted < n else 20.0)
        self.push(self.now + max(nap, 20.0) + rng.uniform(0, 20), self.pump, i)

    def arrive(self, call):
        run, g, rng = self.run, self.g, self.rng
        i, name, cost, since, granted_at = call
        run.calls += 1
        if run.first < 0:
            run.first = self.now
        run.last = self.now
        ok, retry_after = g.offer(self.now, cost)
        if ok:
            run.accepted += 1
            if self.now - run.first <= 30_000:
                run.accepted_at_30s += 1
            elif run.oracle_s < 0:
                run.oracle_s = g.oracle_s(self.now, self.total - run.accepted)
            self.push(self.now + 1000 * self.latency * rng.lognormvariate(-0.125, 0.5), self.finish, call)
        else:
            run.refused += 1
            delay = g.refusal_ms * rng.uniform(0.8, 1.25) + rng.uniform(1, 20)
            self.push(self.now + delay, self.refuse, (call, retry_after))
        if self.do_trace:
            run.trace.append((self.now, ok, self.c.state.scale, g.level, name))

    def finish(self, call):
        i, _, cost, _, _ = call
        self.inflight[i] -= 1
        self.run.done += 1
        if self.usage:
            used = self.usage(self.rng, cost)
            self.c.settle(self.now, cost, used)
            if self.g.late:
                self.g._advance(self.now)
                self.g.level -= used
        g = self.g
        if g.headers:
            self.c.learn(g.headers if g.headers > 0 else g.per_minute)

    def refuse(self, arg):
        (i, name, cost, since, granted_at), retry_after = arg
        self.inflight[i] -= 1
        self.lanes[name].appendleft((cost, since))
        self.c.throttled(self.now, granted_at, cost, retry_after)
        if retry_after:
            self.run.pauses.append((self.now, self.now + retry_after))
