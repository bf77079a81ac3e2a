"""What the ledger is meant to do, said once more in plain Python: no keys, no types, no memory, no lost replies.

`Ledger.<command>` takes the arguments of the script's command and returns its reply. The hypothesis test runs both
side by side; where they differ, one of them is wrong.
"""

from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any, Final

FINAL: Final = ("completed", "incomplete", "failed")
PRIORITIES: Final = ("", "\x06\x163", "\x06\x166", "\x06\x169")
MARKER_MS: Final = 3_600_000
ATTEMPTS_KEPT: Final = 50

SEEN_AS_IT_IS: Final = ("inflight", "leases", "parked", "due", "requests", "expires", "streams", "dead", "kept")

Fields = dict[str, str]


def attempts(number: Any, attempt: str) -> Fields:
    return {} if number == "" else {f"attempt:{number}": attempt}


@dataclass(frozen=True)
class Record:
    """One message on its way, and the request it was claimed for."""

    lane: str
    list: str
    message: str
    request: str = ""


@dataclass
class Model:
    now: int
    lists: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Next message first."""
    inflight: dict[str, Record] = field(default_factory=dict[str, Record])
    leases: dict[str, int] = field(default_factory=dict[str, int])
    parked: dict[str, Record] = field(default_factory=dict[str, Record])
    due: dict[str, int] = field(default_factory=dict[str, int])
    requests: dict[str, Fields] = field(default_factory=dict[str, Fields])
    expires: dict[str, int] = field(default_factory=dict[str, int])
    streams: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict[str, list[tuple[str, str, str]]])
    dead: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    cancelled: set[str] = field(default_factory=set[str])
    kept: dict[str, int] = field(default_factory=dict[str, int])
    tick: int | None = None
    hold_until: int = 0

    def state(self) -> dict[str, Any]:
        """Everything that can be seen from outside, in a form to compare."""
        return {
            "lists": {name: waiting for name, waiting in self.lists.items() if waiting},
            "reclaimer": {} if self.tick is None else {"tick": str(self.tick), "hold_until": str(self.hold_until)},
            **{name: getattr(self, name) for name in SEEN_AS_IT_IS},
        }

    def enqueue(self, name: str, message: str) -> None:
        self.lists.setdefault(name, []).append(message)

    def advance(self, ms: int) -> list[str]:
        """Moves the clock; returns the requests that are forgotten by then."""
        self.now += ms
        gone = [key for key, at in self.expires.items() if at <= self.now]
        for key in gone:
            del self.requests[key], self.expires[key]
        return gone

    def pop(self, lease_ms: int, pop_id: str, total: int, *wanted: Any) -> list[Any]:
        rows = list(zip(wanted[::3], wanted[1::3], wanted[2::3], strict=True))
        tokens = {lane: [f"{pop_id}.{lane}.{number}" for number in range(1, 100)] for lane, *_ in rows}
        found = {lane: list(takewhile(self.inflight.__contains__, tokens[lane])) for lane in tokens}
        for quota in () if any(found.values()) else (1, 2):
            for row in rows:
                lane, taken = row[0], sum(len(mine) for mine in found.values())
                for _ in range(min(total - taken, row[quota] - (quota - 1) * len(found[lane]))):
                    token = next(token for token in tokens[lane] if token not in self.inflight)
                    found[lane] += [token] if self._take(lane, token, lease_ms) else []
        # The order of the reply is tested elsewhere, with lanes that are easier to read.
        return [self.now, *sorted([one, lane, self.inflight[one].message] for lane in found for one in found[lane])]

    def _take(self, lane: str, token: str, lease_ms: int) -> bool:
        for suffix in PRIORITIES:
            name = f"responses.{lane}{suffix}"
            if self.lists.get(name):
                self.inflight[token] = Record(lane, name, self.lists[name].pop(0))
                self.leases[token] = self.now + lease_ms
                return True
        return False

    def claim(self, lane: str, token: str, tenant: str, id_: str, *rest: Any) -> list[Any]:
        task_id, fingerprint, enqueued_at, deadline, default_ms, longest_ms, stream = rest
        if token not in self.inflight:
            return ["SUPERSEDED", self.now]
        key = f"responses:request:{tenant}:{id_}"
        known = self.requests.get(key)
        if known and (refusal := self._refusal(known, token, fingerprint, stream)):
            if refusal == "REPUBLISHED":
                self._publish(stream, id_, known["state"], known["result"])
                known["replied"] += f"{stream} "
            if refusal not in ("CONFLICT", "GONE"):
                self._drop(token)
            return [refusal, self.now]
        if not known or known["state"] in FINAL:
            at = enqueued_at or self.now
            known = {"v": "1", "fingerprint": fingerprint, "enqueued_at": str(at), "claimed_at": str(self.now)}
            known["enqueued_at_source"] = "caller" if enqueued_at else "worker"
            known["deadline"] = str(min(deadline or at + default_ms, self.now + longest_ms))
            known |= {"failures": "0", "crashes": "0", "throttle_ms": "0"}
        self.requests[key] = known | {"state": "running", "token": token, "lane": lane, "calling": "0"}
        self.expires[key] = max(int(known["deadline"]), self.now) + MARKER_MS
        self.inflight[token] = replace(self.inflight[token], request=key)
        status = "EXPIRED" if int(known["deadline"]) <= self.now else "LEASE"
        status = "CANCELLED" if {f"{tenant}:{id_}", f":{task_id}"} & self.cancelled else status
        names = ["enqueued_at", "enqueued_at_source", "deadline", "claimed_at", "failures", "crashes", "throttle_ms"]
        names += sorted((name for name in known if name.startswith("attempt:")), key=lambda name: int(name[8:]))
        return [status, self.now, *(known[name] for name in names)]

    def _refusal(self, known: Fields, token: str, fingerprint: str, stream: str) -> str:
        final = known["state"] in FINAL
        if known["token"] == token:
            return "DUPLICATE" if final else ""
        if known.get("fingerprint", fingerprint) != fingerprint:
            return "CONFLICT"
        if final and known["retryable"] == "1":
            return ""
        if final and f" {stream} " in known["replied"]:
            return "DUPLICATE"
        if final:
            return "REPUBLISHED" if "result" in known else "GONE"
        return "BUSY" if known["token"] in self.inflight or known["token"] in self.parked else ""

    def begin(self, _: str, token: str, key: str, *rest: Any) -> str:
        number, attempt, previous, ended = rest
        if not self._holds(token, key):
            return "SUPERSEDED"
        request = self.requests[key]
        request |= {f"attempt:{number}": attempt, "calling": str(number)} | attempts(previous, ended)
        request.pop(f"attempt:{number - ATTEMPTS_KEPT}", None)
        return "OK"

    def complete(self, _: str, token: str, key: str, *rest: Any) -> str:
        tenant, id_, outcome, retryable, result, stream, kept_ms, _, dead, _ = rest
        known, record = self.requests.get(key), self.inflight.get(token)
        if known and known["state"] in FINAL:
            if known["token"] == token:
                return "OK"
            self._hand_back(token)
            return "DUPLICATE"
        ours = record is not None and (known is None or known["token"] == token)
        if not ours and (outcome == "failed" or known is None):
            return "SUPERSEDED"
        if dead and record:
            self.dead.append((dead, record.message))
        self._publish(stream, id_, outcome, result)
        self.cancelled.discard(f"{tenant}:{id_}")
        kept = {name: value for name, value in (known or {}).items() if not name.startswith("attempt:")}
        answer = {"state": outcome, "token": token, "result": result, "retryable": str(retryable)}
        self.requests[key] = kept | answer | {"replied": f" {stream} ", "calling": "0"}
        self.kept[key] = self.now + kept_ms
        self.expires[key] = max(int(kept.get("deadline", 0)) + MARKER_MS, self.now + MARKER_MS, self.kept[key])
        self._drop(token)
        return "OK"

    def answer(self, _: str, token: str, *rest: Any) -> str:
        _, id_, result, stream = rest
        if token in self.inflight:
            self._publish(stream, id_, "failed", result)
        return self._let_go(token)

    def bury(self, _: str, token: str, reason: str) -> str:
        if token in self.inflight:
            self.dead.append((reason, self.inflight[token].message))
        return self._let_go(token)

    def park(self, _: str, token: str, key: str, *rest: Any) -> str:
        delay_ms, failures, throttle_ms, _, number, attempt = rest
        if token in self.parked:
            return "OK"
        if not self._holds(token, key):
            return "SUPERSEDED"
        self.parked[token], self.due[token] = self.inflight[token], self.now + delay_ms
        spent = {"state": "parked", "calling": "0", "failures": str(failures), "throttle_ms": str(throttle_ms)}
        self.requests[key] |= spent | attempts(number, attempt)
        self.expires[key] = max(self.expires[key], self.now + delay_ms + MARKER_MS)
        self._drop(token)
        return "OK"

    def release(self, _: str, token: str, key: str, *rest: Any) -> str:
        throttle_ms, _, number, attempt = rest
        if token not in self.inflight:
            return "SUPERSEDED"
        request = self.requests.get(key, {})
        if request.get("token") == token:
            request |= {"throttle_ms": str(throttle_ms)} | attempts(number, attempt)
        self._hand_back(token)
        return "OK"

    def renew(self, lease_ms: int, _: str, *held: str) -> list[str]:
        alive = [token for token in held[1::2] if token in self.inflight]
        self.leases |= dict.fromkeys(alive, self.now + lease_ms)
        return [token for token in held[1::2] if token not in self.inflight]

    def promote(self, limit: int, *lanes: str) -> int:
        promoted = 0
        for lane in lanes:
            at = {token: (due, token) for token, due in self.due.items() if self.parked[token].lane == lane}
            ripe = sorted((token for token in at if self.due[token] <= self.now), key=at.__getitem__)[:limit]
            for token in reversed(ripe):
                self._to_lane(token, self.parked.pop(token))
                del self.due[token]
            promoted += len(ripe)
        return promoted

    def reclaim(self, lease_ms: int, limit: int, *lanes: str) -> list[Any]:
        gap = self.now - (self.now if self.tick is None else self.tick)
        if gap > lease_ms / 2:
            self.hold_until = self.now + lease_ms
        self.hold_until, self.tick = min(self.hold_until, self.now + lease_ms), self.now
        reclaimed: list[Any] = []
        for lane in lanes:
            ends = {token: (end, token) for token, end in self.leases.items() if self.inflight[token].lane == lane}
            absurd = sorted(
                (token for token in ends if ends[token][0] >= self.now + 2 * lease_ms), key=ends.__getitem__
            )
            for token in absurd[:limit]:
                self.leases[token] = self.now + lease_ms
            if self.now < self.hold_until:
                continue
            over = sorted((token for token in ends if self.leases[token] <= self.now), key=ends.__getitem__)[:limit]
            for token in reversed(over):
                reclaimed += self._reclaim(lane, token)
        return reclaimed

    def _reclaim(self, lane: str, token: str) -> list[Any]:
        key = self.inflight[token].request
        request = self.requests.get(key, {})
        calling = int(request.get("calling", 0)) if request.get("token") == token else 0
        if calling:
            request["crashes"] = str(int(request.get("crashes", 0)) + 1)
        self._hand_back(token)
        return [lane, token, key, calling, request["crashes"] if calling else 0]

    def cancel(self, tenant: str, id_: str, _: int) -> str:
        self.cancelled.add(f"{tenant}:{id_}")
        known = self.requests.get(f"responses:request:{tenant}:{id_}", {})
        if known.get("state") == "parked" and known["token"] in self.due:
            self.due[known["token"]] = self.now
        return known.get("state", "")

    def forget(self, limit: int) -> int:
        due = sorted((at, key) for key, at in self.kept.items() if at <= self.now)[:limit]
        for _, key in due:
            self.requests.get(key, {}).pop("result", None)
            del self.kept[key]
        return len(due)

    def _publish(self, stream: str, id_: str, outcome: str, result: str) -> None:
        self.streams.setdefault(stream, []).append((id_, outcome, result))

    def _holds(self, token: str, key: str) -> bool:
        request = self.requests.get(key, {})
        if token in self.inflight and request.get("state") in FINAL:
            self._hand_back(token)
        return token in self.inflight and request.get("token") == token

    def _hand_back(self, token: str) -> None:
        if token in self.inflight:
            self._to_lane(token, self.inflight[token])
            self._drop(token)

    def _to_lane(self, token: str, record: Record) -> None:
        self.lists.setdefault(record.list, []).insert(0, record.message)
        request = self.requests.get(record.request, {})
        if request.get("token") == token and request["state"] not in FINAL:
            request |= {"state": "queued", "token": "", "calling": "0"}

    def _let_go(self, token: str) -> str:
        held = token in self.inflight
        self._drop(token)
        return "OK" if held else "SUPERSEDED"

    def _drop(self, token: str) -> None:
        self.inflight.pop(token, None)
        self.leases.pop(token, None)
