"""The world in which admission is judged, request by request: tenants, deadlines, retries and a gateway."""

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from oracles.controller.admission import Admission, Asked, Reservation, Scope, Verdict
from oracles.controller.gate import patience_ends_ms

LEAST_ROOM = 4
NEVER = float("inf")
OWN_REFUSALS = {"throttled": 8, "authentication": 4, "quota": 4}  # that others do not share; then it is answered so
COSTLY = 2  # calls that may have been billed


@dataclass(slots=True)
class Request:
    """One request, and what became of it."""

    number: int
    tenant: str
    at_ms: float
    body: str = ""
    kind: str = ""
    deadline_ms: float = NEVER
    timeout_ms: float = NEVER
    patience_ms: float = NEVER
    trouble: str = ""  # what the gateway makes of it, whatever the others meet
    attempts: int = 5
    culprit: bool = False
    enqueued_ms: float = -1.0  # as stamped by the client; -1: at_ms
    # Its end
    calls: int = 0
    failures: int = 0
    refusals: int = 0
    own: int = 0
    costly: int = 0
    ended_ms: float = -1.0
    code: str = ""  # "" completed


@dataclass(frozen=True, slots=True)
class Reply:
    """The gateway's answer to a call, and its delay."""

    verdict: Verdict
    after_ms: float
    retry_after_ms: float = 0.0
    scope: Scope = "unknown"


class Upstream(Protocol):
    """A gateway: decides when the call arrives."""

    def call(self, request: Request, now_ms: float, in_flight: int) -> Reply: ...


@dataclass(slots=True)
class Seen:
    """The gateway's log: (at, verdict, in flight, gate when granted)."""

    calls: list[tuple[float, Verdict, int, bool]] = field(default_factory=list)


