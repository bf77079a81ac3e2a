"""The meaning of admission, said once more in plain Python: who may call, given what the fleet has learned.

`Model.<command>` takes `arg` and `rows` as the script's command does, and returns its reply. How the rate, the calls in
flight and the evidence are learned is left to the simulated controller, which `tests/admission/test_twins.py` compares;
the model takes the learned numbers as given and holds the script to them. It knows besides which events may move the
gate.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from oracles.making_room import MakingRoom

START_BURST_MS: Final = 500
PROBE_PATIENCE_MS: Final = 15_000
LANE_LEAD_MS, LANE_GRACE_MS = 100, 250
TURN_MS, LONGEST_TURN_MS = 50, 1_000
MOST_FORGIVEN: Final = 4
FIRST_SCALE: Final = 32
"""Of a slow start, whose first 16 calls may be on their way for half a second."""
NO_LIMIT: Final = {"rpm": 0, "tpm": 0, "in_flight": 0}
SHUTTING: Final = {"authentication", "quota", "failed", "overloaded"}
OPENING: Final = {"ok", "answered"}


@dataclass(frozen=True)
class Learned:
    """The script's findings about the upstream; the model believes them."""

    scale: float
    burst_ms: float
    refund: float = 0.0
    backoff_ms: float = 100.0
    refusal_ms: float = 200.0
    lenience: float = 0.0
    cut_at: float = 0.0
    pause_until: float = 0.0
    in_flight: float = math.inf
    """Calls in flight, as learned."""
    room: float | None = None
    """During a slow start: calls that may still start at once. Then there is no budget."""


@dataclass(frozen=True)
class Gate:
    """The gate as the script keeps it; the model knows what may move it."""

    name: str = ""
    code: str = ""
    since: float = 0
    probe_at: float = 0
    probe_ms: float = 0
    silence: bool = False
    """Whether silence shut it: then any answer opens it."""


OPEN: Final = Gate()


