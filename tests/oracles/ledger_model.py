"""The meaning of the ledger, said once more in plain Python: no keys, no types, no memory, no lost replies.

`Model.<command>` takes `key`, `arg` and `rows` as the script's command does, and returns its reply. The hypothesis test
runs both side by side; where they differ, one of them is wrong.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any, Final

FINAL: Final = ("completed", "incomplete", "failed")
PRIORITIES: Final = ("", "\x06\x163", "\x06\x166", "\x06\x169")
MARKER_MS: Final = 3_600_000
DAY_MS: Final = 24 * 3_600_000
ATTEMPTS_KEPT: Final = 50
STREAMS_WAITING: Final = 16
LOST_MOST: Final = 5
LOST_LAST: Final = 7
CRASHES_LAST: Final = 16
APART_MS: Final = 1_000

SEEN_AS_IT_IS: Final = ("inflight", "leases", "parked", "due", "requests", "expires", "streams", "dead", "kept")

Fields = dict[str, str]


def attempts(number: int | None, attempt: str) -> Fields:
    return {} if number is None else {f"attempt:{number}": attempt}


def process_of(token: str) -> str:
    head, dash, _ = token.partition("-")
    return head if dash else token


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
    permits: set[str] = field(default_factory=set[str])
    """As admission has them: who asks says which there are."""
    kept: dict[str, int] = field(default_factory=dict[str, int])
    accounts: dict[tuple[str, str, str], list[int]] = field(default_factory=dict[tuple[str, str, str], list[int]])
    """The sums of each day, tenant and model."""
    tick: int | None = None
    hold_until: int = 0
    lost: Counter[str] = field(default_factory=Counter[str])
    """Deliveries of a message that were lost before a claim."""
    fallen: dict[str, tuple[int, Counter[int]]] = field(default_factory=dict[str, tuple[int, Counter[int]]])
    """When a process lost its last delivery, and how many with how many crashes it lost."""

    def state(self) -> dict[str, Any]:
        """Everything that can be seen from outside, in a form to compare."""
        return {
            "lists": {name: waiting for name, waiting in self.lists.items() if waiting},
            "reclaimer": {} if self.tick is None else {"tick": str(self.tick), "hold_until": str(self.hold_until)},
            "usage": {row: " ".join(map(str, sums)) for row, sums in self.accounts.items()},
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
        full, empty = False, set[str]()
        for beyond_quota in () if any(found.values()) else (False, True):
            for row in rows:
                taken = sum(len(mine) for mine in found.values())
                most = row.limit - len(found[row.lane]) if beyond_quota else row.quota
                for _ in range(min(arg.total - taken, most)):
                    size = self._next_size(row.lane)
                    sizes = [len(self.inflight[one].message) for mine in found.values() for one in mine]
                    full = full or bool(size and sizes and sum(sizes) + size > arg.bytes)
                    if full or not size:
                        empty |= {row.lane} if not full else set()
                        break
                    token = next(token for token in tokens[row.lane] if token not in self.inflight)
                    self._take(row.lane, token, arg.lease_ms)
                    found[row.lane].append(token)
        # The order of the reply is tested elsewhere, with lanes that are easier to read.
        given = [[one, lane, self.inflight[one].message] for lane in found for one in found[lane]]
        return [sorted(empty), *sorted(given)]

    def _waiting(self, lane: str) -> list[str]:
        """The names of the lane's lists that are not empty, the highest priority first."""
        return [name for suffix in PRIORITIES if self.lists.get(name := f"responses.{lane}{suffix}")]

    def _next_size(self, lane: str) -> int:
        """Of the message next in line; 0 where there is none."""
        return next((len(self.lists[name][0]) for name in self._waiting(lane)), 0)

    def _take(self, lane: str, token: str, lease_ms: int) -> None:
        name = self._waiting(lane)[0]
        self.inflight[token] = Record(lane, name, self.lists[name].pop(0))
        self.leases[token] = self.now + lease_ms

    def claim(self, key: Any, arg: Any, _: Any) -> list[Any]:
        if arg.token not in self.inflight:
            return ["SUPERSEDED", self.now]
        known = self.requests.get(key.request)
        if known and (refusal := self._refusal(known, arg, key.results)):
            if refusal == "REPUBLISHED":
                self._publish(key.results, arg.request_id, known["state"], known["result"])
                known["replied"] += f"{key.results} "
            if refusal not in ("CONFLICT", "WITHHELD", "GONE", "CROWDED"):
                self._drop(arg.token)
            return [refusal, self.now]
        again = known and known["token"] == arg.token and known["calling"] == "1"
        new = not known or known["state"] in FINAL or again
        if not known or known["state"] in FINAL:
            reach = arg.longest_deadline_ms
            honest = arg.enqueued_at is not None and abs(arg.enqueued_at - self.now) <= reach
            at = arg.enqueued_at if honest else self.now
            known = {"v": "1", "fingerprint": arg.fingerprint, "enqueued_at": str(at), "claimed_at": str(self.now)}
            known["enqueued_at_source"] = "caller" if honest else "worker"
            deadline = at + arg.default_deadline_ms if arg.deadline is None else arg.deadline
            known["deadline"] = str(max(self.now - reach, min(deadline, self.now + reach)))
            known |= {"failures": "0", "own": "0", "crashes": "0", "throttle_ms": "0"}
        held = {"state": "running", "token": arg.token, "lane": arg.lane, "calling": "0"}
        waiting = known.get("waiting", " ")
        known["waiting"] = waiting if f" {key.results} " in waiting else f"{waiting}{key.results} "
        self.requests[key.request] = known | held
        self.expires[key.request] = max(int(known["deadline"]), self.now) + MARKER_MS
        self.inflight[arg.token] = replace(self.inflight[arg.token], request=key.request)
        status = "EXPIRED" if int(known["deadline"]) <= self.now else "LEASE"
        status = "CANCELLED" if {key.cancel, key.cancel_task} & self.cancelled else status
        names = ["enqueued_at", "enqueued_at_source", "deadline", "claimed_at"]
        names += ["failures", "own", "crashes", "throttle_ms"]
        tried = sorted((name for name in known if name.startswith("attempt:")), key=lambda name: int(name[8:]))
        fell = [known.get("group", "1"), known.get("alone", "1")]
        begun = bool(arg.begins and new and status == "LEASE" and arg.token in self.permits)
        if begun:
            first = f'{{"number":1,"started_at_ms":{self.now}}}'
            self.requests[key.request] |= {"attempt:1": first, "calling": "1"}
        facts = [status, self.now, *(known[name] for name in names), *fell, int(begun)]
        return [*facts, *([] if begun else (known[name] for name in tried))]

    def _refusal(self, known: Fields, arg: Any, stream: str) -> str:
        final = known["state"] in FINAL
        if known["token"] == arg.token:
            return "DUPLICATE" if final else ""
        if not arg.fingerprint.startswith(known.get("mark", known.get("fingerprint", arg.fingerprint))):
            return "CONFLICT"
        if final and known.get("retryable") == "1":
            return ""
        if final and f" {stream} " in known["replied"]:
            return "DUPLICATE"
        if final:
            kept = "REPUBLISHED" if "result" in known else "GONE"
            return kept if arg.republish else "WITHHELD"
        held = known["token"] in self.inflight or known["token"] in self.parked
        return self._join(known, stream, may_join=arg.republish) if held else ""

    def _join(self, known: Fields, stream: str, *, may_join: bool) -> str:
        waiting = known.get("waiting", " ")
        if f" {stream} " in waiting:
            return "BUSY"
        if not may_join:
            return "WITHHELD"
        if len(waiting.split()) >= STREAMS_WAITING:
            return "CROWDED"
        known["waiting"] = f"{waiting}{stream} "
        return "BUSY"

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
        others = [stream for stream in (known or {}).get("waiting", "").split() if stream != key.results]
        for stream in (key.results, *others):
            self._publish(stream, arg.request_id, outcome, arg.result)
        self.cancelled.discard(key.cancel)
        kept = {name: value for name, value in (known or {}).items() if not name.startswith("attempt:")}
        kept.pop("waiting", None)
        replied = " ".join([*others, key.results])
        answer = {"state": outcome, "token": token, "result": arg.result, "retryable": str(int(arg.retryable))}
        self.requests[key.request] = kept | answer | {"replied": f" {replied} ", "calling": "0"}
        self.kept[key.request] = self.now + arg.kept_ms
        deadline = int(kept.get("deadline", self.now))
        if arg.window_ms is not None:
            self.expires[key.request] = self.now + max(arg.window_ms, arg.kept_ms)
        elif deadline <= self.now or self.kept[key.request] > deadline + MARKER_MS:
            self.expires[key.request] = max(deadline + MARKER_MS, self.now + MARKER_MS, self.kept[key.request])
        self._account(arg)
        self._drop(token)
        return "OK"

    def answer(self, key: Any, arg: Any, _: Any) -> str:
        if arg.token in self.inflight:
            if arg.dead_reason:
                self.dead.append((arg.dead_reason, self.inflight[arg.token].message))
            self._publish(key.results, arg.request_id, "failed", arg.result)
            self._account(arg)
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
        for request in self.requests.values():
            calling = request["state"] == "running" and request["calling"] != "0"
            if calling and request["token"] in alive and self.leases[request["token"]] <= self.now:
                request["revived"] = request["token"]
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
        gap = self.now - (self.tick or 0)
        if gap > lease_ms / 2:
            self.hold_until = self.now + lease_ms
        self.hold_until, self.tick = min(self.hold_until, self.now + lease_ms), self.now
        reclaimed: list[Any] = []
        falling: dict[str, Counter[int]] = {}
        apart = 0
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
            if over and not falling:
                falling = self._falling([row.lane for row in lanes], lease_ms, limit)
            for token in reversed(over):
                row, apart = self._lose(lane, token, falling[process_of(token)], arg, apart)
                reclaimed += row
        leased = {self.inflight[token].lane for token in self.leases}
        return [" ".join(row.lane for row in lanes if row.lane not in leased), *reclaimed]

    def _falling(self, lanes: list[str], lease_ms: int, limit: int) -> dict[str, Counter[int]]:
        """For each process with leases that end: how many deliveries with how many crashes it loses."""
        falling: dict[str, Counter[int]] = {}
        for lane in lanes:
            ends = {token: (end, token) for token, end in self.leases.items() if self.inflight[token].lane == lane}
            ending = (token for token in ends if self.leases[token] <= self.now + lease_ms / 2)
            for token in sorted(ending, key=ends.__getitem__)[: 2 * limit]:
                losses = falling.setdefault(process_of(token), self._recent(process_of(token), lease_ms))
                losses[self._crashes(token) or 0] += 1
        return falling

    def _recent(self, process: str, lease_ms: int) -> Counter[int]:
        at, losses = self.fallen.get(process, (0, Counter[int]()))
        return Counter(losses if 0 <= self.now - at <= lease_ms / 2 else {})

    def _crashes(self, token: str) -> int | None:
        request = self.requests.get(self.inflight[token].request, {})
        return int(request.get("crashes", 0)) if request.get("token") == token else None

    def _lose(self, lane: str, token: str, falling: Counter[int], arg: Any, apart: int) -> tuple[list[Any], int]:
        record, crashes, process = self.inflight[token], self._crashes(token), process_of(token)
        self.fallen[process] = (self.now, self._recent(process, arg.lease_ms) + Counter({crashes or 0: 1}))
        calling, after, given = 0, 0, ""
        if crashes is not None:
            request = self.requests[record.request]
            calling, after = int(request["calling"]), crashes + 1
            group = sum(count for known, count in falling.items() if known >= crashes)
            request |= {"crashes": str(after), "group": str(group), "alone": str(int(falling.total() == 1))}
        self.lost[record.message] += not record.request
        times = 0 if record.request else self.lost[record.message]
        if after >= CRASHES_LAST or times >= LOST_LAST:
            self.dead.append(("lost", record.message))
        elif times >= LOST_MOST:
            given = f"{arg.pop_id}.{token}"
            self.inflight[given], self.leases[given] = record, self.now + arg.lease_ms
        elif times > 1:
            self.parked[token], self.due[token] = record, self.now + apart * APART_MS
            apart += 1
        else:
            self._to_lane(token, record)
        self._drop(token)
        return [lane, token, record.request, calling, after, given, record.message if given else ""], apart

    def cancel(self, key: Any, _arg: Any, _: Any) -> str:
        self.cancelled.add(key.cancel)
        known = self.requests.get(key.request, {})
        if known.get("state") == "parked" and known["token"] in self.due:
            self.due[known["token"]] = self.now
        return known.get("state", "")

    def forget(self, _key: Any, arg: Any, _: Any) -> int:
        due = sorted((at, key) for key, at in self.kept.items() if at <= self.now)[: arg.limit]
        for _, key in due:
            if (known := self.requests.get(key, {})).get("state") in FINAL:
                self.requests[key] = self._marker(known)
            del self.kept[key]
        return len(due)

    def _marker(self, known: Fields) -> Fields:
        """The fields that stay when the result goes; the fingerprint in short where nothing will run anew."""
        if known["retryable"] == "1":
            return {name: known[name] for name in ("state", "token", "fingerprint", "retryable") if name in known}
        short = {"mark": known["fingerprint"][:16]} if "fingerprint" in known else {}
        return {"state": known["state"], "token": "", "replied": known["replied"]} | short

    def _publish(self, stream: str, id_: str, outcome: str, result: str) -> None:
        self.streams.setdefault(stream, []).append((id_, outcome, result))

    def _account(self, arg: Any) -> None:
        row = (f"responses:usage:{self.now // DAY_MS}", arg.tenant, arg.model.decode())
        before = self.accounts.get(row, [0] * 6)
        self.accounts[row] = [sum(pair) for pair in zip(before, map(int, arg.counts.split()), strict=True)]

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