class World:
    """Requests, pumps of several processes, one controller, one gateway."""

    def __init__(
        self,
        rng: random.Random,
        admission: Admission,
        upstream: Upstream,
        requests: list[Request],
        *,
        processes: int = 2,
        limit_s: float = 1_200,
        others: list[tuple[float, Callable[[float], float]]] | None = None,  # events of the world's own
    ) -> None:
        self.rng, self.admission, self.upstream, self.requests = rng, admission, upstream, requests
        self.limit_ms, self.now_ms, self.left = limit_s * 1_000, 0.0, len(requests)
        self.queue: deque[Request] = deque()
        self.in_flight = 0
        self.seen = Seen()
        self.events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self.scheduled = 0
        for request in requests:
            self.at(request.at_ms, self.queue.append, request)
        for number in range(processes):
            self.at(rng.uniform(0, 50) + number, self.pump)
        for at_ms, event in others or []:
            self.at(at_ms, self.other, event)

    def at(self, when_ms: float, do: Callable[..., None], *args: object) -> None:
        self.scheduled += 1
        heapq.heappush(self.events, (when_ms, self.scheduled, do, args))

    def run(self) -> "World":
        while self.events and self.left:
            self.now_ms, _, do, args = heapq.heappop(self.events)
            if self.now_ms > self.limit_ms:
                break
            do(*args)
        return self

    def other(self, event: Callable[[float], float]) -> None:
        self.at(self.now_ms + event(self.now_ms), self.other, event)

    # The queue

    def pump(self) -> None:
        room = [self.queue.popleft() for _ in range(min(self.room, len(self.queue)))]
        nap_ms = 30.0
        if room:
            answers, wait_ms = self.admission.admit(self.now_ms, [self.asked(request) for request in room])
            kept: list[Request] = []
            for request, (answer, reservation) in zip(room, answers, strict=True):
                if reservation is not None:
                    self.start(request, reservation)
                elif answer == "late":
                    self.end(request, "deadline_exceeded")
                elif self.impatient(request):
                    self.end(request, self.admission.shut.kind)
                elif answer == "later":
                    back_in_ms = self.admission.back_in_ms.get(self.token(request), 0.0)
                    self.park(request, back_in_ms + self.rng.uniform(1_000, 4_000))
                else:
                    kept.append(request)
            self.queue.extendleft(reversed(kept))
            nap_ms = min(1_000.0, max(50.0, wait_ms))
        self.at(self.now_ms + nap_ms * self.rng.uniform(1, 1.1) + self.rng.uniform(0, 15), self.pump)

    def asked(self, request: Request) -> Asked:
        left_ms = min(request.deadline_ms, NEVER) - self.now_ms
        return Asked(
            self.token(request),
            request.body or f"{request.number}",
            request.tenant,
            request.kind,
            time_left_ms=left_ms,
            whole_ms=request.deadline_ms - request.at_ms,
            failures=request.failures + request.own,
        )

    def token(self, request: Request) -> str:
        return f"{request.number}:{request.calls}"

    def impatient(self, request: Request) -> bool:
        enqueued_ms = request.at_ms if request.enqueued_ms < 0 else request.enqueued_ms
        return self.now_ms >= patience_ends_ms(self.admission.shut, enqueued_ms, request.patience_ms)

    @property
    def room(self) -> int:
        """One process takes so many from the lane: a second of the fleet's rate."""
        pace = self.admission.pace
        return max(LEAST_ROOM, round(pace.state.scale * 1_000 / pace.charge(0)))

    def park(self, request: Request, delay_ms: float) -> None:
        self.at(self.now_ms + delay_ms, self.queue.appendleft, request)

    def end(self, request: Request, code: str) -> None:
        request.ended_ms, request.code = self.now_ms, code
        self.left -= 1

    # Calls

    def start(self, request: Request, reservation: Reservation) -> None:
        request.calls += 1
        self.at(self.now_ms + self.rng.uniform(2, 40), self.arrive, request, reservation)

    def arrive(self, request: Request, reservation: Reservation) -> None:
        self.in_flight += 1
        reply = self.upstream.call(request, self.now_ms, self.in_flight)
        self.seen.calls.append((self.now_ms, reply.verdict, self.in_flight, reservation.probe))
        ours_ms = min(request.timeout_ms, request.deadline_ms - self.now_ms)
        if ours_ms < reply.after_ms:
            reply = Reply("cut short", max(0.0, ours_ms))
        self.at(self.now_ms + reply.after_ms, self.finish, request, reservation, reply)

    def finish(self, request: Request, reservation: Reservation, reply: Reply) -> None:
        self.in_flight -= 1
        free = reply.verdict in {"throttled", "authentication", "quota"}
        shared = self.admission.report(
            self.now_ms,
            reservation,
            reply.verdict,
            took_ms=self.now_ms - reservation.granted_at_ms,
            scope=reply.scope,
            retry_after_ms=reply.retry_after_ms,
            again=request.refusals + request.failures > 0,
        )
        if reply.verdict == "ok":
            self.end(request, "")
        elif reply.scope == "request":
            self.end(request, reply.verdict)
        elif free:
            self.refused(request, reply, shared=shared)
        else:
            self.failed(request, reply)

    def refused(self, request: Request, reply: Reply, *, shared: bool) -> None:
        """A refusal costs nothing; one that others share is not the request's fault either."""
        request.refusals += 1
        if shared:
            self.queue.insert(min(len(self.queue), self.room), request)  # behind those that this process holds
            return
        request.own += 1
        if request.own >= OWN_REFUSALS[reply.verdict]:
            self.end(request, reply.verdict)
        else:
            backoff_ms = self.rng.uniform(0.5, 1) * min(120_000, 2_000 * 2**request.own)
            self.park(request, max(reply.retry_after_ms, backoff_ms))

    def failed(self, request: Request, reply: Reply) -> None:
        request.failures += 1
        request.costly += reply.verdict == "cut short"
        if request.deadline_ms <= self.now_ms:
            self.end(request, "deadline_exceeded")
        elif request.failures >= request.attempts or request.costly >= COSTLY:
            self.end(request, reply.verdict)
        else:
            self.park(request, self.rng.uniform(0, min(60_000, 2_000 * 2 ** (request.failures - 1))))
