"""What the ledger is meant to do, said once more in plain Python: no keys, no types, no memory, no lost replies.

`Model.<command>` takes `key`, `arg` and `rows` as the script's command does, and returns its reply. The hypothesis test
runs both side by side; where they differ, one of them is wrong.
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


def attempts(number: int | None, attempt: str) -> Fields:
    return {} if number is None else {f"attempt:{number}": attempt}


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

    def pop(self, _: Any, arg: Any, rows: list[Any]) -> list[Any]:
        tokens = {row.lane: [f"{arg.pop_id}.{row.lane}.{number}" for number in range(1, 100)] for row in rows}
        found = {lane: list(takewhile(self.inflight.__contains__, tokens[lane])) for lane in tokens}
        for beyond_quota in () if any(found.values()) else (False, True):
            for row in rows:
                taken = sum(len(mine) for mine in found.values())
                most = row.limit - len(found[row.lane]) if beyond_quota else row.quota
                for _ in range(min(arg.total - taken, most)):
                    token = next(token for token in tokens[row.lane] if token not in self.inflight)
                    found[row.lane] += [token] if self._take(row.lane, token, arg.lease_ms) else []
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

    def claim(self, key: Any, arg: Any, _: Any) -> list[Any]:
        if arg.token not in self.inflight:
            return ["SUPERSEDED", self.now]
        known = self.requests.get(key.request)
        if known and (refusal := self._refusal(known, arg.token, arg.fingerprint, key.results)):
            if refusal == "REPUBLISHED":
                self._publish(key.results, arg.request_id, known["state"], known["result"])
                known["replied"] += f"{key.results} "
            if refusal not in ("CONFLICT", "GONE"):
                self._drop(arg.token)
            return [refusal, self.now]
        if not known or known["state"] in FINAL:
            at = arg.enqueued_at or self.now
            known = {"v": "1", "fingerprint": arg.fingerprint, "enqueued_at": str(at), "claimed_at": str(self.now)}
            known["enqueued_at_source"] = "caller" if arg.enqueued_at else "worker"
            latest = self.now + arg.longest_deadline_ms
            known["deadline"] = str(min(arg.deadline or at + arg.default_deadline_ms, latest))
            known |= {"failures": "0", "own": "0", "crashes": "0", "throttle_ms": "0"}
        held = {"state": "running", "token": arg.token, "lane": arg.lane, "calling": "0"}
        self.requests[key.request] = known | held
        self.expires[key.request] = max(int(known["deadline"]), self.now) + MARKER_MS
        self.inflight[arg.token] = replace(self.inflight[arg.token], request=key.request)
        status = "EXPIRED" if int(known["deadline"]) <= self.now else "LEASE"
        status = "CANCELLED" if {key.cancel, key.cancel_task} & self.cancelled else status
        names = ["enqueued_at", "enqueued_at_source", "deadline", "claimed_at"]
        names += ["failures", "own", "crashes", "throttle_ms"]
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

    def begin(self, key: Any, arg: Any, _: Any) -> str:
        if not self._holds(arg.token, key.request):
            return "SUPERSEDED"
        request = self.requests[key.request]
        request |= {f"attempt:{arg.number}": arg.attempt, "calling": str(arg.number)}
        request |= attempts(arg.previous_number, arg.previous)
        request.pop(f"attempt:{arg.number - ATTEMPTS_KEPT}", None)
        return "OK"

    def complete(self, key: Any, arg: Any, _: Any) -> str:
        token, outcome = arg.token, arg.outcome
        known, record = self.requests.get(key.request), self.inflight.get(token)
        if known and known["state"] in FINAL:
            if known["token"] == token:
                return "OK"
            self._hand_back(token)
            return "DUPLICATE"
        ours = record is not None and (known is None or known["token"] == token)
        if not ours and (outcome == "failed" or known is None):
            return "SUPERSEDED"
        if arg.dead_reason and record:
            self.dead.append((arg.dead_reason, record.message))
        self._publish(key.results, arg.request_id, outcome, arg.result)
        self.cancelled.discard(key.cancel)
        kept = {name: value for name, value in (known or {}).items() if not name.startswith("attempt:")}
        answer = {"state": outcome, "token": token, "result": arg.result, "retryable": str(int(arg.retryable))}
        self.requests[key.request] = kept | answer | {"replied": f" {key.results} ", "calling": "0"}
        self.kept[key.request] = self.now + arg.kept_ms
        marked = max(int(kept.get("deadline", 0)) + MARKER_MS, self.now + MARKER_MS)
        self.expires[key.request] = max(marked, self.kept[key.request])
        self._drop(token)
        return "OK"

    def answer(self, key: Any, arg: Any, _: Any) -> str:
        if arg.token in self.inflight:
            self._publish(key.results, arg.request_id, "failed", arg.result)
        return self._let_go(arg.token)

    def bury(self, _key: Any, arg: Any, _: Any) -> str:
        if arg.token in self.inflight:
            self.dead.append((arg.reason, self.inflight[arg.token].message))
        return self._let_go(arg.token)

    def park(self, key: Any, arg: Any, _: Any) -> str:
        token = arg.token
        if token in self.parked:
            return "OK"
        if not self._holds(token, key.request):
            return "SUPERSEDED"
        self.parked[token], self.due[token] = self.inflight[token], self.now + arg.delay_ms
        spent = {"state": "parked", "calling": "0"}
        spent |= {"failures": str(arg.failures), "own": str(arg.own), "throttle_ms": str(arg.throttle_ms)}
        self.requests[key.request] |= spent | attempts(arg.number, arg.attempt)
        self.expires[key.request] = max(self.expires[key.request], self.now + arg.delay_ms + MARKER_MS)
        self._drop(token)
        return "OK"

    def release(self, key: Any, arg: Any, _: Any) -> str:
        if arg.token not in self.inflight:
            return "SUPERSEDED"
        request = self.requests.get(getattr(key, "request", ""), {})
        if request.get("token") == arg.token:
            request |= {"throttle_ms": str(arg.throttle_ms)} | attempts(arg.number, arg.attempt)
        self._hand_back(arg.token, behind=arg.behind)
        return "OK"

    def renew(self, _: Any, arg: Any, held: list[Any]) -> list[str]:
        alive = [one.token for one in held if one.token in self.inflight]
        self.leases |= dict.fromkeys(alive, self.now + arg.lease_ms)
        return [one.token for one in held if one.token not in self.inflight]

    def promote(self, _: Any, arg: Any, lanes: list[Any]) -> int:
        promoted = 0
        for row in lanes:
            lane = row.parked.removeprefix("responses:parked:")
            at = {token: (due, token) for token, due in self.due.items() if self.parked[token].lane == lane}
            ripe = sorted((token for token in at if self.due[token] <= self.now), key=at.__getitem__)[: arg.limit]
            for token in reversed(ripe):
                self._to_lane(token, self.parked.pop(token))
                del self.due[token]
            promoted += len(ripe)
        return promoted

    def reclaim(self, _: Any, arg: Any, lanes: list[Any]) -> list[Any]:
        lease_ms, limit = arg.lease_ms, arg.limit
        gap = self.now - (self.now if self.tick is None else self.tick)
        if gap > lease_ms / 2:
            self.hold_until = self.now + lease_ms
        self.hold_until, self.tick = min(self.hold_until, self.now + lease_ms), self.now
        reclaimed: list[Any] = []
        for lane in (row.lane for row in lanes):
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

    def cancel(self, key: Any, _arg: Any, _: Any) -> str:
        self.cancelled.add(key.cancel)
        known = self.requests.get(key.request, {})
        if known.get("state") == "parked" and known["token"] in self.due:
            self.due[known["token"]] = self.now
        return known.get("state", "")

    def forget(self, _key: Any, arg: Any, _: Any) -> int:
        due = sorted((at, key) for key, at in self.kept.items() if at <= self.now)[: arg.limit]
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

    def _hand_back(self, token: str, *, behind: bool = False) -> None:
        if token in self.inflight:
            self._to_lane(token, self.inflight[token], behind=behind)
            self._drop(token)

    def _to_lane(self, token: str, record: Record, *, behind: bool = False) -> None:
        waiting = self.lists.setdefault(record.list, [])
        waiting.insert(len(waiting) if behind else 0, record.message)
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
