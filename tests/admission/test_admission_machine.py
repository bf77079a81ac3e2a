"""Any order of anything: admission beside its model, and what must hold whatever either of them says.

`ADMISSION_EXAMPLES=2000` runs it for minutes instead of seconds.
"""

import math
import os
import time
from collections.abc import Coroutine
from typing import Any, Final, cast

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from oracles.admission_model import NO_LIMIT, Learned, Model
from support.admission_parts import HOUR_MS, LEASE_MS, LONGEST_PAUSE_MS, PERMITS, process
from support.admission_view import Promises, check_kept, check_learned, look
from support.ledger_parts import RecordingRunner
from support.movable_clock import CLOCK, on_movable_clock

from worker.admission.client import ADMISSION, Gate, Limits, Reservation, UpstreamVerdict
from worker.storage.scripts import Argument, Script

EXAMPLES: Final = int(os.environ.get("ADMISSION_EXAMPLES", "100"))
SLOW: Final = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
ON_TEST_TIME: Final = on_movable_clock(ADMISSION)
WEIGHTS: Final = {"interactive": 3, "batch": 1, "nightly": 1}
FLEETS: Final = (
    Limits(requests_per_minute=6_000),
    Limits(requests_per_minute=600, max_in_flight=8),
    Limits(requests_per_minute=6),
    Limits(tokens_per_minute=60_000, burst_s=5.0),
    Limits(requests_per_minute=600, tokens_per_minute=60_000, max_in_flight=20, burst_s=0.3),
    Limits(),
)
LONGEST_WAIT_MS: Final = {"paused": 1_000, "throttled": LONGEST_PAUSE_MS, "concurrency": 50, "share": 25}

GATES: Final[tuple[Gate, ...]] = ("authentication_failed", "quota_exhausted", "breaker_open")
VERDICTS: Final[tuple[UpstreamVerdict, ...]] = ("failed", "ok")
ENDINGS: Final = (*VERDICTS, "mixed", "mixed", "unsent", "throttled", "throttled", "met", *GATES)
INDEX: Final = st.integers(0, 40)
"""Which of the calls granted so far, counted back from the last; mostly one of the last few."""
LEARNED = ("scale", "burst_ms", "refund", "backoff_ms", "refusal_ms", "lenience", "cut_at_ms")