@dataclass
class Model:
    """One fleet; times in ms of server time, budget in nominal ms."""

    configured: dict[str, int]
    longest_burst_ms: int
    now: int
    overrides: dict[str, int] = field(default_factory=dict[str, int])
    permits: dict[str, float] = field(default_factory=dict[str, float])
    gate: Gate = OPEN
    paused: bool = False
    pause_until: float = 0
    cut_at: float = 0
    probing: bool = False
    fresh: bool = True
    """Nothing was learned yet, or limits have just changed: the bucket is as at the start."""
    at: float | None = None
    requests_ms: float = 0
    tokens_ms: float = 0
    spent: dict[str, float] = field(default_factory=dict[str, float])
    claims: dict[str, float] = field(default_factory=dict[str, float])
    virtual: float = 0
    room: float | None = None
    """During a slow start: calls that may still start in this command."""
    last_turn: float = 0
    """The time at which the last process of the lane comes back, as this command found it."""
    back: float = 0
    """The time by which the clock went back before this command."""
    learned: Learned = field(init=False)

    # The limits and what they make a call cost

    def in_force(self, name: str) -> int:
        return self.overrides.get(name, self.configured[name])

    @property
    def known(self) -> bool:
        return self.in_force("rpm") > 0 or self.in_force("tpm") > 0

    @property
    def request_ms(self) -> float:
        rpm = self.in_force("rpm")
        return 60_000 / rpm if rpm else 0 if self.known else 1_000

    @property
    def token_ms(self) -> float:
        tpm = self.in_force("tpm")
        return 60_000 / tpm if tpm else 0

    def cost(self, tokens: int) -> float:
        return max(self.request_ms, tokens * self.token_ms)

    @property
    def full_ms(self) -> float:
        return self.learned.burst_ms * self.learned.scale

    # The commands

    def arrive(self) -> None:
        """Every command begins with this: a clock that went back takes all that is to come back with it."""
        self.back = back = max(0, (self.at or 0) - self.now)
        if back > 0:
            self.at = self.now
            self.pause_until -= back if self.pause_until else 0
            self.cut_at -= back if self.cut_at else 0
            self.permits = {token: expiry - back for token, expiry in self.permits.items()}
            self.claims = {lane: until - back for lane, until in self.claims.items()}
            if self.gate.name:
                since, probe_at = self.gate.since - back, self.gate.probe_at - back
                self.gate = replace(self.gate, since=since, probe_at=probe_at)
        if self.fresh:
            level = min(START_BURST_MS, self.longest_burst_ms)
            self.requests_ms = self.tokens_ms = level
            starts = Learned(FIRST_SCALE, level, room=FIRST_SCALE / 2)
            self.learned = Learned(1, self.longest_burst_ms) if self.known else starts
            self.probing, self.cut_at = False, 0

    def earn(self, learned: Learned) -> None:
        """Budget for the time since the last call, but for the part of it that was a pause."""
        if self.learned.room is None:
            self._fill()
        self.at, self.fresh, self.learned = self.now, False, learned

    def _fill(self) -> None:
        elapsed = 0 if self.fresh else self.now - (self.at or 0)
        earned = min(elapsed, max(0, self.now - self.pause_until)) * self.learned.scale
        self.requests_ms = min(self.full_ms, self.requests_ms + earned)
        self.tokens_ms = min(self.full_ms, self.tokens_ms + earned)

    def admit(
        self,
        learned: Learned,
        gate: Gate,
        arg: Any,
        asked: Sequence[Any],
        words: Sequence[str],
        *,
        room: MakingRoom,
    ) -> float | None:
        """Holds each answer to what is known; returns for how long to wait, or None where that is not known."""
        self.permits = {token: expiry for token, expiry in self.permits.items() if expiry > self.now}
        shut = self._moved(gate, silence=True)
        starts = sum(word == "go" and one.token not in self.permits for one, word in zip(asked, words, strict=True))
        self.room = None if learned.room is None else learned.room + starts
        room.prepare(list(asked))
        self.last_turn = self.claims.get(arg.lane, 0) - LANE_GRACE_MS
        wait_ms: float | None = 1_000 if self.paused else 0
        for number, (one, word) in enumerate(zip(asked, words, strict=True)):
            if one.token in self.permits:
                assert word == "go"
                wait_ms = wait_ms or (shut.probe_ms if shut.name else 0)  # a call under way is taken for the probe
            elif word == "late":
                continue
            elif not wait_ms and room.too_soon(one, shut):
                assert word == "later"
            else:
                said = "wait" if room.makes_room(one, shut) and word == "later" else word
                assert said in (["wait"] if wait_ms else ["wait", "go"])
                if not wait_ms:
                    if shut.name:
                        own_ms = self._try(shut, one, said, arg.lease_ms, room)
                    else:
                        own_ms = self._offer(learned, arg, one, said, left=len(asked) - number)
                    wait_ms = 0 if word == "later" else own_ms
                room.answered(one, word, probe=bool(shut.name))
        self._begin()
        return wait_ms

    def _begin(self) -> None:
        """A value that a command keeps is no longer fresh."""
        if self.fresh:
            self.at, self.fresh = self.now, False

    def _moved(self, gate: Gate, *, silence: bool = False) -> Gate:
        """The gate before this command, which it may have shut."""
        before, self.gate = self.gate, gate
        if gate.name and not before.name:
            assert gate.since == self.now
            assert not silence or gate.silence
            return gate
        assert gate.name == before.name or not silence
        return before

    def _try(self, shut: Gate, one: Any, word: str, lease_ms: int, room: MakingRoom) -> float | None:
        """A probe goes when it is due, one at a time; a better one may be waited for."""
        if self.now < shut.probe_at and not room.at_once(one, shut):
            assert word == "wait"
            return shut.probe_at - self.now
        if word == "wait":
            return 0
        self.permits[one.token] = self.now + lease_ms
        probe_ms = shut.probe_ms / 2 if self.now < shut.probe_at else shut.probe_ms  # it would double it if it failed
        assert self.gate.probe_at == self.now + max(PROBE_PATIENCE_MS, probe_ms), "one at a time"
        return probe_ms

    def _offer(self, learned: Learned, arg: Any, one: Any, word: str, *, left: int) -> float:
        lane = arg.lane
        self.earn(learned)
        others = [self.spent.get(name, 0) for name, until in self.claims.items() if until > self.now and name != lane]
        if self.claims.get(lane, 0) <= self.now:
            self.spent[lane] = max(self.spent.get(lane, 0), self.virtual)
        wait_ms, alone = self._obstacle(lane, min(others, default=math.inf), one.tokens)
        assert word == ("wait" if wait_ms > 0 else "go")
        if wait_ms > 0:
            turn_ms = min(TURN_MS, left * self.cost(one.tokens) / self.learned.scale)
            in_turn_ms = min(self.last_turn + turn_ms - self.now, LONGEST_TURN_MS)
            wait_ms = wait_ms if alone else max(wait_ms, in_turn_ms)
            self.claims[lane] = self.now + min(wait_ms, 1_000) + LANE_GRACE_MS
            return wait_ms
        self.permits[one.token] = self.now + arg.lease_ms
        if self.room is None:
            self.requests_ms -= self.request_ms
            self.tokens_ms -= one.tokens * self.token_ms
        else:
            self.room -= 1
        self.virtual = max(self.virtual, self.spent[lane])
        self.spent[lane] += self.cost(one.tokens) / arg.weight
        if self.probing:
            self.probing, self.pause_until = False, self.now + 1.25 * self.learned.refusal_ms
        return 0

    def _obstacle(self, lane: str, behind: float, tokens: int) -> tuple[float, bool]:
        """The wait, and whether it is that of this question alone: else those who wait come back one by one."""
        if self.now < self.pause_until:
            return self.pause_until - self.now, True
        if len(self.permits) >= min(self.in_force("in_flight") or math.inf, self.learned.in_flight):
            return 50, True
        if self.spent[lane] > behind + LANE_LEAD_MS * self.learned.scale:
            return 25, False
        if self.room is not None:
            return 0 if self.room > 0 else 50, True
        requests = min(self.request_ms, self.full_ms) - self.requests_ms
        missing = min(tokens * self.token_ms, self.full_ms) - self.tokens_ms
        return max(0, requests, missing) / self.learned.scale, False

    def report(self, learned: Learned, gate: Gate, arg: Any, *, shared: bool) -> None:
        """Holds what changed to what the call showed. A second report changes nothing."""
        if self.permits.pop(arg.token, None) is None:
            self._moved(gate, silence=True)
            return
        started = self.learned.room is not None
        self.earn(learned)
        if not arg.probe:
            self._correct(arg.reserved, arg.used, arg.called)
        if started and learned.room is None:  # a header named the limit, or a refusal
            self.requests_ms = min(self.requests_ms, 0)
        self._judge(gate, arg, shared=shared)
        if arg.verdict == "throttled" and shared:
            self._throttled(learned, arg, started=started)

    def _judge(self, gate: Gate, arg: Any, *, shared: bool) -> None:
        """Only an answer to a newer call opens the gate, and only a shared refusal shuts it."""
        before = self._moved(gate)
        newer, said = bool(before.name) and arg.granted_at > before.since, arg.verdict not in {"unsent", "cut_short"}
        apart = before.name == "breaker_open" and not gate.name  # the failures were those of others alone
        opened = ((newer or apart) and arg.verdict in OPENING) or (before.silence and said)
        if opened:
            self._open()
        if gate.name and (opened or not before.name):
            assert shared
            assert arg.verdict in SHUTTING
            assert not arg.again
        elif before.name and not opened:
            assert gate.name, "only an answer opens the gate"
            moved = newer and arg.verdict in SHUTTING | {"unsent"}
            assert moved or replace(gate, code=before.code) == before

    def _correct(self, reserved: int, used: int, called: int) -> None:
        if not called:
            self.requests_ms = min(self.full_ms, self.requests_ms + self.request_ms)
        believed = self.learned.refund if called and used < reserved else 1
        unused = (reserved - used if called else reserved) * self.token_ms * believed
        self.tokens_ms = min(self.full_ms, self.tokens_ms + unused)

    def _open(self) -> None:
        most = START_BURST_MS * self.learned.scale
        self.requests_ms, self.tokens_ms = min(self.requests_ms, most), min(self.tokens_ms, most)

    def _throttled(self, learned: Learned, arg: Any, *, started: bool) -> None:
        """A pause of its own, or as long as the upstream asked for; it is never shortened but to the longest."""
        longest_ms = arg.longest_pause_ms
        if learned.cut_at == self.now and arg.granted_at > self.cut_at:
            self.requests_ms, self.tokens_ms = min(self.requests_ms, 0), min(self.tokens_ms, 0)
            self.cut_at = self.now
        own_ms = 1.25 * learned.refusal_ms if started else learned.backoff_ms
        most_ms = max(own_ms, min(arg.retry_after_ms, longest_ms))
        kept = min(self.pause_until, self.now + longest_ms)
        assert kept <= max(learned.pause_until, kept) <= max(kept, self.now + most_ms)
        self.probing |= learned.pause_until > self.now
        self.pause_until = learned.pause_until

    def heard(self, learned: Learned, gate: Gate, arg: Any) -> None:
        before = self._moved(gate)
        if before.name and (arg.granted_at > before.since or before.silence):
            assert not gate.name
            self.earn(learned)
            self._open()
        else:
            assert gate == before
        self._begin()

    def pause(self, *_: Any) -> int:
        news = int(not self.paused)
        self.paused = True
        return news

    def resume(self, learned: Learned) -> int:
        self.earn(learned)
        self._open()
        self.gate, self.pause_until, self.probing = OPEN, 0, False
        was, self.paused = self.paused, False
        return int(was)

    def limits(self, arg: Any) -> int:
        for name, limit in zip(NO_LIMIT, (arg.limit_rpm, arg.limit_tpm, arg.limit_in_flight), strict=True):
            if limit == "default":
                self.overrides.pop(name, None)
            elif limit:
                self.overrides[name] = int(limit)
        was_fresh, self.fresh = self.fresh, True
        return int(not was_fresh)