class AdmissionMachine(RuleBasedStateMachine):
    """Workers that repeat themselves, die and come late; operators; an upstream in any mood; clocks that jump."""

    server: Any

    @initialize(limits=st.sampled_from(FLEETS))
    def empty(self, limits: Limits) -> None:
        self.server.flushall()
        configured = (limits.requests_per_minute, limits.tokens_per_minute, limits.max_in_flight)
        burst_ms = round(limits.burst_s * 1_000)
        self.model = Model(dict(zip(NO_LIMIT, configured, strict=True)), burst_ms, round(time.time() * 1_000))
        self.promises = Promises(self.model)
        self.fleet = [process(cast("RecordingRunner", self), limits) for _ in range(2)]  # it answers every call
        self.shas = {text: self.server.script_load(text) for text in (ON_TEST_TIME.refusing, ON_TEST_TIME.insisting)}
        self.server.set(CLOCK, self.model.now)
        self.asked: list[tuple[str, tuple[Argument, ...]]] = []
        self.requests: list[tuple[str, str, int]] = []
        """Lane, token and size of all that ever asked."""
        self.calls: list[Reservation] = []
        self.at_once = False
        self.wait_ms = 0
        self.seen = look(self.server)

    # What happens

    @rule(count=st.sampled_from([1, 1, 2, 5, 30]), lane=st.sampled_from(tuple(WEIGHTS)),
          tokens=st.sampled_from([1, 1, 100, 900, 20_000]))  # fmt: skip
    def arrive(self, count: int, lane: str, tokens: int) -> None:
        self.ask(count, lane, tokens)

    def ask(self, count: int, lane: str, tokens: int) -> list[Reservation]:
        self.requests += [(lane, f"t{len(self.requests) + number}", tokens) for number in range(count)]
        return self.admit(lane, self.requests[-count:])

    @rule(which=INDEX, count=st.integers(1, 4))
    def ask_again(self, which: int, count: int) -> None:
        """Some who were told to wait, whose call goes on, or whose call has ended."""
        waiting = self.requests[-1 - which :][:count]
        if waiting:
            self.admit(waiting[0][0], [one for one in waiting if one[0] == waiting[0][0]])

    @rule(which=INDEX, used=st.sampled_from([0.0, 0.5, 1.0, 3.0]), called=st.sampled_from([True, True, False]),
          verdict=st.sampled_from(["ok", "failed", ""]))  # fmt: skip
    def settle(self, which: int, used: float, called: bool, verdict: UpstreamVerdict) -> None:  # noqa: FBT001  # drawn, not passed
        call = self.call_at(which)
        now(self.fleet[0].settle(call, used_tokens=round(used * call.tokens), called=called, verdict=verdict))

    @rule(rounds=st.sampled_from([1, 2, 4, 9]), ms=st.sampled_from([0, 200, 2_000, 31_000]),
          ending=st.sampled_from(ENDINGS), lane=st.sampled_from(tuple(WEIGHTS)),
          tokens=st.sampled_from([1, 100]))  # fmt: skip
    def live(self, rounds: int, ms: int, ending: str, lane: str, tokens: int) -> None:
        """A while of the same: ask, wait (as told where nothing else is said), end."""
        for left in reversed(range(rounds)):
            calls = self.ask(12, lane, tokens)
            self.time_passes(ms or max(1, self.wait_ms))
            for number, call in enumerate(calls):
                verdict = ending if ending in VERDICTS else VERDICTS[number % 2] if ending == "mixed" else ""
                used, called = call.tokens // 2, ending != "unsent"
                now(self.fleet[0].settle(call, used_tokens=used, called=called, verdict=verdict))
            for call in calls[-1:]:
                if ending == "throttled" or (ending == "met" and not left):
                    now(self.fleet[0].throttled(call, None))
                elif ending in GATES:
                    now(self.fleet[0].refused(call, ending, ending))

    @rule(which=INDEX, retry_after_s=st.sampled_from([None, None, 0, 0.5, 20, 7_200]))
    def throttled(self, which: int, retry_after_s: float | None) -> None:
        now(self.fleet[0].throttled(self.call_at(which), retry_after_s))

    @rule(which=INDEX, gate=st.sampled_from(GATES), settled=st.booleans())
    def refused(self, which: int, gate: Gate, settled: bool) -> None:  # noqa: FBT001  # drawn, not passed
        call = self.call_at(which)
        if settled:
            now(self.fleet[0].settle(call, used_tokens=call.tokens))
        now(self.fleet[0].refused(call, gate, f"{gate}!"))

    @rule(which=st.lists(INDEX, max_size=4))
    def renew(self, which: list[int]) -> None:
        """As the ledger's renew does."""
        until = self.model.now + LEASE_MS
        for token in {self.call_at(one).token for one in which}:
            self.server.zadd(PERMITS, {token: until}, xx=True)
            if token in self.model.permits:
                self.model.permits[token] = until
        self.seen = look(self.server)

    @rule(pausing=st.sampled_from([True, False, False]))
    def operate(self, pausing: bool) -> None:  # noqa: FBT001  # drawn, not passed
        now(self.fleet[1].pause() if pausing else self.fleet[1].resume())

    @rule(rpm=st.sampled_from(["", "", "default", "60", "6000", "0"]),
          tpm=st.sampled_from(["", "default", "6000", "0"]),
          in_flight=st.sampled_from(["", "default", "2", "0"]))  # fmt: skip
    def limits(self, rpm: str, tpm: str, in_flight: str) -> None:
        now(self.fleet[1].override(rpm=rpm, tpm=tpm, in_flight=in_flight))

    @rule(limit=st.sampled_from(["60", "600", "999999999", "0.5"]))
    def learn(self, limit: str) -> None:
        now(self.fleet[0].learn({"x-ratelimit-limit-requests": limit}))

    @rule(ms=st.sampled_from([1, 7, 100, 300, 1_000, 2_000, 5_000, 14_999, 15_000, 60_000, HOUR_MS, 9 * HOUR_MS]))
    def time_passes(self, ms: int) -> None:
        self.model.now += ms
        self.server.set(CLOCK, self.model.now)
        self.at_once = False
        self.promises.earn(ms)

    @rule(ms=st.sampled_from([1, 50, 2_000, 10_000, HOUR_MS]))
    def the_clock_jumps_back(self, ms: int) -> None:
        self.model.now -= ms
        self.server.set(CLOCK, self.model.now)
        self.at_once = False

    @rule(lane=st.sampled_from(tuple(WEIGHTS)), tokens=st.sampled_from([1, 900]))
    def ask_and_come_back(self, lane: str, tokens: int) -> None:
        """More than there is, and once more when the wait is over."""
        for _ in range(4):
            self.ask(10, lane, tokens)
        self.time_passes(max(1, self.wait_ms))
        self.ask(1, lane, tokens)

    @precondition(lambda self: self.asked)
    @rule(which=INDEX)
    def a_reply_was_lost(self, which: int) -> None:
        """What was asked just now, or even long ago, reaches the server once more."""
        at_once = which % 2 and self.at_once
        command, arguments = self.asked[-1] if at_once else self.asked[which % len(self.asked)]
        before, reply = self.seen, self.last
        self.answer(command, *arguments)
        if at_once and command in {"admit", "settle"}:
            assert self.seen == before, f"{command}, asked twice, did it twice"
            assert command == "settle" or self.last[:6] == reply[:6]

    # What must hold; `call` stands in for the runner

    async def call(self, _: Script, command: str, *arguments: Argument) -> Any:
        return self.answer(command, *arguments)

    def answer(self, command: str, *arguments: Any) -> Any:
        self.model.arrive()
        before = self.seen
        text = ON_TEST_TIME.text_for(command)
        self.last = self.server.evalsha(self.shas[text], 0, command, *arguments)
        self.seen = look(self.server)
        learned = Learned(*map(self.seen.number, LEARNED))
        expected = getattr(self.model, command)(learned, *arguments[4:])
        if command == "admit":
            self.check_grant(expected, before.permits, arguments)
        else:
            assert (self.last.decode() if isinstance(self.last, bytes) else self.last) == expected, command
        if command == "limits":
            self.promises.renew()
        elif command == "settle" and arguments[4] in before.permits:
            token, _, reserved, used, called, _ = arguments[4:]
            self.promises.settled(token, reserved, used, called)
        check_kept(self.seen, self.model, command)
        check_learned(self.seen, before, self.model, command)
        self.asked.append((command, arguments))
        self.at_once = True
        return self.last

    def check_grant(self, expected: Any, permits: dict[str, float], arguments: Any) -> None:
        granted, wait_ms, reason, code, probe, at, rate, *limits = self.last
        assert (granted, reason.decode(), code.decode(), probe) == (expected[0], *expected[2:])
        assert wait_ms == pytest.approx(expected[1], abs=1.01)
        assert 0 <= wait_ms <= LONGEST_WAIT_MS.get(reason.decode(), math.inf)
        assert at == self.model.now
        assert 0 < float(rate) < math.inf
        assert limits == [self.model.in_force(name) for name in NO_LIMIT]
        new = self.seen.permits.keys() - permits
        assert new <= set(arguments[9:]), "a permit that nobody asked for"
        assert not new or reason != b"paused"
        assert len(new) <= 1 or not (code or float(self.seen.state.get(b"probing", 0)))
        if not probe:
            self.promises.admitted(new, list(arguments[9:]), self.seen.number("burst_ms") * self.seen.number("scale"))
        in_flight = self.model.in_force("in_flight")
        assert probe or not (new and in_flight) or len(self.seen.permits) <= in_flight

    def teardown(self) -> None:
        """Nobody waits for ever: once every call has ended, who comes back when told to gets through."""
        if self.model.paused:
            self.operate(pausing=False)
        for call in {call.token: call for call in self.calls if call.token in self.seen.permits}.values():
            now(self.fleet[0].settle(call, used_tokens=call.tokens))
        self.time_passes(HOUR_MS)
        for _ in range(9):
            granted = self.ask(1, "interactive", 1)
            now(*(self.fleet[0].settle(call, used_tokens=1, verdict="ok") for call in granted))
            if granted and not self.model.shut:
                return
            self.time_passes(max(1, self.wait_ms))
        raise AssertionError(f"still waits: {self.last}")

    # How it is seen

    def admit(self, lane: str, waiting: list[tuple[str, str, int]]) -> list[Reservation]:
        asking = self.fleet[len(self.asked) % 2]
        pairs = [(token, tokens) for _, token, tokens in waiting]
        grant = now(asking.grant(lane, WEIGHTS[lane], pairs))
        self.wait_ms = grant.wait_ms
        assert asking.gate == (self.model.shut.gate if self.model.shut and not self.model.paused else asking.gate)
        granted = [
            Reservation(*pair, 0, grant.now_ms, asking.gate if grant.probe else "") for pair in pairs[: grant.granted]
        ]
        self.calls += granted
        return granted

    def call_at(self, which: int) -> Reservation:
        """One that was granted, be it over by now; or one that nobody ever had."""
        if not self.calls:
            return Reservation("never", 1, 0, self.model.now)
        return self.calls[-1 - which % min(len(self.calls), 5 if which < 30 else 40)]


def now(*coroutines: Coroutine[Any, Any, Any]) -> Any:
    """What the coroutines return that never wait."""
    result = None
    for coroutine in coroutines:
        with pytest.raises(StopIteration) as ended:
            coroutine.send(None)
        result = ended.value.value
    return result


def test_any_order_of_anything(valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Admission does what its model does; no more than the limit allows is granted, and nobody waits for ever."""
    monkeypatch.setattr(AdmissionMachine, "server", valkey, raising=False)
    run_state_machine_as_test(
        AdmissionMachine,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=40, deadline=None, database=None, suppress_health_check=SLOW
        ),
    )
